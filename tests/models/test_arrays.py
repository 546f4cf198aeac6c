"""Instances from arrays are those that the builder makes, item by item; compiled readers read what Python reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edbatch_tvm.compiler import compile_model
from edbatch_tvm.errors import DataError, GraphError
from edbatch_tvm.graph import Builder, InstanceGraph, merge, validate
from edbatch_tvm.models import WORKLOADS, get_workload
from edbatch_tvm.models.bilstm_tagger.reader import read_sentences
from edbatch_tvm.models.bilstm_tagger_char.arrays import flat_spelled
from edbatch_tvm.models.flat_items import FlatLattices, FlatPairs, FlatSequences
from edbatch_tvm.models.flatten import flat_lattices, flat_sequences
from edbatch_tvm.models.lattice_lstm.reader import read_lattices
from edbatch_tvm.models.line_reader import read_lines, read_text
from edbatch_tvm.models.native_reader import native_reader
from edbatch_tvm.models.random_dag.arrays import flat_dags
from edbatch_tvm.models.treelstm.arrays import children_of
from edbatch_tvm.models.treelstm.reader import read_labelled_trees
from edbatch_tvm.models.vocabulary import word_id
from edbatch_tvm.models.workload import ReadOptions
from tests.graph.oracle import assert_same
from tests.models.conftest import HIDDEN, Case, case

FROM_ARRAYS = [name for name in WORKLOADS if get_workload(name).arrays is not None]
OPTIONS = ReadOptions(seed=5)


@pytest.fixture(params=["native", "python"])
def readers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whether readers are compiled; skips where they cannot be."""
    kind: str = request.param
    if kind == "python":
        for name in ("flatten", "treelstm.arrays", "treelstm.reader", "childsum_tree.arity", "lattice_lstm.reader"):
            monkeypatch.setattr(f"edbatch_tvm.models.{name}.native_reader", lambda: None)
        for name in ("bilstm_tagger.reader", "bilstm_tagger.arrays", "lattice_lstm.arrays", "lstm_nmt.reader"):
            monkeypatch.setattr(f"edbatch_tvm.models.{name}.native_reader", lambda: None)
    elif native_reader() is None:
        pytest.skip("no C compiler, or Python is asked for")
    return kind


def one_by_one(found: Case, items: list[Any]) -> list[InstanceGraph]:
    builder = Builder(found.signature)
    return [found.workload.graph(builder, item) for item in items]


def assert_all_same(made: list[InstanceGraph], wanted: list[InstanceGraph]) -> None:
    assert len(made) == len(wanted)
    for one, other in zip(made, wanted, strict=True):
        assert one.digest == other.digest
        assert one.checked
    assert_same(merge(made), merge(wanted))
    for one, other in zip(made[:3], wanted[:3], strict=True):
        assert_same(one, other)


def test_all_workloads_have_arrays() -> None:
    assert set(WORKLOADS) == set(FROM_ARRAYS)


@pytest.mark.usefixtures("builders", "readers")
@pytest.mark.parametrize("name", FROM_ARRAYS)
def test_instances_are_those_of_the_builder(name: str) -> None:
    found = case(name)
    items = list(found.workload.source.generate(7, 3))
    assert_all_same(found.workload.instances(found.signature, items), one_by_one(found, items))
    assert_all_same(found.workload.instances(found.signature, items[:1]) * 2, one_by_one(found, items[:1]) * 2)
    assert found.workload.instances(found.signature, []) == []
    assert found.workload.arrays is not None
    assert found.workload.source.flat is not None
    whole = found.workload.arrays(found.signature, found.workload.source.flat(items)).minibatch()
    assert_same(whole, merge(one_by_one(found, items)))
    validate(whole)


SMALL: dict[str, list[Any]] = {
    "treelstm": [[3], [1, 2, -1]],
    "childsum-tree": [[3], [1, 2, 3, -3, 4, -2], [1, -1]],
    "lattice-lstm": [[[]], [[], []], [[], [(0, 5)], [(1, 2), (0, 9)], [(0, 1)]]],
    "bilstm-tagger": [[7], [1, 2]],
    "bilstm-tagger-char": [[(7,)], [1, 2], [3, (4, 5), (6,), 8], [(1, 2)]],
    "random-dag": [
        [3],
        [1, 2, ("dense", (1, 0))],
        [1, ("gated", (0, 0)), ("largest", (1,)), 4, ("weighted", (2, 3, 2))],
    ],
    "lstm-nmt": [([1], [2]), ([1, 2], [3]), ([4], [5, 6])],
    "grid-lstm": [([1], [2]), ([1, 2], [3]), ([4], [5, 6])],
}


@pytest.mark.usefixtures("builders", "readers")
@pytest.mark.parametrize("name", SMALL)
def test_the_smallest_items(name: str) -> None:
    found = case(name)
    assert_all_same(found.workload.instances(found.signature, SMALL[name]), one_by_one(found, SMALL[name]))


FILES = {
    "trees": b"(3 (2 good) (2 movie))\r\n\n (0 (0 (1 a) (0 b)) (0 (0 (0 c)  (3 x\xc2\xa0y))\t(2 z)))\n(2 one)",
    "sentences": b"The|O cat|I-X sat|O\n\n a|b|O\xe3\x80\x80x|Y \r\n\xc3\xa9t\xc3\xa9|O",
    "lattices": b"3\n2\n0 5\n0\n1 0 300\n\n \n1\n9\n0 \n4\n1 2 3 4\n0\n1 0 7\n2 1 8 0 999999999999999\n3 2 1 0 2 1 3",
}
FORMS = {
    "trees": ["treelstm", "treelstm-2type", "mvrnn", "treegru", "childsum-tree"],
    "sentences": ["bilstm-tagger", "bilstm-tagger-char"],
    "lattices": ["lattice-lstm", "lattice-gru"],
}


@pytest.mark.usefixtures("readers")
@pytest.mark.parametrize(("form", "name"), [(form, name) for form, names in FORMS.items() for name in names])
def test_files(form: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / "data.txt"
    path.write_bytes(FILES[form])
    found = case(name)
    items = list(found.workload.source.read(path, OPTIONS))  # type: ignore[misc]
    assert len(items) == 3
    assert_all_same(found.workload.read(path, found.signature, OPTIONS), one_by_one(found, items))
    assert_all_same(found.workload.read(path, found.signature, OPTIONS, 2), one_by_one(found, items[:2]))


@pytest.mark.usefixtures("readers")
@pytest.mark.parametrize("name", ["lstm-nmt", "grid-lstm"])
def test_pairs(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.en").write_bytes(b"one two\n\nthree\n")
    (tmp_path / "a.vi").write_bytes("m\u1ed9t\u00a0hai\n \nba b\u1ed1n n\u0103m".encode())
    found = case(name)
    items = list(found.workload.source.read(tmp_path / "a", OPTIONS))  # type: ignore[misc]
    assert [len(target) for _, target in items] == [2, 3]
    assert_all_same(found.workload.read(tmp_path / "a", found.signature, OPTIONS), one_by_one(found, items))


def lists(flat: FlatSequences) -> list[list[int]]:
    return [flat.values[begin:end].tolist() for begin, end in zip(flat.ptr[:-1], flat.ptr[1:], strict=True)]


def arcs(flat: FlatLattices) -> list[list[list[tuple[int, int]]]]:
    every = list(zip(flat.sources.tolist(), flat.labels.tolist(), strict=True))
    into = [every[begin:end] for begin, end in zip(flat.arc_ptr[:-1], flat.arc_ptr[1:], strict=True)]
    return [into[begin:end] for begin, end in zip(flat.ptr[:-1], flat.ptr[1:], strict=True)]


SPACES = " \t\r\n\x0b\x0c\x1c\x1f\x85\u00a0\u1680\u2000\u200a\u200b\u2028\u202f\u205f\u3000\ufeff\u180e"


@pytest.mark.skipif(native_reader() is None, reason="no C compiler, or Python is asked for")
class TestAnyText:
    """What compiled readers take, readers in Python take and find the same; what they refuse, these refuse or read."""

    @given(text=st.text(alphabet="(() 25ab\n\r\té" + SPACES[:4], max_size=60))
    def test_trees(self, text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
        path = written(text, tmp_path_factory)
        found = native_reader().trees(read_text(path)[0])  # type: ignore[union-attr]
        try:
            wanted = read_labelled_trees(path)
        except DataError:
            assert found is None
            return
        assert found is not None
        assert lists(found[0]) == [[symbol for symbol, _ in tree] for tree in wanted]
        assert found[1].tolist() == [label for tree in wanted for _, label in tree]

    @given(text=st.text(alphabet="a|b|O \n" + SPACES, max_size=40), tagged=st.booleans())
    def test_words(self, text: str, tagged: bool, tmp_path_factory: pytest.TempPathFactory) -> None:
        path = written(text, tmp_path_factory)
        found = native_reader().lines(read_text(path)[0], tagged)  # type: ignore[union-attr]
        if not tagged:
            assert found is not None
            assert lists(found) == [list(map(word_id, line.split())) for line in read_lines(path)]
            return
        try:
            wanted = read_sentences(path, OPTIONS)
        except DataError:
            assert found is None
            return
        assert found is not None
        assert lists(found.without_empty()) == wanted

    @given(data=st.data())
    def test_lattices(self, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
        text = FILES["lattices"].decode()
        for _ in range(data.draw(st.integers(0, 3))):
            begin = data.draw(st.integers(0, len(text)))
            end = data.draw(st.integers(begin, min(len(text), begin + 2)))
            text = text[:begin] + data.draw(st.text(alphabet="0129 \n-x\u0663\u00a0", max_size=2)) + text[end:]
        path = written(text, tmp_path_factory)
        found = native_reader().lattices(read_text(path)[0])  # type: ignore[union-attr]
        try:
            wanted = read_lattices(path, OPTIONS)
        except DataError:
            assert found is None
            return
        assert found is not None
        assert arcs(found) == wanted


def written(text: str, folders: pytest.TempPathFactory) -> Path:
    path = folders.getbasetemp() / "any.txt"
    path.write_bytes(text.encode())
    return path


@pytest.mark.usefixtures("readers")
@pytest.mark.parametrize(("tree", "arity"), [([1, -1], 2), ([-1], 2), ([1, 2, -3], 0)])
def test_no_tree(tree: list[int], arity: int) -> None:
    with pytest.raises(DataError, match=r"a node of tree 1 has [01 2]+ subtrees before it; expected"):
        children_of(flat_sequences([[1], tree]), arity)


@pytest.mark.usefixtures("builders", "readers")
@pytest.mark.parametrize(
    ("name", "item", "message"),
    [
        ("treelstm", [1, -1], "a node of tree 1 has 1 subtrees before it"),
        ("childsum-tree", [1, 2, -3], "a node of tree 1 has 2 subtrees before it"),
        ("treelstm-2type", [1, 2, -3], "has type id -1"),
        ("treelstm", [-(2**31)], "a node of tree 1 has 0 subtrees before it"),
        ("lattice-lstm", [[], [(1, 3)]], "reads"),
        ("lattice-lstm", [[(-1, 3)]], "reads"),
    ],
)
def test_what_is_no_item(name: str, item: Any, message: str) -> None:
    found = case(name)
    assert found.workload.arrays is not None
    assert found.workload.source.flat is not None
    good = found.workload.source.generate(1, 3)[0]
    with pytest.raises((DataError, GraphError), match=message):
        found.workload.arrays(found.signature, found.workload.source.flat([good, item])).minibatch()


@pytest.mark.usefixtures("readers")
def test_items_of_all_kinds() -> None:
    """Tuples and arrays, integers of NumPy's and booleans: as NumPy reads them, or an error."""
    for items in ([(1, 2), [3]], ([1, 2], (3,)), [np.array([1, 2]), [np.int64(3)]], [range(1, 3), [3]]):
        assert lists(flat_sequences(items)) == [[1, 2], [3]]
    wide = [-(2**31), -(2**30), -1, 0, 1, 2**30 - 1, 2**30, 2**31 - 1]
    assert lists(flat_sequences([wide])) == [wide]
    for wrong in ([[2**31]], [[-(2**31) - 1]], [[2**64]], [["a"]], [[None]]):
        with pytest.raises((OverflowError, ValueError, TypeError)):
            flat_sequences(wrong)  # type: ignore[list-item]
    lattice: Any = [[[], [[0, 5]], ((1, 2), (0, np.int64(9)))]]
    assert arcs(flat_lattices(lattice)) == [[[], [(0, 5)], [(1, 2), (0, 9)]]]
    assert len(flat_lattices([])) == len(flat_sequences([])) == 0


def test_parts() -> None:
    flat = flat_sequences([[1, 2], [3], [4, 5, 6]])
    assert lists(flat.part(1, 3)) == [[3], [4, 5, 6]]
    spelled = flat_spelled([[1, (2, 3)], [(4,), 5], [(6, 7)]]).part(1, 3)
    assert (lists(spelled.tokens), lists(spelled.letters)) == ([[-1, 5], [-1]], [[4], [6, 7]])
    dags = flat_dags([[1], [2, ("dense", (0,))], [3, 4, ("gated", (1, 0))]]).part(1, 3)
    assert (lists(dags.nodes), lists(dags.operands)) == ([[2, -1], [3, 4, -2]], [[], [0], [], [], [1, 0]])
    pairs = FlatPairs(flat, flat).part(0, 2)
    assert (len(pairs), lists(pairs.target)) == (2, [[1, 2], [3]])


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("treelstm", "sst/dev.txt"),
        ("treelstm-2type", "sst/dev.txt"),
        ("childsum-tree", "sst/dev.txt"),
        ("lattice-lstm", "lattice/dev.txt"),
        ("lstm-nmt", "iwslt15/tst2012"),
    ],
)
def test_real_files(name: str, file: str, shared_data: Path) -> None:
    found = case(name)
    source = found.workload.source
    assert source.read is not None
    items = list(source.read(shared_data / file, OPTIONS))
    made = found.workload.read(shared_data / file, found.signature, OPTIONS)
    if native_reader() is not None:
        assert source.read_flat is not None
        assert source.read_flat(shared_data / file, OPTIONS) is not None
    wanted = one_by_one(found, items)
    assert [graph.digest for graph in made] == [graph.digest for graph in wanted]
    one, other = merge(made), merge(wanted)
    for key, rows in other.attributes.items():
        np.testing.assert_array_equal(one.attributes[key], rows)
    np.testing.assert_array_equal(one.outputs, other.outputs)


@pytest.mark.parametrize("name", ["treelstm", "lattice-lstm"])
def test_results_of_one_graph_are_those_of_its_instances(name: str) -> None:
    found = case(name)
    model = compile_model(found.workload.cells(HIDDEN), found.weights, target="numpy")
    items = list(found.workload.source.generate(4, 3))
    assert found.workload.arrays is not None
    assert found.workload.source.flat is not None
    whole = found.workload.arrays(found.signature, found.workload.source.flat(items)).minibatch()
    results, wanted = model([whole]), model(one_by_one(found, items))
    assert len(results) == len(wanted) == len(items)
    for one, other in zip(results, wanted, strict=True):
        for array, same in zip(one, other, strict=True):
            np.testing.assert_array_equal(array, same)

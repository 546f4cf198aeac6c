"""Readers: what they accept, and one error with file and line for what they do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edbatch_tvm.errors import DataError
from edbatch_tvm.models.bilstm_tagger_char.reader import read_spelled_sentences
from edbatch_tvm.models.childsum_tree.arity import flat, read_flat_trees
from edbatch_tvm.models.treelstm.generator import random_tree
from edbatch_tvm.models.treelstm.reader import parse_tree
from edbatch_tvm.models.vocabulary import word_id
from edbatch_tvm.models.workload import ReadOptions
from tests.models.conftest import Case, case

LATTICE = "2\n3\n7 7 7\n0 \n1 0 300\n2 1 4 0 9\n\n1\n0\n0\n\n"


def test_tree(trees: Case, tmp_path: Path) -> None:
    path = tmp_path / "trees.txt"
    path.write_text("(3 (2 a) (4 (1 b) (0 -LRB-)))\n\n(2 one\u00a0word)\n", encoding="utf-8")
    first, second = trees.workload.read(path, trees.signature)
    assert first.type_count.tolist() == [3, 2, 5]
    assert len(first.outputs) == 5
    assert second.type_count.tolist() == [1, 0, 1]
    words = [word_id(word) for word in ("a", "b", "-LRB-")]
    assert first.attributes[0, "word"].tolist() == words


def test_sentence(sentences: Case, tmp_path: Path) -> None:
    path = tmp_path / "sentences.txt"
    path.write_text("The|O a|b|I-LOC end|O\n\n", encoding="utf-8")
    (graph,) = sentences.workload.read(path, sentences.signature)
    assert graph.type_count.tolist() == [3] * 5
    assert graph.attributes[0, "word"].tolist() == [word_id(word) for word in ("The", "a|b", "end")]
    assert graph.attributes[2, "word"].tolist() == [word_id(word) for word in ("end", "a|b", "The")]


def test_lattice(lattices: Case, tmp_path: Path) -> None:
    path = tmp_path / "lattices.txt"
    path.write_text(LATTICE)
    first, second = lattices.workload.read(path, lattices.signature)
    assert first.type_count.tolist() == [1, 2, 1, 1, 3]
    assert first.attributes[1, "char"].tolist() == [300 % 256, 4]
    assert second.type_count.tolist() == [1, 0, 0, 0, 1]


def test_deep_tree_needs_no_recursion(trees: Case, tmp_path: Path) -> None:
    depth = 5000
    path = tmp_path / "deep.txt"
    path.write_text("(2 " * depth + "(2 w)" + " (2 w))" * depth)
    (graph,) = trees.workload.read(path, trees.signature)
    assert graph.type_count.tolist() == [depth + 1, depth, 2 * depth + 1]


NOT_TREES = [
    ("(2 (2 a) (2 b)", "1 brackets are not closed"),
    ("(2 (2 a) (2 b)))", "')' after the end of the tree"),
    ("(2 (2 a) (2 b)) (2 c)", "'(' after the end of the tree"),
    ("(2 (2 a))", "a node of 1 parts and no word"),
    ("(2)", "a node of 0 parts and no word"),
    ("(2 (2 a) (2 b) (2 c))", "more than two parts"),
    ("(2 a (2 b))", "a word and a subtree"),
    ("(2 a b)", "the word 'b' in a node that has another part"),
    ("(5 a)", "'5' in place of a label"),
    ("(", "'the end of the line' in place of a label"),
    ("word", "'word' outside of brackets"),
]


@pytest.mark.parametrize(("line", "message"), NOT_TREES)
def test_broken_tree(trees: Case, tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "trees.txt"
    path.write_text(f"(2 fine)\n{line}\n")
    with pytest.raises(DataError) as error:
        trees.workload.read(path, trees.signature)
    assert f"{path}, line 2: " in str(error.value)
    assert message in str(error.value)
    assert "expected one tree, (label left right) or (label word)" in str(error.value)


@given(st.text(alphabet="() 25ab", max_size=30))
def test_any_text_is_a_tree_or_a_value_error(line: str) -> None:
    try:
        postfix = parse_tree(line)
    except ValueError:
        return
    leaves = sum(symbol >= 0 for symbol in postfix)
    assert len(postfix) == 2 * leaves - 1


@pytest.mark.parametrize("token", ["word", "|O", "word|", "|"])
def test_broken_sentence(sentences: Case, tmp_path: Path, token: str) -> None:
    path = tmp_path / "sentences.txt"
    path.write_text(f"a|O\nb|O {token} c|O\n")
    with pytest.raises(DataError) as error:
        sentences.workload.read(path, sentences.signature)
    assert str(error.value) == f"{path}, line 2: {token!r}; expected word|TAG"


BROKEN_LATTICES = [
    ("", 1, "the end of the file; expected the number of sentences"),
    ("x\n", 1, "'x'; expected the number of sentences"),
    ("1 2\n", 1, "2 numbers; expected the number of sentences"),
    (LATTICE.replace("2", "3", 1), 12, "the end of the file; expected a sentence's number of nodes"),
    (LATTICE.replace("2", "1", 1), 8, "more sentences; expected the end of the file: its first line says 1"),
    (LATTICE.replace("7 7 7", "7 7"), 3, "2 tags; expected 3, one a node"),
    (LATTICE.replace("2 1 4 0 9", "2 1 4 0"), 6, "4 numbers, the first 2; expected the arcs into node 2"),
    (LATTICE.replace("2 1 4 0 9", ""), 6, "0 numbers, the first missing"),
    (LATTICE.replace("2 1 4 0 9", "2 2 4 0 9"), 6, "an arc from node 2 into node 2; expected an earlier node"),
    (LATTICE.replace("2 1 4 0 9", "2 1 4 -1 9"), 6, "'-1'; expected the arcs into node 2"),
    (LATTICE.replace("1 0 300", "1 0 3.5"), 5, "'3.5'; expected the arcs into node 1, k from_1 id_1 ... from_k id_k"),
    (LATTICE.replace("\n3\n", "\n0\n"), 2, "a sentence of 0 nodes; expected 1 or more"),
    (LATTICE[:24], 6, "2 numbers, the first 2"),
]


@pytest.mark.parametrize(("text", "line", "message"), BROKEN_LATTICES)
def test_broken_lattice(lattices: Case, tmp_path: Path, text: str, line: int, message: str) -> None:
    path = tmp_path / "lattices.txt"
    path.write_text(text)
    with pytest.raises(DataError) as error:
        lattices.workload.read(path, lattices.signature)
    assert str(error.value).startswith(f"{path}, line {line}: {message}")


@pytest.fixture
def from_files(every: Case) -> Case:
    """Each workload in turn that reads files."""
    if every.workload.source.read is None:
        pytest.skip("no data files")
    return every


def test_missing_file(from_files: Case, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^no data file .*nowhere(\.en)?; expected an existing file$"):
        from_files.workload.read(tmp_path / "nowhere", from_files.signature)


def test_folder_in_place_of_a_file(from_files: Case, tmp_path: Path) -> None:
    for path in from_files.workload.source.files(tmp_path / "folder"):
        path.mkdir()
    with pytest.raises(DataError, match=r"cannot be read: Is a directory$"):
        from_files.workload.read(tmp_path / "folder", from_files.signature)


def test_bytes_that_are_no_text(from_files: Case, tmp_path: Path) -> None:
    for path in from_files.workload.source.files(tmp_path / "binary"):
        path.write_bytes(b"1\n2\n\xff\xfe\n")
    with pytest.raises(DataError, match=r"binary(\.en)?, line 3: bytes that are no UTF-8; expected a text file$"):
        from_files.workload.read(tmp_path / "binary", from_files.signature)


@pytest.mark.parametrize(("name", "text"), [("treelstm", "(3 (2 a) (4 b))\n"), ("bilstm-tagger", "The|O end|O\n")])
def test_byte_order_mark_is_no_word(name: str, text: str, tmp_path: Path) -> None:
    from_files = case(name)
    plain, marked = tmp_path / "plain.txt", tmp_path / "marked.txt"
    plain.write_text(text, encoding="utf-8")
    marked.write_text(text, encoding="utf-8-sig")
    expected, found = (from_files.workload.read(path, from_files.signature) for path in (plain, marked))
    assert list(map(str, found)) == list(map(str, expected))


def test_workload_without_data_files(tmp_path: Path) -> None:
    dags = case("random-dag")
    with pytest.raises(DataError, match=r"for random-dag; expected no data file \(hint: .* always generated\)$"):
        dags.workload.read(tmp_path / "dags", dags.signature)


def test_typed_tree(tmp_path: Path) -> None:
    found, path = case("treelstm-2type"), tmp_path / "trees.txt"
    path.write_text("(2 (2 a) (2 (2 b) (2 c)))\n" * 100)
    graphs = found.workload.read(path, found.signature, ReadOptions(seed=7))
    _, a, b, _ = sum(graph.type_count for graph in graphs).tolist()
    assert a + b == 200
    assert 75 <= a <= 125
    again, other = (found.workload.read(path, found.signature, ReadOptions(seed=seed)) for seed in (7, 8))
    assert [graph.node_type.tolist() for graph in again] == [graph.node_type.tolist() for graph in graphs]
    assert [graph.node_type.tolist() for graph in other] != [graph.node_type.tolist() for graph in graphs]


def test_flat_tree(tmp_path: Path) -> None:
    path = tmp_path / "trees.txt"
    path.write_text("(3 (3 (3 a) (3 b)) (1 (1 c) (1 (2 d) (3 e))))\n(2 one)\n(2 (2 (0 a) (1 b)) (2 c))\n")
    trees = read_flat_trees(path, ReadOptions())
    a, b, c, d, e, one = (word_id(word) for word in ("a", "b", "c", "d", "e", "one"))
    # A phrase becomes part of its parent where the labels are equal; a word stays one, whatever its label.
    assert trees == [[a, b, c, d, e, -3, -3], [one], [a, b, c, -3]]


@given(st.integers(2, 30), st.integers(0, 1000))
def test_flat_keeps_words_and_counts_parts(leaves: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    tree = random_tree(leaves, rng)
    symbols = flat(tree, (rng.random(len(tree)) < 0.5).tolist())
    assert [symbol for symbol in symbols if symbol >= 0] == [symbol for symbol in tree if symbol >= 0]
    open_parts = 0
    for symbol in symbols:
        assert symbol != -1
        open_parts += 1 if symbol >= 0 else 1 + symbol
    assert open_parts == 1


def test_spelled_sentence(tmp_path: Path) -> None:
    found, path = case("bilstm-tagger-char"), tmp_path / "sentences.txt"
    path.write_text("the|O the|O of|O the|O\nthe|O the|O of|O\n", encoding="utf-8")
    first, second = read_spelled_sentences(path, ReadOptions())
    the, of = word_id("the"), (word_id("o"), word_id("f"))
    assert (first, second) == ([the, the, of, the], [the, the, of])
    counted = tmp_path / "counted.txt"
    counted.write_text("of|O " * 5)
    (first, _) = read_spelled_sentences(path, ReadOptions(count_on=counted))
    spelled = tuple(map(word_id, "the"))
    assert first == [spelled, spelled, word_id("of"), spelled]
    graph, _ = found.workload.read(path, found.signature)
    # Characters are padded at both ends: 4 steps for "of".
    assert graph.type_count.tolist() == [4, 4, 4, 4, 3, 1, 4, 4, 4, 4, 4]
    assert graph.attributes[0, "char"].tolist() == [256, *of, 256]
    assert graph.attributes[2, "char"].tolist() == [256, *reversed(of), 256]


def test_pairs(tmp_path: Path) -> None:
    found = case("lstm-nmt")
    (tmp_path / "talk.en").write_text("a b c\n\nd\n")
    (tmp_path / "talk.vi").write_text("x y\n\nz &apos; w\n", encoding="utf-8")
    first, second = found.workload.read(tmp_path / "talk", found.signature)
    assert first.type_count.tolist() == [3, 3, 2, 2, 2]
    assert second.type_count.tolist() == [1, 1, 3, 3, 3]
    assert first.attributes[0, "word"].tolist() == [word_id(word) for word in "abc"]
    assert second.attributes[2, "word"].tolist() == [word_id(word) for word in ("<s>", "z", "&apos;")]
    grids = case("grid-lstm")
    first, _ = grids.workload.read(tmp_path / "talk", grids.signature)
    assert first.type_count.tolist() == [3, 2, 6, 2]


def test_broken_pairs(tmp_path: Path) -> None:
    found = case("lstm-nmt")
    source, target = tmp_path / "talk.en", tmp_path / "talk.vi"
    source.write_text("a\nb\n")
    target.write_text("x\n")
    with pytest.raises(DataError, match=r"talk.en has 2 lines and .*talk.vi 1; expected a translation a line$"):
        found.workload.read(tmp_path / "talk", found.signature)
    target.write_text("x\n \n")
    with pytest.raises(DataError, match=r"talk.vi, line 2: an empty line; expected a sentence, as in .*talk.en$"):
        found.workload.read(tmp_path / "talk", found.signature)
    target.unlink()
    with pytest.raises(DataError, match=r"^no data file .*talk.vi; expected an existing file$"):
        found.workload.read(tmp_path / "talk", found.signature)


REAL = {
    "treelstm": ("sst/dev.txt", 1107),
    "lattice-lstm": ("lattice/dev.txt", 113),
    "bilstm-tagger": ("wikiner/train.txt", 10000),
    "treelstm-2type": ("sst/dev.txt", 1107),
    "childsum-tree": ("sst/dev.txt", 1107),
    "bilstm-tagger-char": ("wikiner/train.txt", 10000),
    "lstm-nmt": ("iwslt15/tst2012", 1553),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if "tagger" in name else []) for name in REAL]
)
def test_real_data(name: str, shared_data: Path) -> None:
    path, instances = REAL[name]
    found = case(name)
    graphs = found.workload.read(shared_data / path, found.signature)
    assert len(graphs) == instances

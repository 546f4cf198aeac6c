"""Readers: what they accept, and one error with file and line for what they do not."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edbatch_tvm.errors import DataError
from edbatch_tvm.models.treelstm.reader import parse_tree
from edbatch_tvm.models.vocabulary import word_id
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


def test_missing_file(every: Case, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^no data file .*nowhere; expected an existing file$"):
        every.workload.read(tmp_path / "nowhere", every.signature)


def test_folder_in_place_of_a_file(every: Case, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be read: Is a directory$"):
        every.workload.read(tmp_path, every.signature)


def test_bytes_that_are_no_text(every: Case, tmp_path: Path) -> None:
    path = tmp_path / "binary"
    path.write_bytes(b"1\n2\n\xff\xfe\n")
    with pytest.raises(DataError, match=r"binary, line 3: bytes that are no UTF-8; expected a text file$"):
        every.workload.read(path, every.signature)


REAL = {
    "treelstm": ("sst/dev.txt", 1107),
    "lattice-lstm": ("lattice/dev.txt", 113),
    "bilstm-tagger": ("wikiner/train.txt", 10000),
}


@pytest.mark.parametrize("name", ["treelstm", "lattice-lstm", pytest.param("bilstm-tagger", marks=pytest.mark.slow)])
def test_real_data(name: str, shared_data: Path) -> None:
    path, instances = REAL[name]
    found = case(name)
    graphs = found.workload.read(shared_data / path, found.signature)
    assert len(graphs) == instances

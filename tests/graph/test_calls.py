"""Many calls at once, and minibatches from arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edbatch_tvm.errors import CellError, EdbatchError, GraphError
from edbatch_tvm.graph import Attribute, Builder, CellSignature, InstanceGraph, Signature, ValueSpec
from tests.graph.cells import TREE
from tests.graph.oracle import assert_same

pytestmark = pytest.mark.usefixtures("builders")


def one_by_one() -> InstanceGraph:
    b = Builder(TREE)
    leaves = [b.call("leaf", word=word) for word in (3, 1, 4, 1)]
    pairs = [b.call("pair", *left, *right) for left, right in (leaves[:2], leaves[2:])]
    top = b.call("pair", *pairs[0], *pairs[1])
    zeros = [b.call("pair", *pair, b.zero, b.zero) for pair in pairs]
    joins = [b.call("join", [a[0], c[0]], top[0], [a[1], c[1]]) for a, c in zip(pairs, zeros, strict=True)]
    return b.finish([b.call("readout", state[0]) for state in (*joins, top)])


def test_calls_are_calls() -> None:
    b = Builder(TREE)
    h, c = b.calls("leaf", word=[3, 1, 4, 1])
    assert h.dtype == np.int64
    ph, pc = b.calls("pair", h[::2], c[::2], h2=h[1::2], c2=c[1::2])
    top = b.call("pair", ph[0], pc[0], ph[1], pc[1])
    zh, zc = b.calls("pair", ph, pc, b.zero, b.zero)
    jh, _ = b.calls("join", np.stack([ph, zh], 1), top[0], np.stack([pc, zc], 1))
    graph = b.finish(b.calls("readout", [*jh, top[0]]))
    assert_same(graph, one_by_one())
    assert not graph.scalar_output.any()


def test_one_row_for_all_calls() -> None:
    b = Builder(TREE)
    h, _ = b.calls("leaf", word=np.array([1, 2]))
    same = b.calls("readout", h)
    b.calls("leaf", word=np.array([5, 6], np.uint8))
    graph = b.finish(same)
    assert graph.attributes[0, "word"].tolist() == [1, 2, 5, 6]
    h, _ = b.calls("leaf", word=[7, 8])
    by = b.call("readout", h[0])
    with pytest.raises(GraphError, match="float32\\[3\\]; expected float32\\[\\]"):
        b.finish(b.calls("scale", h, by, at=[3, 4]))
    h, _ = b.calls("leaf", word=[7, 8])
    b.calls("scale", h, b.zero, at=[3, 4])
    b.calls("scale", h, b.zero, at=[[5, 6], [7, 8]])
    assert b.finish().attributes[4, "at"].tolist() == [[3, 4], [3, 4], [5, 6], [7, 8]]


@pytest.mark.parametrize("k", [0, 1, 3])
def test_variadic_operands(k: int) -> None:
    b = Builder(TREE)
    h, c = b.calls("leaf", word=np.arange(6))
    b.calls("join", np.tile(h[:k], (2, 1)), h[:2], c[:k])
    found = b.finish()
    h, c = b.calls("leaf", word=np.arange(6))
    for first in h[:2]:
        b.call("join", h[:k], first, c[:k])
    assert_same(found, b.finish())


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint64", "float32", "float64", "float16"])
def test_attributes_of_all_dtypes(dtype: str) -> None:
    cells = [
        CellSignature(name, (), (Attribute("a", ValueSpec(shape, dtype)),), (ValueSpec((2,)),))
        for name, shape in (("f", ()), ("g", (2,)))
    ]
    b = Builder(Signature(cells))
    some = np.array([[1, 0], [1, 1]], dtype)
    b.calls("f", a=some[0])
    one = some[1, 0].item()
    b.call("f", a=one)
    b.calls("f", a=some[0])
    b.calls("g", a=some)
    b.call("g", a=some[0])
    graph = b.finish()
    assert graph.attributes[0, "a"].dtype == graph.attributes[1, "a"].dtype == np.dtype(dtype)
    assert graph.attributes[0, "a"].tolist() == [1, 0, one, 1, 0]
    assert graph.attributes[1, "a"].tolist() == [[1, 0], [1, 1], [1, 0]]


def test_the_largest_numbers() -> None:
    b = Builder(Signature([CellSignature("f", (), (Attribute("a", ValueSpec((), "uint64")),), (ValueSpec((2,)),))]))
    b.calls("f", a=np.array([1, 2], np.uint64))
    b.calls("f", a=np.array([2**64 - 1, 0], np.uint64))
    b.calls("f", a=np.array([3], np.uint64))
    assert b.finish().attributes[0, "a"].tolist() == [1, 2, 2**64 - 1, 0, 3]


def test_no_calls_at_all() -> None:
    b = Builder(TREE)
    h, _ = b.calls("leaf", word=[])
    assert h.shape == (0,)
    b.calls("readout", h)
    assert b.finish(h).num_nodes == 0


@pytest.mark.parametrize(
    ("cell", "operands", "named", "message"),
    [
        ("lef", (), {"word": [1]}, "unknown cell 'lef'; expected one of leaf, pair, join, readout, scale"),
        ("leaf", (), {}, "no attribute 'word' in a call of 'leaf'"),
        ("leaf", (), {"word": 1}, "no argument of 'leaf' with an entry for each call; expected at least one"),
        ("leaf", (), {"word": [[1]]}, "attribute 'word' of 'leaf' has shape (1,)"),
        ("leaf", (), {"word": [1.5]}, "attribute 'word' of 'leaf' has dtype float64"),
        ("leaf", (), {"word": ["a"]}, "attribute 'word' of 'leaf' has dtype <U1"),
        ("leaf", (), {"word": None}, "attribute 'word' of 'leaf' is a NoneType; expected int32[], one for each call"),
        ("leaf", (), {"word": {1, 2}}, "attribute 'word' of 'leaf' is a set"),
        ("leaf", (), {"word": np.ma.masked_array([1], [True])}, "attribute 'word' of 'leaf' is an array with masked"),
        ("readout", (), {}, "missing operand 'h' in a call of 'readout'"),
        ("readout", ([0], [0]), {}, "2 operands by position for 'readout'"),
        ("readout", (np.ones((2, 4), np.float32),), {}, "operand 'h' of 'readout' is 2-D of float32; expected values"),
        ("readout", ([[0]],), {}, "operand 'h' of 'readout' has shape (1, 1)"),
        ("readout", ([[0], [0, 1]],), {}, "operand 'h' of 'readout' is a nested list"),
        (
            "pair",
            ([0, 0], [1, 1], [0], [1]),
            {},
            "1 entries of operand 'h2' of 'pair'; expected 2, as many as of operand",
        ),
        ("join", ([[0]], 0, [[1, 1]]), {}, "2 values for 'cs' of 'join'; expected 1"),
        ("join", (0, [0], [[1]]), {}, "operand 'hs' of 'join' has shape ()"),
    ],
)
def test_refused(cell: str, operands: tuple[Any, ...], named: dict[str, Any], message: str) -> None:
    b = Builder(TREE)
    b.call("leaf", word=1)
    with pytest.raises(EdbatchError) as caught:
        b.calls(cell, *operands, **named)
    assert str(caught.value).startswith(message)
    assert b.finish().num_nodes == 1


def test_values_of_another_instance() -> None:
    b = Builder(TREE)
    stale, _ = b.calls("leaf", word=[1, 2])
    b.finish()
    own, _ = b.calls("leaf", word=[1, 2])
    b.calls("readout", [own[0], stale[1]])
    with pytest.raises(GraphError, match=r"an operand of node 3 .* is a value of an earlier instance of this builder"):
        b.finish()
    b.calls("readout", [0, 1])
    with pytest.raises(GraphError, match=r"an operand of node 0 .* is 0; expected a value returned by call"):
        b.finish()
    own, _ = b.calls("leaf", word=[1, 2])
    with pytest.raises(GraphError, match="declared output is a value of an earlier instance"):
        b.finish(stale)
    own, _ = b.calls("leaf", word=[1, 12])
    with pytest.raises(GraphError, match=r"index out of range: 'word' of node 1 .leaf. is 12; expected 0 to 8"):
        b.finish(own)


# Minibatches from arrays ---------------------------------------------------------------------------------------------


def minibatch(merged: bool = False, **changes: Any) -> list[InstanceGraph]:
    """Two instances: a leaf and its readout; two leaves, a pair and its readout."""
    given: dict[str, Any] = {
        "node_type": [0, 3, 0, 0, 1, 3],
        "operand_ptr": [0, 0, 1, 1, 1, 5, 6],
        "operand_value": [0, 4, 5, 6, 7, 8],
        "node_ptr": [0, 2, 6],
        "outputs": [2, 10],
        "attributes": {("leaf", "word"): [1, 2, 3]},
    } | changes
    arrays = [given.pop(name) for name in ("node_type", "operand_ptr", "operand_value")]
    if merged:
        return [Builder(TREE).minibatch(*arrays, **given)]
    return Builder(TREE).instances(*arrays, **given)


def test_instances() -> None:
    b = Builder(TREE)
    first = b.finish([b.call("readout", b.call("leaf", word=1)[0])])
    pair = b.call("pair", *b.call("leaf", word=2), *b.call("leaf", word=3))
    second = b.finish([b.call("readout", pair[0])])
    made = minibatch()
    assert_same(made[0], first)
    assert_same(made[1], second)
    assert [graph.digest for graph in made] == [first.digest, second.digest]
    assert [bool(graph.scalar_output[0]) for graph in minibatch(scalar_output=True)] == [True, True]
    assert [len(graph.outputs) for graph in minibatch(outputs=[])] == [0, 0]
    assert [len(graph.outputs) for graph in minibatch(outputs=[8, 10], output_ptr=[0, 0, 2])] == [0, 2]
    assert Builder(TREE).instances([], [0], [], node_ptr=[0]) == []
    assert [graph.num_nodes for graph in Builder(TREE).instances([], [0], [], node_ptr=[0, 0])] == [0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"operand_value": [0, 0, 5, 6, 7, 8]},
            "node 4 (pair) of instance 1 reads node 0, which is before that instance",
        ),
        (
            {"operand_value": [4, 4, 5, 6, 7, 8]},
            "node 1 (readout) of instance 0 reads node 2; expected operands before",
        ),
        ({"operand_value": [1, 4, 5, 6, 7, 8]}, "operand 'h' of node 1 (readout) of instance 0 is output 1 of"),
        ({"operand_value": [-2, 4, 5, 6, 7, 8]}, "missing operand: node 1 (readout) of instance 0 reads value -2"),
        ({"operand_value": [99, 4, 5, 6, 7, 8]}, "missing operand: node 1 (readout) of instance 0 reads node 49"),
        ({"operand_ptr": [0, 0, 1, 1, 2, 5, 6]}, "node 3 (leaf) of instance 1 has 1 operands; expected 0"),
        ({"operand_ptr": [0, 0, 1, 1, 1, 5, 7]}, "operand_ptr is not a list of offsets"),
        ({"operand_ptr": [0, 0, 1]}, "operand_ptr has 3 entries for 6 nodes"),
        ({"node_ptr": [0, 2, 5]}, "node_ptr is not a list of offsets"),
        ({"node_ptr": [0, 7, 6]}, "node_ptr is not a list of offsets"),
        ({"node_type": [0, 3, 0, 0, 1, 9]}, "node 5 has type id 9"),
        ({"node_type": [0.5] * 6}, "node_type has shape (6,) and dtype float64"),
        ({"outputs": [10, 2]}, "an output of instance 0 is value 10, of node 5; expected a node of that instance"),
        ({"outputs": [3, 10]}, "declared output 3 is no value of the graph"),
        ({"outputs": [2]}, "node_ptr and output_ptr|output_ptr is not a list of offsets"),
        ({"attributes": {}}, "no attribute 'word' for 3 nodes of 'leaf'"),
        ({"attributes": {("leaf", "word"): [1, 2]}}, "attribute 'word' of 'leaf' has shape (2,)"),
        ({"attributes": {("leaf", "word"): [1, 2, 3, 4]}}, "attribute 'word' of 'leaf' has shape (4,)"),
        (
            {"attributes": {("leaf", "word"): [1, 2, 9]}},
            "index out of range: 'word' of node 3 (leaf) of instance 1 is 9",
        ),
        ({"attributes": {("leaf", "word"): [1, 2, 0.5]}}, "attribute 'word' of 'leaf' has dtype float64"),
        ({"attributes": {("leaf", "wrd"): [1, 2, 3]}}, "unknown attribute 'wrd' of cell 'leaf'"),
        ({"attributes": {("lef", "word"): [1, 2, 3]}}, "unknown cell 'lef'"),
        ({"attributes": {"word": [1, 2, 3]}}, "attributes of 'word'; expected (cell, attribute) as keys"),
        (
            {"scalar_output": True, "outputs": [2, 0, 10], "output_ptr": [0, 2, 3]},
            "2 outputs of instance 0; expected 1",
        ),
    ],
)
def test_refused_instances(changes: dict[str, Any], message: str) -> None:
    for merged in (False, True):
        with pytest.raises((CellError, GraphError)) as caught:
            minibatch(merged, **changes)
        assert any(str(caught.value).startswith(text) for text in message.split("|"))

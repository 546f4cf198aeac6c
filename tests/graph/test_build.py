"""The builder: what calls record, and the graph that comes out."""

from __future__ import annotations

import numpy as np
import pytest

from edbatch_tvm.errors import EdbatchError, GraphError
from edbatch_tvm.graph import FIRST_EXTERNAL, ZERO, Builder, Signature
from edbatch_tvm.graph.spec import Attribute, CellSignature, ValueSpec
from tests.graph.cells import TREE
from tests.graph.oracle import assert_same, plain

pytestmark = pytest.mark.usefixtures("builders")


def test_multi_output_cells() -> None:
    b = Builder(TREE)
    left, right = b.call("leaf", word=3), b.call("leaf", word=8)
    h, c = b.call("pair", *left, *right)
    graph = b.finish(b.call("readout", h))
    assert graph.stride == 2
    assert plain(graph) == [
        {
            "nodes": [
                ("leaf", [], {"word": 3}),
                ("leaf", [], {"word": 8}),
                ("pair", [("node", 0, 0), ("node", 0, 1), ("node", 1, 0), ("node", 1, 1)], {}),
                ("readout", [("node", 2, 0)], {}),
            ],
            "outputs": [("node", 3, 0)],
        }
    ]
    assert int(c) == int(h) + 1
    assert graph.scalar_output.all()


def test_operands_by_name_in_any_order() -> None:
    b = Builder(TREE)
    (h1, c1), (h2, c2) = b.call("leaf", word=0), b.call("leaf", word=1)
    b.call("pair", h1, c1, h2, c2)
    by_position = b.finish()
    (h1, c1), (h2, c2) = b.call("leaf", word=0), b.call("leaf", word=1)
    b.call("pair", h1, c2=c2, h2=h2, c1=c1)
    assert_same(by_position, b.finish())


@pytest.mark.parametrize("k", [0, 1, 3])
def test_variadic_operands(k: int) -> None:
    b = Builder(TREE)
    leaves = [b.call("leaf", word=word) for word in range(k + 1)]
    hs, cs = [h for h, _ in leaves[1:]], [c for _, c in leaves[1:]]
    b.call("join", hs, leaves[0][0], cs)
    name, operands, _ = plain(b.finish())[0]["nodes"][-1]
    assert name == "join"
    children = range(1, k + 1)
    assert operands == [*[("node", i, 0) for i in children], ("node", 0, 0), *[("node", i, 1) for i in children]]


def test_variadic_operand_as_tuple_or_array_of_values() -> None:
    b = Builder(TREE)
    graphs = []
    for pack in (list, tuple, np.array):
        (h1, c1), (h2, c2) = b.call("leaf", word=0), b.call("leaf", word=1)
        b.call("join", pack([h1, h2]), h1, cs=pack([c1, c2]))
        graphs.append(b.finish())
    assert_same(graphs[0], graphs[1])
    assert_same(graphs[0], graphs[2])


def test_variadic_operand_as_array_of_external_rows() -> None:
    b = Builder(TREE)
    b.call("join", np.ones((2, 4), np.float32), b.zero, np.ones((2, 3), np.float32))
    graph = b.finish()
    assert graph.operand_value.tolist() == [-2, -3, -1, -4, -5]
    assert [len(rows) for rows in graph.external_data] == [2, 2, 0]


def test_zero_states() -> None:
    b = Builder(TREE)
    b.call("pair", b.zero, b.zero, Builder.zero, Builder.zero)
    assert b.finish().operand_value.tolist() == [ZERO] * 4


@pytest.mark.parametrize("mixed", [False, True])
def test_external_rows(mixed: bool) -> None:
    b = Builder(TREE)
    h, c = np.arange(4, dtype=np.float32), np.arange(3, dtype=np.float32)
    other = b.call("leaf", word=1) if mixed else (h + 1, c + 1)
    b.call("pair", h, c, *other)
    operands = plain(b.finish())[0]["nodes"][-1][1]
    assert operands[:2] == [("external", (4,), "float32", h.tobytes()), ("external", (3,), "float32", c.tobytes())]
    assert [operand[0] for operand in operands[2:]] == (["node"] * 2 if mixed else ["external"] * 2)


def test_external_rows_of_equal_shape_only() -> None:
    """A list of operands that NumPy could read as one matrix still is a list of rows."""
    b = Builder(TREE)
    b.call("readout", np.full(4, 3, np.float32))
    b.call("readout", np.full(4, 5, np.float32))
    graph = b.finish()
    assert graph.operand_value.tolist() == [FIRST_EXTERNAL, FIRST_EXTERNAL - 1]
    assert graph.external_data[0].tolist() == [[3] * 4, [5] * 4]


@pytest.mark.parametrize("number", [0.75, np.float32(0.75), np.float64(0.75), np.array(0.75, np.float32)])
def test_external_scalars(number: object) -> None:
    b = Builder(TREE)
    h, _ = b.call("leaf", word=1)
    b.call("scale", h, number, at=[0, 1])
    graph = b.finish()
    assert graph.operand_value.tolist() == [0, FIRST_EXTERNAL]
    assert graph.external_data[2].tolist() == [0.75]


def test_external_rows_from_dlpack() -> None:
    torch = pytest.importorskip("torch")
    b = Builder(TREE)
    b.call("readout", torch.ones(4))
    assert b.finish().external_data[0].tolist() == [[1.0] * 4]
    b.call("readout", torch.ones(4, requires_grad=True))
    with pytest.raises(GraphError, match=r"a Tensor that NumPy cannot read .*expected an array in host memory"):
        b.finish()


def test_attributes() -> None:
    b = Builder(TREE)
    h, _ = b.call("leaf", word=np.int64(4))
    b.call("scale", h, 1.0, at=[5, 6])
    b.call("scale", h, 1.0, at=np.array([7, 8]))
    b.call("leaf", word=np.uint8(2))
    graph = b.finish()
    assert graph.attributes[0, "word"].tolist() == [4, 2]
    assert graph.attributes[0, "word"].dtype == np.int32
    assert graph.attributes[4, "at"].tolist() == [[5, 6], [7, 8]]
    assert graph.attributes[4, "at"].dtype == np.int64


def test_declared_outputs() -> None:
    def finish(*select: object) -> tuple[list[int], bool]:
        b = Builder(TREE)
        pair = b.call("leaf", word=1)
        graph = b.finish(*(pair if item == "pair" else [*pair] if item == "list" else pair[0] for item in select))
        return graph.outputs.tolist(), bool(graph.scalar_output[0])

    assert finish() == ([], False)
    assert finish("h") == ([0], True)
    assert finish("pair") == ([0, 1], False)
    assert finish("list") == ([0, 1], False)
    assert finish("h", "h") == ([0, 0], False)


def test_outputs_as_array() -> None:
    b = Builder(TREE)
    h, c = b.call("leaf", word=1)
    graph = b.finish(np.array([c, h]))
    assert graph.outputs.tolist() == [1, 0]
    assert graph.outputs.dtype == np.int32


def test_empty_instance() -> None:
    graph = Builder(TREE).finish()
    assert (graph.num_nodes, graph.num_types, len(graph.outputs)) == (0, 5, 0)


def test_builder_is_empty_after_finish_and_after_a_failed_finish() -> None:
    b = Builder(TREE)
    b.call("leaf", word=1)
    b.finish()
    assert b.finish().num_nodes == 0
    b.call("leaf", word=99)
    with pytest.raises(GraphError):
        b.finish()
    b.call("readout", "no value")
    with pytest.raises(GraphError):
        b.finish()
    assert b.finish().num_nodes == 0


def test_a_refused_call_records_nothing() -> None:
    b = Builder(TREE)
    h, c = b.call("leaf", word=1)
    for arguments in ((), (h,), (h, c, h, c, h)):
        with pytest.raises(EdbatchError):
            b.call("pair", *arguments)
    with pytest.raises(EdbatchError):
        b.call("leaf")
    assert b.finish(h).num_nodes == 1


# Values know their instance -----------------------------------------------------------------------------------------


def wrapped(value: int, kind: str) -> object:
    """`value` among the operands of a call of ``join``."""
    return {"list": [value], "tuple": (value,), "array": np.array([value]), "with a row": [value, np.ones(4, "f4")]}[
        kind
    ]


def others() -> dict[str, tuple[Builder, int]]:
    """A builder and a value that is not of its instance; each is node 0, which the instance has, too."""
    found = {}
    b = Builder(TREE)
    stale, _ = b.call("leaf", word=1)
    b.finish()
    found["earlier instance of this builder"] = b, stale
    failed = Builder(TREE)
    lost, _ = failed.call("leaf", word=99)
    with pytest.raises(GraphError):
        failed.finish()
    found["earlier instance of this builder "] = failed, lost
    other = Builder(TREE)
    b = Builder(TREE)
    b.other = other  # type: ignore[attr-defined]  # alive
    found["another builder, of the cells leaf, pair"] = b, other.call("leaf", word=1)[0]
    foreign = Builder(Signature([CellSignature("lone", (), (), (ValueSpec((4,)),))]))
    b = Builder(TREE)
    b.other = foreign  # type: ignore[attr-defined]
    found["another builder, of the cells lone"] = b, foreign.call("lone")
    found["another builder, which is gone"] = Builder(TREE), Builder(TREE).call("leaf", word=1)[0]
    return found


@pytest.mark.parametrize("place", ["operand", "named", "list", "tuple", "array", "with a row", "output", "outputs"])
def test_values_of_other_instances(place: str) -> None:
    for belongs, (b, value) in others().items():
        b.call("leaf", word=2)
        outputs: list[object] = []
        if place == "operand":
            b.call("readout", value)
        elif place == "named":
            b.call("readout", h=value)
        elif place.startswith("output"):
            outputs = [value] if place == "output" else [[value]]
        else:
            states = wrapped(value, place)
            b.call("join", states, b.zero, [b.zero] * len(states))  # type: ignore[arg-type]
        with pytest.raises(GraphError, match=f"a value of (an )?{belongs.strip()}") as caught:
            b.finish(*outputs)
        what = "declared output is" if place.startswith("output") else "an operand of node 1 "
        assert str(caught.value).startswith(what)
        assert b.finish().num_nodes == 0


def test_many_instances_of_a_builder() -> None:
    b, first, seen = Builder(TREE), 0, set()
    for _ in range(200):
        h, c = b.call("leaf", word=1)
        assert (h not in seen, c) == (True, int(h) + 1)
        seen |= {h, c}
        first = first or h
        assert b.finish(h).outputs.tolist() == [0]
    b.call("readout", first)
    with pytest.raises(GraphError, match="an earlier instance of this builder"):
        b.finish()


@pytest.mark.parametrize("wanted", ["int8", "int16", "int32", "int64", "uint8", "uint64"])
def test_integers_of_all_kinds_in_one_attribute(wanted: str) -> None:
    cell = CellSignature("f", (), (Attribute("i", ValueSpec((), wanted)),), (ValueSpec((2,)),))
    kinds = [np.uint64(1), 2, np.int8(3), np.int64(4), np.uint8(5), True, np.array(7, np.uint64)]
    b = Builder(Signature([cell]))
    graph = b.finish([b.call("f", i=kind) for kind in kinds])
    np.testing.assert_array_equal(graph.attributes[0, "i"], [1, 2, 3, 4, 5, 1, 7])
    for bad in (np.uint64(2**64 - 1), -(2**62)) if wanted != "int64" else (np.uint64(2**64 - 1),):
        if np.iinfo(wanted).min <= int(bad) <= np.iinfo(wanted).max:
            continue
        declared = [b.call("f", i=np.uint64(1)), b.call("f", i=-1 if wanted.startswith("int") else 1)]
        declared.append(b.call("f", i=bad))
        with pytest.raises(GraphError, match=f"holds {int(bad)}; expected numbers that fit {wanted}"):
            b.finish(declared)

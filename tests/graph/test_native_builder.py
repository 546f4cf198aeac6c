"""The builder in C makes the graphs that the builder in Python makes, ready for the first merge."""

from __future__ import annotations

import copy
import gc
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edbatch_tvm.errors import EdbatchError, GraphError
from edbatch_tvm.graph import (
    FIRST_EXTERNAL,
    ZERO,
    Attribute,
    Builder,
    CellSignature,
    InstanceGraph,
    Operand,
    Signature,
    Value,
    ValueSpec,
    merge,
    validate,
)
from edbatch_tvm.graph.array_addresses import ATTRIBUTES, DIGEST, NODE_TYPE, find_addresses
from edbatch_tvm.graph.build import PythonBuilder
from edbatch_tvm.graph.merge import merge_again, reference_merge
from edbatch_tvm.graph.native_builder import native_builder
from tests.graph.cells import TREE
from tests.graph.oracle import assert_same
from tests.strategies import Minibatch, minibatches

pytestmark = pytest.mark.skipif(native_builder() is None, reason="no C compiler, or Python is asked for")

VECTOR = ValueSpec((2,))


def builder_of(signature: Signature, native: bool) -> Builder:
    return Builder(signature) if native else PythonBuilder(signature)


def recorded(b: Builder, graph: InstanceGraph, draw: Any = None) -> InstanceGraph:
    """`graph`, recorded call by call."""
    values: list[tuple[Any, ...]] = []
    seen = [0] * graph.num_types

    def value(number: int) -> Any:
        if number == ZERO:
            return b.zero
        if number <= FIRST_EXTERNAL:
            row = FIRST_EXTERNAL - number
            return graph.external_data[graph.external_spec[row]][graph.external_row[row]]
        return values[number // graph.stride][number % graph.stride]

    for node, kind in enumerate(graph.node_type.tolist()):
        cell = b.signature[kind]
        given_values = [value(v) for v in graph.operand_value[graph.operand_ptr[node] : graph.operand_ptr[node + 1]]]
        rows = (len(given_values) - cell.fixed_arity) // max(cell.variadic_count, 1)
        operands: list[Any] = []
        for operand in cell.operands:
            operands.append(given_values[:rows] if operand.variadic else given_values[0])
            del given_values[: rows if operand.variadic else 1]
        words = {a.name: graph.attributes[kind, a.name][seen[kind]] for a in cell.attributes}
        seen[kind] += 1
        by_name = {o.name: v for o, v in zip(cell.operands, operands, strict=True)}
        made = b.call(cell.name, **by_name, **words) if node % 3 == 2 else b.call(cell.name, *operands, **words)
        values.append(made if isinstance(made, tuple) else (made,))
    declared = [value(v) for v in graph.outputs]
    return b.finish(*declared) if graph.scalar_output.all() else b.finish(declared)


def assert_ready(graph: InstanceGraph, with_digest: bool = True) -> None:
    """What the native builder made with a graph is what Python finds of it."""
    assert graph.packed is not None
    assert graph.merge_row is not None
    assert graph.checked
    plain = InstanceGraph(
        *(graph.node_type, graph.operand_ptr, graph.operand_value, graph.signature),
        attributes=graph.attributes,
        outputs=graph.outputs,
        node_ptr=graph.node_ptr,
        output_ptr=graph.output_ptr,
        scalar_output=graph.scalar_output,
    )
    validate(plain)
    assert plain.digest == graph.digest
    for one, other in zip((*plain.uses, plain.type_count), (*graph.uses, graph.type_count), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    found = find_addresses(plain)
    assert found is not None
    row, own = (np.frombuffer(bytes_, np.int64) for bytes_ in (found.row, graph.merge_row))
    np.testing.assert_array_equal(row[:DIGEST], own[:DIGEST])
    np.testing.assert_array_equal(row[DIGEST:NODE_TYPE] if with_digest else [0, 0], own[DIGEST:NODE_TYPE])
    np.testing.assert_array_equal(row[ATTRIBUTES + 1 :: 2], own[ATTRIBUTES + 1 :: 2])
    for array in (graph.node_type, graph.operand_value, *graph.attributes.values()):
        assert not array.flags.writeable
        assert array.flags.aligned


@given(minibatches())
def test_equal_to_python(minibatch: Minibatch) -> None:
    native, python = (builder_of(minibatch.signature, kind) for kind in (True, False))
    for graph in minibatch.instances:
        made, wanted = recorded(native, graph), recorded(python, graph)
        assert_same(made, wanted)
        assert_same(made, graph)
        assert made.digest == wanted.digest
        assert list(made.attributes) == list(wanted.attributes)
        if graph.num_nodes and not len(graph.external_row):
            assert_ready(made)
        assert made.checked


@given(minibatches(external=False, max_instances=6))
def test_the_first_merge_is_ready(minibatch: Minibatch) -> None:
    b = Builder(minibatch.signature)
    instances = [recorded(b, graph) for graph in minibatch.instances]
    merged = merge_again(instances)
    if len(instances) < 2 or not all(graph.num_nodes for graph in instances):
        assert merged is None
    else:
        assert merged is not None
        validate(merged)
        assert merged.digest_of_parts is not None
        assert_same(merged, reference_merge(minibatch.instances))
    assert_same(merge(instances), reference_merge(minibatch.instances))


@given(minibatches(external=False, max_instances=5), st.booleans())
def test_instances_of_a_minibatch(minibatch: Minibatch, scalar: bool) -> None:
    scalar = scalar and all(len(graph.outputs) == 1 for graph in minibatch.instances)
    for graph in minibatch.instances:
        graph.scalar_output = np.array([scalar])
    whole = reference_merge(minibatch.instances)
    attributes = {(minibatch.signature[kind].name, name): rows for (kind, name), rows in whole.attributes.items()}
    for native in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            if not native:
                patch.setattr("edbatch_tvm.graph.instances_from_arrays.native_builder", lambda: None)
            arrays: Any = (whole.node_type, whole.operand_ptr.tolist(), whole.operand_value)
            named: Any = {"node_ptr": whole.node_ptr, "outputs": whole.outputs, "output_ptr": whole.output_ptr}
            named |= {"attributes": attributes, "scalar_output": scalar}
            made = Builder(minibatch.signature).instances(*arrays, **named)
            merged = Builder(minibatch.signature).minibatch(*arrays, **named)
        assert_same(merged, whole)
        assert (merged.checked, merged.num_instances) == (True, len(minibatch.instances))
        assert merged.digest == whole.digest
        if native and whole.num_nodes:
            assert_ready(merged, with_digest=False)
            again = merge([merged, merged])  # no digests of parts that nobody has hashed
            assert (again.digest_of_parts, again.digest) == (None, reference_merge([whole, whole]).digest)
        assert len(made) == len(minibatch.instances)
        for one, graph in zip(made, minibatch.instances, strict=True):
            assert_same(one, graph)
            assert one.checked
            if native and all(graph.num_nodes for graph in minibatch.instances):
                assert_ready(one)
        assert_same(merge(made), whole)


def test_digests_of_all_lengths() -> None:
    """Whatever the number of bytes, the digest is that of hashlib."""
    for nodes in range(1, 140):
        b = Builder(TREE)
        h, c = b.call("leaf", word=1)
        for _ in range(nodes - 1):
            h, c = b.call("pair", h, c, b.zero, b.zero)
        assert_ready(b.finish(h))


def test_a_packed_graph_is_a_graph() -> None:
    b = Builder(TREE)
    h, c = b.call("leaf", word=3)
    graph = b.finish(h, c)
    assert "node_type" not in vars(graph)
    assert graph.num_nodes == 1
    assert "node_type" in vars(graph)
    for made in (pickle.loads(pickle.dumps(graph)), copy.deepcopy(graph), copy.copy(graph)):
        assert made.packed is None
        assert made.merge_row is None
        assert_same(made, graph)
        assert_same(merge([made, graph]), reference_merge([graph, graph]))
    with pytest.raises(AttributeError, match="'InstanceGraph' object has no attribute 'nothing'"):
        _ = graph.nothing  # type: ignore[attr-defined]
    fresh = b.finish(b.call("leaf", word=3))
    again = pickle.loads(pickle.dumps(fresh))
    assert_same(again, fresh)
    assert repr(fresh) == "InstanceGraph(node_type=[1], operand_value=[0], types=5, outputs=[2])"


def test_a_graph_outlives_its_builder() -> None:
    graphs = []
    for word in range(50):
        b = Builder(TREE)
        h, _ = b.call("leaf", word=word % 9)
        graphs.append(b.finish(b.call("readout", h)))
        del b
    gc.collect()
    assert merge(graphs).attributes[0, "word"].tolist() == [word % 9 for word in range(50)]


ATTRIBUTES_OF_ALL_KINDS: list[tuple[str, list[Any]]] = [
    ("float32", [1.5, -0.0, float("nan"), float("inf"), 3]),
    ("float32", [1e-46, 1e-300, 0.1]),
    ("float64", [0.1, np.float32(0.1), 2, True]),
    ("float16", [0.5, 1.0]),
    ("bool", [True, False, np.bool_(True)]),
    ("bool", [True, 0, 1]),
    ("int8", [-128, 127, np.int8(3), True]),
    ("uint8", [255, 0]),
    ("int64", [-(2**63), 2**63 - 1]),
    ("uint64", [2**63 - 1, 0]),
    ("uint64", [2**64 - 1, 0]),
    ("uint64", [np.uint64(2**64 - 1), 5]),
    ("int32", [np.array(3), 4]),
    # Refused, by both with the same words.
    ("float32", [1e39]),
    ("float32", ["a"]),
    ("bool", [2]),
    ("int8", [128]),
    ("uint8", [-1]),
    ("int32", [1, 2.5]),
    ("int32", [np.int64(7), 0.5]),
    ("int32", [None]),
    ("int64", [2**63]),
    ("uint64", [-1]),
    ("int32", [np.ma.masked_array([1], [True])[0]]),
]


@pytest.mark.filterwarnings("ignore:overflow encountered")
@pytest.mark.parametrize(("dtype", "rows"), ATTRIBUTES_OF_ALL_KINDS)
def test_attributes_of_all_kinds(dtype: str, rows: list[Any]) -> None:
    cell = CellSignature("f", (), (Attribute("a", ValueSpec((), dtype)),), (VECTOR,))
    found: list[Any] = []
    for native in (True, False):
        b = builder_of(Signature([cell]), native)
        for row in rows:
            b.call("f", a=row)
        try:
            array = b.finish().attributes[0, "a"]
            assert array.dtype == np.dtype(dtype)
            found.append(array.tobytes())
        except EdbatchError as error:
            found.append(str(error))
    assert found[0] == found[1]


@pytest.mark.parametrize("bound", [1, 5, 2**31])
@pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "uint8", "uint64"])
def test_bounds(bound: int, dtype: str) -> None:
    cell = CellSignature("f", (), (Attribute("a", ValueSpec((), dtype), bound),), (VECTOR,))
    wide = CellSignature("g", (), (Attribute("a", ValueSpec((2,), dtype), bound),), (VECTOR,))
    most = min(bound, int(np.iinfo(dtype).max) + 1) - 1
    for native in (True, False):
        b = builder_of(Signature([cell, wide]), native)
        b.call("f", a=most)
        b.call("g", a=[0, most])
        graph = b.finish()
        assert (graph.attributes[0, "a"].tolist(), graph.attributes[1, "a"].tolist()) == ([most], [[0, most]])
        if most < bound - 1:
            continue
        for name, row in (("f", most + 1), ("g", [0, most + 1]), ("g", np.array([0, most + 1]))):
            b.call(name, a=row)
            with pytest.raises(GraphError, match=r"index out of range|fit"):
                b.finish()


def test_many_cells_outputs_and_operands() -> None:
    """More cells, operands, attributes and outputs than the compiled code has room for at once."""
    operands = tuple(Operand(f"x{n}", VECTOR) for n in range(40))
    words = tuple(Attribute(f"a{n}", ValueSpec((), "int32"), 9) for n in range(40))
    cells = [CellSignature(f"c{n}", (), words[: n % 3], (VECTOR,) * (1 + n % 4)) for n in range(30)]
    wide = CellSignature("wide", operands, words, (VECTOR,) * 5)
    variadic = CellSignature("any", (Operand("xs", VECTOR, True),), (), (VECTOR,))
    graphs = []
    for native in (True, False):
        b = builder_of(Signature([*cells, wide, variadic]), native)
        values = []
        for n in range(30):
            made = b.call(f"c{n}", **{f"a{k}": k for k in range(n % 3)})
            values += made if isinstance(made, tuple) else [made]
        outputs = b.call("wide", *values[:40], **{f"a{k}": k % 9 for k in range(40)})
        assert len(outputs) == 5
        b.call("any", values)
        graphs.append(b.finish(b.call("any", xs=tuple(outputs))))
    assert_same(*graphs)
    assert_ready(graphs[0])


def test_a_class_derived_from_the_builder_may_record_calls_itself() -> None:
    class Counting(Builder):
        count = 0

        def call(self, cell: str, /, *operands: Any, **named: Any) -> Any:
            self.count += 1
            return super().call(cell, *operands, **named)

    b = Counting(TREE)
    h, _ = b.call("leaf", word=1)
    assert_ready(b.finish(b.call("readout", h)))
    assert b.count == 2


def test_values_are_those_of_python() -> None:
    b = Builder(TREE)
    h, c = b.call("leaf", word=1)
    assert type(h) is type(c) is Value
    assert (int(c), hash(h), h == Value(int(h))) == (int(h) + 1, hash(int(h)), True)
    assert pickle.loads(pickle.dumps(h)) == h
    assert (h in {int(h)}, repr(h) == repr(int(h))) == (True, True)


def test_signatures_are_pickled_without_what_is_of_this_process() -> None:
    signature = Signature(list(TREE))
    Builder(signature).call("leaf", word=1)
    again = pickle.loads(pickle.dumps(signature))
    assert again == signature
    assert int(Builder(again).call("readout", Builder.zero)) > 0

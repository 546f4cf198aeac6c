"""Expansion of graphs against plain Python that goes through one cell, one op and one row at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from edbatch_tvm.errors import GraphError
from edbatch_tvm.graph import (
    Attribute,
    Builder,
    CellSignature,
    InstanceGraph,
    Operand,
    Signature,
    ValueSpec,
    merge,
    validate,
)
from edbatch_tvm.graph.expand import CellBody, ExpansionTable, OpCall, Source, expand
from tests.graph.cells import LEAF, TREE, H
from tests.graph.oracle import assert_same, plain
from tests.strategies import Minibatch, minibatches


@st.composite
def tables(draw: DrawFn, cells: Signature) -> ExpansionTable:
    """Random bodies: up to four calls, then one for the outputs that reads the rest of the operands."""
    ops: dict[Any, int] = {}
    bodies = []
    for cell in cells:
        values = [(Source(slot), operand.spec, operand.variadic) for slot, operand in enumerate(cell.operands)]
        unread = list(values) if draw(st.booleans()) else []
        calls: list[OpCall] = []

        def add(
            cell: CellSignature, values: list[Any], calls: list[OpCall], read: list[Any], outputs: Any, rows: bool
        ) -> None:
            known = draw(st.lists(st.sampled_from(cell.attributes), max_size=2)) if cell.attributes else []
            operands = tuple(
                Operand(f"x{i}", spec, variadic and not rows) for i, (_, spec, variadic) in enumerate(read)
            )
            attributes = tuple(Attribute(f"a{i}", a.spec, a.bound) for i, a in enumerate(known))
            type_id = ops.setdefault((operands, attributes, outputs), len(ops))
            sources = tuple(source for source, _, _ in read)
            calls.append(OpCall(type_id, sources, tuple(a.name for a in known), rows))
            values.extend((Source(slot, len(calls) - 1), spec, rows) for slot, spec in enumerate(outputs))

        specs = st.sampled_from(cells.value_specs)
        for _ in range(draw(st.integers(0, 4))):
            rows = draw(st.booleans()) and any(variadic for _, _, variadic in values)
            read = draw(st.lists(st.sampled_from(values), max_size=3)) if values else []
            rows = rows and any(variadic for _, _, variadic in read)
            outputs = tuple(draw(st.lists(specs, min_size=1, max_size=2)))
            add(cell, values, calls, read, outputs, rows)
        add(cell, values, calls, unread, cell.outputs, False)
        last = len(calls) - 1
        bodies.append(CellBody(tuple(calls), tuple(Source(slot, last) for slot in range(len(cell.outputs)))))
    names = [CellSignature(f"op{number}", *key) for key, number in ops.items()]
    return ExpansionTable(cells, Signature(names), bodies)


def expand_plain(instance: dict[str, Any], table: ExpansionTable) -> dict[str, Any]:
    """The expansion of one instance in the form of :func:`tests.graph.oracle.plain`."""
    nodes: list[Any] = []
    results: list[list[Any]] = []

    def translate(operand: Any) -> Any:
        return results[operand[1]][operand[2]] if operand[0] == "node" else operand

    for name, operands, attributes in instance["nodes"]:
        cell = table.cells[name]
        given = [translate(operand) for operand in operands]
        k = (len(given) - cell.fixed_arity) // cell.variadic_count if cell.variadic_count else 0
        slots = [[given.pop(0) for _ in range(k)] if operand.variadic else given.pop(0) for operand in cell.operands]
        body = table.bodies[table.cells.type_id(name)]
        done: list[Any] = []  # of each call: the node, or a list of one a row

        def value(source: Source, slots: list[Any] = slots, done: list[Any] = done) -> Any:
            if source.op is None:
                return slots[source.slot]
            node = done[source.op]
            if isinstance(node, list):
                return [("node", one, source.slot) for one in node]
            return ("node", node, source.slot)

        for call in body.calls:
            op = table.ops[call.type_id]
            words = {a.name: attributes[n] for a, n in zip(op.attributes, call.attributes, strict=True)}
            numbers = []
            for row in range(k) if call.rows else [None]:
                flat: list[Any] = []
                for source in call.operands:
                    one = value(source)
                    if isinstance(one, list):
                        flat.extend(one if row is None else [one[row]])
                    else:
                        flat.append(one)
                numbers.append(len(nodes))
                nodes.append((op.name, flat, words))
            done.append(numbers if call.rows else numbers[0])
        results.append([value(out) for out in body.outputs])
    return {"nodes": nodes, "outputs": [translate(out) for out in instance["outputs"]]}


@given(st.data())
def test_expansion_equals_one_node_at_a_time(data: st.DataObject) -> None:
    minibatch: Minibatch = data.draw(minibatches())
    table = data.draw(tables(minibatch.signature))
    graph = merge(minibatch.instances)
    expansion = expand(graph, table)
    validate(expansion.graph)
    assert plain(expansion.graph) == [expand_plain(instance, table) for instance in plain(graph)]
    assert expansion.graph.scalar_output.tolist() == graph.scalar_output.tolist()
    assert_same(expansion.graph, merge([expand(instance, table).graph for instance in minibatch.instances]))


def test_values_of_cells_are_found() -> None:
    table = ExpansionTable(
        Signature([LEAF]),
        Signature([CellSignature("take", (), LEAF.attributes, (H, H)), CellSignature("c", (), (), LEAF.outputs[1:])]),
        [CellBody((OpCall(1, ()), OpCall(0, (), ("word",))), (Source(1, 1), Source(0, 0)))],
    )
    b = Builder(table.cells)
    b.call("leaf", word=3)
    h, c = b.call("leaf", word=5)
    expansion = expand(b.finish(c, h), table)
    assert expansion.value_of.tolist() == [3, 0, 7, 4]
    assert expansion.graph.outputs.tolist() == [4, 7]
    assert expansion.graph.attributes[0, "word"].tolist() == [3, 5]


def test_bounds_of_attributes_come_from_the_ops() -> None:
    word = Attribute("word", ValueSpec((), "int32"))
    cells = Signature([CellSignature("leaf", (), (word,), (H,))])
    takes = [CellSignature(f"take{n}", (), (Attribute("a0", word.spec, n),), (H,)) for n in (7, 5)]
    calls = (OpCall(0, (), ("word",)), OpCall(1, (), ("word",)))
    table = ExpansionTable(cells, Signature(takes), [CellBody(calls, (Source(0, 1),))])
    assert table.cells["leaf"].attributes[0].bound == 5
    assert str(table) == "leaf:\n%0 = take7(word)\n%1 = take5(word)\nreturn %1.0"


def test_a_graph_of_other_cells() -> None:
    body = CellBody((OpCall(0, (), ("word",)),), (Source(0, 0),))
    table = ExpansionTable(Signature([LEAF]), Signature([LEAF]), [body])
    with pytest.raises(GraphError, match=r"a graph of the cells \('leaf', 'pair', .*; expected the cells \('leaf',\)"):
        expand(Builder(TREE).finish(), table)


def test_a_graph_of_too_many_ops() -> None:
    wide = Signature([CellSignature("wide", (), (), (H,) * 100)])
    cells = Signature([CellSignature("one", (), (), (H,))])
    table = ExpansionTable(cells, wide, [CellBody((OpCall(0, ()),) * 100, (Source(0, 0),))])
    count = 220_000
    graph = InstanceGraph(np.zeros(count, np.int16), np.zeros(count + 1, np.int32), np.empty(0, np.int32), cells)
    with pytest.raises(GraphError, match="a graph of 22000000 ops; expected values that fit int32"):
        expand(graph, table)

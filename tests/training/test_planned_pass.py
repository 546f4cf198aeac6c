"""Backward passes that are planned from the tables of the forward pass: the same as by their graphs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm.script import ir as I
from tvm.script import relax as R

import edbatch_tvm as eb
from edbatch_tvm.find_native import find_native
from edbatch_tvm.memory.steps_table import COUNT, INDEXED, OUTPUTS, POINTER, TYPE
from edbatch_tvm.models import WORKLOADS, get_workload
from edbatch_tvm.native.backward_tables import ATTRIBUTE, OF_KIND, BackwardSteps
from edbatch_tvm.native.cell_tables import BYTES, LARGEST, LOOKUPS, MOST_ROWS
from edbatch_tvm.training.compiled_backward_graph import section_attribute
from edbatch_tvm.training.cotangents import as_cotangents
from edbatch_tvm.training.forward_rows import ForwardRows
from edbatch_tvm.training.graph_rows import arena_rows
from edbatch_tvm.training.planned_pass import PlannedReport
from edbatch_tvm.training.row_sources import PassRows
from relay_ext.gradients.adjoint_inputs import can_pair
from tests.training.drawn import drawn_detached, drawn_minibatch
from tests.training.test_backward import WEIGHTS, Chain, random_cotangents
from tests.training.test_weight_gradients import sentences


def require_same_index(steps: Any, index: np.ndarray, other: np.ndarray, signature: Any) -> None:
    """What kernels read of the index: the rest may be anything."""
    for row in steps.tolist():
        cell = signature[row[TYPE]]
        begin, end = 0, row[COUNT]
        if cell.variadic_count:
            offsets = slice(row[POINTER], row[POINTER] + row[COUNT] + 1)
            np.testing.assert_array_equal(index[offsets], other[offsets])
            begin, end = index[offsets][[0, -1]].tolist()
        for number, operand in enumerate(cell.operands):
            base, stride = row[OUTPUTS + len(cell.outputs) + 2 * number :][:2]
            if stride == INDEXED:
                own = slice(base + begin, base + end) if operand.variadic else slice(base, base + row[COUNT])
                np.testing.assert_array_equal(index[own], other[own])


def compare(model: Any, result: Any, chosen: list[int], detached: np.ndarray | None = None) -> None:
    own = model._backward
    if own.compiled is None:  # every other model takes two cotangents wherever it can
        adjoints = model.adjoints.cells.values()
        own._compile({type_id: can_pair(one) for type_id, one in enumerate(adjoints)} if len(adjoints) % 2 else {})
    graph, plan, signature = result.graph, result.plan, own.compiled.signature
    cotangents = as_cotangents(result, random_cotangents(result, sorted(set(chosen))))
    made = own._graphs.make(graph, plan, cotangents.values, detached)
    rows = ForwardRows(result, own._forward_arenas, signature.value_specs, cotangents)
    made.graph.external_data = rows.lengths
    made.graph.checked = made.schedule.checked = True
    wanted = own.compiled.plan(made.graph, made.schedule)
    native = find_native("plan backward passes")
    found = native.steps(graph, plan, cotangents.values, detached, own._graphs.tables, signature)

    np.testing.assert_array_equal(found.steps, wanted.steps)
    assert len(found.index) == len(wanted.index)
    require_same_index(wanted.steps, wanted.index, found.index, signature)
    assert tuple(found.arena_rows.tolist()) == wanted.arena_rows
    np.testing.assert_array_equal(found.type_count, made.graph.type_count)
    assert found.counts[:3] == wanted.operand_counts.tolist()
    facts = [found.counts[slot] for slot in (BYTES, LOOKUPS, LARGEST, MOST_ROWS)]
    assert facts == [wanted.bytes_indexed, wanted.lookups, wanted.largest_batch, wanted.largest_rows]
    cotangent = arena_rows(made.graph, wanted, made.cotangent.ravel())
    np.testing.assert_array_equal(found.cotangent_row, cotangent)
    np.testing.assert_array_equal(found.external_use, arena_rows(made.graph, wanted, made.external_use))
    np.testing.assert_array_equal(found.external_of, made.external_of)
    arrays = made.arrays
    assert arrays is not None
    for name in ("group_ptr", "group_rows", "node_rank"):
        np.testing.assert_array_equal(getattr(found, name), getattr(arrays, name))
    np.testing.assert_array_equal(found.node_order[: found.group_ptr[-1]], arrays.node_order)
    for (type_id, name), rows_of in made.graph.attributes.items():
        forward, section = own._graphs.section_of[type_id]
        own_rows = section_attribute(graph, forward, section, name, found)
        order = wanted.attribute_order.get(type_id, np.empty(0, np.int64))  # none where nothing runs
        np.testing.assert_array_equal(own_rows, rows_of[order])


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_random_graphs(data: st.DataObject) -> None:
    """Variadic operands, with any number of rows; shared and repeated operands, external rows, detached nodes."""
    model, result, chosen = drawn_minibatch(data)
    compare(model, result, chosen, drawn_detached(data, result, chosen))


@pytest.mark.parametrize(
    "name",
    [
        one if one in ("treelstm", "childsum-tree", "random-dag") else pytest.param(one, marks=pytest.mark.slow)
        for one in WORKLOADS
    ],
)
def test_workload(name: str) -> None:
    workload = get_workload(name)
    model = eb.compile(workload.cells(4), workload.weights(4), target="numpy", training=True)
    result = model(workload.generate(5, model.cells, seed=1))
    outputs = np.unique(result.graph.outputs).tolist()
    for chosen in (outputs, outputs[::2], outputs[:1]):
        compare(model, result, chosen)


@pytest.mark.parametrize("plan", ["batch", "order"])
def test_report(plan: str) -> None:
    """The graph of a planned pass is made when somebody asks; of other passes, before they run."""
    model = eb.compile(Chain, WEIGHTS, training=True, plan=plan)
    result = model(sentences(model))
    gradients = result.backward()
    assert isinstance(gradients.report, PlannedReport) is (plan == "batch")
    assert gradients.report.batches == len(gradients.schedule)
    assert gradients.report.graph.num_nodes == gradients.schedule.num_nodes
    assert sum(gradients.report.operands.values()) == gradients.report.plan.operand_counts.sum()
    assert "contiguous" in str(gradients.report)


def tables_of_weights(model: Any, result: Any, chosen: list[int]) -> None:
    """The kernel's tables by the compiled kernel, and by NumPy from the graph of the pass: the same addresses."""
    found: list[PassRows] = []

    class Noted(PassRows):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            found.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edbatch_tvm.training.backward_model.PassRows", Noted)
        result.backward(random_cotangents(result, chosen), retain=True)
    (rows,), own = found, model._backward
    assert isinstance(rows.arrays, BackwardSteps)
    others = PassRows(rows.forward, rows.backward, rows.made.arrays, lambda: rows.made, rows._terms)
    sums = own._compiled_sums(rows.made.types, rows.arrays)
    for one in sums._each:
        gradients = one._sums.gradients()
        tables, of_tables, _memory = one._planned.fill(rows, gradients)
        wanted, wanted_tables, _other_memory = one._fill(others, gradients)
        read = len(wanted.rows) if one._ends[-1] else 0
        terms = one._rows.table
        attributes = np.isin(terms[:, OF_KIND], ATTRIBUTE)
        if not attributes.any():  # those are copied, so they lie elsewhere
            np.testing.assert_array_equal(tables.rows[:read], wanted.rows[:read])
        np.testing.assert_array_equal(tables.steps, wanted.steps)
        np.testing.assert_array_equal(tables.vectors, wanted.vectors)
        assert (tables.room, tables.multiplies) == (wanted.room, wanted.multiplies)
        np.testing.assert_array_equal(tables.tables[:, [0, 1, 2, 4]], wanted.tables[:, [0, 1, 2, 4]])
        segments = len(wanted.segments) if of_tables else 0
        np.testing.assert_array_equal(tables.segments[:segments], wanted.segments[:segments])
        for (name, index, out), (other, other_index, other_out) in zip(of_tables, wanted_tables, strict=True):
            assert (name, out.shape) == (other, other_out.shape)
            np.testing.assert_array_equal(index, other_index)


@pytest.mark.parametrize(
    "name",
    [one if one == "treelstm" else pytest.param(one, marks=pytest.mark.slow) for one in WORKLOADS],
)
def test_tables_of_weight_gradients(name: str) -> None:
    workload = get_workload(name)
    model = eb.compile(workload.cells(4), workload.weights(4), training=True, database="none")
    result = model(workload.generate(5, model.cells, seed=1))
    outputs = np.unique(result.graph.outputs).tolist()
    for chosen in (outputs, outputs[::3]):
        tables_of_weights(model, result, chosen)


@pytest.mark.parametrize("rows", [3, 300, 70_000])
def test_rows_of_large_tables(rows: int) -> None:
    """Sorted by one, two and three digits; int64 and int32, several rows a node."""

    @I.ir_module
    class Lookup:
        @R.function
        def pair(words: R.Tensor((2,), "int64"), E: R.Tensor((rows, 3), "float32")):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                y = R.sum(R.take(E, words, axis=0), axis=[0])
                R.output(y)
            return y

    rng = np.random.default_rng(0)
    table = rng.standard_normal((rows, 3)).astype(np.float32)
    model = eb.compile(Lookup, {"E": table}, training=True, database="none")
    words = rng.integers(0, rows, (40, 2))
    words[7] = words[3, ::-1]
    builder = model.builder()
    result = model([builder.finish(builder.call("pair", words=own)) for own in words])
    cotangents = rng.standard_normal((40, 3)).astype(np.float32)
    gradients = result.backward(list(cotangents))
    wanted = np.zeros((rows, 3))
    np.add.at(wanted, words.ravel(), np.repeat(cotangents, 2, axis=0))
    index, sums = gradients.rows("E")
    np.testing.assert_array_equal(index, np.unique(words))
    np.testing.assert_allclose(sums, wanted[index], rtol=1e-6, atol=1e-6)

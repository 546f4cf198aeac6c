"""Adjoints of variadic cells: sections for nodes and for rows, whatever the number of rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tvm.script import ir as I
from tvm.script import relax as Rx

import edbatch_tvm as eb
from edbatch_tvm.models import get_workload
from relay_ext.gradients.adjoint_cells import Source, adjoint_cells
from relay_ext.gradients.reverse import bindings_of
from relay_ext.gradients.rules import short_name
from relay_ext.gradients.sections import ROW_NUMBER, BackwardCell, backward_cell
from relay_ext.signature import output_vars
from tests.training.reference import reference_gradients

K = 6


@I.ir_module
class Mean:
    """All rows have the same gradient."""

    @Rx.function
    def cell(hs: Rx.Tensor(("k", 6), "float32"), W: Rx.Tensor((6, 6), "float32")):
        Rx.func_attr({"num_input": 1})
        with Rx.dataflow():
            y = Rx.tanh(Rx.matmul(Rx.mean(hs, axis=[0]), W))
            Rx.output(y)
        return y


@I.ir_module
class Gates:
    """A product for each row, which the sum over nodes of its bias reads, too."""

    @Rx.function
    def cell(
        hs: Rx.Tensor(("k", 6), "float32"),
        x: Rx.Tensor((6,), "float32"),
        U: Rx.Tensor((6, 6), "float32"),
        b: Rx.Tensor((6,), "float32"),
    ):
        Rx.func_attr({"num_input": 2})
        with Rx.dataflow():
            gates = Rx.sigmoid(Rx.matmul(hs, U) + b + x)
            y = Rx.tanh(Rx.sum(gates * hs, axis=[0]))
            Rx.output(y)
        return y


@I.ir_module
class Attention:
    """Softmax over the rows of scores that are products with weights."""

    @Rx.function
    def cell(
        hs: Rx.Tensor(("k", 6), "float32"),
        q: Rx.Tensor((6,), "float32"),
        W: Rx.Tensor((6, 6), "float32"),
    ):
        Rx.func_attr({"num_input": 2})
        with Rx.dataflow():
            keys = Rx.tanh(Rx.matmul(hs, W))
            weights = Rx.nn.softmax(Rx.matmul(keys, q), axis=0)
            y = Rx.sum(Rx.expand_dims(weights, axis=[1]) * hs, axis=[0])
            Rx.output(y)
        return y


@I.ir_module
class Late:
    """The gradient of x sums rows that depend on a product of the node."""

    @Rx.function
    def cell(hs: Rx.Tensor(("k", 6), "float32"), x: Rx.Tensor((6,), "float32"), W: Rx.Tensor((6, 6), "float32")):
        Rx.func_attr({"num_input": 2})
        with Rx.dataflow():
            y = Rx.tanh(Rx.matmul(Rx.sum(Rx.sigmoid(hs + x), axis=[0]), W))
            Rx.output(y)
        return y


@I.ir_module
class SumsSoFar:
    """A row that depends on others has no form of its own."""

    @Rx.function
    def cell(hs: Rx.Tensor(("k", 6), "float32"), W: Rx.Tensor((6, 6), "float32")):
        Rx.func_attr({"num_input": 1})
        with Rx.dataflow():
            y = Rx.sum(Rx.tanh(Rx.cumsum(Rx.matmul(hs, W), axis=0)), axis=[0])
            Rx.output(y)
        return y


def sections_of(module: Any) -> BackwardCell:
    return backward_cell("cell", adjoint_cells(module).cells["cell"])


def names_in(function: Any) -> set[str]:
    return {short_name(value) for _, value in bindings_of(function) if hasattr(value, "op")}


def test_one_gradient_for_all_rows() -> None:
    cell = sections_of(Mean)
    assert [one.per_row for one in cell.sections] == [False]
    assert cell.slots[0] is not None
    assert not cell.sections[cell.slots[0].part].per_row


def test_rows_with_products_are_nodes_of_their_own() -> None:
    cell = sections_of(Gates)
    assert [one.per_row for one in cell.sections] == [False, True, False]
    rows = cell.sections[1].function
    assert all(len(one.ty.shape.values) == 1 for one in output_vars(rows))
    assert "matmul" in names_in(rows)
    assert "matmul" not in names_in(cell.sections[0].function) | names_in(cell.sections[2].function)
    (bias,) = [term for term in cell.terms if term.expression == "b"]
    assert cell.sections[bias.right.part].per_row
    assert cell.slots[1] == Source("output", 0, part=2)  # the gradient of x is a sum over rows


def test_sums_after_products_are_later() -> None:
    """One kernel of both takes LLVM half a minute."""
    cell = sections_of(Late)
    assert [one.per_row for one in cell.sections] == [False, True, False]
    assert "matmul" not in names_in(cell.sections[2].function)


def test_softmax_over_rows_is_reductions() -> None:
    cell = sections_of(Attention)
    assert [one.per_row for one in cell.sections][:2] == [True, False]
    assert all("nn.softmax" not in names_in(one.function) for one in cell.sections)


def test_rows_that_depend_on_others() -> None:
    cell = sections_of(SumsSoFar)
    (section,) = cell.sections
    assert section.per_row
    assert [param.name for param in section.function.params if param.name == ROW_NUMBER] == [ROW_NUMBER]
    assert all(read.every_row for read in section.reads if read.source.kind == "operand")


@pytest.mark.parametrize("module", [Gates, Late, Attention, SumsSoFar])
def test_gradients(module: Any) -> None:
    """Any numbers of rows, without compiling again: none, one, several, and the same value twice."""
    rng = np.random.default_rng(0)
    shapes = {"W": (K, K), "U": (K, K), "b": (K,)}
    names = [param.name for param in module["cell"].params]
    weights = {name: rng.standard_normal(shapes[name]).astype(np.float32) for name in names if name in shapes}
    model = eb.compile(module, weights, target="numpy", training=True)
    b = model.builder()
    rows = [rng.standard_normal(K).astype(np.float32) for _ in range(5)]
    others = [rng.standard_normal(K).astype(np.float32)] if len(names) - len(weights) == 2 else []
    first = [b.call("cell", rows[:count], *others) for count in (1, 2, 5)]
    top = b.call("cell", [first[0], first[0], first[1], first[2]], *others)
    outputs = [top, first[2]] if module is Attention else [top, first[2], b.call("cell", [], *others)]
    result = model([b.finish(outputs)])
    cotangents = {int(one): rng.standard_normal(K).astype(np.float32) for one in result.graph.outputs}
    gradients = result.backward(cotangents)
    expected, external = reference_gradients(module, weights, result.graph, cotangents)
    for name, right in expected.items():
        np.testing.assert_allclose(gradients[name], right, rtol=0, atol=1e-5 * np.abs(right).max(), err_msg=name)
    for found, right in zip(gradients.external, external, strict=True):
        np.testing.assert_allclose(found, right, rtol=0, atol=1e-5 * np.abs(right).max(initial=1))


@pytest.mark.slow
def test_paths_of_workloads() -> None:
    """Adjoints of cells that are stages are stages."""
    for name in ("lattice-gru", "childsum-tree"):
        workload = get_workload(name)
        model = eb.compile(workload.cells(8), workload.weights(8), training=True, database="none")
        result = model(workload.generate(1, model.cells, seed=0))
        result.backward([[np.ones_like(one) for one in result[0]]])
        assert set(model._backward.compiled.paths.values()) == {"stage"}

"""What forward cells save for their adjoints, and what adjoints do not compute again."""

from __future__ import annotations

from typing import Any

import pytest
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as Rx

from edbatch_tvm.models import WORKLOADS, get_workload
from relay_ext.bind_sizes import BindSizes, find_sizes
from relay_ext.gradients.adjoint_cells import adjoint_cells
from relay_ext.gradients.reverse import bindings_of
from relay_ext.gradients.rules import short_name
from relay_ext.pipeline import run_passes
from relay_ext.push_splits import PushSplits
from relay_ext.signature import output_vars, weight_params


@I.ir_module
class Gate:
    """The sigmoid, the tanh and the factor x are read again; of these only the first two come from products."""

    @Rx.function
    def gate(x: Rx.Tensor((4,), "float32"), W: Rx.Tensor((4, 4), "float32"), V: Rx.Tensor((4, 4), "float32")):
        Rx.func_attr({"num_input": 1})
        with Rx.dataflow():
            s = Rx.sigmoid(Rx.matmul(x, W))
            t = Rx.tanh(Rx.matmul(x, V))
            h = Rx.multiply(Rx.multiply(s, t), Rx.exp(x))
            Rx.output(h)
        return h


@I.ir_module
class Whole:
    """All that the adjoint reads is the output."""

    @Rx.function
    def step(x: Rx.Tensor((4,), "float32"), W: Rx.Tensor((4, 4), "float32")):
        Rx.func_attr({"num_input": 1})
        with Rx.dataflow():
            h = Rx.tanh(Rx.matmul(x, W))
            Rx.output(h)
        return h


@I.ir_module
class Rows:
    """A value with a row for each variadic row cannot be an output: it is computed again."""

    @Rx.function
    def join(xs: Rx.Tensor(("k", 4), "float32"), W: Rx.Tensor((4, 4), "float32")):
        Rx.func_attr({"num_input": 1})
        with Rx.dataflow():
            h = Rx.sum(Rx.sigmoid(Rx.matmul(xs, W)), axis=[0])
            Rx.output(h)
        return h


def operators(function: Any) -> list[str]:
    return [short_name(value) for _, value in bindings_of(function) if isinstance(value, relax.Call)]


def test_results_of_products_are_saved() -> None:
    gate = adjoint_cells(Gate).cells["gate"]
    assert [str(one.ty.shape) for one in output_vars(gate.forward)] == ["R.shape([4])"] * 3
    assert (gate.outputs, gate.values) == (1, (1, 2))
    found = operators(gate.function)
    assert "sigmoid" not in found
    assert "tanh" not in found
    assert found.count("matmul") == 2  # of the gradient of x
    assert "exp" in found  # cheaper than a value that is kept


def test_an_output_is_read_where_it_lies() -> None:
    step = adjoint_cells(Whole).cells["step"]
    assert (len(output_vars(step.forward)), step.outputs, step.values) == (1, 1, (0,))
    assert step.forward.same_as(Whole["step"])


def test_rows_are_computed_again() -> None:
    join = adjoint_cells(Rows).cells["join"]
    assert (len(output_vars(join.forward)), join.values) == (1, ())
    assert "sigmoid" in operators(join.function)


def test_without_saving() -> None:
    gate = adjoint_cells(Gate, save=False).cells["gate"]
    assert (len(output_vars(gate.forward)), gate.values) == (1, ())
    assert operators(gate.function).count("matmul") == 4


@pytest.mark.parametrize("name", WORKLOADS)
def test_no_product_is_computed_twice(name: str) -> None:
    """The products of an adjoint are those of gradients: their right sides are transposed weights, or no weights."""
    workload = get_workload(name)
    cells = workload.cells(8)
    module = run_passes(cells, [BindSizes(find_sizes(cells, workload.weights(8))), PushSplits()])
    for cell, adjoint in adjoint_cells(module).cells.items():
        weights = set(weight_params(adjoint.function))
        again = [
            value
            for variable, value in bindings_of(adjoint.function)
            if isinstance(value, relax.Call) and short_name(value) == "matmul" and value.args[1] in weights
        ]
        rows = [value for value in again if len(value.args[0].ty.shape.values) > 1]
        assert again == rows, cell

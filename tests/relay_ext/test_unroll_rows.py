"""Adjoints of variadic cells for a number of rows: row by row where every operator has a form for one row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tvm import IRModule, relax
from tvm.script import ir as I
from tvm.script import relax as Rx

import edbatch_tvm as eb
from edbatch_tvm.models import get_workload
from edbatch_tvm.training.backward_cells import backward_cell
from relay_ext.gradients.adjoint_cells import adjoint_cells
from relay_ext.gradients.reverse import bindings_of
from relay_ext.gradients.rules import short_name
from relay_ext.signature import output_vars, signature_of


@I.ir_module
class Weighted:
    @Rx.function
    def cell(hs: Rx.Tensor(("k", 4), "float32"), x: Rx.Tensor((4,), "float32"), v: Rx.Tensor((4,), "float32")):
        Rx.func_attr({"num_input": 2})
        with Rx.dataflow():
            parts = Rx.multiply(Rx.sigmoid(Rx.multiply(hs, v)), x)
            y = Rx.add(Rx.mean(parts, axis=[0]), Rx.max(hs, axis=[0]))
            Rx.output(y)
        return y


@I.ir_module
class Product:
    @Rx.function
    def cell(hs: Rx.Tensor(("k", 4), "float32"), W: Rx.Tensor((4, 4), "float32")):
        Rx.func_attr({"num_input": 1})
        with Rx.dataflow():
            y = Rx.sum(Rx.sigmoid(Rx.matmul(hs, W)), axis=[0])
            Rx.output(y)
        return y


def adjoint(module: IRModule, rows: int) -> Any:
    return backward_cell(signature_of(module)["cell"], adjoint_cells(module).cells["cell"], rows)


@pytest.mark.parametrize("rows", [1, 3])
def test_rows_one_by_one(rows: int) -> None:
    cell = adjoint(Weighted, rows)
    calls = [(v, short_name(value)) for v, value in bindings_of(cell.function) if isinstance(value, relax.Call)]
    assert {name for variable, name in calls if variable.ty.ndim > 1} <= {"expand_dims"}  # of one row
    assert len(cell.slots) == rows + 1  # a gradient of each row, and of x
    assert len(set(cell.slots[:rows])) == rows
    assert all(len(one.ty.shape.values) == 1 for one in output_vars(cell.function))


def test_many_rows_are_a_matrix() -> None:
    assert "stack" in str(adjoint(Weighted, 9).function)


def test_products_of_rows_are_a_matrix() -> None:
    cell = adjoint(Product, 2)
    assert "stack" in str(cell.function)
    assert len(cell.slots) == 2


def test_paths_of_a_workload() -> None:
    """Stages, but for the cell with a product of rows."""
    workload = get_workload("lattice-gru")
    model = eb.compile(workload.cells(8), workload.weights(8), training=True, database="none")
    result = model(workload.generate(1, model.cells, seed=0))
    result.backward([[np.ones_like(one) for one in result[0]]])
    paths = model._backward.kinds.model.paths
    assert {path for name, path in paths.items() if name.startswith("join_adjoint")} == {"stage"}

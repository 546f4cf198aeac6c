"""The table of operators agrees with TVM and with the passes that read it."""

from __future__ import annotations

import inspect
from functools import reduce
from typing import Any

import numpy as np
import pytest
import tvm
from tvm import relax

from relay_ext import row_ops
from relay_ext.op_table import ELEMENTWISE, OPS, Op, OpKind


def builder(op: Op) -> Any:
    return reduce(getattr, op.name.split("."), relax.op)


@pytest.mark.parametrize("op", OPS.values(), ids=list(OPS))
def test_tvm_has_the_operator(op: Op) -> None:
    assert tvm.ir.Op.get(f"relax.{op.name}").name == f"relax.{op.name}"
    required = [p for p in inspect.signature(builder(op)).parameters.values() if p.default is p.empty]
    assert len(required) >= op.tensors


def test_operators_that_map_rows_have_a_form() -> None:
    assert {f"relax.{op.name}" for op in OPS.values() if op.maps_rows} == ELEMENTWISE | row_ops.FORMS.keys()


@pytest.mark.parametrize("op", [op for op in OPS.values() if op.kind is OpKind.ELEMENTWISE], ids=lambda op: op.name)
def test_element_wise_operators_keep_the_shape(op: Op) -> None:
    tensors = [relax.Var(f"x{i}", relax.TensorType((3, 4), "float32")) for i in range(op.tensors)]
    limits = (-1.0, 1.0) if op.name == "clip" else ()
    call = relax.BlockBuilder().normalize(builder(op)(*tensors, *limits))
    assert list(map(int, call.ty.shape.values)) == [3, 4]


@pytest.mark.parametrize("op", [op for op in OPS.values() if op.keeps_order], ids=lambda op: op.name)
def test_ordered_views_keep_the_number_of_elements(op: Op) -> None:
    x = relax.Var("x", relax.TensorType((1, 3, 4), "float32"))
    more: tuple[Any, ...] = {"reshape": ((4, 3),), "expand_dims": (0,), "squeeze": ([0],)}.get(op.name, ())
    call = relax.BlockBuilder().normalize(builder(op)(x, *more))
    assert np.prod([int(extent) for extent in call.ty.shape.values]) == 12

"""Functions of functions are computed one after the other: else code generation takes hours."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import tvm
from torch import nn

import edbatch_tvm as eb
from edbatch_tvm.tvm_compat import script_tirx as T
from schedules.cpu.nested_functions import NestedFunctionsFirst


def transformed(function: Any) -> Any:
    return NestedFunctionsFirst()(tvm.IRModule({"main": function}))["main"]


def test_what_functions_are_computed_of() -> None:
    @T.prim_func(private=True)
    def before(x_: T.handle, y_: T.handle):
        x = T.match_buffer(x_, (16,))
        y = T.match_buffer(y_, (16,))
        for v in T.vectorized(16):
            y[v] = T.exp(T.tanh(x[v]) * T.float32(2)) + T.max(x[v], T.tanh(x[v]) * T.float32(2))
        for v in range(16):
            y[v] = T.tanh(T.sigmoid(T.exp(x[v])))

    @T.prim_func(private=True)
    def expected(x_: T.handle, y_: T.handle):
        x = T.match_buffer(x_, (16,))
        y = T.match_buffer(y_, (16,))
        inner = T.alloc_buffer((16,))
        for v in T.vectorized(16):
            inner[v] = T.tanh(x[v]) * T.float32(2)
            y[v] = T.exp(inner[v]) + T.max(x[v], inner[v])
        for v in range(16):
            first = T.alloc_buffer((1,))
            second = T.alloc_buffer((1,))
            first[0] = T.exp(x[v])
            second[0] = T.sigmoid(first[0])
            y[v] = T.tanh(second[0])

    tvm.ir.assert_structural_equal(transformed(before), expected)


def test_what_stays() -> None:
    @T.prim_func(private=True)
    def function(x_: T.handle, y_: T.handle, n: T.int32):
        x = T.match_buffer(x_, (16,))
        y = T.match_buffer(y_, (16,))
        for v in T.vectorized(16):
            y[v] = T.exp(x[v]) * T.tanh(x[v] + x[T.max(n, 0)])  # no function of a function of floats
        for v in T.vectorized(16):
            y[v] = T.if_then_else(n < 16, T.exp(T.exp(x[n])), T.float32(0))
        for v in T.vectorized(16):
            y[v] = T.Select(n < 16, T.max(T.exp(x[n]), T.float32(1)), T.float32(0))

    tvm.ir.assert_structural_equal(transformed(function), function)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"fast_math": False},
        pytest.param({"dtype": "float64"}, marks=pytest.mark.slow),
        pytest.param({"granularity": "op"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_deep_cells_compile(options: dict[str, Any]) -> None:
    class Cell(nn.Module):
        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            maxima = F.smooth_l1_loss(rows, rows * 0.5, reduction="none").view(-1, 2, 2).amax(-2)
            x = torch.pow(maxima.abs() + 0.5, maxima.clamp(-2, 2))
            for _ in range(2):
                x = torch.tanh(torch.maximum(x, x.exp() * 0.25).sigmoid().clamp(0.1, 0.9))
            return x.sum(0)

    rows = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    model = eb.compile(*eb.cells_from_torch({"cell": Cell()}, {"cell": (rows,)}, {"cell": ["rows"]}), **options)
    builder = model.builder()
    (found,) = model([builder.finish(builder.call("cell", list(rows.numpy().astype(options.get("dtype", "float32")))))])
    np.testing.assert_allclose(found, Cell()(rows.double()), rtol=1e-6)

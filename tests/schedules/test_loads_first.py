"""What functions are computed of is loaded first: else code generation takes minutes (``docs/tvm-notes.md``)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import tvm
from torch import nn

import edbatch_tvm as eb
from edbatch_tvm.tvm_compat import script_tirx as T
from schedules.cpu.loads_first import with_loads_first


def test_loads_of_functions() -> None:
    @T.prim_func(private=True)
    def before(row: T.int32, arena_: T.handle, y_: T.handle):
        arena = T.match_buffer(arena_, (9, 32))
        y = T.match_buffer(y_, (16,))
        own = T.alloc_buffer((16,))
        for v in T.vectorized(16):
            own[v] = arena[row, v]
        for v in T.vectorized(16):
            y[v] = (
                T.tanh(arena[row, v + 16]) * T.exp(arena[row, v + 16] - arena[row, 0]) + T.tanh(own[v]) * arena[row, v]
            )

    @T.prim_func(private=True)
    def expected(row: T.int32, arena_: T.handle, y_: T.handle):
        arena = T.match_buffer(arena_, (9, 32))
        y = T.match_buffer(y_, (16,))
        own = T.alloc_buffer((16,))
        for v in T.vectorized(16):
            own[v] = arena[row, v]
        loaded = T.alloc_buffer((16,))
        first = T.alloc_buffer((16,))
        for v in T.vectorized(16):
            loaded[v] = arena[row, v + 16]
            first[v] = arena[row, 0]
            y[v] = T.tanh(loaded[v]) * T.exp(loaded[v] - first[v]) + T.tanh(own[v]) * arena[row, v]

    found = before.with_body(with_loads_first(before.body))
    tvm.ir.assert_structural_equal(found, expected)


def test_loads_that_a_condition_guards_stay() -> None:
    @T.prim_func(private=True)
    def guarded(row: T.int32, arena_: T.handle, y_: T.handle):
        arena = T.match_buffer(arena_, (9, 32))
        y = T.match_buffer(y_, (16,))
        for v in T.vectorized(16):
            y[v] = T.tanh(T.if_then_else(row < 9, arena[row, v], T.float32(0)))
        for v in T.vectorized(16):
            y[v] = T.if_then_else(row < 9, T.tanh(arena[row, v]), T.float32(0))
        for v in T.vectorized(16):
            y[v] = T.Select(row < 9, T.exp(arena[row, v]), T.float32(0))

    tvm.ir.assert_structural_equal(with_loads_first(guarded.body), guarded.body)


@pytest.mark.parametrize(
    "function",
    [torch.tanh, torch.sigmoid, torch.exp, torch.erf, nn.functional.gelu, torch.log1p],
    ids=lambda one: one.__name__,
)
def test_functions_of_operands_beside_products(function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 8)

        def forward(self, e: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
            return function(e) + self.linear(c)

    torch.manual_seed(0)
    cell, e, c = Cell(), torch.rand(3, 8), torch.randn(3, 8)
    model = eb.compile(*eb.cells_from_torch({"cell": cell}, {"cell": (e[:1], c[:1])}))
    builder = model.builder()
    rows = [builder.call("cell", e[row : row + 1].numpy(), c[row : row + 1].numpy()) for row in range(3)]
    (found,) = model([builder.finish(rows)])
    wanted = cell.double()(e.double(), c.double())
    torch.testing.assert_close(torch.tensor(np.concatenate(found)).double(), wanted, rtol=1e-5, atol=1e-5)

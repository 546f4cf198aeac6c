"""Reductions over variadic rows: which lines they need first, and that the chunks of a tile share their loops."""

from __future__ import annotations

from typing import Any

import pytest
from tvm import tirx
from tvm.script import ir as I
from tvm.script import relax as R

from edbatch_tvm.tvm_compat import structural_walk
from relay_ext.pipeline import cell_passes, kernel_passes, run_passes
from relay_ext.signature import signature_of
from schedules import stage as ir
from schedules.cpu.machine import AVX512
from schedules.cpu.variadic_reductions import reductions_first

H = 64


@I.ir_module
class Cells:
    @R.function
    def total(h: R.Tensor(("k", H), "float32")):
        R.func_attr({"num_input": 1})
        y = R.tanh(R.sum(h, axis=0))
        return y

    @R.function
    def gated(x: R.Tensor((H,), "float32"), h: R.Tensor(("k", H), "float32"), W: R.Tensor((H, H), "float32")):
        R.func_attr({"num_input": 2})
        with R.dataflow():
            gate = R.sigmoid(R.matmul(x, W))
            y = R.add(R.sum(R.multiply(h, gate), axis=0), R.max(h, axis=0))
            R.output(y)
        return y


@pytest.mark.parametrize(("cell", "loops"), [("total", 1), ("gated", 2)])
def test_a_tile_reads_variadic_rows_once_for_all_chunks(cell: str, loops: int) -> None:
    passes = [*cell_passes(), *kernel_passes(signature_of(Cells), AVX512)]
    functions = run_passes(Cells, passes).functions.items()
    found: list[Any] = []
    for kernel in (one for var, one in functions if str(var.name_hint).startswith(cell)):
        structural_walk(kernel, (tirx.For, found.append))
    of_rows = [_stores(loop) for loop in found if _is_of_rows(loop)]
    assert of_rows == [H // AVX512.lanes] * loops


def _is_of_rows(loop: Any) -> bool:
    """Whether a loop runs over the variadic rows of an instance."""
    return isinstance(loop.extent, tirx.Var) and loop.extent.name == "k"


def _stores(loop: Any) -> int:
    """The chunks that a loop adds to."""
    found: list[Any] = []
    structural_walk(loop.body, (tirx.BufferStore, found.append))
    return len(found)


def test_what_reductions_read_comes_first() -> None:
    a, b, c, d, e, x = (tirx.Var(name, "float32") for name in "abcdex")
    gate, unused, total = ir.Let(a, x + x), ir.Let(b, x * x), ir.Reduction(c, a * x)
    late, last = ir.Let(d, c + b), ir.Reduction(e, x, "max", -1.0)
    assert reductions_first([gate, unused, total, late, last]) == ([gate, total, last], [unused, late])
    assert reductions_first([gate, unused]) == ([], [gate, unused])

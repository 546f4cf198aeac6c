"""The rate of fused multiply-adds that this machine reaches: a small matrix product out of the first-level caches.

The machine's own limit, beside the speed of the matrix product in a library
(:mod:`edbatch_tvm.benchmarking.matmul_peak`): a library can stay far below it on a processor that it was not tuned for.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from time import perf_counter
from typing import Any

import numpy as np
import tvm
from tvm.script.ir_builder import IRBuilder

from edbatch_tvm.runtime.threads import prepare_threads, use_threads
from edbatch_tvm.tvm_compat import builder_tirx as T
from edbatch_tvm.tvm_compat import runtime, tirx
from schedules.cpu.machine import Machine, host_target, machine_of
from schedules.cpu.tir_pipeline import KERNEL_PIPELINE

INNER = 128
"""Extent that is summed over: a strip of weights, 4 vectors wide, then takes at most 32 KiB."""

ROUNDS = 8192
"""Tiles that one call computes, a few milliseconds of work."""

REPEATS = 11


def fma_gflops(repeats: int = REPEATS, clock: Callable[[], float] = perf_counter) -> float:
    """GFLOP/s of fused multiply-adds on float32, all threads, operands in the first-level caches; best of `repeats`."""
    kernel, flops, arguments = _prepared()
    use_threads()
    best = float("inf")
    for _ in range(repeats + 1):  # the first one also warms up, and may count
        begin = clock()
        kernel(*arguments)
        best = min(best, clock() - begin)
    return flops / best / 1e9


@cache
def _prepared() -> tuple[Any, int, tuple[Any, ...]]:
    prepare_threads()
    target = host_target()
    machine = machine_of(target)
    rows, vectors = _tile(machine)
    columns = vectors * machine.lanes
    library = tvm.compile(
        tvm.IRModule({"fma": _kernel(machine, rows, vectors)}), target=target, tir_pipeline=KERNEL_PIPELINE
    )
    rng = np.random.default_rng(0)
    left = runtime.tensor(rng.random((rows, INNER), np.float32))
    right = runtime.tensor(rng.random((INNER, columns), np.float32))
    out = runtime.empty((ROUNDS, rows * columns), "float32")
    return library["fma"], 2 * ROUNDS * rows * columns * INNER, (left, right, out)


def _tile(machine: Machine) -> tuple[int, int]:
    """Rows and vectors of accumulators: as many as registers hold beside a row of weights and one spare."""
    vectors = 4 if machine.registers >= 32 else 2
    return (machine.registers - machine.reserved - vectors) // vectors, vectors


def _kernel(machine: Machine, rows: int, vectors: int) -> tirx.PrimFunc:
    """``out[round] = left @ right``, the same product in every round, accumulators in registers."""
    lanes = machine.lanes
    with IRBuilder() as builder, T.prim_func():
        T.func_name("fma")
        left = T.arg("left", T.buffer((rows, INNER), "float32", align=64))
        right = T.arg("right", T.buffer((INNER, vectors * lanes), "float32", align=64))
        out = T.arg("out", T.buffer((ROUNDS, rows * vectors * lanes), "float32", align=64))
        T.func_attr({"global_symbol": "fma", "tirx.noalias": True})
        with T.parallel(0, ROUNDS) as turn:
            sums = [T.alloc_buffer((rows * lanes,), "float32", scope="global") for _ in range(vectors)]
            spans = [tirx.Ramp(row * lanes, 1, lanes) for row in range(rows)]
            for one in sums:
                for span in spans:
                    T.buffer_store(one, tirx.Broadcast(tirx.const(0, "float32"), lanes), [span])
            with T.serial(0, INNER) as k:
                for row, span in enumerate(spans):
                    x = tirx.Broadcast(left[row, k], lanes)
                    for number, one in enumerate(sums):
                        weight = right[k, tirx.Ramp(number * lanes, 1, lanes)]
                        T.buffer_store(one, one[span] + x * weight, [span])
            for number, one in enumerate(sums):
                for row, span in enumerate(spans):
                    to = tirx.Ramp((number * rows + row) * lanes, 1, lanes)
                    T.buffer_store(out, one[span], [turn, to])
    return builder.get()

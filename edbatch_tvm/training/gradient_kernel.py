"""The compiled kernels of weight gradients with NumPy arrays; see :mod:`schedules.cpu.weight_gradients`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import tvm

from edbatch_tvm.fork_lock import fork_lock
from edbatch_tvm.native.build import kept_library, library_path
from edbatch_tvm.runtime.threads import prepare_threads, use_threads
from edbatch_tvm.training.weight_sums import distinct_starts, rising_order
from edbatch_tvm.tvm_compat import runtime
from relay_ext.parallel_kernel import parallel_kernel
from schedules.cpu.machine import host_target, machine_of
from schedules.cpu.tir_pipeline import KERNEL_PIPELINE
from schedules.cpu.weight_gradients import Tiles, tiles_of, weight_gradients
from schedules.cpu.work_sharing import ROW, sharing_ir

SOURCES = (
    "build.py",
    "../tvm_compat.py",
    "../training/gradient_kernel.py",
    "../../relay_ext/parallel_kernel.py",
    "../../relay_ext/parallel_region.py",
    "../../relay_ext/workshare_loops.py",
    "../../schedules/cpu/machine.py",
    "../../schedules/cpu/tir_pipeline.py",
    "../../schedules/cpu/weight_gradients.py",
    "../../schedules/cpu/work_sharing.py",
)
"""Files of this project that the kernels are made from, seen from ``edbatch_tvm/native``."""

SINGLE_MULTIPLIES = 2_000_000
"""Fewer multiplications run in the caller's thread alone: waking another one costs as much."""


@dataclass(frozen=True, eq=False)
class GradientTables:
    """What the kernel computes: its tables, as :mod:`schedules.cpu.weight_gradients` has them.

    Attributes
    ----------
    rows, steps, vectors, segments, tables : int64 array
        None is empty: TVM refuses the null pointer that an empty array may have.
    room : int
        Elements of the workspace.
    multiplies : int
        Of all products together.
    """

    rows: np.ndarray
    steps: np.ndarray
    vectors: np.ndarray
    segments: np.ndarray
    tables: np.ndarray
    room: int
    multiplies: int


class GradientKernel:
    """The kernel for one dtype.

    Attributes
    ----------
    tiles : Tiles
        How it cuts products.
    """

    def __init__(self, dtype: str) -> None:
        prepare_threads()
        target = host_target()
        self.dtype = dtype
        self.tiles: Tiles = tiles_of(machine_of(target), dtype)
        self._run = _library(target, dtype)["weight_gradients"]
        self._lock = fork_lock()
        self._work: Any = None
        self._board: Any = None

    def run(self, tables: GradientTables) -> None:
        """Compute what the tables say."""
        threads = use_threads()
        with self._lock:  # a concurrent call gets memory of its own
            work, self._work = self._work, None
            board, self._board = self._board, None
        if work is None or work.shape[0] < tables.room:
            work = runtime.empty((tables.room,), self.dtype)
        if board is None or board.shape[0] < (1 + threads) * ROW:
            board = runtime.empty(((1 + threads) * ROW,), "int64")
        tasks = threads if tables.multiplies >= SINGLE_MULTIPLIES else 1
        self._run(tasks, board, tables.rows, tables.steps, tables.vectors, tables.segments, tables.tables, work)
        with self._lock:
            self._work, self._board = work, board

    def sum_rows(self, index: np.ndarray, memory: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows of one number added up, in their order: the numbers, rising, and the sum of each.

        Parameters
        ----------
        index : int array of shape [m]
            Numbers of 0 or more, of at least one row.
        memory : array of shape ``[any, width]``
        rows : int64 array of shape [m]
            Of the memory.
        """
        order = rising_order(index)
        index = index[order]
        starts = distinct_starts(index)
        out = np.empty((len(starts), memory.shape[1]), self.dtype)
        addresses = rows[order] * memory.strides[0] + memory.__array_interface__["data"][0]
        table = np.array([[len(starts), 0, out.shape[1], out.__array_interface__["data"][0], out.strides[0]]])
        steps, vectors = np.zeros((1, 5), np.int64), np.zeros((1, 8), np.int64)  # of no products
        self.run(GradientTables(addresses, steps, vectors, np.append(starts, len(index)), table, 1, 0))
        return index[starts], out


class GradientKernels:
    """The kernels of all dtypes, each built on first use."""

    def __init__(self) -> None:
        self._kernels: dict[str, GradientKernel] = {}
        self.of("float32")

    def of(self, dtype: str) -> GradientKernel:
        """The kernel of a dtype."""
        found = self._kernels.get(dtype)
        if found is None:
            found = self._kernels[dtype] = GradientKernel(dtype)
        return found


def load() -> GradientKernels:
    """The kernels, built if this machine has none yet.

    Raises
    ------
    RuntimeError
        If they cannot be compiled.
    """
    return GradientKernels()


def _library(target: Any, dtype: str) -> Any:
    """The library of a dtype."""
    path = library_path(f"gradients-{dtype}", SOURCES)
    return kept_library(path, partial(compiled, target, dtype))


def compiled(target: Any, dtype: str) -> Any:
    """The kernel of a dtype, compiled for a target."""
    kernel = weight_gradients(machine_of(target), dtype)
    return tvm.compile(parallel_kernel(kernel, sharing_ir(target)), target=target, tir_pipeline=KERNEL_PIPELINE)

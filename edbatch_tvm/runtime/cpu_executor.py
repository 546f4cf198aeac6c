"""Running plans on the CPU: arenas, scratch rows and one call of the compiled program."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import numpy as np

from edbatch_tvm.batching import ScheduleInfo
from edbatch_tvm.fork_lock import fork_lock
from edbatch_tvm.graph import InstanceGraph, Signature
from edbatch_tvm.memory import Plan
from edbatch_tvm.runtime.arenas import ArenaPool, ArenaSet
from edbatch_tvm.runtime.artifact import Artifact
from edbatch_tvm.runtime.kernels import KernelSet
from edbatch_tvm.runtime.program import Program
from edbatch_tvm.runtime.report import Report
from edbatch_tvm.runtime.result import Result
from edbatch_tvm.runtime.run_tables import RunTables, tables_of
from edbatch_tvm.runtime.storage import held
from edbatch_tvm.runtime.threads import get_num_threads
from edbatch_tvm.tvm_compat import runtime


class CpuExecutor:
    """See :class:`~edbatch_tvm.runtime.executor.Executor`.

    Parameters
    ----------
    signature : Signature
        Of the graphs that are run.
    kernels : KernelSet
    artifact : Artifact
        What `kernels` came from.
    """

    tuning_key = ""

    def __init__(self, signature: Signature, kernels: KernelSet, artifact: Artifact | None = None) -> None:
        self.kernels = kernels
        self.artifact = artifact
        self.paths = kernels.paths
        self.kernel_names = {cell: tuple(one.name for one in ones) for cell, ones in kernels.by_cell.items()}
        self.fused = not kernels.gathers
        self._signature = signature
        self.program = Program(signature, kernels)
        self._pool = ArenaPool(signature.value_specs, storage=kernels.storage)
        self._scratch: dict[str, Any] = {}
        self._lock = fork_lock()

    @property
    def threads(self) -> int:
        """See :class:`~edbatch_tvm.runtime.executor.Executor`."""
        return get_num_threads()

    def load(self, weights: Mapping[str, np.ndarray], rows: Mapping[str, np.ndarray] = MappingProxyType({})) -> None:
        """See :meth:`~edbatch_tvm.runtime.executor.Executor.load`."""
        self.kernels.load(weights, rows)

    def held(self) -> dict[str, np.ndarray]:
        """See :meth:`~edbatch_tvm.runtime.executor.Executor.held`."""
        return self.kernels.held()

    def run(
        self,
        graph: InstanceGraph,
        plan: Plan,
        info: ScheduleInfo | None = None,
        given: Mapping[int, np.ndarray] = MappingProxyType({}),
    ) -> Result:
        """See :meth:`~edbatch_tvm.runtime.executor.Executor.run`.

        Parameters
        ----------
        given : mapping of int to array
            Arenas of the caller to run in, by their number. They have room for the plan, and the external rows.
        """
        views, calls = self.run_tables(tables_of(graph, plan), graph.external_data, given)
        report = Report(graph, plan, info, self.paths, calls, self.kernels.stored)
        return Result(graph, plan, report, views, self.kernels.storage)

    def run_tables(
        self,
        tables: RunTables,
        external: Sequence[np.ndarray],
        given: Mapping[int, np.ndarray] = MappingProxyType({}),
    ) -> tuple[list[np.ndarray], Callable[[], int]]:
        """Run a schedule; its arenas, and a function that counts the kernels that ran.

        Parameters
        ----------
        tables : RunTables
        external : sequence of array
            The external rows of each arena.
        given : mapping of int to array
            See :meth:`run`.
        """
        arenas = self._pool.acquire([0 if number in given else need for number, need in enumerate(tables.arena_rows)])
        try:
            self._place_external(external, arenas, given)
            threads = get_num_threads()  # once: another thread may set it
            with self._lock:
                scratch = self._take_scratch(tables, threads)
            tensors = [given.get(number, tensor) for number, tensor in enumerate(arenas.tensors)]
            calls = self.program.run(tables, tensors, scratch, threads)
            with self._lock:
                self._scratch = scratch
        except BaseException:
            self._pool.release(arenas)
            raise
        return [given.get(number, view) for number, view in enumerate(self._pool.lease(arenas))], calls

    def make_room(self, arena: int, factor: float) -> None:
        """Give an arena at least `factor` times the rows that plans need, from now on."""
        self._pool.make_room(arena, factor)

    @contextmanager
    def parts(self, graph: InstanceGraph, plan: Plan) -> Iterator[Callable[[int, int], None]]:
        """See :meth:`~edbatch_tvm.runtime.executor.Executor.parts`."""
        arenas, tables = self._pool.acquire(plan.arena_rows), tables_of(graph, plan)
        try:
            self._place_external(graph.external_data, arenas)
            with self._lock:
                scratch = self._take_scratch(tables, 1)
            yield self.program.parts(tables, arenas.tensors, scratch)
            with self._lock:
                self._scratch = scratch
        finally:
            self._pool.release(arenas)

    def _place_external(
        self, external: Sequence[np.ndarray], arenas: ArenaSet, but: Container[int] = frozenset()
    ) -> None:
        """Copy the external rows into all arenas but some."""
        for arena, rows in enumerate(external):
            if len(rows) and arena not in but:
                size = self._signature.value_specs[arena].size
                stored = held(rows.reshape(len(rows), size), self.kernels.storage)
                arenas.views[arena][1 : 1 + len(rows), :size] = stored

    def _take_scratch(self, tables: RunTables, shares: int) -> dict[str, Any]:
        """Workspace for the values that pass from stage to stage, of each share; a concurrent call gets its own."""
        scratch, self._scratch = self._scratch, {}
        for domain, widths in self.kernels.scratch_width.items():
            if not widths:
                continue
            rows = shares * (tables.largest_batch if domain == "instances" else tables.largest_rows)
            for name, width in widths.items():
                if name not in scratch or scratch[name].shape[0] < rows:
                    scratch[name] = runtime.empty((rows, width), self.kernels.scratch_dtype[name])
        return scratch

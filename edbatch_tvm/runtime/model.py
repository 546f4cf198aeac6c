"""A compiled model: merge instances, schedule, plan, run."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Any

import numpy as np
import tvm

from edbatch_tvm.batching import Policy, Schedule, ScheduleInfo, as_policy, choose_policy
from edbatch_tvm.batching import schedule as schedule_graph
from edbatch_tvm.batching.api import PolicyLike
from edbatch_tvm.batching.structure import same_rows
from edbatch_tvm.errors import GraphError, PlanError, TargetError
from edbatch_tvm.fork_lock import fork_lock
from edbatch_tvm.graph import Builder, InstanceGraph, Signature, merge, require_checked, validate
from edbatch_tvm.graph.expand import Expansion, ExpansionTable, expand
from edbatch_tvm.graph.merge import merge_again
from edbatch_tvm.graph.spec import first_difference
from edbatch_tvm.memory import Plan, plan_memory
from edbatch_tvm.memory.gathers import GatheredPlan, gather_operands
from edbatch_tvm.runtime.arenas import ArenaPool, ArenaSet
from edbatch_tvm.runtime.device import DeviceKernels
from edbatch_tvm.runtime.kernels import KernelSet
from edbatch_tvm.runtime.program import Program
from edbatch_tvm.runtime.report import Report
from edbatch_tvm.runtime.result import Result
from edbatch_tvm.runtime.threads import forked

_CACHED_PLANS = 64


class Model:
    """Cells compiled for a target, ready to run instances.

    Made by :func:`edbatch_tvm.compile`. ``model(instances)`` does everything; :meth:`merge`, :meth:`schedule`,
    :meth:`plan` and :meth:`execute` are its steps.

    Attributes
    ----------
    signature : Signature
        What minibatch graphs consist of: the cells, or at granularity ``op`` their ops.
    cells : Signature
        What instances consist of.
    target : str
    compile_seconds : float
    plan_name : str
    paths : dict
        For each cell, how it is run: ``stage``, or ``general (reason)``.
    source : tvm.IRModule or None
        The cells of `signature` as TVMScript functions, if they are known: for explanations.
    parts : edbatch_tvm.compiler.parts.Parts or None
        What it was compiled to, for :meth:`save`.
    """

    def __init__(
        self,
        signature: Signature,
        kernels: KernelSet | DeviceKernels,
        target: str,
        policy: PolicyLike,
        plan: str,
        compile_seconds: float,
        table: ExpansionTable | None = None,
        source: tvm.IRModule | None = None,
        read_weights: Callable[[Mapping[str, Any] | None], Mapping[str, np.ndarray] | None] | None = None,
        parts: Any = None,
    ) -> None:
        self.signature = signature
        self.source = source
        self.cells = signature if table is None else table.cells
        self._equal = self.cells
        self._table = table
        self.target = target
        self.plan_name = plan
        self.compile_seconds = compile_seconds
        self.paths = kernels.paths
        self._kernels: Any = kernels
        self._program = Program(signature, kernels) if isinstance(kernels, KernelSet) else None
        self._read_weights = read_weights
        self.parts = parts
        self.policy = policy
        self._pool = ArenaPool(signature.value_specs)
        self._scratch: dict[str, Any] = {}
        self._plans: OrderedDict[tuple[int, str], Plan] = OrderedDict()
        self._lock = fork_lock()
        self._refreshing = fork_lock()

    @property
    def policy(self) -> PolicyLike:
        """What schedules are made with: a name, a path, a policy or a function. Can be set."""
        return self._policy

    @policy.setter
    def policy(self, policy: PolicyLike) -> None:
        self._policy = policy
        auto = isinstance(policy, str) and policy == "auto"
        self._chosen = None if auto else as_policy(policy, self.signature.names)

    def __repr__(self) -> str:
        granularity = f", granularity={self.granularity!r}" if self._table is not None else ""
        return f"Model({self.cells!r}, target={self.target!r}, policy={self.policy!r}{granularity})"

    @property
    def granularity(self) -> str:
        """``cell`` or ``op``: what a node of a minibatch graph is."""
        return "cell" if self._table is None else "op"

    @property
    def kernel_names(self) -> dict[str, tuple[str, ...]]:
        """The kernels that each cell runs, in order."""
        return {cell: tuple(kernel.name for kernel in kernels) for cell, kernels in self._kernels.by_cell.items()}

    @property
    def settled_policy(self) -> Policy | None:
        """The policy in use; None for ``auto`` before the first minibatch."""
        return self._chosen

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to one file, for :func:`edbatch_tvm.load`; see :func:`edbatch_tvm.compiler.save_model`.

        The file has what kernels read at this moment, so that the loaded model computes what this one computes now.
        """
        from edbatch_tvm.compiler import save_model

        save_model(self, path)

    def held_weights(self) -> dict[str, np.ndarray]:
        """What the kernels of a model for a CPU read at this moment, by ``kind:name``; not copies."""
        held: dict[str, np.ndarray] = self._kernels.held()
        return held

    @property
    def tuning_key(self) -> str:
        """What tuned settings for a GPU are kept under; empty on a CPU."""
        return getattr(self._kernels, "tuning_key", "")

    def builder(self) -> Builder:
        """A builder for instances of this model."""
        return Builder(self.cells)

    def refresh(self, params: Mapping[str, Any] | None = None) -> None:
        """Take over weights that have changed, after a step of an optimizer for instance.

        The model computes with the weights that it read last, and :meth:`save` writes those. It reads them when it is
        compiled and here; the file, when it is loaded.

        Parameters
        ----------
        params : mapping of str to array, optional
            The new weights. Default: those given last, here or to :func:`edbatch_tvm.compile` or
            :func:`edbatch_tvm.load`, read again. A loaded model that was given none keeps those of its file.

        Raises
        ------
        WeightError
            If weights are missing, extra, or of another shape or dtype.
        """
        if self._read_weights is None:
            return
        with self._refreshing:
            weights = self._read_weights(params)
            if weights is not None:
                self._kernels.load(weights)

    def __call__(self, instances: Sequence[InstanceGraph]) -> Result:
        """Run `instances` as one minibatch.

        Raises
        ------
        GraphError
            If there are none, or one is not an instance of this model.
        """
        begin = perf_counter()
        graph = self.merge(instances)
        merged = perf_counter()
        schedule, info = self.schedule(graph)
        scheduled = perf_counter()
        plan = self.plan(graph, schedule, cache=True)
        planned = perf_counter()
        result = self.execute(graph, plan, info)
        end = perf_counter()
        result.report.seconds.update(
            build=merged - begin,
            schedule=scheduled - merged,
            plan=planned - scheduled,
            execute=end - planned,
            total=end - begin,
        )
        return result

    # Steps ------------------------------------------------------------------------------------------------------

    def merge(self, instances: Sequence[InstanceGraph]) -> InstanceGraph:
        """The minibatch graph of `instances`; at granularity ``op``, of their ops.

        Raises
        ------
        GraphError
            If there are none, or one is not an instance of this model.
        """
        graph = self.merge_cells(instances)
        return graph if self._table is None else self.expand(graph).graph

    def expand(self, graph: InstanceGraph) -> Expansion:
        """A graph of cells as what is scheduled and run at granularity ``op``; see :func:`edbatch_tvm.graph.expand`.

        Raises
        ------
        GraphError
            If cells are what this model runs.
        """
        if self._table is None:
            raise GraphError("expansion of a graph by a model of granularity 'cell'", "granularity 'op'")
        return expand(graph, self._table)

    def merge_cells(self, instances: Sequence[InstanceGraph]) -> InstanceGraph:
        """The disjoint union of `instances`, a graph of cells.

        Raises
        ------
        GraphError
            If there are none, or one is not an instance of this model.
        """
        if isinstance(instances, InstanceGraph):
            raise GraphError("one instance graph", "a list of instance graphs", "model([instance])")
        if not (hasattr(instances, "__len__") and hasattr(instances, "__getitem__")):
            raise GraphError(f"instances in a {type(instances).__name__}", "a list of instance graphs")
        merged = merge_again(instances)
        if merged is not None and self._has_cells(merged.signature):
            return merged
        for position, instance in enumerate(instances):
            if not isinstance(instance, InstanceGraph):
                raise GraphError(f"instance {position} is a {type(instance).__name__}", "an InstanceGraph")
            if instance.signature is not self._equal and not self._has_cells(instance.signature):
                given, expected = first_difference(instance.signature, self.cells)
                raise GraphError(
                    f"instance {position} was built for other cells: {given}",
                    f"{expected}, a cell of this model",
                    "use model.builder()",
                )
            if not instance.checked:
                validate(instance)
        return merge(instances)

    def _has_cells(self, signature: Signature | None) -> bool:
        """Whether `signature` is that of this model's instances: what was equal last is kept, comparing is slow."""
        if signature is self.cells or signature is self._equal:
            return True
        if signature is None or signature != self.cells:
            return False
        self._equal = signature
        return True

    def schedule(self, graph: InstanceGraph, cache: bool = True) -> tuple[Schedule, ScheduleInfo]:
        """Batches of a minibatch graph by the model's policy."""
        return schedule_graph(graph, self._settled_policy(graph), cache)

    def _settled_policy(self, graph: InstanceGraph) -> Policy:
        if self._chosen is None:
            self._chosen = choose_policy([graph], learn=False)
        return self._chosen

    def plan(self, graph: InstanceGraph, schedule: Schedule, cache: bool = False) -> Plan:
        """Where the values of `graph` lie; with `cache`, a plan made before for this structure and schedule will do.

        Raises
        ------
        GraphError, PolicyError
            If `graph` is not well formed, or `schedule` none of its schedules.
        """
        if not cache or len(graph.external_row):
            return self._new_plan(graph, schedule)
        key = id(schedule), self.plan_name
        with self._lock:
            found = self._plans.get(key)
        # A function may return one schedule for graphs that read other outputs.
        if found is not None and found.schedule is schedule and same_rows(graph, found.graph):
            return found
        plan = self._new_plan(graph, schedule)
        with self._lock:
            self._plans[key] = plan
            if len(self._plans) > _CACHED_PLANS:
                self._plans.popitem(last=False)
        return plan

    def _new_plan(self, graph: InstanceGraph, schedule: Schedule) -> Plan:
        plan = plan_memory(schedule, graph, self.plan_name)
        return plan if self.fused else gather_operands(plan, self.signature)

    @property
    def fused(self) -> bool:
        """Whether kernels read operands where they lie; False: separate kernels copy what is not contiguous."""
        return not self._kernels.gathers

    def execute(self, graph: InstanceGraph, plan: Plan, info: ScheduleInfo | None = None) -> Result:
        """Run the batches of the schedule that `plan` was made for; `info` goes into the report.

        Raises
        ------
        GraphError
            If `graph` does not consist of the cells that this model runs.
        PlanError
            If `plan` was made for another graph.
        TargetError
            If the model is on a GPU and this process was forked from another.
        """
        self._check(graph, plan)
        if isinstance(self._kernels, DeviceKernels):
            if self.target == "cuda" and forked():
                raise TargetError(
                    "a CUDA model in a forked process, which has no device",
                    "a process of its own",
                    'multiprocessing.get_context("spawn")',
                )
            return self._kernels.execute(graph, plan, info)
        arenas = self._pool.acquire(plan.arena_rows)
        try:
            self._place_external(graph, arenas)
            with self._lock:
                scratch = self._take_scratch(plan)
            assert self._program is not None
            calls = self._program.run(graph, plan, arenas, scratch)
            with self._lock:
                self._scratch = scratch
        except BaseException:
            self._pool.release(arenas)
            raise
        report = Report(graph, plan, info, self.paths, calls)
        return Result(graph, plan, report, self._pool.lease(arenas))

    def _check(self, graph: InstanceGraph, plan: Plan) -> None:
        require_checked(graph)
        known = self._table is None and self._has_cells(graph.signature)
        if not known and graph.signature is not self.signature and graph.signature != self.signature:
            given, expected = first_difference(graph.signature, self.signature)
            raise GraphError(
                f"a graph over other cells: {given}",
                f"{expected}, a cell of this model",
                "model.merge(instances) makes a graph that runs",
            )
        if not isinstance(plan, Plan) or not same_rows(graph, plan.graph):
            given = f"a plan of {plan.graph!r}" if isinstance(plan, Plan) else f"a {type(plan).__name__}"
            raise PlanError(f"{given} for {graph!r}", "a plan of this graph", "model.plan(graph, schedule) makes one")
        if isinstance(plan, GatheredPlan) == self.fused:
            raise PlanError(f"a {type(plan).__name__} for a model with fused={self.fused}", "a plan of model.plan()")

    def _place_external(self, graph: InstanceGraph, arenas: ArenaSet) -> None:
        for arena, rows in enumerate(graph.external_data):
            if len(rows):
                size = self.signature.value_specs[arena].size
                arenas.views[arena][1 : 1 + len(rows), :size] = rows.reshape(len(rows), size)

    def _take_scratch(self, plan: Plan) -> dict[str, Any]:
        """Workspace for the values that pass from stage to stage; a concurrent call gets its own."""
        scratch, self._scratch = self._scratch, {}
        for domain, widths in self._kernels.scratch_width.items():
            if not widths:
                continue
            rows = plan.largest_batch if domain == "instances" else plan.largest_rows
            for name, width in widths.items():
                if name not in scratch or scratch[name].shape[0] < rows:
                    scratch[name] = tvm.runtime.empty((rows, width), "float32")
        return scratch

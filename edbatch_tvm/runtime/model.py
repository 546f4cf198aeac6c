"""A compiled model: merge instances, schedule, plan, run."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from time import perf_counter
from types import MappingProxyType
from typing import Any

import numpy as np
import tvm

from edbatch_tvm.batching import Policy, Schedule, ScheduleInfo, as_policy, select_policy
from edbatch_tvm.batching import schedule as schedule_graph
from edbatch_tvm.batching.api import PolicyLike
from edbatch_tvm.batching.postorder import PostorderPolicy, fills_caches
from edbatch_tvm.errors import GraphError, ModelFileError
from edbatch_tvm.fork_lock import fork_lock
from edbatch_tvm.graph import Builder, InstanceGraph, Signature, require_checked
from edbatch_tvm.graph.expand import Expansion, ExpansionTable, expand
from edbatch_tvm.memory import Plan
from edbatch_tvm.runtime.equal_nodes import EqualNodesChoice, EqualNodesOption
from edbatch_tvm.runtime.executor import Executor
from edbatch_tvm.runtime.minibatch import Instances
from edbatch_tvm.runtime.one_call import OneCall
from edbatch_tvm.runtime.plan_cache import Plans
from edbatch_tvm.runtime.result import Result
from edbatch_tvm.runtime.stream import Prepared, results_of
from edbatch_tvm.runtime.weights import WeightReader

_LARGER_SAMPLE = 4
"""Policy ``auto`` selects again for a graph of more nodes than this many times the last sample's."""


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
    executor : Executor
        What runs plans: the kernels and their weights.
    target : str
    compile_seconds : float
    plan_name : str
    paths : dict
        For each cell, how it is run: ``stage``, or ``general (reason)``.
    kernel_names : dict
        The kernels that each cell runs, in order.
    fused : bool
        Whether kernels read operands where they lie; False: separate kernels copy what is not contiguous.
    source : tvm.IRModule or None
        The cells of `signature` as TVMScript functions, if they are known: for explanations.
    weights : WeightReader or None
        Where :meth:`refresh` reads.
    """

    trains = False

    def __init__(
        self,
        signature: Signature,
        executor: Executor,
        target: str,
        policy: PolicyLike,
        plan: str,
        compile_seconds: float,
        table: ExpansionTable | None = None,
        source: tvm.IRModule | None = None,
        weights: WeightReader | None = None,
        equal_nodes: EqualNodesOption = False,
    ) -> None:
        self.signature = signature
        self.executor = executor
        self.paths, self.kernel_names, self.fused = executor.paths, executor.kernel_names, executor.fused
        self.source = source
        self.cells = signature if table is None else table.cells
        self._table = table
        self.target = target
        self.plan_name = plan
        self.compile_seconds = compile_seconds
        self.weights = weights
        self.policy = policy
        self.equal_nodes = equal_nodes
        self._one_call = None if self.trains or table is not None else OneCall(self)
        self._instances = Instances(self.cells)
        self._plans = Plans(signature, executor.fused)
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
        self._selected_up_to = 0 if auto else math.inf

    @property
    def equal_nodes(self) -> EqualNodesOption:
        """Whether a call computes nodes of one cell with equal operands and attributes once. Can be set.

        ``"auto"`` does what is faster, by the first minibatches. Results have the same bits either way. The gradients
        of a model for training do not, where those of equal nodes are added: there ``"auto"`` is False.
        """
        return self._equal_nodes.option

    @equal_nodes.setter
    def equal_nodes(self, option: EqualNodesOption) -> None:
        self._equal_nodes = EqualNodesChoice(option, not self.trains)

    def __repr__(self) -> str:
        granularity = f", granularity={self.granularity!r}" if self._table is not None else ""
        return f"Model({self.cells!r}, target={self.target!r}, policy={self.policy!r}{granularity})"

    @property
    def granularity(self) -> str:
        """``cell`` or ``op``: what a node of a minibatch graph is."""
        return "cell" if self._table is None else "op"

    @property
    def resolved_policy(self) -> Policy | None:
        """The policy in use; None for ``auto`` before the first minibatch."""
        return self._chosen

    def __reduce_ex__(self, protocol: Any) -> Any:
        """A model has code and arenas of this process: neither pickles nor copies take them along."""
        raise ModelFileError("a compiled model in a pickle or a copy", "a file", "model.save(path), then eb.load(path)")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to one file, for :func:`edbatch_tvm.load`; see :func:`edbatch_tvm.compiler.save_model`.

        The file has what kernels read at this moment, so that the loaded model computes what this one computes now.
        """
        from edbatch_tvm.compiler import save_model

        save_model(self, path)

    def held_weights(self) -> dict[str, np.ndarray]:
        """What the kernels of a model for a CPU read at this moment, by ``kind:name``; not copies."""
        return self.executor.held()

    def builder(self) -> Builder:
        """A builder for instances of this model."""
        return Builder(self.cells)

    def refresh(
        self, params: Mapping[str, Any] | None = None, *, rows: Mapping[str, Any] = MappingProxyType({})
    ) -> None:
        """Take over weights that have changed, after a step of an optimizer for instance.

        The model computes with the weights that it read last, and :meth:`save` writes those. It reads them when it is
        compiled and here; the file, when it is loaded.

        Parameters
        ----------
        params : mapping of str to array, optional
            The new weights. Default: those given last, here or to :func:`edbatch_tvm.compile` or
            :func:`edbatch_tvm.load`, read again. A loaded model that was given none keeps those of its file.
        rows : mapping of str to array_like of int, optional
            For tables, the rows that have changed since they were read last, each once; no others are read. Default:
            all rows of all weights. A large table of which a minibatch changes few rows is taken over sooner so.

        Raises
        ------
        WeightError
            If weights are missing, extra, or of another shape or dtype, or if `rows` has no rows of a weight.
        """
        if self.weights is None:
            return
        with self._refreshing:
            changed = self.weights.changed(rows)
            weights = self.weights.read(params)
            if weights is not None:
                self._load(weights, changed)

    def _load(self, weights: Mapping[str, np.ndarray], rows: Mapping[str, np.ndarray]) -> None:
        """Compute with weights that were read, and checked, from now on."""
        self.executor.load(weights, rows)

    def take_over(self, weights: Mapping[str, np.ndarray], rows: Mapping[str, np.ndarray]) -> bool:
        """:meth:`refresh` with what another model has read; whether that is all that this one reads."""
        reader = self.weights
        if reader is None or reader.is_derived or any(name not in weights for name in reader.wanted):
            return False
        with self._refreshing:
            reader.given = {name: weights[name] for name in reader.wanted}
            self._load(dict(reader.given) | reader.constants, rows)
        return True

    def __call__(self, instances: Sequence[InstanceGraph]) -> Result:
        """Run `instances` as one minibatch.

        Raises
        ------
        GraphError
            If there are none, or one is not an instance of this model.
        """
        result = self.in_one_call(instances)
        return result if result is not None else self.run(self.prepare(instances))

    def in_one_call(self, instances: Sequence[InstanceGraph]) -> Result | None:
        """The result where one call of compiled code does everything; None, and nothing done, where it cannot."""
        one_call = self._one_call
        return one_call.run(self, instances) if one_call is not None and self._equal_nodes.merges is False else None

    def map(self, minibatches: Iterable[Sequence[InstanceGraph]], prefetch: int = 2) -> Iterator[Result]:
        """Run a stream of minibatches; the next ones are merged, scheduled and planned while one runs.

        A thread takes minibatches from the iterable, so whatever that does, reading a file or building instances for
        example, is done while kernels run, too. Minibatches are taken one after the other.

        Parameters
        ----------
        minibatches : iterable of sequences of InstanceGraph
        prefetch : int
            How many minibatches may be ready before they are run; 0 for no thread.

        Yields
        ------
        Result
            Of each minibatch, in order. An error of the iterable, or of a minibatch, comes in its place and ends the
            stream.

        Raises
        ------
        GraphError
            If `prefetch` is no such number.

        Examples
        --------
        >>> for result in model.map(minibatches):                             # doctest: +SKIP
        ...     print(result[0])
        """
        return results_of(self, minibatches, prefetch)

    # Steps ------------------------------------------------------------------------------------------------------

    def prepare(self, instances: Sequence[InstanceGraph]) -> Prepared:
        """Merge, schedule and plan `instances`; :meth:`run` does the rest.

        Raises
        ------
        GraphError
            If there are none, or one is not an instance of this model.
        """
        begin = perf_counter()
        return self.prepare_merged(self.merge(instances), begin)

    def prepare_merged(self, whole: InstanceGraph, begin: float) -> Prepared:
        """:meth:`prepare` for a minibatch graph whose making began at `begin`."""
        equal = self._equal_nodes.found(whole)
        graph = whole if equal is None else equal.graph
        merged = perf_counter()
        schedule, info = self.schedule(graph)
        scheduled = perf_counter()
        plan = self.plan(graph, schedule, cache=True)
        planned = perf_counter()
        seconds = {"build": merged - begin, "schedule": scheduled - merged, "plan": planned - scheduled}
        return Prepared(whole, equal, graph, plan, info, seconds)

    def run(self, prepared: Prepared) -> Result:
        """Run what was prepared."""
        begin = perf_counter()
        result = self.execute(prepared.graph, prepared.plan, prepared.info)
        if prepared.equal is not None:
            result = result.of_all_nodes(prepared.whole, prepared.equal)
        seconds = result.report.seconds
        seconds.update(prepared.seconds)
        seconds["execute"] = perf_counter() - begin
        seconds["total"] = sum(seconds.values())
        self._equal_nodes.took(prepared.whole, prepared.equal, seconds["total"])
        return result

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
        return self._instances.merged(instances)

    def schedule(self, graph: InstanceGraph, cache: bool = True) -> tuple[Schedule, ScheduleInfo]:
        """Batches of a minibatch graph by the model's policy."""
        return schedule_graph(graph, self._resolved_policy(graph), cache)

    def policy_for(self, nodes: int) -> Policy | None:
        """The policy for graphs of this many nodes; None where it is still to be selected."""
        return self._chosen if nodes <= self._selected_up_to else None

    def _resolved_policy(self, graph: InstanceGraph) -> Policy:
        require_checked(graph)
        chosen = self._chosen
        # What a few nodes prefer, noise decides: a graph that is much larger than the sample is a new sample.
        if chosen is None or graph.num_nodes > self._selected_up_to:
            depth_first = self._runs_on_one_thread and fills_caches(graph)
            chosen = self._chosen = PostorderPolicy() if depth_first else select_policy([graph], learn=False)
            self._selected_up_to = _LARGER_SAMPLE * graph.num_nodes
        return chosen

    @property
    def _runs_on_one_thread(self) -> bool:
        """Whether one thread of a CPU runs a batch after the other, and no backward pass follows."""
        return self.target.startswith("llvm") and self.executor.threads == 1 and not self.trains

    def plan(self, graph: InstanceGraph, schedule: Schedule, cache: bool = False) -> Plan:
        """Where the values of `graph` lie; with `cache`, an earlier plan for this structure and schedule is used again.

        Raises
        ------
        GraphError, PolicyError
            If `graph` is not well formed, or `schedule` is not a schedule of it.
        """
        find = self._plans.found if cache else self._plans.made
        return find(graph, schedule, self.plan_name)

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
        self._instances.require(graph, self.signature)
        self._plans.check(graph, plan)
        return self.executor.run(graph, plan, info)

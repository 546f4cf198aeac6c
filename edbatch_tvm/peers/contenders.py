"""What runs against each other on one minibatch: ours in several ways, PyTorch, DyNet; each can be timed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from time import perf_counter
from typing import Any

import numpy as np

from edbatch_tvm.batching import Schedule
from edbatch_tvm.benchmarking.measure import Seconds
from edbatch_tvm.errors import EnvironmentMismatch
from edbatch_tvm.graph import InstanceGraph, merge
from edbatch_tvm.peers.dynet_run import DyNet

OF_TORCH = frozenset({"hand", "compiled", "eager"})

ONE_BY_ONE_INSTANCES = 16
"""Instances of a minibatch that PyTorch runs one node at a time, at most: its time grows as their number."""


@dataclass
class Contender:
    """Something to time.

    Attributes
    ----------
    name : str
        A peer's name, or ``ours``.
    form : str
        Which of several ways to write it.
    run : callable
        One run of all minibatches: its seconds.
    outputs : callable or None
        Declared outputs of the last run, one array per minibatch; None where our own kernels ran.
    instances : int
        Instances of one run.
    detail : callable
        More about the last run.
    times, details : list
        Seconds of the timed runs, and what `detail` said of each.
    note : str
        Why it could not run.
    error : float
        How much its results differ, where that is taken down.
    """

    name: str
    form: str
    run: Callable[[], float]
    outputs: Callable[[], list[np.ndarray]] | None
    instances: int
    detail: Callable[[], Any] = lambda: None
    times: list[float] = field(default_factory=list)
    details: list[Any] = field(default_factory=list)
    note: str = ""
    error: float = 0.0


class Ours:
    """Our model: merges, schedules, plans and executes anew in every run, nothing kept from the last but memory."""

    def __init__(self, model: Any, minibatches: Sequence[list[InstanceGraph]]) -> None:
        self.model, self.minibatches = model, minibatches
        self.seconds = Seconds()
        self.batches = 0
        self.values: list[np.ndarray] = []

    def run(self) -> float:
        """One run of all minibatches."""
        total = Seconds()
        self.values, self.batches = [], 0
        for instances in self.minibatches:
            begin = perf_counter()
            graph = self.model.merge(instances)
            built = perf_counter()
            schedule, info = self.model.schedule(graph, cache=False)
            scheduled = perf_counter()
            plan = self.model.plan(graph, schedule)
            planned = perf_counter()
            result = self.model.execute(graph, plan, info)
            end = perf_counter()
            total.add(Seconds(built - begin, scheduled - built, planned - scheduled, end - planned, end - begin))
            self.batches += len(schedule)
            self.values.append(result.values(graph.outputs))
        self.seconds = total
        return total.total

    def last(self) -> Seconds:
        """The last run, stage by stage."""
        return self.seconds

    def run_with(self, policy: Any) -> float:
        """One run with another policy."""
        own = self.model.policy
        self.model.policy = policy
        try:
            return self.run()
        finally:
            self.model.policy = own


class Unbatched:
    """Our kernels, one instance after another, one node at a time: merging, planning and execution.

    Finding the schedule counts nothing: there is only one.
    """

    def __init__(self, model: Any, minibatches: Sequence[list[InstanceGraph]]) -> None:
        self.model = model
        self.calls = []
        for instance in (instance for instances in minibatches for instance in instances):
            graph = model.merge([instance])
            alone = [(int(kind), [node]) for node, kind in enumerate(graph.node_type)]
            self.calls.append((instance, graph, Schedule.from_batches(graph, alone)))

    def run(self) -> float:
        """One run of all instances."""
        begin = perf_counter()
        for instance, graph, schedule in self.calls:
            self.model.merge([instance])
            self.model.execute(graph, self.model.plan(graph, schedule))
        return perf_counter() - begin


def require_torch() -> Any:
    """The module torch.

    Raises
    ------
    EnvironmentMismatch
        If it is not installed.
    """
    if find_spec("torch") is None:
        raise EnvironmentMismatch(
            "peers on PyTorch without torch", "it installed", "pip install 'edbatch-tvm[torch]', or other --peers"
        )
    import torch

    return torch


def torch_contenders(
    peer: str, workload: str, minibatches: Sequence[list[InstanceGraph]], weights: Mapping[str, np.ndarray]
) -> list[Contender]:
    """The ways to write `peer`; the fastest one counts."""
    require_torch()
    from edbatch_tvm.peers.torch_runs import ByHand, OneByOne
    from edbatch_tvm.peers.torch_sequences import FORMS, Tagger

    count = sum(map(len, minibatches))
    if peer == "eager":
        first = minibatches[0][:ONE_BY_ONE_INSTANCES]
        return [_of_runs(peer, "one node at a time", [OneByOne(workload, merge(first), weights)], len(first))]
    graphs = [merge(instances) for instances in minibatches]
    compiled = peer == "compiled"
    found = [_of_runs(peer, "by level", [ByHand(workload, graph, weights, compiled) for graph in graphs], count)]
    forms = () if compiled else FORMS.get(workload, ())
    return found + [_of_runs(peer, form, [Tagger(graph, weights, form) for graph in graphs], count) for form in forms]


def dynet_contender(
    dynet: DyNet, workload: str, minibatches: Sequence[list[InstanceGraph]], weights: Mapping[str, np.ndarray]
) -> Contender:
    """DyNet's forward pass, its own scheduling included; the making of its graph in Python is not counted."""
    # One minibatch: a process holds one at a time.
    dynet.load(workload, merge(minibatches[0]), weights)
    last = [0.0]

    def run() -> float:
        last[0], forward = dynet.run()
        return forward

    return Contender("dynet", "autobatch", run, lambda: [dynet.outputs()], len(minibatches[0]), lambda: last[0])


def _of_runs(peer: str, form: str, runs: list[Any], instances: int) -> Contender:
    def run() -> float:
        begin = perf_counter()
        for one in runs:
            one.run()
        return perf_counter() - begin

    return Contender(peer, form, run, lambda: [one.outputs() for one in runs], instances)

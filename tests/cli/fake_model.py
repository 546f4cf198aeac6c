"""A model that runs the reference: what the command line does around a model is tested without compiling."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edbatch_tvm.batching import Schedule, schedule
from edbatch_tvm.checking.reference import run_reference
from edbatch_tvm.graph import InstanceGraph, merge
from edbatch_tvm.models import WORKLOADS, get_workload
from relay_ext.signature import signature_of, weights_of


@dataclass
class FakeReport:
    operands: dict[str, int] = field(default_factory=lambda: {"contiguous": 3, "broadcast": 2, "indexed": 1})
    lookups: int = 1
    bytes_gathered: int = 0
    bytes_indexed: int = 8


class FakeResult:
    def __init__(self, graph: InstanceGraph, rows: list[tuple[np.ndarray, ...]]) -> None:
        self.graph, self.rows, self.report = graph, rows, FakeReport()

    def synchronize(self) -> None:
        """Nothing is under way."""

    def values(self, values: np.ndarray) -> np.ndarray:
        stride = self.graph.stride
        return np.stack([self.rows[value // stride][value % stride] for value in values.tolist()])

    def __getitem__(self, instance: int) -> list[np.ndarray]:
        begin, end = self.graph.output_ptr[instance : instance + 2]
        return list(self.values(self.graph.outputs[begin:end]))


class FakeModel:
    """Offers what :mod:`edbatch_tvm.benchmarking.measure` asks of a model; keeps the calls."""

    def __init__(
        self,
        mod: Any,
        params: dict[str, np.ndarray],
        target: str,
        policy: Any,
        plan: str,
        granularity: str,
        fused: bool,
        database: Any = None,
        dtype: str = "float32",
    ) -> None:
        self.signature = signature_of(mod)
        self.params, self.target, self.policy = params, target, policy
        self.scale = 1.0
        self.cache: list[bool] = []
        functions: dict[str, Any] = {}
        for name in WORKLOADS:
            found = get_workload(name)
            if set(found.reference) == set(self.signature.names) and set(weights_of(found.cells(1))) == set(params):
                functions = dict(found.reference)
        self.functions = functions

    def in_one_call(self, instances: list[InstanceGraph]) -> None:
        """Steps are what it knows."""

    def merge(self, instances: list[InstanceGraph]) -> InstanceGraph:
        return merge(instances)

    def schedule(self, graph: InstanceGraph, cache: bool = True) -> tuple[Schedule, Any]:
        self.cache.append(cache)
        return schedule(graph, self.policy, cache=cache)

    def plan(self, graph: InstanceGraph, found: Schedule) -> Schedule:
        return found

    def execute(self, graph: InstanceGraph, plan: Schedule, info: Any) -> FakeResult:
        rows = run_reference(graph, self.functions, self.params)
        return FakeResult(graph, [tuple(self.scale * array for array in outputs) for outputs in rows])

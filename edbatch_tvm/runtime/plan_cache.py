"""Memory plans of one model; those made last are kept."""

from __future__ import annotations

from edbatch_tvm.batching import Schedule
from edbatch_tvm.batching.graph_keys import same_rows
from edbatch_tvm.bounded_cache import BoundedCache
from edbatch_tvm.errors import PlanError
from edbatch_tvm.graph import InstanceGraph, Signature
from edbatch_tvm.memory import Plan, plan_memory
from edbatch_tvm.memory.plan_with_copies import UnfusedPlan, unfuse

_MOST = 64


class Plans:
    """Makes plans for graphs over `signature`: for kernels that read operands where they lie, or with copies first."""

    def __init__(self, signature: Signature, fused: bool) -> None:
        self._signature = signature
        self._fused = fused
        self._kept: BoundedCache[tuple[int, str], Plan] = BoundedCache(_MOST)

    def made(self, graph: InstanceGraph, schedule: Schedule, name: str) -> Plan:
        """A new plan."""
        plan = plan_memory(schedule, graph, name)
        return plan if self._fused else unfuse(plan, self._signature)

    def found(self, graph: InstanceGraph, schedule: Schedule, name: str) -> Plan:
        """A plan made before for this structure and schedule, or a new one."""
        if len(graph.external_row):
            return self.made(graph, schedule, name)
        key = id(schedule), name
        found = self._kept.get(key)
        # A function may return one schedule for graphs that read other outputs.
        if found is not None and found.schedule is schedule and same_rows(graph, found.graph):
            return found
        plan = self.made(graph, schedule, name)
        self._kept.put(key, plan)
        return plan

    def check(self, graph: InstanceGraph, plan: Plan) -> None:
        """Refuse what is no plan of `graph` for these kernels.

        Raises
        ------
        PlanError
            If it is not.
        """
        if not isinstance(plan, Plan) or not same_rows(graph, plan.graph):
            given = f"a plan of {plan.graph!r}" if isinstance(plan, Plan) else f"a {type(plan).__name__}"
            raise PlanError(f"{given} for {graph!r}", "a plan of this graph", "model.plan(graph, schedule) makes one")
        if isinstance(plan, UnfusedPlan) == self._fused:
            raise PlanError(f"a {type(plan).__name__} for a model with fused={self._fused}", "a plan of model.plan()")

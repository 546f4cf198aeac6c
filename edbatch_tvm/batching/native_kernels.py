"""The fast kernels of policies, if there are any."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from edbatch_tvm.find_native import backend_label, find_native

if TYPE_CHECKING:
    from edbatch_tvm.batching.integer_costs import IntegerCosts
    from edbatch_tvm.batching.state_table import StateTable, ValueTable
    from edbatch_tvm.graph import InstanceGraph

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]
"""``order, batch_ptr, batch_type`` of a schedule."""


class Kernels(Protocol):
    """What a fast backend offers."""

    def heights(self, graph: InstanceGraph) -> np.ndarray:
        """Typewise heights, int32[nodes, types]."""

    def depth_schedule(self, graph: InstanceGraph) -> Arrays:
        """Schedule by (depth, type)."""

    def postorder_schedule(self, graph: InstanceGraph) -> Arrays:
        """Schedule of nodes depth first."""

    def run(self, graph: InstanceGraph, rule: str) -> Arrays:
        """Schedule by a rule: ``agenda``, ``ratio`` or ``lookahead``."""

    def run_fsm(self, graph: InstanceGraph, encoding: int, table: StateTable) -> tuple[Arrays, int]:
        """Schedule by a state machine, and the number of misses."""

    def learn_episode(self, graph: InstanceGraph, encoding: int, table: ValueTable, epsilon: int) -> int:
        """One learning episode; changes `table` and returns the number of batches."""

    def replay(self, graph: InstanceGraph, encoding: int, table: ValueTable, batch_type: np.ndarray) -> None:
        """Count in `table` the states and actions of a schedule that runs whole frontiers."""

    def search(
        self, graph: InstanceGraph, width: int, limit: int, integer_costs: IntegerCosts
    ) -> tuple[np.ndarray | None, bool]:
        """See :func:`edbatch_tvm.batching.search.beam_search`."""

    def given(self, graph: InstanceGraph, batch_type: np.ndarray) -> Arrays:
        """Schedule that runs whole frontiers of these types."""


def kernels() -> Kernels | None:
    """The fast kernels, or None."""
    found: Kernels | None = find_native("schedule")
    return found


def label() -> str:
    """``native``, or ``python`` and why."""
    return backend_label("schedule")

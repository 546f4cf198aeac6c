"""Where the fast kernels come from: :mod:`edbatch_tvm.native` if it can be had, else plain Python with the reason.

The batching package itself never imports TVM. The native package is imported when a schedule is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Protocol

import numpy as np

from edbatch_tvm.graph import backend

if TYPE_CHECKING:
    from edbatch_tvm.batching.prices import Prices
    from edbatch_tvm.batching.table import StateTable, ValueTable
    from edbatch_tvm.graph import InstanceGraph

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]
"""``order, batch_ptr, batch_type`` of a schedule."""


class Kernels(Protocol):
    """What a fast backend offers."""

    def heights(self, graph: InstanceGraph) -> np.ndarray:
        """Typewise heights, int32[nodes, types]."""

    def depth_schedule(self, graph: InstanceGraph) -> Arrays:
        """Schedule by (depth, type)."""

    def run(self, graph: InstanceGraph, rule: str) -> Arrays:
        """Schedule by a rule: ``agenda``, ``ratio`` or ``lookahead``."""

    def run_fsm(self, graph: InstanceGraph, encoding: int, table: StateTable) -> tuple[Arrays, int]:
        """Schedule by a state machine, and the number of misses."""

    def learn_episode(self, graph: InstanceGraph, encoding: int, table: ValueTable, epsilon: int) -> int:
        """One learning episode; changes `table` and returns the number of batches."""

    def replay(self, graph: InstanceGraph, encoding: int, table: ValueTable, batch_type: np.ndarray) -> None:
        """Count in `table` the states and actions of a schedule that runs whole frontiers."""

    def search(self, graph: InstanceGraph, width: int, limit: int, prices: Prices) -> tuple[np.ndarray | None, bool]:
        """See :func:`edbatch_tvm.batching.search.beam_search`."""

    def given(self, graph: InstanceGraph, batch_type: np.ndarray) -> Arrays:
        """Schedule that runs whole frontiers of these types."""


_found: tuple[Kernels | None, str] | None = None


def kernels() -> Kernels | None:
    """The fast kernels, or None."""
    return _find()[0]


def label() -> str:
    """``native``, or ``python`` and why."""
    return _find()[1]


def _find() -> tuple[Kernels | None, str]:
    global _found
    if backend.python_only:
        return None, f"python ({backend.VARIABLE}=python)"
    if _found is None:
        try:
            native = importlib.import_module("edbatch_tvm.native")
            _found = native.load(), "native"
        except (ImportError, OSError, RuntimeError) as error:
            reason = str(error).strip().splitlines()
            _found = None, f"python ({reason[0] if reason else type(error).__name__})"
    return _found

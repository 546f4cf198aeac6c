"""Whether a model computes equal nodes once."""

from __future__ import annotations

from statistics import median
from typing import Literal

from edbatch_tvm.errors import GraphError
from edbatch_tvm.graph import InstanceGraph
from edbatch_tvm.graph.equal_nodes import EqualNodes, merge_equal_nodes

EqualNodesOption = Literal["auto"] | bool
"""``True``, ``False``, or ``"auto"``: as is faster."""

_TRIALS = 4
"""Minibatches of each kind that are timed, after one of each."""

_LEAST = 0.02
"""A smaller share of equal nodes is not worth a trial."""


class EqualNodesChoice:
    """Finds the equal nodes of minibatches, if that is asked for or pays.

    With ``"auto"``, the first minibatches run with and without in turns; what takes fewer seconds for a node is kept.

    Parameters
    ----------
    option : {"auto", True, False}
    measured : bool
        Whether ``"auto"`` is settled by measuring; else it is False.

    Attributes
    ----------
    option : {"auto", True, False}
    merges : bool or None
        What was settled; None while it is not.
    """

    def __init__(self, option: EqualNodesOption, measured: bool = True) -> None:
        if not (option == "auto" if isinstance(option, str) else isinstance(option, bool)):
            raise GraphError(f"equal_nodes {option!r}", "'auto', True or False")
        self.option: EqualNodesOption = option
        self.merges = option if isinstance(option, bool) else None if measured else False
        self._times: dict[bool, list[float]] = {True: [], False: []}

    def found(self, graph: InstanceGraph) -> EqualNodes | None:
        """The equal nodes of a minibatch; None for a minibatch that is run as it is."""
        merges = self._is_next() if self.merges is None else self.merges
        if not merges:
            return None
        equal = merge_equal_nodes(graph)
        if self.merges is None and equal.merged < _LEAST * graph.num_nodes:
            self.merges = False
        return equal if equal.merged else None

    def took(self, graph: InstanceGraph, equal: EqualNodes | None, seconds: float) -> None:
        """Note what a minibatch took."""
        if self.merges is not None:
            return
        self._times[equal is not None].append(seconds / max(1, graph.num_nodes))
        if all(len(times) > _TRIALS for times in self._times.values()):
            # The first of each kind plans and touches fresh memory.
            without, with_equal = (median(self._times[kind][1:]) for kind in (False, True))
            self.merges = with_equal < without

    def _is_next(self) -> bool:
        return len(self._times[True]) <= len(self._times[False])

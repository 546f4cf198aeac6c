"""Fewest batches of a small graph, proven by OR-tools CP-SAT (the optional extra ``exact``)."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from edbatch_tvm.batching.bounds import heights
from edbatch_tvm.batching.order_bound import order_bound, reversed_graph
from edbatch_tvm.batching.search import SearchPolicy, schedule_of_types, without_idle_steps
from edbatch_tvm.errors import PolicyError

if TYPE_CHECKING:
    from edbatch_tvm.batching.schedule import Schedule
    from edbatch_tvm.graph import InstanceGraph


@dataclass(frozen=True)
class Exact:
    """What :func:`exact_schedule` found.

    Attributes
    ----------
    schedule : Schedule
        The best known.
    bound : int
        No schedule has fewer batches.
    seconds : float
    """

    schedule: Schedule
    bound: int
    seconds: float

    @property
    def proven(self) -> bool:
        """Whether no schedule has fewer batches than this one."""
        return self.bound == len(self.schedule)


def exact_schedule(
    graph: InstanceGraph, seconds: float = 60.0, width: int = 64, bound: int | None = None, workers: int = 0
) -> Exact:
    """A schedule of fewest batches, with its proof.

    A beam search gives a first schedule. Then CP-SAT is asked for one with fewer batches, repeatedly, until there is
    none, which proves the last one best, or the bound is met.

    Parameters
    ----------
    graph : InstanceGraph
        Tens to some hundreds of nodes.
    seconds : float
        Stop after this time; the result may not be proven then.
    width : int
        Beam of the search.
    bound : int, optional
        A lower bound that is known to hold; default :func:`~edbatch_tvm.batching.order_bound`. With 0 CP-SAT proves
        alone.
    workers : int
        Threads of CP-SAT; 0 for all cores.

    Returns
    -------
    Exact

    Raises
    ------
    PolicyError
        If OR-tools is not installed.
    """
    begin = perf_counter()
    cp_model = _cp_model()
    least = order_bound(graph) if bound is None else bound
    types: Sequence[int] = SearchPolicy(width).search(graph).types.tolist()
    while len(types) > least:
        left = seconds - (perf_counter() - begin)
        if left <= 0:
            break
        word = _Word(cp_model, graph, len(types) - 1)
        solver = cp_model.CpSolver()
        solver.parameters.max_time_in_seconds = left
        solver.parameters.num_workers = workers
        status = solver.solve(word.model)
        if status == cp_model.INFEASIBLE:
            least = len(types)
        elif status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            types = without_idle_steps(graph, np.array(word.types(solver), np.int16)).tolist()
        else:
            break
    return Exact(schedule_of_types(graph, np.array(types, np.int16)), least, perf_counter() - begin)


def optimum(graph: InstanceGraph, seconds: float = 60.0) -> int:
    """The fewest batches of any schedule of `graph`.

    Raises
    ------
    PolicyError
        If OR-tools is not installed, or the time does not suffice.
    """
    result = exact_schedule(graph, seconds)
    if not result.proven:
        raise PolicyError(
            f"between {result.bound} and {len(result.schedule)} batches after {seconds:g} s",
            "a proven optimum",
            "give it more seconds or a smaller graph",
        )
    return len(result.schedule)


class _Word:
    """A model of all words of `length` types that are schedules of a graph.

    One Boolean says that a step runs a type, one that a node has run by the end of a step. Only the steps that the
    longest chains of each type before and after a node leave open have variables.
    """

    def __init__(self, cp_model: Any, graph: InstanceGraph, length: int) -> None:
        self.model = model = cp_model.CpModel()
        types = range(graph.num_types)
        self._runs = [[model.new_bool_var("") for _ in types] for _ in range(length)]
        for runs in self._runs:
            model.add_exactly_one(runs)
        height = heights(graph)
        for t, count in enumerate(height.max(axis=0, initial=0).tolist()):
            model.add(sum(runs[t] for runs in self._runs) >= count)
        # Batches of other nodes that come before and after each node.
        before = heights(reversed_graph(graph))[::-1].sum(axis=1) - 1
        after = height.sum(axis=1) - 1
        pointer, producer = graph.operand_ptr.tolist(), graph.operand_node.tolist()
        done: list[list[Any]] = []
        for node, t in enumerate(graph.node_type.tolist()):
            first, last = int(before[node]), length - 1 - int(after[node])
            row: list[Any] = [
                0 if step < first else 1 if step >= last else model.new_bool_var("") for step in range(length)
            ]
            if first > last:
                model.add_bool_or([])  # the chains through this node alone are too long
            for step in range(length):
                earlier = row[step - 1] if step else 0
                model.add_bool_or([_no(row[step]), earlier, self._runs[step][t]])
                model.add_implication(earlier, row[step])
                for p in {p for p in producer[pointer[node] : pointer[node + 1]] if p >= 0}:
                    model.add_implication(row[step], done[p][step - 1] if step else 0)
            done.append(row)

    def types(self, solver: Any) -> list[int]:
        """Types of the steps of a solution."""
        return [next(t for t, runs in enumerate(step) if solver.boolean_value(runs)) for step in self._runs]


def _no(literal: Any) -> Any:
    return 1 - literal if isinstance(literal, int) else literal.negated()


def _cp_model() -> Any:
    try:
        return importlib.import_module("ortools.sat.python.cp_model")
    except ImportError:
        raise PolicyError(
            "an exact schedule without OR-tools", "it installed", "pip install 'edbatch-tvm[exact]'"
        ) from None

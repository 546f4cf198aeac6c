"""Policy ``fsm``: a learned table from the encoded frontier to the type to run (Chen et al., ICML 2023, section 3)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from edbatch_tvm.batching import native_kernels
from edbatch_tvm.batching.encoding import (
    TIGHT,
    State,
    encode,
    encoding_id,
    types_of,
    words_are_valid,
)
from edbatch_tvm.batching.frontier import Frontier
from edbatch_tvm.batching.lookahead import choose_lookahead
from edbatch_tvm.batching.policy import Policy, Run, register_policy
from edbatch_tvm.batching.schedule import Schedule
from edbatch_tvm.batching.state_table import StateTable
from edbatch_tvm.cached_property import cached_property
from edbatch_tvm.errors import PolicyError
from edbatch_tvm.graph import InstanceGraph


@dataclass(frozen=True)
class LearnStats:
    """How a policy was learned.

    Attributes
    ----------
    learner : str
    episodes : int
    batches, bound : int
        Over the graphs learned from: batches of the learned table, and their lower bound.
    seconds : float
    seed : int
    """

    learner: str = ""
    episodes: int = 0
    batches: int = 0
    bound: int = 0
    seconds: float = 0.0
    seed: int = 0


class FsmPolicy(Policy):
    """A finite state machine over encoded frontiers.

    Parameters
    ----------
    encoding : {'base', 'max', 'sort', 'tight'}
    type_names : tuple of str
        Cell names by the type ids of the table.
    table : mapping of state to type id
        See :mod:`edbatch_tvm.batching.encoding`. In a state that is not in the table the policy does what ``lookahead``
        would, and counts a miss; in a known state it never evaluates that rule.
    stats : LearnStats, optional

    Raises
    ------
    PolicyError
        If the table is not over these types.
    """

    name = "fsm"

    def __init__(
        self,
        encoding: str,
        type_names: tuple[str, ...],
        table: Mapping[State, int],
        stats: LearnStats | None = None,
    ) -> None:
        self.encoding = encoding
        self.type_names = tuple(type_names)
        self.table = dict(table)
        self.stats = stats or LearnStats()
        self.code = encoding_id(encoding)
        if len(set(self.type_names)) != len(self.type_names):
            raise PolicyError(f"cells {', '.join(self.type_names)}", "different names")
        for state, action in self.table.items():
            if not words_are_valid(state, self.code, len(self.type_names)):
                raise PolicyError(
                    f"state {list(state)}", f"a state of encoding {encoding!r} over {len(type_names)} cells"
                )
            if action not in types_of(state, self.code):
                raise PolicyError(f"action {action} in state {list(state)}", "one of the types that are ready there")
        self._translated: dict[tuple[str, ...], StateTable] = {}

    @cached_property
    def identity(self) -> Hashable:
        """Digest of the table."""
        text = repr((self.encoding, self.type_names, sorted(self.table.items())))
        return "fsm", hashlib.sha256(text.encode()).hexdigest()

    def __repr__(self) -> str:
        return f"FsmPolicy(encoding={self.encoding!r}, types={len(self.type_names)}, states={len(self.table)})"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the policy to a JSON file; see :func:`edbatch_tvm.batching.save_policy`."""
        from edbatch_tvm.batching.policy_file import save_policy

        save_policy(self, path)

    def run(self, graph: InstanceGraph) -> Run:
        """Schedule `graph`.

        Raises
        ------
        PolicyError
            If the policy was learned for other cells.
        """
        table = self._table_for(graph)
        schedule, misses = run_table(graph, self.code, table)
        return Run(schedule, f"{self.name}-{self.encoding}", misses, len(self.table))

    def reference(self, graph: InstanceGraph) -> Schedule:
        """Schedule `graph` in plain Python."""
        return reference_run_table(graph, self.code, self._table_for(graph))[0]

    @property
    def own_table(self) -> StateTable:
        """The table over the policy's own cells."""
        found = self._translated.get(self.type_names)
        if found is None:
            found = self._translated[self.type_names] = StateTable(self.table)
        return found

    def _table_for(self, graph: InstanceGraph) -> StateTable:
        """The table over the type ids of `graph`; a bare graph may lack some of the types."""
        names = graph.type_names
        table = self._translated.get(names)
        if table is None:
            if names != self.type_names:
                unknown = [name for name in names if name not in self.type_names]
                if unknown or graph.signature is not None or sorted(names, key=self.type_names.index) != list(names):
                    self._refuse(names)
            table = self._translated[names] = StateTable(self._translate(names))
        return table

    def _translate(self, names: tuple[str, ...]) -> dict[State, int]:
        if names == self.type_names:
            return self.table
        new_id = {self.type_names.index(name): index for index, name in enumerate(names)}
        table = {}
        for state, action in self.table.items():
            if types_of(state, self.code) <= new_id.keys():
                if self.code == TIGHT:
                    words = tuple(2 * new_id[word >> 1] + (word & 1) for word in state)
                else:
                    words = tuple(new_id[word] for word in state)
                table[words] = new_id[action]
        return table

    def _refuse(self, names: tuple[str, ...]) -> NoReturn:
        raise PolicyError(
            f"a policy learned for cells {', '.join(self.type_names)}",
            f"one for cells {', '.join(names)}",
            "learn a policy for this model",
        )


def run_table(graph: InstanceGraph, encoding: int, table: StateTable) -> tuple[Schedule, int]:
    """Schedule of `graph` by a table over its type ids, and the number of misses."""
    kernels = native_kernels.kernels()
    if kernels is None:
        return reference_run_table(graph, encoding, table)
    arrays, misses = kernels.run_fsm(graph, encoding, table)
    return Schedule.for_graph(graph, *arrays), misses


def batches_of(table: Mapping[State, int], graphs: Sequence[InstanceGraph], encoding: int) -> int:
    """Batches that `table` needs for all `graphs`."""
    native = StateTable(table)
    return sum(len(run_table(graph, encoding, native)[0]) for graph in graphs)


def reference_run_table(graph: InstanceGraph, encoding: int, table: StateTable) -> tuple[Schedule, int]:
    """:func:`run_table` in plain Python."""
    frontier = Frontier(graph)
    batches = []
    misses = 0
    while frontier.remaining:
        action = table.actions.get(encode(frontier, encoding))
        if action is None:
            misses += 1
            action = choose_lookahead(frontier)
        batches.append((action, frontier.execute(action)))
    return Schedule.from_batches(graph, batches), misses


class _Unlearned(Policy):
    """Stands for ``fsm`` without a table, so that the name is known and its use explained."""

    name = "fsm"

    def run(self, graph: InstanceGraph) -> Run:
        """Refuse."""
        raise PolicyError(
            "policy 'fsm' without a table",
            "a learned policy",
            "learn one with learn_policy(graphs), or give the path of a policy file",
        )


register_policy("fsm", _Unlearned)

__all__ = ["FsmPolicy", "LearnStats", "batches_of", "reference_run_table", "run_table"]

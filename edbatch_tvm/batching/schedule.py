"""Schedules: the list of batches, its text form, and what is known about how it was found."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

import numpy as np

from edbatch_tvm.errors import PolicyError

if TYPE_CHECKING:
    from edbatch_tvm.graph import InstanceGraph


class Schedule:
    """Batches in the order they run; each runs nodes of one type.

    Parameters
    ----------
    order : int32 array of shape [n]
        The nodes, batch after batch; within a batch by node number.
    batch_ptr : int32 array of shape [batches + 1]
        Batch b is ``order[batch_ptr[b]:batch_ptr[b + 1]]``.
    batch_type : int16 array of shape [batches]
        Dense type id of each batch.
    type_label : int array
        The type id the user gave, by dense type id.
    type_names : tuple of str
        Cell names by dense type id.
    graph : InstanceGraph, optional
        The graph it was made for, or another of the same structure.

    Attributes
    ----------
    checked : bool
        Whether this is known to be a valid schedule of `graph`; :func:`edbatch_tvm.schedule` makes no others.

    Examples
    --------
    >>> schedule = Schedule(
    ...     np.array([0, 1, 2], np.int32), np.array([0, 2, 3], np.int32), np.array([0, 1], np.int16),
    ...     np.arange(2), ("leaf", "internal"),
    ... )
    >>> len(schedule)
    2
    >>> print(schedule)
    schedule nodes=3 batches=2 types=0:leaf,1:internal
    0: 0-1
    1: 2
    """

    __slots__ = ("__weakref__", "batch_ptr", "batch_type", "checked", "graph", "order", "type_label", "type_names")

    def __init__(
        self,
        order: np.ndarray,
        batch_ptr: np.ndarray,
        batch_type: np.ndarray,
        type_label: np.ndarray,
        type_names: tuple[str, ...],
        graph: InstanceGraph | None = None,
    ) -> None:
        self.graph = graph
        self.order = order
        self.batch_ptr = batch_ptr
        self.batch_type = batch_type
        self.type_label = type_label
        self.type_names = type_names
        self.checked = False

    @classmethod
    def for_graph(
        cls, graph: InstanceGraph, order: np.ndarray, batch_ptr: np.ndarray, batch_type: np.ndarray
    ) -> Schedule:
        """Schedule of `graph` from arrays over its dense type ids."""
        return cls(order, batch_ptr, batch_type, type_labels(graph), graph.type_names, graph)

    @classmethod
    def from_batches(cls, graph: InstanceGraph, batches: list[tuple[int, list[int]]]) -> Schedule:
        """Schedule of `graph` from ``(dense type id, nodes)`` pairs."""
        sizes = np.array([0, *(len(nodes) for _, nodes in batches)], np.int32)
        order = np.array([node for _, nodes in batches for node in sorted(nodes)], np.int32)
        types = np.array([type_id for type_id, _ in batches], np.int16)
        return cls.for_graph(graph, order, np.cumsum(sizes, dtype=np.int32), types)

    @property
    def num_nodes(self) -> int:
        """Number of nodes in all batches."""
        return len(self.order)

    def nodes(self, batch: int) -> np.ndarray:
        """Nodes of a batch (a view)."""
        return self.order[self.batch_ptr[batch] : self.batch_ptr[batch + 1]]

    def __len__(self) -> int:
        return len(self.batch_type)

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        labels = self.type_label[self.batch_type].tolist()
        ends = self.batch_ptr.tolist()
        for batch, label in enumerate(labels):
            yield label, self.order[ends[batch] : ends[batch + 1]]

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Schedule)
            and np.array_equal(self.order, other.order)
            and np.array_equal(self.batch_ptr, other.batch_ptr)
            and np.array_equal(self.batch_type, other.batch_type)
            and np.array_equal(self.type_label, other.type_label)
            and self.type_names == other.type_names
        )

    def __hash__(self) -> int:
        return hash((self.num_nodes, len(self), self.type_names))

    def __repr__(self) -> str:
        return f"Schedule(batches={len(self)}, nodes={self.num_nodes}, types={len(self.type_names)})"

    def __str__(self) -> str:
        names = [quote(name, safe="") for name in self.type_names]
        types = ",".join(f"{label}:{name}" for label, name in zip(self.type_label.tolist(), names, strict=True))
        lines = [f"schedule nodes={self.num_nodes} batches={len(self)} types={types}"]
        lines.extend(f"{label}: {_format_ranges(nodes)}" for label, nodes in self)
        return "\n".join(lines)


def type_labels(graph: InstanceGraph) -> np.ndarray:
    """The type ids the user of `graph` knows, by dense type id."""
    return graph.type_label if graph.type_label is not None else np.arange(graph.num_types)


def _format_ranges(nodes: np.ndarray) -> str:
    """``[0, 1, 2, 5]`` as ``0-2 5``."""
    breaks = np.flatnonzero(np.diff(nodes) != 1) + 1
    runs = np.split(nodes, breaks)
    return " ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


MOST_NODES = 1 << 27
"""Schedules of more nodes are not read from text: a short text could ask for any amount of memory."""

_HEADER = re.compile(r"schedule nodes=(\d{1,18}) batches=(\d{1,18}) types=(\S*)$")
_BATCH = re.compile(r"(-?\d{1,18}): (\d{1,18}(?:-\d{1,18})?(?: \d{1,18}(?:-\d{1,18})?)*)$")


def parse_schedule(text: str) -> Schedule:
    """The schedule that ``str`` printed.

    Raises
    ------
    PolicyError
        Naming the line that is not in the format.
    """
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    header = _HEADER.match(lines[0][1]) if lines else None
    if header is None:
        raise PolicyError("text that is no schedule", "a first line 'schedule nodes=N batches=B types=ID:NAME,...'")
    pairs = [item.partition(":") for item in header[3].split(",") if item]
    try:
        label = np.array([int(identifier) for identifier, _, _ in pairs], np.int64)
    except (ValueError, OverflowError):
        raise PolicyError(f"line {lines[0][0]}: types={header[3][:60]}", "ID:NAME,...") from None
    dense = {identifier: index for index, identifier in enumerate(label.tolist())}
    if not len(dense) == len(label) <= np.iinfo(np.int16).max:
        raise PolicyError(f"line {lines[0][0]}: types={header[3][:60]}", "different type ids, at most 32767")
    order: list[np.ndarray] = []
    types: list[int] = []
    nodes, most = 0, min(int(header[1]), MOST_NODES)
    for number, line in lines[1:]:
        match = _BATCH.match(line)
        if match is None:
            raise PolicyError(f"line {number}: {line[:60]!r}", "'TYPE: NODE FIRST-LAST ...'")
        if int(match[1]) not in dense:
            raise PolicyError(f"line {number}: type {match[1]}", f"one of {', '.join(map(str, dense))}")
        types.append(dense[int(match[1])])
        runs = [(int(first), int(last or first)) for first, _, last in (r.partition("-") for r in match[2].split())]
        nodes += sum(last - first + 1 for first, last in runs)
        if (
            any(not first <= last < most for first, last in runs) or nodes > most
        ):  # before an array of that size is made
            raise PolicyError(f"line {number}: {line[:60]!r}", f"{most} nodes, the first 0, the last {most - 1}")
        order.append(np.concatenate([np.arange(first, last + 1, dtype=np.int32) for first, last in runs]))
    if (nodes, len(types)) != (int(header[1]), int(header[2])):
        raise PolicyError(f"{nodes} nodes in {len(types)} batches", f"{header[1]} nodes in {header[2]} batches")
    sizes = np.array([0, *map(len, order)], np.int32)
    return Schedule(
        np.concatenate(order) if order else np.empty(0, np.int32),
        np.cumsum(sizes, dtype=np.int32),
        np.array(types, np.int16),
        label,
        tuple(unquote(name) for _, _, name in pairs),
    )


@dataclass
class ScheduleInfo:
    """How a schedule was found, and how far it is from the lower bound.

    Attributes
    ----------
    policy : str
        Name of the policy; ``auto`` and ``best`` name the one they took.
    batches, nodes : int
        Size of the schedule.
    steps, misses : int
        Decisions taken, and those in a state that the policy's table did not know.
    states : int
        States in the policy's table.
    seconds : float
        Time it took, 0 if it was cached.
    backend : str
        ``native``, or ``python`` and the reason.
    cached : bool
        Whether it was found in the cache.
    """

    policy: str
    batches: int
    nodes: int
    steps: int
    misses: int
    states: int
    seconds: float
    backend: str
    cached: bool
    _bound: int | Callable[[], int] = field(repr=False)

    @property
    def lower_bound(self) -> int:
        """No schedule has fewer batches; computed when first asked for."""
        if not isinstance(self._bound, int):
            self._bound = self._bound()
        return self._bound

    def __str__(self) -> str:
        bound = self.lower_bound
        ratio = f"{self.batches / bound:.3f} x bound" if bound else "-"
        misses = f"{self.misses} of {self.steps} steps"
        rows = [
            ("policy", self.policy),
            ("batches", f"{self.batches}  ({ratio})"),
            ("lower bound", str(bound)),
            ("nodes", f"{self.nodes}" + (f"  ({self.nodes / self.batches:.1f} a batch)" if self.batches else "")),
            ("unknown states", f"{misses}  ({self.states} states known)" if self.states else "-"),
            ("time", "cached" if self.cached else f"{self.seconds * 1e3:.3f} ms"),
            ("backend", self.backend),
        ]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)

"""Time of batches: a table of measured latencies, so that schedules can be compared by time and not only by length."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from edbatch_tvm.atomic_file import write_text
from edbatch_tvm.batching.integer_costs import IntegerCosts
from edbatch_tvm.cached_property import cached_property
from edbatch_tvm.errors import PolicyError

if TYPE_CHECKING:
    from edbatch_tvm.batching.schedule import Schedule
    from edbatch_tvm.graph import InstanceGraph

FORMAT = "edbatch-costs"
VERSION = 1

TICK = 1e-9
"""The search counts in whole nanoseconds."""

LARGEST = np.iinfo(np.int32).max
"""Nodes of the largest batch that costs may be of."""

LONGEST = 1e6
"""Seconds that a batch may take at most."""


class CostTable:
    """Seconds of a batch by type and number of nodes.

    Between two measured sizes time is interpolated; below the smallest it is that of the smallest, above the largest it
    goes on as between the last two.

    Parameters
    ----------
    seconds : mapping of str to mapping of int to float
        For each type, by name, the seconds of batches of some sizes.

    Raises
    ------
    PolicyError
        If a type has no sizes, or a size or time is not positive.

    Examples
    --------
    >>> table = CostTable({"leaf": {1: 2e-6, 101: 12e-6}})
    >>> round(table.seconds("leaf", 51) * 1e6, 3)
    7.0
    """

    def __init__(self, seconds: Mapping[str, Mapping[int, float]]) -> None:
        self._table: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for name, entries in seconds.items():
            sizes = sorted(entries)
            if not sizes or sizes[0] < 1 or sizes[-1] > LARGEST:
                raise PolicyError(f"costs of {name!r} for sizes {sizes!r:.60}", f"one or more sizes of 1 to {LARGEST}")
            times = [entries[size] for size in sizes]
            if not all(isinstance(time, Real) and 0 < time <= LONGEST for time in times):
                raise PolicyError(f"costs of {name!r}: {times!r:.60} seconds", f"positive numbers up to {LONGEST:.0e}")
            self._table[name] = np.array(sizes), np.array(times, np.float64)

    def __repr__(self) -> str:
        return f"CostTable({', '.join(f'{name}: {len(sizes)} sizes' for name, (sizes, _) in self._table.items())})"

    @cached_property
    def digest(self) -> str:
        """Digest of the entries."""
        return hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()

    def as_dict(self) -> dict[str, dict[int, float]]:
        """The entries."""
        return {
            name: dict(zip(sizes.tolist(), times.tolist(), strict=True)) for name, (sizes, times) in self._table.items()
        }

    def seconds(self, name: str, size: int) -> float:
        """Seconds of a batch of `size` nodes of the type called `name`."""
        return float(self._interpolate(name, np.array([size]))[0])

    def of_schedule(self, schedule: Schedule) -> float:
        """Seconds of all batches of `schedule`."""
        sizes = np.diff(schedule.batch_ptr)
        total = 0.0
        for t, name in enumerate(schedule.type_names):
            mine = sizes[schedule.batch_type == t]
            if len(mine):
                total += float(self._interpolate(name, mine).sum())
        return total

    def integer_costs(self, graph: InstanceGraph) -> IntegerCosts:
        """Costs as the search counts them.

        From the time of each batch the number of its nodes times a slope of their type is taken away: together that is
        the same for all schedules. With the steepest line through size 1 and under all other sizes, what is left costs
        least for one node, and each batch to come costs that at least.
        """
        most = max(1, int(graph.type_count.max(initial=0)))
        size = np.arange(most + 1)
        price = np.zeros((graph.num_types, most + 1), np.int64)
        for t, name in enumerate(graph.type_names):
            time = self._interpolate(name, size)
            largest = max(1, int(graph.type_count[t]))
            price[t] = np.rint((time - _slope(time[1 : largest + 1]) * size) / TICK)
        least = [price[t, 1 : max(1, count) + 1].min() for t, count in enumerate(graph.type_count.tolist())]
        return IntegerCosts(price, np.array(least, np.int64))

    def _interpolate(self, name: str, size: np.ndarray) -> np.ndarray:
        if name not in self._table:
            raise PolicyError(
                f"no costs of {name!r}", f"one of {', '.join(self._table)}", "calibrate the model that is scheduled"
            )
        sizes, times = self._table[name]
        inside: np.ndarray = np.interp(size, sizes, times)
        if len(sizes) > 1:
            slope = max(0.0, (times[-1] - times[-2]) / (sizes[-1] - sizes[-2]))
            inside = inside + slope * np.maximum(size - sizes[-1], 0)
        return inside

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the table as JSON."""
        document = {"format": FORMAT, "version": VERSION, "seconds": self.as_dict()}
        write_text(path, json.dumps(document, indent=1) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> CostTable:
        """Read a table that :meth:`save` wrote.

        Raises
        ------
        PolicyError
            If the file is none.
        """
        try:
            document: Any = json.loads(Path(path).read_text(encoding="utf-8"))
            if document["format"] != FORMAT or document["version"] != VERSION:
                raise KeyError
            entries = {
                name: {int(size): time for size, time in row.items()} for name, row in document["seconds"].items()
            }
        except OSError as error:
            raise PolicyError(f"cost file {str(path)!r} cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise PolicyError(f"cost file {str(path)!r} is no cost table", "a file that CostTable.save wrote") from None
        return cls(entries)


def calibrate(
    measure: Callable[[str, int], float],
    types: Sequence[str],
    sizes: Sequence[int] = (1, 4, 16, 64, 256, 1024),
    repeat: int = 5,
) -> CostTable:
    """Measure a cost table.

    Parameters
    ----------
    measure : callable
        ``measure(type name, nodes)`` runs one batch and returns its seconds.
    types : sequence of str
    sizes : sequence of int
    repeat : int
        Measurements of each, after one that is not counted; the median is taken.

    Examples
    --------
    >>> calibrate(lambda name, nodes: 1e-6 * (3 + nodes), ["leaf"], [1, 2]).as_dict()
    {'leaf': {1: 4e-06, 2: 4.9999999999999996e-06}}
    """
    table: dict[str, dict[int, float]] = {}
    for name in types:
        table[name] = {}
        for size in sizes:
            measure(name, size)
            table[name][size] = median(measure(name, size) for _ in range(repeat))
    return CostTable(table)


def _slope(time: np.ndarray) -> float:
    """Slope of the steepest line through the time of size 1 and under those of sizes 2, 3, ..., at most that time."""
    steps = np.arange(1, len(time))
    return float(np.clip((time[1:] - time[0]) / steps, 0, time[0]).min(initial=time[0])) if len(time) > 1 else 0.0

"""Arenas: one 2-D buffer per value spec, reused from minibatch to minibatch once no result refers to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edbatch_tvm.errors import PlanError
from edbatch_tvm.fork_lock import fork_lock
from edbatch_tvm.graph.spec import ValueSpec
from edbatch_tvm.runtime.storage import held_dtype
from edbatch_tvm.tvm_compat import runtime
from schedules.abi import padded

_SLACK_ROWS = 1
"""Rows past the last: a vector load of the last columns of a row that is no multiple of the lanes ends in them."""

_GROWTH = 1.25

_MOST = np.iinfo(np.int32).max
"""Elements of the largest arena: kernels compute offsets in int32."""


class ArenaSet:
    """The arenas of one run; `views` are NumPy arrays over the same memory."""

    def __init__(self, specs: Sequence[ValueSpec], rows: Sequence[int], storage: str = "float32") -> None:
        self.rows = tuple(_room(spec, count) for spec, count in zip(specs, rows, strict=True))
        self.tensors: list[Any] = []
        self.views: list[np.ndarray] = []
        for spec, count in zip(specs, self.rows, strict=True):
            tensor = runtime.empty((count, padded(spec.size)), held_dtype(spec.dtype, storage))
            view = np.from_dlpack(tensor)
            view[0] = 0
            self.tensors.append(tensor)
            self.views.append(view)

    def fits(self, rows: Sequence[int]) -> bool:
        """Whether a run that needs these numbers of rows can use these arenas."""
        return all(need + _SLACK_ROWS <= have for need, have in zip(rows, self.rows, strict=True))


def _roomy(spec: ValueSpec, rows: int, factor: float) -> int:
    """`rows` times a factor, limited to what an arena can have."""
    return rows if factor == 1.0 else max(rows, min(int(rows * factor), _MOST // padded(spec.size) - _SLACK_ROWS))


def _room(spec: ValueSpec, rows: int) -> int:
    """Rows to allocate where `rows` are needed."""
    most = _MOST // padded(spec.size)
    if rows + _SLACK_ROWS > most:
        raise PlanError(
            f"{rows} values of {spec} in one minibatch", f"at most {most - _SLACK_ROWS}", "use smaller minibatches"
        )
    return min(int(rows * _GROWTH) + _SLACK_ROWS, most)


class _Lease:
    """Owner of a view handed to a user: its arenas go back to the pool when the last view is gone."""

    __slots__ = ("_array", "_gone")

    def __init__(self, array: np.ndarray, gone: Callable[[], None]) -> None:
        self._array = array
        self._gone = gone

    def __del__(self) -> None:
        # weakref.finalize does the same and takes five times as long, which a minibatch of many rounds notices.
        self._gone()

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return self._array.__array_interface__


class ArenaPool:
    """Arenas that are free for the next run.

    A result's arrays are views into arenas. As long as one of them lives, its arenas are not reused; a caller that
    drops its results runs in the same memory every time.
    """

    def __init__(self, specs: Sequence[ValueSpec], keep: int = 2, storage: str = "float32") -> None:
        self._specs = tuple(specs)
        self._storage = storage
        self._free: list[ArenaSet] = []
        self._factors = [1.0] * len(self._specs)
        self._keep = keep
        self._lock = fork_lock()

    def acquire(self, rows: Sequence[int]) -> ArenaSet:
        """Arenas of at least these sizes in rows; they belong to the caller until :meth:`lease` or :meth:`release`."""
        rows = [_roomy(*one) for one in zip(self._specs, rows, self._factors, strict=True)]
        with self._lock:
            for position, arenas in enumerate(self._free):
                if arenas.fits(rows):
                    return self._free.pop(position)
            if self._free:
                self._free.pop(0)
        return ArenaSet(self._specs, rows, self._storage)

    def make_room(self, arena: int, factor: float) -> None:
        """Give an arena at least `factor` times the rows that are asked for, from now on."""
        self._factors[arena] = max(self._factors[arena], factor)

    def release(self, arenas: ArenaSet) -> None:
        """Give arenas back."""
        with self._lock:
            if len(self._free) < self._keep:
                self._free.append(arenas)

    def lease(self, arenas: ArenaSet) -> list[np.ndarray]:
        """Views of `arenas` that give them back when the last view of any of them is gone."""
        remaining = [len(arenas.views)]

        def gone() -> None:
            with self._lock:
                remaining[0] -= 1
                if remaining[0] == 0:
                    self.release(arenas)

        return [np.asarray(_Lease(view, gone)) for view in arenas.views]

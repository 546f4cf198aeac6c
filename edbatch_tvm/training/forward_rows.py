"""The rows of a forward pass in its backward pass: read where they lie, if their arenas have room for the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edbatch_tvm.graph.spec import ValueSpec
from edbatch_tvm.runtime.cpu_executor import CpuExecutor
from edbatch_tvm.runtime.device_result import DeviceResult, ExternalRows
from edbatch_tvm.runtime.result import Result
from edbatch_tvm.runtime.storage import held
from edbatch_tvm.training.cotangents import Cotangents

_MOST_ROOM = 8.0
"""An arena that would need more times the rows of its forward pass is not shared: what is copied then is little."""


class ForwardRows:
    """The external rows of a backward graph: in each arena the rows of the forward pass, then the cotangents given.

    They have the numbers that they have in the forward pass, whose first row, of zeros, is that of the backward pass.

    Parameters
    ----------
    forward : Result
    arenas : sequence of int
        For each arena of the backward graph, the one of the forward graph that has values of this spec, or -1.
    specs : sequence of ValueSpec
        Those of the backward graph.
    given : Cotangents

    Attributes
    ----------
    lengths : tuple of array
        Arrays of as many rows, all zero: a plan reads no more than how many there are.
    """

    def __init__(self, forward: Result, arenas: Sequence[int], specs: Sequence[ValueSpec], given: Cotangents) -> None:
        self._forward, self._arenas, self._specs, self._given = forward, arenas, specs, given
        used = forward.plan.arena_rows
        self._counts = [used[own] - 1 if own >= 0 else 0 for own in arenas]
        self.lengths = tuple(
            _zeros((count + len(given.rows.get(own, ())), *spec.shape), spec.dtype)
            for spec, own, count in zip(specs, arenas, self._counts, strict=True)
        )

    def shared(self, arena_rows: Sequence[int], executor: CpuExecutor) -> dict[int, np.ndarray]:
        """The arenas of the forward pass that have room for as many rows, by the arena of the backward graph.

        The cotangents are written behind their rows. `executor`, of the forward pass, gives others more room the next
        time.
        """
        found = {}
        for number, (own, spec) in enumerate(zip(self._arenas, self._specs, strict=True)):
            if own < 0:
                continue
            used, view = self._forward.plan.arena_rows[own], self._forward._views[own]
            need = arena_rows[number] + 1  # a row more than is used, as in every arena
            if need <= len(view):
                rows = self._given.rows.get(own)
                if rows is not None:
                    view[used : used + len(rows), : spec.size] = held(
                        rows.reshape(len(rows), spec.size), executor.kernels.storage
                    )
                found[number] = view
            elif need <= _MOST_ROOM * used:
                executor.make_room(own, need / used)
        return found

    def copied(self, shared: Mapping[int, np.ndarray]) -> tuple[Any, ...]:
        """The rows, as arrays that an executor copies; those of arenas that are `shared` are zero."""
        found: list[Any] = list(self.lengths)
        for number, (own, spec) in enumerate(zip(self._arenas, self._specs, strict=True)):
            if own < 0 or number in shared:
                continue
            count, more = self._counts[number], self._given.rows.get(own)
            if isinstance(self._forward, DeviceResult):
                more = np.empty((0, *spec.shape), spec.dtype) if more is None else more
                found[number] = ExternalRows(self._forward.tensor(own), count, more)
                continue
            rows = self._forward.arena(own)[1 : 1 + count].reshape(-1, *spec.shape)
            found[number] = rows if more is None else np.concatenate((rows, more))
        return tuple(found)


def _zeros(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Zeros that take no memory; as broadcast_to, which takes twenty times as long."""
    return np.ndarray(shape, dtype, _ZERO, strides=(0,) * len(shape))


_ZERO = bytes(8)

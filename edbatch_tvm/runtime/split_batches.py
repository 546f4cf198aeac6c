"""Large batches of cells of several kernels, cut into pieces: what one kernel writes stays in a cache for the next."""

from __future__ import annotations

import numpy as np

from edbatch_tvm.find_native import find_native
from edbatch_tvm.graph.spec import CellSignature, Signature
from edbatch_tvm.memory.steps_table import BROADCAST, COUNT, FIRST, OUTPUTS, TYPE, CellLayout
from schedules.abi import padded

_CACHE = 1 << 19
"""Bytes that the rows of a piece take, about: half of a second-level cache."""

_LEAST = 64
"""Nodes of a piece, at least: a piece is a call of each kernel."""

_ANY = 1 << 40
"""Nodes of a piece where batches are not cut."""


class SplitBatches:
    """Cuts the batches of steps tables. Kernels compute a row in the same way wherever it lies, so no bit changes.

    Parameters
    ----------
    signature : Signature
    several : list of bool
        For each type whether several kernels run for it.

    Attributes
    ----------
    most : int64 array
        Of each type the nodes of a piece in one thread.
    """

    def __init__(self, signature: Signature, several: list[bool]) -> None:
        self._signature = signature
        most = [_most(cell) if own else _ANY for cell, own in zip(signature, several, strict=True)]
        self.most = np.array(most, np.int64)
        self._any = any(several)

    def steps(self, steps: np.ndarray, threads: int) -> tuple[np.ndarray, np.ndarray | None]:
        """The steps of all pieces, and where those of each batch begin, one more the end; None: each batch is one.

        Threads have caches of their own, so that pieces for several are larger.
        """
        if not self._any or not len(steps):
            return steps, None
        native = find_native("plan")
        if native is not None:
            found: tuple[np.ndarray, np.ndarray | None] = native.cut(self._signature, steps, self.most, threads)
            return found
        most = threads * self.most[steps[:, TYPE]]
        if (steps[:, COUNT] <= most).all():
            return steps, None
        return _cut(self._signature, steps, (-(-steps[:, COUNT] // most)).astype(np.int32))


def _cut(signature: Signature, steps: np.ndarray, parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The native kernel in NumPy."""
    first = np.zeros(len(steps) + 1, np.int64)
    np.cumsum(parts, out=first[1:])
    batch = np.repeat(np.arange(len(steps)), parts)
    number = np.arange(len(batch)) - first[batch]
    share, larger = steps[batch, COUNT] // parts[batch], steps[batch, COUNT] % parts[batch]
    begin = number * share + np.minimum(number, larger)
    made = steps[batch]
    made[:, COUNT] = share + (number < larger)
    made[:, FIRST] += begin
    for type_id in np.unique(steps[parts > 1, TYPE]).tolist():
        layout = CellLayout(len(signature[type_id].outputs), len(signature[type_id].operands))
        own = np.flatnonzero(made[:, TYPE] == type_id)
        made[own, OUTPUTS : layout.base(0)] += begin[own, None].astype(np.int32)
        for operand in range(layout.operands):
            moves = made[own, layout.stride(operand)] != BROADCAST
            made[own, layout.base(operand)] += begin[own] * moves
    return made, first


def _most(cell: CellSignature) -> int:
    """The most nodes of a piece; any number where rows are variadic."""
    if cell.variadic_count:
        return _ANY
    specs = [operand.spec for operand in cell.operands] + list(cell.outputs)
    return max(_LEAST, _CACHE // max(1, sum(padded(spec.size) * np.dtype(spec.dtype).itemsize for spec in specs)))

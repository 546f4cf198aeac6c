"""Weights as kernels read them: packed, padded or as they lie; memory of earlier ones is used again.

A model holds the weights that it read last. While they are replaced, minibatches may still read them, in other threads;
so new ones are written to other memory: to that of those before, if nobody reads it any more. Fresh memory would have
to be cleared by the operating system, which takes longer than copying weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from edbatch_tvm.runtime.storage import held, held_dtype
from edbatch_tvm.tvm_compat import runtime
from schedules.abi import ALIGNMENT, table_shape

Key = tuple[str, ...]
"""What the attribute :data:`~relay_ext.join_model_kernels.ROWS` of a program says of an address."""


class LoadedWeights:
    """Weights as kernels read them, and where they lie.

    Attributes
    ----------
    tensors : dict of Key to tensor
        They have to live as long as the addresses are used.
    types : int64 array of shape [types, addresses]
        The table of types, where the addresses of attributes are 0.
    filled : dict of str to bool array
        For tables whose rows are computed when they are read: which have been.
    """

    __slots__ = ("_changed", "_number", "_own", "_spare", "filled", "tensors", "types")

    def __init__(self, tensors: dict[Key, Any], types: np.ndarray, memory: WeightMemory | None = None) -> None:
        self.tensors = tensors
        self.types = types
        self.filled: dict[str, np.ndarray] = {}
        self._own: dict[Key, Any] = {} if memory is None else memory.own
        self._changed: Mapping[str, np.ndarray] = {} if memory is None else memory.changed
        self._number = 0 if memory is None else memory.number
        self._spare: list[tuple[int, dict[Key, Any]]] = [] if memory is None else memory.spare

    def give_out(self) -> dict[Key, Any]:
        """The tensors, for a caller who may keep them: nothing else is written there."""
        self._own = {}
        return self.tensors

    def __del__(self) -> None:
        if self._own:
            self._spare[:] = [(self._number, self._own)]


class WeightMemory:
    """Where the weights of one :meth:`~edbatch_tvm.runtime.kernels.KernelSet.load` go.

    Parameters
    ----------
    storage : str
        What numbers of float32 are kept in.
    before : LoadedWeights or None
        The weights that are replaced.
    rows : mapping of str to int array
        Of tables, the rows that differ from those of `before`.
    spare : list
        Where weights leave their memory: with their number, by key.
    """

    def __init__(
        self,
        storage: str,
        before: LoadedWeights | None,
        rows: Mapping[str, np.ndarray],
        spare: list[tuple[int, dict[Key, Any]]],
    ) -> None:
        self._storage = storage
        self._before = before
        self.spare = spare
        number, self._free = spare.pop() if spare else (-1, {})
        # What was loaded before `before`, and no more than that, lies in the memory that is used again.
        self._is_next = before is not None and number == before._number - 1
        self.number: int = 0 if before is None else before._number + 1
        self.changed: dict[str, np.ndarray] = dict(rows)
        self.own: dict[Key, Any] = {}

    def packed(
        self,
        key: Key,
        pack: Callable[..., None],
        shape: tuple[int, ...],
        dtype: str,
        weights: Sequence[np.ndarray],
    ) -> Any:
        """What `pack` writes, of weights that it reads."""
        if held_dtype(dtype, self._storage) != dtype:
            wide = runtime.empty(shape, dtype)
            pack(*map(as_argument, weights), wide)
            return runtime.tensor(held(np.from_dlpack(wide), self._storage))
        tensor = self._tensor(key, shape, dtype)
        pack(*map(as_argument, weights), tensor)
        return tensor

    def weight(self, key: Key, array: np.ndarray) -> Any:
        """A weight as it is: where it lies if that is aligned and lasts, else a copy."""
        array = held(array, self._storage)
        if lies_well(array):
            return runtime.from_dlpack(array)
        tensor = self._tensor(key, array.shape, array.dtype)
        np.from_dlpack(tensor)[...] = array
        return tensor

    def table(self, key: Key, array: np.ndarray) -> Any:
        """A weight as kernels look rows up in it: two-dimensional, rows padded."""
        count, width = table_shape(array.shape)
        rows = array.reshape(count, -1)
        size = rows.shape[1]
        if size == width:
            return self.weight(key, rows)
        is_known = key in self._free
        tensor = self._tensor(key, (count, width), np.dtype(held_dtype(str(array.dtype), self._storage)))
        view = np.from_dlpack(tensor)
        if not is_known:
            view[:, size:] = 0
        changed, before = self.changed.get(key[1]), self._before
        earlier = None if before is None else before._changed.get(key[1])
        if changed is None or earlier is None or before is None or not (is_known and self._is_next):
            view[:, :size] = held(rows, self._storage)
            return tensor
        view[earlier] = np.from_dlpack(before.tensors[key])[earlier]
        view[changed, :size] = held(rows[changed], self._storage)
        return tensor

    def room(self, key: Key, shape: tuple[int, ...], dtype: np.dtype) -> Any:
        """Memory for a weight that somebody else fills in."""
        return self._tensor(key, shape, dtype)

    def _tensor(self, key: Key, shape: tuple[int, ...], dtype: str | np.dtype) -> Any:
        """Memory for what has always the same shape under its key."""
        tensor = self._free.get(key)
        if tensor is None:
            tensor = runtime.empty(shape, str(dtype))
        self.own[key] = tensor
        return tensor


def lies_well(array: np.ndarray) -> bool:
    """Whether kernels can read an array where it lies; read-only ones are not ours to keep."""
    return array.flags.writeable and array.__array_interface__["data"][0] % ALIGNMENT == 0


def as_argument(array: np.ndarray) -> np.ndarray:
    """An array for a call that reads it: TVM refuses read-only ones."""
    if array.flags.writeable:
        return array
    view = array.view()
    try:
        view.flags.writeable = True
    except ValueError:  # nobody can write to it
        return array.copy()
    return view

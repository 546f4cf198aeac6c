"""The cache of schedules, layouts, plans and libraries: what was used last, up to a size."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from edbatch_tvm.fork_lock import fork_lock

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class BoundedCache(Generic[Key, Value]):
    """Forgets the values used longest ago when all are larger than `capacity` together; one is always kept.

    Threads may share it, and a forked child finds it unlocked.

    Parameters
    ----------
    capacity : int
    size_of : callable, optional
        Size of a value; 1 if left out, so that `capacity` is the number of values.
    """

    def __init__(self, capacity: int, size_of: Callable[[Value], int] = lambda _: 1) -> None:
        self._capacity = capacity
        self._size_of = size_of
        self._values: OrderedDict[Key, Value] = OrderedDict()
        self._size = 0
        self._lock = fork_lock()

    def get(self, key: Key) -> Value | None:
        """The value kept under `key`, now the one used last."""
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key]

    def put(self, key: Key, value: Value) -> None:
        """Keep `value` under `key`, in place of what was there."""
        with self._lock:
            if key in self._values:
                self._size -= self._size_of(self._values.pop(key))
            self._values[key] = value
            self._size += self._size_of(value)
            while self._size > self._capacity and len(self._values) > 1:
                _, oldest = self._values.popitem(last=False)
                self._size -= self._size_of(oldest)

    def get_or_make(self, key: Key, make: Callable[[], Value]) -> Value:
        """The value kept under `key`, or what `make` returns, kept from now on."""
        found = self.get(key)
        if found is None:
            found = make()
            self.put(key, found)
        return found

    def clear(self) -> None:
        """Forget all values."""
        with self._lock:
            self._values.clear()
            self._size = 0

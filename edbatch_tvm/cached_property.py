"""Properties that are computed once, without a lock.

:class:`functools.cached_property` of Python 3.10 and 3.11 holds one lock for all objects while it computes. A process
that is forked meanwhile by another thread has the lock, but not the thread that would let go of it.
"""

from __future__ import annotations

import functools
from typing import Any, TypeVar, overload

T = TypeVar("T")


class cached_property(functools.cached_property[T]):
    """A property that keeps what it first returned in the object's ``__dict__``.

    Two threads that ask at once may both compute it: what is kept so must not depend on who computes it.
    """

    @overload
    def __get__(self, instance: None, owner: type[Any] | None = None) -> cached_property[T]: ...

    @overload
    def __get__(self, instance: object, owner: type[Any] | None = None) -> T: ...

    def __get__(self, instance: Any, owner: type[Any] | None = None) -> Any:
        """The value; the property itself where it is read off the class."""
        if instance is None:
            return self
        values, name = instance.__dict__, self.attrname
        assert name is not None
        if name not in values:
            values[name] = self.func(instance)
        return values[name]

"""Classes that stand for a model's own: derived from them, and taken for them by the model's code."""

from __future__ import annotations

from functools import cache
from typing import Any

_ORIGINAL = "_edbatch_original"


class _Quiet:
    """No class that is derived from this one is registered by ``__init_subclass__`` of the user's."""

    def __init_subclass__(cls, **named: Any) -> None:
        pass


@cache
def _stand_in(kind: type) -> Any:
    """The class of classes that stand for others whose class is `kind`.

    What is set on such a class (``type(self).count += 1``) is set on the model's own, and it is equal to that.
    """

    def __setattr__(cls: Any, name: str, value: Any) -> None:
        setattr(original(cls), name, value)

    def __delattr__(cls: Any, name: str) -> None:
        delattr(original(cls), name)

    def __eq__(cls: Any, other: Any) -> Any:
        return original(cls) is original(other) if isinstance(other, type) else NotImplemented

    def __hash__(cls: Any) -> int:
        return hash(original(cls))

    methods = {
        "__setattr__": __setattr__,
        "__delattr__": __delattr__,
        "__eq__": __eq__,
        "__hash__": __hash__,
    }
    return type(kind.__name__, (kind,), methods)


def original(kind: type) -> type:
    """The class that a class of copies stands for; any other class itself."""
    stands_for: type = getattr(kind, _ORIGINAL, kind)
    return stands_for


def standing_for(kind: type, methods: dict[str, Any]) -> Any:
    """A class that looks like `kind` and is derived from it; the user's code is not told that there is one."""
    given = {"__module__": kind.__module__, "__doc__": kind.__doc__, _ORIGINAL: original(kind), **methods}
    bases = (kind,) if issubclass(kind, _Quiet) else (_Quiet, kind)
    made: Any = type.__new__(_stand_in(type(original(kind))), kind.__name__, bases, given)
    type.__setattr__(made, "__qualname__", kind.__qualname__)
    return made

"""What a model's ``forward`` may read besides its arguments: kept, to be compared with what it is later."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from itertools import chain
from operator import attrgetter, is_, methodcaller
from typing import Any

import numpy as np
import torch

from edbatch_tvm.recording.compiled_cells import same_numbers
from edbatch_tvm.recording.given_objects import is_object
from edbatch_tvm.recording.held_objects import own_function
from edbatch_tvm.recording.rebinding import OWN

_DEEPEST = 6
"""Objects in objects that are looked into."""

_PLAIN = frozenset({int, str, bytes, bool, type(None), torch.dtype, torch.device, torch.Size, complex})
_DICTIONARIES = "_parameters", "_buffers", "_modules"
_VALUES, _TRAINS = methodcaller("values"), attrgetter("requires_grad")
_HOOKS = tuple(name for name in vars(torch.nn.Module()) if "hooks" in name and not name.endswith("with_kwargs"))


class SeenState:
    """The attributes, buffers, mode and parameters of a model at one time.

    Parameters
    ----------
    model : Module
    followed : set of int
        Ids of parameters whose numbers do not count.
    """

    def __init__(self, model: torch.nn.Module, followed: set[int]) -> None:
        self._followed = followed
        self._model = model
        found = list(self._parts(model))
        self._kept = [(where, _frozen(value, 0)) for where, value in found]
        self._look(found)

    def _look(self, found: list[tuple[Any, Any]]) -> None:
        """Note the objects that there are now: while they are the same, only what changes inside is compared."""
        self._objects = _Objects(list(self._model.modules()))
        pairs = zip(self._kept, found, strict=True)
        self._changing = [(kept, value) for (_, kept), (_, value) in pairs if kept.changes]

    def holds(self, model: torch.nn.Module) -> bool:
        """Whether all of it is as it was."""
        if model is self._model and self._objects.are_still():
            return all(kept.is_still(value) for kept, value in self._changing)
        found = list(self._parts(model))
        if len(found) != len(self._kept):
            return False
        for (where, kept), (now, value) in zip(self._kept, found, strict=True):
            if where != now or not kept.is_still(value):
                return False
        self._model = model
        self._look(found)
        return True

    def _parts(self, model: torch.nn.Module) -> Iterator[tuple[Any, Any]]:
        """What there is, by where it is."""
        for path, module in model.named_modules(remove_duplicate=False):
            own = vars(module)
            yield (path, id(module), type(module), module.training), None
            for name in _HOOKS:
                if own.get(name):
                    yield (path, name), list(own[name].values())
            for name, buffer in own["_buffers"].items():
                yield (path, name), buffer
            for name, parameter in own["_parameters"].items():
                trains = parameter is not None and parameter.requires_grad
                yield (path, name, id(parameter), trains), None if id(parameter) in self._followed else parameter
            for name, value in own.items():
                if name not in OWN:
                    yield (path, name), value
            for kind in type(module).__mro__:
                if kind is torch.nn.Module:
                    break
                if kind.__module__.startswith("torch."):
                    continue
                for name, value in vars(kind).items():
                    if not name.startswith("__"):
                        yield (path, kind, name), own_function(value)


class _Objects:
    """The objects that modules and their classes have for attributes; of other dictionaries, those in them.

    They are held here, so none of them goes and leaves its place to another. Dictionaries are compared all at once:
    every call does this.
    """

    def __init__(self, modules: list[torch.nn.Module]) -> None:
        self._modules = modules
        self._kinds = list(map(type, modules))
        owns = list(map(vars, modules))
        kinds = [kind for each in self._kinds for kind in each.__mro__]
        classes = [kind for kind in kinds if not kind.__module__.startswith(("torch.", "builtins"))]
        others = [own[name] for own in owns for name in _DICTIONARIES]
        self._dictionaries: list[Mapping[str, Any]] = [*owns, *others, *map(vars, dict.fromkeys(classes))]
        self._sizes = list(map(len, self._dictionaries))
        self._names = list(chain.from_iterable(self._dictionaries))
        self._values = list(chain.from_iterable(map(_VALUES, self._dictionaries)))
        self._parameters = [one for own in owns for one in own["_parameters"].values() if one is not None]
        self._trains = list(map(_TRAINS, self._parameters))
        # These are attributes, so they are among the objects that are compared; a hook is an entry of one of them.
        self._hooks = [own[name] for own in owns for name in _HOOKS if own.get(name) is not None]

    def are_still(self) -> bool:
        """Whether all are the same objects under the same names, and there are no hooks."""
        return (
            not any(self._hooks)
            and list(map(type, self._modules)) == self._kinds
            and list(map(len, self._dictionaries)) == self._sizes
            and list(chain.from_iterable(self._dictionaries)) == self._names
            and all(map(is_, chain.from_iterable(map(_VALUES, self._dictionaries)), self._values))
            and list(map(_TRAINS, self._parameters)) == self._trains
        )


class _Kept:
    """A value as it was.

    Attributes
    ----------
    changes : bool
        Whether the same object may be another value.
    """

    changes = False

    def __init__(self, value: Any, content: Any) -> None:
        self.value = value
        self.content = content

    def is_still(self, value: Any) -> bool:
        """Whether a value is what this one was."""
        return value is self.value


class _Constant(_Kept):
    def is_still(self, value: Any) -> bool:
        return type(value) is type(self.value) and value == self.value


class _Float(_Kept):
    def is_still(self, value: Any) -> bool:
        return type(value) is float and repr(value) == self.content


class _Tensor(_Kept):
    changes = True

    def is_still(self, value: Any) -> bool:
        return value is self.value and same_numbers(value, self.content)


class _Array(_Kept):
    changes = True

    def is_still(self, value: Any) -> bool:
        return value is self.value and (value.shape, value.dtype, value.tobytes()) == self.content


class _Parts(_Kept):
    """A container or an object: the same one, with the same parts in it; a tuple may be an equal one."""

    changes = True

    def is_still(self, value: Any) -> bool:
        if type(value) is not type(self.value) or (type(value) is not tuple and value is not self.value):
            return False
        parts = _parts_of(value)
        return len(parts) == len(self.content) and all(
            kept.is_still(part) for kept, part in zip(self.content, parts, strict=True)
        )


def _frozen(value: Any, depth: int) -> _Kept:
    kind = type(value)
    if kind in _PLAIN:
        return _Constant(value, None)
    if kind is float:
        return _Float(value, repr(value))
    if isinstance(value, torch.Tensor):
        return _Tensor(value, value.detach().clone())
    if isinstance(value, np.ndarray):
        return _Array(value, (value.shape, value.dtype, value.tobytes()))
    if depth < _DEEPEST and (_is_container(value) or _is_object(value)):
        return _Parts(value, [_frozen(part, depth + 1) for part in _parts_of(value)])
    return _Kept(value, None)


def _is_container(value: Any) -> bool:
    return isinstance(value, list | tuple | dict | set | frozenset | deque)


def _is_object(value: Any) -> bool:
    if isinstance(value, torch.nn.Module | type) or (callable(value) and not is_object(value)):
        return False
    return isinstance(getattr(value, "__dict__", None), dict)


def _parts_of(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    if _is_container(value):
        return list(value)
    return [*vars(value).keys(), *vars(value).values()]

"""Attributes of modules that cells read and write: inputs and outputs of theirs.

Before a cell is made, its code runs once on a copy of its module that takes notes. Attributes that stay what they are
while elements run are checked once a minibatch; others are arguments of every call.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from types import MethodType
from typing import Any, NamedTuple

import torch

from edbatch_tvm.errors import CellError
from edbatch_tvm.recording.given_objects import content_of_object, copy_of_object, is_object
from edbatch_tvm.recording.random_state import GENERATORS
from edbatch_tvm.recording.rebinding import OWN, Rebinding
from edbatch_tvm.recording.standing_classes import original as original_class
from edbatch_tvm.recording.standing_classes import standing_for
from edbatch_tvm.recording.uncompiled import IN_PLACE, original


class StandsForCell:
    """The class of what stands for a cell on the copies of a model that elements have: calling it records.

    Attributes
    ----------
    plain : callable
        What it stands for.
    """

    __slots__ = ("plain",)

    plain: Callable[..., Any]


class Attribute(NamedTuple):
    """An attribute of a module below another."""

    path: tuple[str, ...]
    name: str

    def of(self, root: torch.nn.Module) -> tuple[torch.nn.Module, str]:
        """The module that has it, and its name."""
        module = original(root)
        for part in self.path:
            module = original(module._modules[part])
        return module, self.name

    def value(self, root: torch.nn.Module) -> Any:
        """What it is; :data:`ABSENT` if it is not there."""
        module, name = self.of(root)
        return vars(module)[name] if name in vars(module) else getattr(module, name, ABSENT)

    def __str__(self) -> str:
        return ".".join((*self.path, self.name))


class _Absent:
    def __repr__(self) -> str:
        return "ABSENT"


ABSENT = _Absent()
"""What an attribute is that is not there: code may ask for it (``hasattr``), and find it another time."""

LOOK_UP = frozenset({"torch", "edbatch_tvm", "relay_ext", "functools"})
"""Packages that read ``__dict__`` to look up one attribute."""

CELL = "_edbatch_cell"
"""Name of the attribute of a copy that has what stands for its cell."""

KEEPER = "_edbatch_keeper"
"""Name of the attribute by which a copy of a module knows whose it is."""

REBINDING = Rebinding({})
"""Finds modules in functions, lists and dicts."""

CONTAINERS = (list, dict, set, deque)


def is_constant(value: Any) -> bool:
    """Whether an attribute that holds `value` may be checked once a minibatch: it cannot change by itself."""
    if isinstance(value, tuple):
        return all(map(is_constant, value))
    plain = (int, float, bool, str, bytes, type(None), _Absent, torch.dtype, torch.device, torch.Size, slice)
    return type(value) in plain or isinstance(value, type) or (callable(value) and not is_object(value))


def copied_tree(
    module: torch.nn.Module,
    kind: Callable[[type], type] | None = None,
    copies: dict[int, torch.nn.Module] | None = None,
) -> torch.nn.Module:
    """A copy of a module and of those in it, with the same parameters, buffers and other attributes."""
    copies = {} if copies is None else copies
    module = original(module)
    if id(module) in copies:
        return copies[id(module)]
    if isinstance(module, torch.jit.ScriptModule):
        return module
    copy: Any = object.__new__(kind(type(module)) if kind is not None else type(module))
    copies[id(module)] = copy
    own = vars(module).copy()
    for name in (KEEPER, IN_PLACE):
        own.pop(name, None)
    copy.__dict__ = own
    own["_modules"] = {
        name: one if one is None else copied_tree(one, kind, copies) for name, one in vars(module)["_modules"].items()
    }
    for name, value in own.items():
        if name not in OWN:
            own[name] = REBINDING.rebound(value, lambda module: copied_tree(module, kind, copies))
    return copy


class Notes:
    """What code has read of the modules below `root`, a tree of copies that take notes.

    Attributes
    ----------
    read : dict of Attribute to object
        In the order of the first reading.
    called : set of Attribute
        Functions that modules or classes of the user's have; without a name, modules that were called.
    """

    def __init__(self, root: torch.nn.Module, example: Callable[[Any], Any]) -> None:
        self.closed = True
        self.read: dict[Attribute, Any] = {}
        self.called: set[Attribute] = set()
        self._example = example
        copies: dict[int, torch.nn.Module] = {}
        self.root = copied_tree(root, self._kind, copies)
        for _, module in _named(self.root):
            _calls_itself(module, copies)
        self._path = {id(module): tuple(path.split(".")) if path else () for path, module in _named(self.root)}
        self._before = {id(module): vars(module).copy() for _, module in _named(self.root)}
        self._buffers = {id(module): vars(module)["_buffers"].copy() for _, module in _named(self.root)}
        self._held: list[tuple[str, Any, Any]] = []
        self._copies: dict[Attribute, Any] = {}
        self.closed = False

    def _kind(self, kind: type) -> type:
        notes = self

        def __getattribute__(self: Any, name: str) -> Any:
            value = super(made, self).__getattribute__(name)
            if name not in OWN and not notes.closed:
                value = notes._noted(self, name, value)
            elif name == "_buffers" and not notes.closed:
                for one, buffer in value.items():
                    notes._noted(self, one, buffer)
            elif name == "_forward_hooks" and not notes.closed:
                notes.called.add(Attribute(notes._path.get(id(self), ()), ""))
            elif name == "__dict__" and not notes.closed:
                package = sys._getframe(1).f_globals.get("__name__", "").partition(".")[0]
                if package not in LOOK_UP:  # what of it is read, and what is missing there, nobody knows
                    raise CellError("the code reads all attributes of a module: vars(), __dict__", "those it names")
            return value

        def __getattr__(self: Any, name: str) -> Any:
            try:
                value = kind.__getattr__(self, name)  # type: ignore[attr-defined]
            except AttributeError:
                if not notes.closed:
                    notes._missed(self, name)
                raise
            return value if notes.closed else notes._noted(self, name, value)  # a buffer

        made: Any = standing_for(kind, {"__getattribute__": __getattribute__, "__getattr__": __getattr__})
        return made

    def _noted(self, module: Any, name: str, value: Any) -> Any:
        if isinstance(value, torch.nn.Module):
            return value
        path = self._path.get(id(module))
        own = object.__getattribute__(module, "__dict__")
        if path is None or name in own.get("_parameters", ()):
            return value
        if name not in own and name in own.get("_buffers", ()):
            if value is None or self._buffers.get(id(module), {}).get(name, self) is not value:
                return value  # the code itself has set it
            return self._example(self.read.setdefault(Attribute(path, name), value))
        if name not in own:
            base = next((base for base in type(module).__mro__ if name in vars(base)), None)
            held = None if base is None else vars(base)[name]
            if held is None or callable(held) or isinstance(held, property | classmethod | staticmethod):
                if base is not None and not base.__module__.startswith("torch."):
                    self.called.add(Attribute(path, name))
                return value
        elif self._before.get(id(module), {}).get(name, self) is not value:
            return value  # the code itself has set it
        if isinstance(value, GENERATORS):
            raise CellError(
                f"the code reads the generator of random numbers {name!r}", "numbers that are drawn outside"
            )
        attribute = Attribute(path, name)
        if callable(value):
            self.called.add(attribute)
        if attribute not in self.read:
            self.read[attribute] = value
            if type(value) in CONTAINERS:
                self._held.append((str(attribute), value, _content(value)))
            elif is_object(value):
                content = content_of_object(value)
                self._copies[attribute] = copy_of_object(value)
                self._held.append((str(attribute), self._copies[attribute], content))
        return self._copies[attribute] if attribute in self._copies else self._example(value)

    def _missed(self, module: Any, name: str) -> None:
        """Note that an attribute is not there."""
        path = self._path.get(id(module))
        there = name in self._before.get(id(module), ()) or any(name in vars(base) for base in type(module).__mro__)
        if path is not None and not there and not name.startswith("__"):
            self.read.setdefault(Attribute(path, name), ABSENT)

    def check(self) -> None:
        """Check that no list or dict that was read has been changed.

        Raises
        ------
        CellError
            Naming the attribute.
        """
        for name, value, content in self._held:
            if _content(value) != content:
                raise CellError(f"the code changes the {type(value).__name__} {name!r}", "code that makes new ones")


def _calls_itself(module: torch.nn.Module, copies: Mapping[int, torch.nn.Module]) -> None:
    """Let a copy of an element's copy have code of its own in the place of what records calls of it."""
    own, kind = vars(module), original_class(type(module))
    for name, value in list(own.items()):
        if not isinstance(value, StandsForCell):
            continue
        if name == CELL:
            own["forward"] = own.get("forward", MethodType(kind.forward, module))  # type: ignore[attr-defined]
            own[name] = MethodType(kind.__call__, module)
        elif hasattr(kind, name):
            del own[name]
        else:
            own[name] = REBINDING.rebound(value.plain, lambda one: copies.get(id(one), one))


def _named(root: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module]]:
    return root.named_modules()


def _content(value: Any) -> Any:
    if is_object(value):
        return content_of_object(value)
    items = value.items() if isinstance(value, dict) else value
    return [tuple(map(id, item)) if isinstance(value, dict) else id(item) for item in items]


class Written:
    """What a call returned, and attributes that it set.

    Attributes
    ----------
    result : object
    attributes : list of (Attribute, object)
    """

    __slots__ = ("attributes", "result")

    def __init__(self, result: Any, attributes: list[tuple[Attribute, Any]]) -> None:
        self.result = result
        self.attributes = attributes


torch.utils._pytree.register_pytree_node(
    Written,
    lambda one: ([one.result, [value for _, value in one.attributes]], tuple(name for name, _ in one.attributes)),
    lambda parts, names: Written(next(iter(parts)), list(zip(names, list(parts)[1], strict=True))),
)


def call_with_attributes(
    root: torch.nn.Module, call: Callable[[torch.nn.Module], Any], given: dict[Attribute, Any]
) -> Any:
    """What `call` returns for a copy of `root` that has the attributes `given`; and what it sets on the copy."""
    copy = copied_tree(root)
    for attribute, value in given.items():
        holder, own_name = attribute.of(copy)
        if value is not ABSENT:
            vars(holder)[own_name] = value
            continue
        vars(holder).pop(own_name, None)
        vars(holder)["_buffers"] = {name: one for name, one in holder._buffers.items() if name != own_name}
    before = {path: vars(module).copy() for path, module in copy.named_modules()}
    contents = {name: _content(value) for name, value in given.items() if type(value) in CONTAINERS}
    result = call(copy)
    written = []
    for path, module in copy.named_modules():
        old = before.get(path)
        if old is None:
            raise CellError(f"the code adds the module {path!r}", "modules that are there before")
        for name, value in vars(module).items():
            if name not in OWN and (name not in old or old[name] is not value):
                written.append((Attribute(tuple(path.split(".")) if path else (), name), value))
        if any(name not in vars(module) for name in old):
            raise CellError("the code deletes attributes")
    for attribute, content in contents.items():
        if _content(given[attribute]) != content:
            kind = type(given[attribute]).__name__
            raise CellError(f"the code changes the {kind} {str(attribute)!r}", "code that makes new ones")
    return Written(result, written) if written else result

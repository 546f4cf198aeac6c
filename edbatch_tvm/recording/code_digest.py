"""A digest of what Python code computes: the same in every process that has the same code and versions.

:func:`relay_ext.module_structure.module_structure` compares functions and classes by identity. Here they are read: the
bytecode of a function with its defaults, its closure and the globals that it names; a class with everything in it and
its bases. Code of Python itself, torch and NumPy counts by its name, since their versions are in the digest. What
cannot be read has no digest: an instance of a class that nobody foresaw, or another package's compiled code.
"""

from __future__ import annotations

import builtins
import hashlib
import sys
import types
from collections.abc import Hashable
from functools import partial
from typing import Any

import numpy as np
import torch

from edbatch_tvm.recording.held_objects import codes_of
from edbatch_tvm.recording.specs import RowsSpec, TensorSpec
from relay_ext.module_structure import Alone, module_structure

_LIBRARIES = frozenset(sys.stdlib_module_names) - {"__main__"} | {"torch", "numpy", "edbatch_tvm", "relay_ext"}
_MADE_IN_PYTHON = 1 << 9
"""Flag of classes that a ``class`` statement makes."""

_PLAIN = (type(None), bool, int, str, bytes, type(...))
_CODE = ("co_code", "co_argcount", "co_posonlyargcount", "co_kwonlyargcount", "co_flags")
_NAMES = ("co_names", "co_varnames", "co_freevars", "co_cellvars")
_UNREAD = frozenset(["__dict__", "__weakref__", "__doc__", "__module__", "__firstlineno__", "__static_attributes__"])


class _Unreadable(Exception):
    """Something that has no digest."""


def code_digest(structure: Hashable) -> str | None:
    """The digest of what :func:`~relay_ext.module_structure.module_structure` returned; None if a part has none."""
    reader = _Reader()
    versions = (sys.version, str(torch.__version__), np.__version__, str(torch.get_default_dtype()))
    try:
        reader.read((versions, structure), frozenset())
    except (_Unreadable, RecursionError):
        return None
    return reader.digest.hexdigest()


class _Reader:
    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self._number: dict[int, int] = {}
        self._held: list[Any] = []
        """Keeps what was read alive, so that no other thing gets its address."""

    def _write(self, *texts: object) -> None:
        for text in texts:
            content = str(text).encode()
            self.digest.update(f"{len(content)}:".encode() + content)

    def read(self, thing: Any, names: frozenset[str]) -> None:
        """Read `thing`; of modules, what code that uses these `names` may find in them."""
        if isinstance(thing, Alone):
            thing = thing.thing
            if isinstance(thing, torch.Tensor):  # its numbers are not read
                raise _Unreadable
        if type(thing) in _PLAIN:
            self._write(type(thing).__name__, repr(thing))
        elif type(thing) in (float, complex):
            self._write("number", repr(thing))
        elif isinstance(thing, TensorSpec):
            self._write("spec", thing)
        elif isinstance(thing, RowsSpec):
            self._write("rows", thing)
        elif isinstance(thing, torch.dtype | torch.device | torch.layout | torch.memory_format):
            self._write("torch", thing)
        elif type(thing) in (tuple, list, torch.Size):
            self._write(type(thing).__name__, len(thing))
            for item in thing:
                self.read(item, names)
        elif type(thing) in (set, frozenset):
            self._write("set", *sorted(_of_item(item, names) for item in thing))
        elif type(thing) is dict:
            self.read(list(thing.items()), names)
        elif not self._known(thing):
            self._other(thing, names)

    def _known(self, thing: Any) -> bool:
        """Whether `thing` was read before, and noted as such."""
        if id(thing) in self._number:
            self._write("again", self._number[id(thing)])
            return True
        self._number[id(thing)] = len(self._number)
        self._held.append(thing)
        return False

    def _other(self, thing: Any, names: frozenset[str]) -> None:
        if isinstance(thing, types.ModuleType):
            self._module(thing, names)
        elif name := _library_name(thing):
            self._write("library", name)
        elif isinstance(thing, type):
            self._class(thing)
        elif isinstance(thing, types.FunctionType):
            self._function(thing)
        elif isinstance(thing, types.MethodType):
            self.read(thing.__func__, names)
            self.read(thing.__self__, names)
        elif isinstance(thing, staticmethod | classmethod):
            self._write(type(thing).__name__)
            self.read(thing.__func__, names)
        elif isinstance(thing, property):
            for part in (thing.fget, thing.fset, thing.fdel):
                self.read(part, names)
        elif isinstance(thing, partial):
            self.read((thing.func, thing.args, thing.keywords), names)
        elif isinstance(thing, torch._ops.OpOverload | torch._ops.OpOverloadPacket):
            if str(thing).partition(".")[0].partition("::")[0] not in ("aten", "prims"):
                raise _Unreadable
            self._write("operator", thing)
        elif isinstance(thing, torch.nn.Module | torch.Tensor):
            self.read(module_structure(torch, thing), names)
        else:
            raise _Unreadable

    def _module(self, module: types.ModuleType, names: frozenset[str]) -> None:
        self._write("module", module.__name__)
        library = _is_of_library(module.__name__)
        for name in sorted(names & vars(module).keys()):
            value = vars(module)[name]
            # Of a library's module, what somebody else has put there.
            if not library or isinstance(value, types.ModuleType) or _is_replaced(value):
                self._write(name)
                self.read(value, names)

    def _class(self, kind: type) -> None:
        self._write("class", kind.__qualname__)
        self.read(kind.__bases__, frozenset())
        for name, value in vars(kind).items():
            if name not in _UNREAD and not isinstance(value, types.GetSetDescriptorType | types.MemberDescriptorType):
                self._write(name)
                self.read(value, frozenset())

    def _function(self, function: types.FunctionType) -> None:
        self._write("function")
        names = frozenset(name for code in codes_of(function.__code__) for name in code.co_names)
        for code in codes_of(function.__code__):
            self._write(*(getattr(code, part) for part in (*_CODE, *_NAMES)))
            self.read(tuple(one for one in code.co_consts if not isinstance(one, types.CodeType)), names)
        self.read((function.__defaults__, function.__kwdefaults__), names)
        try:
            self.read(tuple(cell.cell_contents for cell in function.__closure__ or ()), names)
        except ValueError:  # an empty cell
            raise _Unreadable from None
        found = function.__globals__
        for name in sorted(names):
            if name in found:
                self._write("global", name)
                self.read(found[name], names)
            elif hasattr(builtins, name):
                self._write("builtin", name)


def _is_of_library(module: str) -> bool:
    return module.partition(".")[0] in _LIBRARIES


def _is_replaced(value: Any) -> bool:
    """Whether a value found in a library is a function of somebody else."""
    return isinstance(value, types.FunctionType) and not _is_of_library(str(value.__globals__.get("__name__")))


def _of_item(item: Any, names: frozenset[str]) -> str:
    reader = _Reader()
    reader.read(item, names)
    return reader.digest.hexdigest()


def _library_name(thing: Any) -> str:
    """The name by which `thing` is found in Python, torch or NumPy; empty if it is not, or not the same there."""
    owner = getattr(thing, "__module__", None) or getattr(getattr(thing, "__objclass__", None), "__module__", None)
    if not isinstance(owner, str) or not _is_of_library(owner):
        return ""
    for name in (getattr(thing, "__qualname__", None), getattr(thing, "__name__", None)):
        found: Any = sys.modules.get(owner)
        for part in name.split(".") if isinstance(name, str) else ():
            found = getattr(found, part, None)
        # Some of Python's own types have no name there: NoneType, function.
        own = isinstance(thing, type) and owner == "builtins" and not thing.__flags__ & _MADE_IN_PYTHON
        if isinstance(name, str) and (found is thing or own):
            return f"{owner}.{name}"
    return ""

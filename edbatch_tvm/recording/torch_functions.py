"""Functions of the module ``torch`` that are others while elements run.

``torch.cat`` and ``torch.stack`` join the states of children, thousands of times a minibatch, and torch takes long to
ask every tensor of a list whether it has a say. ``torch.tensor`` and the like do not ask: they take what says that it
is a tensor for one and read its memory, which a recorded one does not have.

Whoever calls them with anything else, in whatever thread, gets what the original does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from typing import Any

import torch
from torch.jit import _builtins

from edbatch_tvm.fork_lock import fork_lock
from edbatch_tvm.recording.lazy import LAZY, LazyRows, LazyTensor, joined_rows


def _joining(original: Callable[..., Any], function: Callable[..., Any]) -> Callable[..., Any]:
    """`original`, which does what `function` is recorded as, but lists that begin with a recorded tensor are ours."""
    stacked = function is torch.stack
    first = {"dim": 0}

    # Arguments go on as they came: subclasses and modes of torch see by name what was given by name.
    @wraps(original)
    def join(*arguments: Any, **named: Any) -> Any:
        tensors = arguments[0] if arguments else named.get("tensors")
        if (type(tensors) is tuple or type(tensors) is list) and tensors:
            kind = type(tensors[0])
            if kind is LazyTensor or kind is LazyRows:
                if len(arguments) == 1 and (not named or named == first):
                    rows = joined_rows(tensors, stacked)
                    if rows is not None:
                        return rows
                return tensors[0].recorder.tensor_function(function, arguments, named)
        return original(*arguments, **named)

    return join


def _reading(original: Any) -> Callable[..., Any]:
    """`original` on the values of recorded tensors among its arguments."""

    @wraps(original)
    def read(*arguments: Any, **named: Any) -> Any:
        for argument in arguments:
            if type(argument) not in _NUMBERS:
                arguments = tuple(map(_value, arguments))
                break
        if named:
            named = {name: _value(argument) for name, argument in named.items()}
        return original(*arguments, **named)

    return read


def _value(thing: Any) -> Any:
    """`thing` with recorded tensors computed; itself if there are none in it."""
    if type(thing) in LAZY:
        return thing.computed().clone()  # it lies in an arena, and as_tensor gives it away as it is
    if isinstance(thing, list | tuple):
        for item in thing:
            if type(item) not in _NUMBERS:
                return _values(thing)
    elif type(thing) is dict:
        return {key: _value(item) for key, item in thing.items()}
    return thing


def _values(things: list[Any] | tuple[Any, ...]) -> Any:
    """A list or tuple with recorded tensors computed; itself if there are none in it."""
    values = [_value(item) for item in things]
    if all(value is item for value, item in zip(values, things, strict=True)):
        return things
    return values if isinstance(things, list) else tuple(values)


_NUMBERS = frozenset({int, float, bool})

_JOINING = (("cat", "cat"), ("concat", "cat"), ("concatenate", "cat"), ("stack", "stack"))
"""Functions that join tensors, and what they are recorded as."""

_READING = ("tensor", "as_tensor", "asarray", "scalar_tensor", "full", "arange", "linspace")
"""Functions that take numbers, or tensors for them."""


def _replacements() -> list[tuple[Any, str, Any, Any]]:
    joining = [(name, _joining(getattr(torch, name), getattr(torch, function))) for name, function in _JOINING]
    reading = [(name, _reading(getattr(torch, name))) for name in _READING]
    made = [(torch, name, getattr(torch, name), function) for name, function in (*joining, *reading)]
    # A scripted function asks as little; a scripted module does.
    script: Any = torch._C.ScriptFunction
    call = vars(script)["__call__"]
    return [*made, (script, "__call__", call, _reading(script.__call__))]


_REPLACEMENTS = _replacements()
"""What they are attributes of, their names, the originals, and what takes their place."""


class _Users:
    """How many want the replacements, and how many the originals, who prevail."""

    def __init__(self) -> None:
        self.lock = fork_lock()
        self.of_replacements = 0
        self.of_originals = 0
        self.known_to_scripts = False

    @contextmanager
    def counted(self, replacements: int, originals: int) -> Iterator[None]:
        """One more of either, or one less of those there are."""
        self._count(replacements, originals)
        try:
            yield
        finally:
            self._count(-replacements, -originals)

    def _count(self, replacements: int, originals: int) -> None:
        with self.lock:
            self.of_replacements += replacements
            self.of_originals += originals
            wanted = self.of_replacements > 0 and self.of_originals == 0
            if wanted and not self.known_to_scripts:
                _tell_scripts()
                self.known_to_scripts = True
            for owner, name, original, function in _REPLACEMENTS:
                # What somebody else has put there stays.
                if vars(owner)[name] is (original if wanted else function):
                    setattr(owner, name, function if wanted else original)


def _tell_scripts() -> None:
    """Let ``torch.jit.script`` know the replacements, should code be scripted meanwhile."""
    for owner, _, original, function in _REPLACEMENTS:
        operator = _builtins._find_builtin(original)
        if owner is torch and operator is not None:
            _builtins._register_builtin(function, operator)


_users = _Users()


def replaced_functions() -> AbstractContextManager[None]:
    """A context in which the functions know recorded tensors; it may be entered many times, by several threads."""
    return _users.counted(1, 0)


def original_functions() -> AbstractContextManager[None]:
    """A context in which ``torch`` is as it was, whoever wants what: torch's own machinery compares with its functions.

    What it imports in the meantime may also remember them.
    """
    return _users.counted(0, 1)

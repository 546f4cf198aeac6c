"""What the elements of a minibatch share, and whether they changed it while they waited for values.

Elements that wait run in turns. What they change in a list, dict or tensor of the model, and random numbers that they
draw between turns, is then not what it would be if they ran one after the other.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from edbatch_tvm.recording.held_objects import objects_of
from edbatch_tvm.recording.module_attributes import CONTAINERS, OWN
from edbatch_tvm.recording.random_state import Drawn


class SharedState:
    """What all copies of a model share, as it was when the elements began.

    Parameters
    ----------
    model : torch.nn.Module
    first : bool
        Whether these are the first elements, which find out what the code changes outside of the model, too.
    """

    def __init__(self, model: torch.nn.Module, first: bool) -> None:
        self._held = list(_held_by(model))
        self._outside = objects_of(model) if first else []
        self._random = Drawn()

    def look(self) -> None:
        """Look what changed in a round."""
        self._random.look()

    @property
    def draws_random_numbers(self) -> bool:
        """Whether elements have drawn random numbers."""
        return self._random.rounds > 0

    def order_matters(self, model: torch.nn.Module) -> str:
        """What elements did that depends on their order, if they waited for values; "" if nothing did."""
        for held, now in zip(self._held, _held_by(model), strict=False):
            if held.version != now.version or not _same_objects(held.content, now.content):
                kind = type(held.value).__name__
                return f"elements that wait for values change {held.name}, a {kind} that they share"
        for one in self._outside:
            if one.is_changed:
                kind = type(one.value).__name__
                return f"elements that wait for values change {one.name}, a {kind} outside of the model"
        if self._random.rounds > 1:
            return "elements draw random numbers and wait for values in between"
        return ""


class _Held(NamedTuple):
    """A list, dict or tensor that all copies of a model share, and what is in it."""

    name: str
    value: Any
    content: tuple[Any, ...]
    version: int


def _held_by(model: torch.nn.Module) -> Iterator[_Held]:
    for path, module in model.named_modules():
        for name, value in (*vars(module).items(), *vars(module)["_buffers"].items()):
            if name in OWN:
                continue
            where = f"{path}.{name}" if path else name
            if isinstance(value, CONTAINERS):
                yield _Held(where, value, tuple(_items(value)), 0)
            elif isinstance(value, torch.Tensor) and not value.is_inference():
                yield _Held(where, value, (value,), value._version)


def _items(container: Any) -> Iterator[Any]:
    """A container, what is in it, and what is in containers in it."""
    # A stack, and ids: containers may be deep, and contain themselves.
    waiting, seen = [container], {id(container)}
    while waiting:
        one = waiting.pop()
        yield one
        for item in (*one, *one.values()) if isinstance(one, dict) else one:
            yield item
            if isinstance(item, (*CONTAINERS, tuple)) and id(item) not in seen:
                seen.add(id(item))
                waiting.append(item)


def _same_objects(some: tuple[Any, ...], others: tuple[Any, ...]) -> bool:
    return len(some) == len(others) and all(map(operator.is_, some, others))

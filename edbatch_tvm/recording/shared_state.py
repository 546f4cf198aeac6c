"""What the elements of a minibatch share, and whether they changed it while they waited for values.

Elements that wait run in turns. What they change in an object that the model, several elements, globals or closures
hold, and random numbers that they draw between turns, is then not what it would be if they ran one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from edbatch_tvm.recording.held_objects import Variable, class_variables, code_of, is_of_user, variables_of
from edbatch_tvm.recording.process_settings import torch_settings
from edbatch_tvm.recording.random_state import GENERATORS, Drawn, NumpyState
from edbatch_tvm.recording.rebinding import OWN
from edbatch_tvm.recording.standing_classes import original
from edbatch_tvm.recording.watched_objects import MOST, WatchedObjects, drawn_from, in_several, is_state


class SharedState:
    """What the elements of a minibatch share, as it was when the first of them began to wait.

    Parameters
    ----------
    model : torch.nn.Module
    functions : sequence of callable
        Run the elements; partial functions whose arguments are those of the elements.
    """

    def __init__(self, model: torch.nn.Module, functions: Sequence[Any]) -> None:
        self._model = model
        self._functions = [one.keywords for one in functions if isinstance(one, partial)]
        self._random = Drawn()
        held = (value for _, value in _held_by(model))
        self._generators = [_Generator(value) for value in held if isinstance(value, GENERATORS)]
        self._generators.append(_Generator(_of_numpy()))
        self._watched: WatchedObjects | None = None
        self._variables: list[Variable] = []
        self._settings: tuple[Any, ...] = ()

    def note(self) -> None:
        """Note what there is now, to be compared at the end."""
        if self._watched is not None:
            return
        self._settings = torch_settings()
        own = {id(one.value) for one in self._generators}
        variables = [*variables_of(code_of(self._model)), *_class_variables(self._model)]
        arguments = in_several([one["arguments"] for one in self._functions])
        self._variables = [one for one in variables if not callable(one.value)]
        self._watched = WatchedObjects(
            (
                *((name, value) for name, value in _held_by(self._model) if id(value) not in own),
                *((one.name, one.value) for one in variables if is_state(one.value)),
                *((f"argument {name!r}", value) for name, value in self._named()),
                *(("what several elements have", value) for value in arguments),
            )
        )

    def _named(self) -> Iterator[tuple[str, Any]]:
        yield from self._functions[0]["named"].items() if self._functions else ()

    def look(self) -> None:
        """Look what changed in a round."""
        self._random.look()
        for one in self._generators:
            one.look()

    @property
    def draws_random_numbers(self) -> bool:
        """Whether elements have drawn random numbers."""
        return self._random.rounds > 0 or any(one.rounds for one in self._generators)

    def order_matters(self) -> str:
        """What elements did that depends on their order, if they waited for values; "" if nothing did."""
        watched = self._watched or WatchedObjects()
        if watched.too_many:
            return f"elements wait for values and share more than {MOST:,} objects, among them {watched.too_many}"
        variable = next((one for one in self._variables if one.is_changed), None)
        changed = watched.changed() or variable
        if changed is not None:
            return f"elements that wait for values change {changed.name}, a {changed.kind} that they share"
        if self._settings and torch_settings() != self._settings:
            return "elements that wait for values change settings of PyTorch that they share"
        if self._random.rounds > 1 or any(one.rounds > 1 for one in self._generators):
            return "elements draw random numbers and wait for values in between"
        return ""


class _Generator:
    """A generator of random numbers, and in how many rounds numbers were drawn."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self.rounds = 0
        self._read = NumpyState(value).read if type(value) is np.random.RandomState else partial(drawn_from, value)
        self._before = self._read()

    def look(self) -> None:
        now = self._read()
        if now != self._before:
            self.rounds += 1
            self._before = now


def _of_numpy() -> Any:
    """The generator behind the functions of ``numpy.random``."""
    return np.random.mtrand._rand


def _held_by(model: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    """What the modules of a model have, and their classes: named objects."""
    for path, module in model.named_modules():
        for name, value in (*vars(module).items(), *vars(module)["_buffers"].items()):
            if name not in OWN:
                yield f"{path}.{name}" if path else name, value


def _class_variables(model: torch.nn.Module) -> Iterator[Variable]:
    for kind in {base for one in model.modules() for base in original(type(one)).__mro__ if is_of_user(base)}:
        yield from (one for one in class_variables(kind) if not callable(one.value))

"""What can be called while instances run, and the cells that calls of it have become."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch

from edbatch_tvm.errors import CellError
from edbatch_tvm.recording.arguments import FEW, Key
from edbatch_tvm.recording.cell_code import CellCode
from edbatch_tvm.recording.empty_results import EmptyResult
from edbatch_tvm.recording.module_attributes import Attribute
from edbatch_tvm.recording.specialise import Cell
from edbatch_tvm.recording.specs import TensorSpec

if TYPE_CHECKING:
    from edbatch_tvm.recording.dropout import Dropout
    from edbatch_tvm.recording.fused_rows import RowOperation


def code_sites(sites: Iterable[Site]) -> Iterator[Site]:
    """Sites, and after each that of its code with masks as arguments, if the code drops elements."""
    for site in sites:
        yield site
        if site.dropout is not None:
            yield site.dropout.site


class Constants:
    """Stands for the cells of calls of which integers or numbers of rows are constants, one for each of them."""


CONSTANTS = Constants()


class Site:
    """What can be called while instances run: a submodule, a method or a tensor function.

    Attributes
    ----------
    name : str
    target : callable
    owner : torch.nn.Module or None
        What its parameters belong to.
    integers_vary : bool
        Whether Python integers among the arguments are attributes; else every integer makes a cell of its own.
    named : tuple of str
        Names of the last arguments, for a tensor function called with arguments by name.
    cells : dict of key to Cell or EmptyResult
    steps : dict
        The same for calls as the recorder describes them: part after part of the key leads to another dict, and None
        in the last one to what recording the call takes, :attr:`Cell.made`.
    refused : dict of key to CellError
        Kinds of calls that cannot be a cell, and why.
    noted : set of key
        Kinds of calls whose attributes are known.
    reads : tuple of Attribute
        Attributes that are arguments, after the others.
    code : CellCode
        What the code calls.
    constants : dict of Attribute to object
        Attributes that stay what they are while elements run.
    row_wise : dict of key to object
        For kinds of calls with rows, what a call of one row returns; None where rows are not treated alike.
    operations : dict of key to RowOperation or None
        For those of operators that work element by element, what calls are that may be recorded later.
    dropout : Dropout or None
        The masks that calls take, if the code drops elements.
    never : CellError or None
        Why its code is no cell for any call.
    taken_apart : bool
        Whether its code runs as it is, and what it calls is recorded: it is a recurrent layer, or runs one over
        several steps.
    """

    __slots__ = (
        *(
            "_defaults",
            "_places",
            "cells",
            "code",
            "constants",
            "integers_vary",
            "name",
            "named",
            "noted",
            "owner",
            "reads",
            "refused",
        ),
        *("dropout", "never", "operations", "row_wise", "steps", "taken_apart", "target"),
    )

    def __init__(
        self,
        name: str,
        target: Callable[..., Any],
        owner: torch.nn.Module | None,
        integers_vary: bool = True,
        named: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        self.target = target
        self.owner = owner
        self.integers_vary = integers_vary
        self.named = named
        self.cells: dict[Key, Cell | EmptyResult] = {}
        self.steps: dict[Any, Any] = {}
        self.refused: dict[Key, CellError] = {}
        self.row_wise: dict[Key, Any] = {}
        self.operations: dict[Key, RowOperation | None] = {}
        self.noted: set[Key] = set()
        self.reads: tuple[Attribute, ...] = ()
        self.constants: dict[Attribute, Any] = {}
        self.code = CellCode()
        if owner is not None and not isinstance(target, torch.nn.Module):
            self.code.note_function(owner, name.rpartition(".")[2])
        self.never: CellError | None = None
        self.taken_apart = False
        self.dropout: Dropout | None = None
        self._defaults: list[Any] = []
        # Of calls with arguments by name, by how many are given by place and by these names.
        self._places: dict[tuple[Any, ...], list[int | inspect.Parameter]] = {}

    @property
    def was_called(self) -> bool:
        """Whether there has been a call, so far as it is known: a kind of call is noted when it is first met."""
        return bool(self.cells or self.refused or self.noted or self.row_wise or self.taken_apart)

    def learn(self, key: Key, made: tuple[int, tuple[TensorSpec, ...], Any]) -> None:
        """Let calls of `key` find their cell step by step: its type, its outputs and what it returns."""
        step = self.steps
        last: Any = None
        for part in key:
            if type(part) is tuple and part[0] == FEW:
                last = part
            else:
                step = step.setdefault(part, {})
        step[last] = made

    def found(self, key: Key) -> tuple[int, tuple[TensorSpec, ...], Any] | None:
        """What :meth:`learn` was told of calls of `key`; None if nothing was."""
        step: Any = self.steps
        last: Any = None
        for part in key:
            if type(part) is tuple and part[0] == FEW:
                last = part
                continue
            step = step.get(part)
            if step is None:
                return None
        found: tuple[int, tuple[TensorSpec, ...], Any] | None = step.get(last)
        return found

    def read(self, attribute: Attribute) -> None:
        """Let an attribute be an argument of every call."""
        if self.owner is not None:
            self.code.leave_out(*attribute.of(self.owner))
        self.constants.pop(attribute, None)
        self.reads = (*self.reads, attribute)
        self.steps, self.cells, self.row_wise, self.refused, self.noted = {}, {}, {}, {}, set()

    def positional(self, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> tuple[Any, ...]:
        """The arguments of a call in the order of the parameters."""
        every = *arguments, *named.values()
        key = len(arguments), *named
        places = self._places.get(key)
        if places is None:
            places = self._places[key] = self._places_of(len(arguments), tuple(named))
        given = [every[place] if isinstance(place, int) else place.default for place in places]
        defaults = self._defaults
        while len(given) > len(arguments) and len(given) <= len(defaults) and given[-1] is defaults[len(given) - 1]:
            given.pop()  # a call that leaves it out is the same call
        return tuple(given)

    def _places_of(self, count: int, names: tuple[str, ...]) -> list[int | inspect.Parameter]:
        """For each parameter, the place of its argument among `count` and those by name; itself if it has none."""
        target = self.target
        signature = inspect.signature(target.forward if isinstance(target, torch.nn.Module) else target)
        parameters = list(signature.parameters.values())
        self._defaults = [one.default for one in parameters]
        bound = signature.bind(*range(count), **{name: count + place for place, name in enumerate(names)})
        given = set(bound.arguments)
        bound.apply_defaults()
        if bound.kwargs:
            raise CellError(f"{self.name!r} has parameters that are given by name only", "positional parameters")
        return [
            value if place >= len(parameters) or parameters[place].name in given else parameters[place]
            for place, value in enumerate(bound.args)
        ]

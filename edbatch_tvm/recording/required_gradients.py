"""Which recorded values require a gradient, as PyTorch says of tensors.

A tensor requires a gradient if something that requires one went into it. So a recorded value does if a parameter of its
cell does, or an operand, unless it is detached. Which inputs go into which output of a cell is read off the graph that
autograd makes of the model's own code, once for each cell that is asked about.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from edbatch_tvm.graph import InstanceGraph
from edbatch_tvm.recording.arguments import EXAMPLE_ROWS

if TYPE_CHECKING:
    from edbatch_tvm.recording.cell_module import CellModule
    from edbatch_tvm.recording.lazy import Source
    from edbatch_tvm.recording.library import Library
    from edbatch_tvm.recording.specialise import Cell


_LAST = 1 << 62

Inputs = tuple[bool, frozenset[int]]
"""What goes into an output of a cell: whether a parameter that requires a gradient does, and which flat inputs."""


class _Calls:
    """Recorded calls, and where the values of each begin.

    Parameters
    ----------
    library : Library
    first : int
        The number of the first value.
    types, ends, operands : list of int
        As the recorder has them; they may grow.
    """

    def __init__(self, library: Library, first: int, types: list[int], ends: list[int], operands: list[int]) -> None:
        self._library = library
        self.first = first
        self.types = types
        self._ends = ends
        self._operands = operands
        self._begins = [first]

    def find(self, value: int) -> tuple[int, int, list[int]]:
        """The type of the call that a value is of, which of its outputs it is, and the operands of the call."""
        begins = self._begins
        new = self.types[len(begins) - 1 :]
        if new:
            cells = self._library.cells
            begins += list(accumulate((len(cells[one].outputs) for one in new), initial=begins[-1]))[1:]
        node = bisect_right(begins, value) - 1
        begin = self._ends[node - 1] if node else 0
        return self.types[node], value - begins[node], self._operands[begin : self._ends[node]]


class RequiredGradients:
    """Which values of one minibatch require a gradient, and which of them gradients do not pass.

    Parameters
    ----------
    library : Library
    externals : container of int
        The numbers of the tensors from outside that require a gradient.

    Attributes
    ----------
    of_none : dict of int to sequence of Source
        Values that were made of tensors without elements, and what went into these.
    """

    def __init__(self, library: Library, externals: Container[int]) -> None:
        self._library = library
        self._externals = externals
        self._found: dict[int, bool] = {}
        self._calls: list[_Calls] = []
        self._cells: dict[int, list[Inputs]] = {}
        self._off: list[tuple[int, int]] = []
        self._off_since: int | None = None
        self.of_none: dict[int, Sequence[Source]] = {}

    # Where no gradients are recorded ----------------------------------------------------------------------------

    @property
    def is_on(self) -> bool:
        """Whether gradients are recorded, as far as that was said."""
        return self._off_since is None

    def switched(self, enabled: bool, recorded: int) -> None:
        """Gradients are recorded from now on or not; `recorded` values are recorded."""
        if enabled and self._off_since is not None:
            if recorded > self._off_since:
                self._off.append((self._off_since, recorded))
            self._off_since = None
        elif not enabled and self._off_since is None:
            self._off_since = recorded

    def detach(self, first: int, end: int) -> None:
        """Let no gradient pass the values from `first` to `end`."""
        self._off.append((first, end))

    def is_detached(self, value: int) -> bool:
        """Whether no gradient passes a value that is recorded."""
        if self._off_since is not None and value >= self._off_since:
            return True
        place = bisect_right(self._off, (value, _LAST)) - 1  # ranges rise
        return place >= 0 and value < self._off[place][1]

    def is_constant(self, value: int) -> bool:
        """Whether a value is detached, or a tensor from outside that requires no gradient."""
        return self.is_detached(value) if value >= 0 else value not in self._externals

    def detached_nodes(self, graph: InstanceGraph, first: int, ids: np.ndarray) -> np.ndarray | None:
        """Which nodes of a graph no gradient passes; None: there are none.

        Parameters
        ----------
        graph : InstanceGraph
        first : int
            The number of the recorder's first value that the graph computes.
        ids : int array
            The value of the graph of each.
        """
        count = len(ids)
        ranges = [*self._off, *([] if self._off_since is None else [(self._off_since, first + count)])]
        found = np.zeros(count, bool)
        for begin, end in ranges:
            found[max(begin - first, 0) : max(end - first, 0)] = True
        if not found.any():
            return None
        nodes = np.zeros(graph.num_nodes, bool)
        nodes[ids[found] // graph.stride] = True
        return nodes

    # What goes into values -------------------------------------------------------------------------------------------

    def recorded(self, first: int, types: list[int], ends: list[int], operands: list[int]) -> None:
        """Calls are recorded, whose values are numbered from `first`, or will be in these lists."""
        if not self._calls or self._calls[-1].types is not types:
            self._calls.append(_Calls(self._library, first, types, ends, operands))

    def made_of_none(self, values: Iterable[int], sources: Sequence[Source]) -> None:
        """Values require a gradient because tensors without elements do, which no call has as operands."""
        for value in values:
            self._found[value] = True
            self.of_none[value] = sources

    def __contains__(self, value: int) -> bool:
        """Whether a value requires a gradient."""
        waiting = [value]
        while waiting:
            one = waiting[-1]
            if self._of(one) is not None:
                waiting.pop()
                continue
            always, operands = self._inputs(one)
            answers = [self._of(operand) for operand in operands]
            if always or True in answers:
                self._found[one] = True
            elif None in answers:
                waiting += [operand for operand, known in zip(operands, answers, strict=True) if known is None]
            else:
                self._found[one] = False
        return bool(self._of(value))

    def _of(self, value: int) -> bool | None:
        """Whether a value requires a gradient, as far as that is known."""
        return False if self.is_constant(value) else True if value < 0 else self._found.get(value)

    def _inputs(self, value: int) -> tuple[bool, list[int]]:
        """Whether parameters make a value require a gradient, and the values that otherwise may."""
        calls = next(one for one in reversed(self._calls) if one.first <= value)
        type_id, output, operands = calls.find(value)
        cell = self._library.cells[type_id]
        if type_id not in self._cells:
            self._cells[type_id] = self._library.gradient_inputs(cell)
        always, entries = self._cells[type_id][output]
        return always, [] if always else [one for entry, one in _by_entry(cell, operands) if entry in entries]


def inputs_of(cell: Cell) -> list[Inputs]:
    """What goes into the outputs of a cell, as autograd sees the model's own code with the parameters of now."""
    inputs = cell.code.plan.inputs
    own, outputs = _tried(cell.code, lambda flat: cell.code(*flat))
    if outputs is None:
        every = any(one.requires_grad for one in cell.code.parameters()), frozenset(range(len(inputs)))
        return [every] * len(cell.outputs)
    places = {id(one): place for place, one in enumerate(own)}
    found = []
    for output in outputs:
        leaves = set(map(id, _leaves_of(output))) if output.requires_grad else set[int]()
        found.append((bool(leaves - places.keys()), frozenset(places[one] for one in leaves & places.keys())))
    return found


def parameters_of(code: CellModule) -> list[list[torch.Tensor]]:
    """The parameters that require a gradient and go into each leaf of what code returns, as autograd sees it."""
    own, leaves = _tried(code, lambda flat: pytree.tree_leaves(code.result(flat)))
    if leaves is None:
        return []
    places = set(map(id, own))
    reached = [_leaves_of(one) if getattr(one, "requires_grad", False) else () for one in leaves]
    return [list({id(leaf): leaf for leaf in one if id(leaf) not in places}.values()) for one in reached]


def _tried(code: CellModule, call: Callable[[list[Any]], Any]) -> tuple[list[torch.Tensor], Any]:
    """Inputs of code that require a gradient, and what it makes of them; None if it has no gradient of one."""
    inputs = code.plan.inputs
    with torch.enable_grad():
        own = [_leaf(entry.random(EXAMPLE_ROWS), entry.example) for entry in inputs]
        given = [entry.example if type(entry.example) is int else one for entry, one in zip(inputs, own, strict=True)]
        try:
            return own, call(given)
        except RuntimeError:
            return own, None


def _leaf(value: torch.Tensor, example: Any) -> torch.Tensor:
    return value.clone().requires_grad_() if example is None and value.is_floating_point() else value


def _leaves_of(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """The tensors that gradients of a tensor arrive at."""
    waiting = [torch.autograd.graph.get_gradient_edge(tensor).node]
    seen: set[Any] = set()
    while waiting:
        node: Any = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            yield node.variable
        waiting += [one for one, _ in node.next_functions if one is not None]


def _by_entry(cell: Cell, operands: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The operands of a call, each after the number of the flat input that it is, or is a row of."""
    entries = [(place, entry.rows) for place, entry in enumerate(cell.code.plan.inputs) if entry.example is None]
    variadic = sum(rows for _, rows in entries)
    rows = (len(operands) - len(entries) + variadic) // variadic if variadic else 0
    given = iter(operands)
    for place, is_variadic in entries:
        for _ in range(rows if is_variadic else 1):
            yield place, next(given)

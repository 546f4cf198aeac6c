"""The arguments of a call as a key and flat inputs, and back.

A call such as ``merge(x, [h, c], 3)`` is recorded as the flat inputs ``x, h, c, 3``. Its key says what is left, the
structure around them and the constants among them; calls of one key are calls of one cell. A key is a tuple of

* a :class:`TensorSpec` for an operand, a :class:`RowsSpec` for a variadic one;
* ``("listed", n, pairs)`` before n :class:`RowsSpec` for a list of any length, of tensors or (`pairs`) of tuples of n;
* ``("stack", k, RowsSpec)`` for k operands that are stacked inside the cell;
* ``("attribute", dtype, shape)`` and ``("integer",)`` for attributes: integer tensors, Python integers;
* ``("empty", dtype, shape)`` for a tensor without elements;
* ``("module", GivenModule)`` for a module;
* ``("weight", path)`` for a parameter of the model; ``("numbers", dtype, shape, ...)`` for integers that stay;
* ``("few", n)`` at the end, for n rows that are none or one;
* ``("tuple", n)``, ``("list", n)`` and ``("dict", names)`` before the parts of a structure;
* ``("object", GivenObject)`` for an object of the user's, by its contents;
* ``("constant", type, value)`` and ``("slice", start, stop, step)`` for anything else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from edbatch_tvm.errors import CellError
from edbatch_tvm.recording.given_objects import GivenObject, is_object
from edbatch_tvm.recording.row_list import row_list
from edbatch_tvm.recording.specs import GridSpec, RowsSpec, TensorSpec, rows_of, spec_of

Key = tuple[Any, ...]

_RANDOM = torch.Generator().manual_seed(0)
"""A generator of its own: the user's goes on as if nothing had been tried."""

INTEGER = ("integer",)

FEW = "few"
"""In a key, with a number of rows that is none or one: what holds for two holds for any more, but not for these."""

EXAMPLE_ROWS = 3
"""Rows of a variadic operand while its cell is exported; 0 and 1 are special to ``torch.export``."""


def key_of_tensor(tensor: torch.Tensor) -> tuple[Any, ...]:
    """The part of a key that stands for an integer tensor."""
    return ("attribute", tensor.dtype, tensor.shape)


def number_of(attribute: Any) -> Any:
    """What is recorded of an attribute: of a tensor of one integer, in whatever shape, the integer as it is now."""
    return int(attribute) if isinstance(attribute, torch.Tensor) and attribute.numel() == 1 else attribute


MOST_NUMBERS = 1024
"""Elements of a tensor of integers that may be a constant."""


def key_of_numbers(tensor: torch.Tensor) -> tuple[Any, ...]:
    """The part of a key that stands for the integers of a tensor.

    Raises
    ------
    CellError
        If they are many.
    """
    if tensor.numel() > MOST_NUMBERS or tensor.is_floating_point() or tensor.is_complex():
        raise CellError(f"a constant of shape {list(tensor.shape)} of {tensor.dtype}", "few integers")
    return ("numbers", tensor.dtype, tensor.shape, tuple(tensor.reshape(-1).tolist()))


def key_of_constant(thing: Any) -> tuple[Any, ...]:
    """The part of a key that stands for something that is no tensor.

    Raises
    ------
    CellError
        If it cannot be told from others: it has no hash, or its contents cannot be compared.
    """
    if type(thing) is slice:
        return ("slice", thing.start, thing.stop, thing.step)
    if is_object(thing) or type(thing) is set:
        return ("object", GivenObject(thing))
    if isinstance(thing, Iterator):
        raise CellError(f"an argument of a cell is a {type(thing).__name__}", "what it gives")
    try:
        hash(thing)
    except TypeError:
        raise CellError(
            f"an argument of a cell is a {type(thing).__name__}",
            "tensors, integers, and tuples, lists and dicts of them; or constants that have a hash",
        ) from None
    if type(thing) is float:  # 0.0 and -0.0 are equal and not the same, NaN is not equal to itself
        return ("float", repr(thing))
    return ("constant", type(thing), thing)


@dataclass(frozen=True)
class Input:
    """One flat input of a cell.

    Attributes
    ----------
    spec : TensorSpec
        Its shape; of one row, where it is variadic.
    dtype : torch.dtype
        Of the values of the graph, which masks are, too.
    rows : bool
        Whether it is a variadic operand.
    at : int
        The dimension of its rows.
    example : tensor or int or None
        For an attribute, its value in the call that the cell was made for.
    """

    spec: TensorSpec
    dtype: torch.dtype
    rows: bool = False
    example: Any = None
    at: int = 0

    def like_example(self, value: Any) -> Any:
        """The value of an attribute as the model's code gets it: a tensor, if it was given one."""
        if isinstance(self.example, torch.Tensor) and not isinstance(value, torch.Tensor):
            return torch.tensor(value, dtype=self.example.dtype).reshape(self.example.shape)
        return value

    def random(self, rows: int) -> torch.Tensor:
        """A value to try the cell on."""
        if self.example is not None:
            return torch.as_tensor(self.example)
        shape = (rows, self.spec.size) if self.rows else (self.spec.size,)
        if self.spec.dtype is torch.int64:
            return torch.zeros(shape, dtype=torch.int64)  # an index that every table has
        numbers = torch.randn(shape, generator=_RANDOM, dtype=self.dtype)
        return numbers if self.spec.floats else (numbers > 0).to(self.dtype)

    def shaped(self, value: Any) -> Any:
        """The value of a flat input in its shape."""
        if self.example is not None:
            return value
        if self.rows and (self.at or len(self.spec.shape) != 1):
            value = value.reshape(rows_of(self.spec, self.at).extents(value.shape[0]))
        elif not self.rows and len(self.spec.shape) != 1:
            value = value.reshape(self.spec.shape)
        return self.spec.decoded(value)


class _Taken(int):
    """Stands for the flat input of that number."""


@dataclass(frozen=True)
class _Stacked:
    first: int
    count: int
    rows: RowsSpec


@dataclass(frozen=True)
class _Listed:
    parts: tuple[_Taken, ...]
    pairs: bool


@dataclass(frozen=True)
class _Weight:
    number: int


@dataclass(frozen=True)
class _Module:
    number: int


@dataclass
class CallPlan:
    """How the flat inputs of one kind of call become its arguments.

    Attributes
    ----------
    dtype : torch.dtype
        Of the values of the graph.
    inputs : list of Input
    weights : list of tensor
        Parameters of the model among the arguments.
    modules : list of torch.nn.Module
        Modules among the arguments.
    """

    dtype: torch.dtype
    inputs: list[Input] = field(default_factory=list)
    weights: list[torch.Tensor] = field(default_factory=list)
    modules: list[torch.nn.Module] = field(default_factory=list)
    _structure: list[Any] = field(default_factory=list)

    @classmethod
    def of(
        cls, key: Key, attributes: Sequence[Any], weights: Mapping[str, torch.Tensor], dtype: torch.dtype
    ) -> CallPlan:
        """The plan of calls of `key`.

        Parameters
        ----------
        key : tuple
        attributes : sequence of int or tensor
            Those of one such call.
        weights : mapping
            The model's, by path.
        dtype : torch.dtype
            Of the values of the graph.
        """
        plan = cls(dtype)
        parts, examples = iter(key), iter(attributes)
        for part in parts:
            if isinstance(part, tuple) and part[0] == "few":
                continue
            plan._structure.append(plan._read(part, parts, examples, weights))
        return plan

    @property
    def is_variadic(self) -> bool:
        """Whether the cell takes any number of rows."""
        return any(entry.rows for entry in self.inputs)

    def _read(
        self, part: Any, parts: Iterator[Any], examples: Iterator[Any], weights: Mapping[str, torch.Tensor]
    ) -> Any:
        if isinstance(part, TensorSpec):
            return self._input(part)
        if isinstance(part, GridSpec):
            return self._input(part.whole)
        if isinstance(part, RowsSpec):
            return self._input(part.row, rows=True, at=part.at)
        kind, *details = part
        if kind == "stack":
            count, rows = details
            first = len(self.inputs)
            for _ in range(count):
                self._input(rows.row)
            return _Stacked(first, count, rows)
        if kind == "listed":
            count, pairs = details
            return _Listed(tuple(self._read(next(parts), parts, examples, weights) for _ in range(count)), pairs)
        if kind in ("attribute", "integer"):
            shape = details[1] if kind == "attribute" else ()
            return self._input(spec_of(shape, self.dtype), example=next(examples))
        if kind == "weight":
            self.weights.append(weights[details[0]])
            return _Weight(len(self.weights) - 1)
        if kind == "module":
            self.modules.append(details[0].module)
            return _Module(len(self.modules) - 1)
        if kind in ("tuple", "list"):
            items = [self._read(next(parts), parts, examples, weights) for _ in range(details[0])]
            return items if kind == "list" else tuple(items)
        if kind == "dict":
            return {name: self._read(next(parts), parts, examples, weights) for name in details[0]}
        if kind == "empty":
            return torch.empty(details[1], dtype=details[0])
        if kind == "numbers":
            dtype, shape, numbers = details
            return torch.tensor(numbers, dtype=dtype).reshape(shape)
        if kind == "float":
            return float(details[0])
        if kind == "object":
            return details[0].copy()
        return slice(*details) if kind == "slice" else details[1]

    def _input(self, spec: TensorSpec, rows: bool = False, example: Any = None, at: int = 0) -> _Taken:
        self.inputs.append(Input(spec, self.dtype, rows, example, at))
        return _Taken(len(self.inputs) - 1)

    def arguments(self, flat: Sequence[Any], weights: Sequence[torch.Tensor], as_they_are: bool = False) -> list[Any]:
        """The arguments of the call whose flat inputs are `flat`; `as_they_are` if these have their shapes."""

        def shaped(number: int) -> Any:
            return flat[number] if as_they_are else self.inputs[number].shaped(flat[number])

        def rebuilt(part: Any) -> Any:
            if isinstance(part, _Taken):
                return shaped(part)
            if isinstance(part, _Stacked):
                if part.count == 0:
                    return torch.empty(part.rows.extents(0), dtype=part.rows.dtype)
                return torch.stack([shaped(row) for row in range(part.first, part.first + part.count)], part.rows.at)
            if isinstance(part, _Listed):
                return row_list([shaped(rows) for rows in part.parts], part.pairs)
            if isinstance(part, _Weight):
                return weights[part.number]
            if isinstance(part, _Module):
                return self.modules[part.number]
            if type(part) in (tuple, list):
                return type(part)(rebuilt(item) for item in part)
            if type(part) is dict:
                return {name: rebuilt(item) for name, item in part.items()}
            return part

        return [rebuilt(part) for part in self._structure]

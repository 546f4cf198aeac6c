"""Operators on rows that become one cell: ``(a * b + c * d) * m`` between cells is one node a row, not four.

``native_core`` notes calls of operators that work element by element, and records them when their rows are wanted
(``deferred.h``). What is recorded together is described by a key: the :class:`RowOperation` of the last call, and after
each operation what its tensors are, None for values and else the operation that they come from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch

from edbatch_tvm.errors import CellError
from edbatch_tvm.recording.lazy import LazyTensor, lazy_value
from edbatch_tvm.recording.rows import STAND_IN, RowByRow, row_spec
from edbatch_tvm.recording.specs import RowsSpec, TensorSpec, spec_of

if TYPE_CHECKING:
    from edbatch_tvm.recording.recorder import Recorder
    from edbatch_tvm.recording.site import Site

_MOST = 32
"""Cells for operators together that a model may have: each is compiled."""

_CONSTANT, _TENSOR, _OPERAND, _RESULT = "constant", "tensor", "operand", "result"

Key = tuple["RowOperation | None", ...]
Step = tuple[Any, tuple[str, ...], tuple[tuple[str, Any], ...]]
"""A function, the names of its last arguments, and what its arguments are: constants, operands, results of steps."""


@dataclass(slots=True, eq=False)
class RowOperation:
    """An operator that works element by element, as calls of one kind call it.

    Attributes
    ----------
    target : callable
    named : tuple of str
        Names of the last arguments.
    arguments : tuple of (str, object)
        What each argument is: a constant, or the number of a tensor.
    specs : tuple of TensorSpec
        Of each tensor among the arguments; of one row, for those that are taken row by row.
    known : RowByRow or None
        How such calls are recorded by themselves, whatever their number of rows; None before one was.
    """

    target: Any
    named: tuple[str, ...]
    arguments: tuple[tuple[str, Any], ...]
    specs: tuple[TensorSpec, ...]
    known: RowByRow | None = None
    _followed: bool = False

    @contextmanager
    def followed(self) -> Iterator[bool]:
        """While a call is recorded that has just become known; whether that is not going on already."""
        first, self._followed = not self._followed, True
        try:
            yield first
        finally:
            self._followed = not first


def operation_of(
    site: Site, arguments: tuple[Any, ...], leaves: list[Any], rows: list[RowsSpec | None], dtype: torch.dtype
) -> RowOperation | None:
    """The operation of a call of an operator that works element by element; None if it is recorded by itself.

    Parameters
    ----------
    leaves, rows : list
        The arguments, parts of tuples by themselves; and of each, the rows that it is taken by.
    dtype : torch.dtype
        Of the tensors.
    """
    if len(leaves) != len(arguments) or _changes_or_draws(site.target):
        return None
    given: list[tuple[str, Any]] = []
    specs: list[TensorSpec] = []
    for leaf, own in zip(leaves, rows, strict=True):
        if type(leaf) in (LazyTensor, torch.Tensor) and leaf.dtype is dtype:
            given.append((_TENSOR, len(specs)))
            specs.append(spec_of(tuple(leaf.shape), dtype) if own is None else row_spec(leaf, own.at))
        elif own is None and (leaf is None or type(leaf) in (bool, int, float, str)):
            given.append((_CONSTANT, leaf))
        else:
            return None
    return RowOperation(site.target, site.named, tuple(given), tuple(specs))


def _changes_or_draws(function: Any) -> bool:
    if not isinstance(function, torch._ops.OpOverload):
        return False
    return bool(function._schema.is_mutable) or torch.Tag.nondeterministic_seeded in function.tags


def order_of(leaves: list[Any], by_rows: Sequence[int | None], places: Sequence[int]) -> tuple[int, ...] | None:
    """Which of the tensors among the arguments each operand of a node is.

    Parameters
    ----------
    places : sequence of int
        See :attr:`~edbatch_tvm.recording.rows.RowByRow.node`.
    """
    tensors = [place for place, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]
    columns = [place for place, at in enumerate(by_rows) if at is not None]
    found = [columns[place] if 0 <= place < len(columns) else -1 - place for place in places]
    return tuple(map(tensors.index, found)) if set(found) <= set(tensors) else None


def fused_node(recorder: Recorder, key: Key) -> tuple[int, tuple[int, ...]] | None:
    """The node of a row for calls that are recorded together, which :attr:`Library.fused` knows from now on.

    Returns
    -------
    type_id : int
    order : tuple of int
        Which of the values that the calls read each operand is, in the order of `key`.
    None
        They are recorded one by one: no cell computes them together, or there are too many such cells.
    """
    library = recorder.library
    made = _made(recorder, key) if sum(type(one) is tuple for one in library.fused.values()) < _MOST else None
    library.fused[key] = made
    return made


def _made(recorder: Recorder, key: Key) -> tuple[int, tuple[int, ...]] | None:
    steps: list[Step] = []
    specs: list[TensorSpec] = []
    _add(iter(key), steps, specs)
    function = partial(run_steps, tuple(steps))
    library = recorder.library
    site = library.operator_site(function, ())
    site.name = "_".join(library.operator_site(target, named).name for target, named, _ in steps[:3])
    site.name += "_and_more" if len(steps) > 3 else ""
    given = tuple(lazy_value(recorder, STAND_IN - place, spec) for place, spec in enumerate(specs))
    try:
        cell, operands, attributes = library.as_one_node(recorder, site, given)  # type: ignore[misc]
    except (CellError, TypeError):  # TypeError: a result without elements is no node
        return None
    order = tuple(STAND_IN - operand for operand in operands)
    if attributes or len(cell.outputs) != 1 or sorted(order) != list(range(len(specs))):
        return None
    return cell.type_id, order


def _add(key: Iterator[RowOperation | None], steps: list[Step], specs: list[TensorSpec]) -> None:
    """Add the steps of the next operation of a key, after those of the operations that it reads."""
    operation = next(key)
    assert operation is not None
    tensors: list[tuple[str, int]] = []
    # What is read follows in the key: None, or another operation with what that reads.
    for spec in operation.specs:
        ahead = next(key)
        if ahead is None:
            tensors.append((_OPERAND, len(specs)))
            specs.append(spec)
        else:
            _add(chain([ahead], key), steps, specs)
            tensors.append((_RESULT, len(steps) - 1))
    given = ((kind, value) if kind == _CONSTANT else tensors[value] for kind, value in operation.arguments)
    steps.append((operation.target, operation.named, tuple(given)))


def run_steps(steps: tuple[Step, ...], *operands: torch.Tensor) -> Any:
    """The result of the last of `steps`."""
    results: list[Any] = []
    values = {_OPERAND: operands, _RESULT: results}
    for target, named, arguments in steps:
        given = [value if kind == _CONSTANT else values[kind][value] for kind, value in arguments]
        plain = len(given) - len(named)
        results.append(target(*given[:plain], **dict(zip(named, given[plain:], strict=True))))
    return results[-1]

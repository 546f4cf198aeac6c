"""The arguments of many calls of one cell, as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edbatch_tvm.argument_checks import require_unmasked
from edbatch_tvm.errors import CellError, GraphError
from edbatch_tvm.graph.cell_recorders import CellRecorder, attribute_array
from edbatch_tvm.graph.spec import Attribute, Operand


def arrange_many(
    recorder: CellRecorder, given: tuple[Any, ...], named: dict[str, Any]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Operands and attributes of many calls of a cell.

    Parameters
    ----------
    recorder : CellRecorder
        Of the cell.
    given, named
        What :meth:`edbatch_tvm.graph.Builder.calls` is given.

    Returns
    -------
    int64 array of shape [n, operands of a call]
    list of array
        Of each attribute n rows.

    Raises
    ------
    CellError
        If the arguments do not fit the cell, or each other.
    GraphError
        If an attribute has another shape or dtype.
    """
    cell = recorder.cell
    recorder.require_arguments(given, named)
    named = {**{operand.name: value for operand, value in zip(cell.operands, given, strict=False)}, **named}
    operands = [_values(recorder, operand, named[operand.name]) for operand in cell.operands]
    attributes = [_rows(recorder, attribute, named[attribute.name]) for attribute in cell.attributes]
    calls = _number_of_calls(recorder, operands, attributes)
    columns = [
        np.broadcast_to(array, (calls, array.shape[-1])) if operand.variadic else np.broadcast_to(array, calls)[:, None]
        for operand, array in zip(cell.operands, operands, strict=True)
    ]
    _require_equal_widths(recorder, columns)
    values = np.concatenate(columns, axis=1) if columns else np.empty((calls, 0), np.int64)
    return np.ascontiguousarray(values), [
        np.broadcast_to(rows, (calls, *attribute.spec.shape))
        for attribute, rows in zip(cell.attributes, attributes, strict=True)
    ]


def _values(recorder: CellRecorder, operand: Operand, given: Any) -> np.ndarray:
    """An operand as an int64 array with an entry for each call, or with one fewer dimension."""
    name, most = f"operand {operand.name!r} of {recorder.cell.name!r}", 2 if operand.variadic else 1
    expected = (
        "values, an array of shape [calls, k] or [k]" if operand.variadic else "values, one for each call, or one"
    )
    require_unmasked(name, given, GraphError)
    try:
        array = np.asarray(given)
    except ValueError:
        raise CellError(f"{name} is a nested {type(given).__name__}", expected) from None
    if array.size == 0 and array.dtype.kind == "f":
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise CellError(
            f"{name} is {array.ndim}-D of {array.dtype}", expected, "rows of external data are recorded by call()"
        )
    if not most - 1 <= array.ndim <= most:
        raise CellError(f"{name} has shape {array.shape}", expected)
    return array.astype(np.int64, copy=False)


def _rows(recorder: CellRecorder, attribute: Attribute, given: Any) -> np.ndarray:
    """An attribute as an array of its dtype with a row for each call, or one row."""
    rows = given if isinstance(given, np.ndarray) else _as_array(given)
    if rows is not None and rows.ndim and not len(rows):
        return np.empty((0, *attribute.spec.shape), attribute.spec.dtype)
    if rows is None and not isinstance(given, Sequence):
        name = f"attribute {attribute.name!r} of {recorder.cell.name!r}"
        raise GraphError(f"{name} is a {type(given).__name__}", f"{attribute.spec}, one for each call or one for all")
    if rows is not None and rows.shape == attribute.spec.shape:
        return attribute_array(recorder.cell, attribute.name, rows[None])[0]
    return attribute_array(recorder.cell, attribute.name, given if rows is None else rows)


def _as_array(given: Any) -> np.ndarray | None:
    """What is given as one array; None for lists that NumPy reads as none or not exactly."""
    try:
        array = np.asarray(given)
    except ValueError:
        return None
    return array if array.dtype.kind in "biuf" else None


def _number_of_calls(recorder: CellRecorder, operands: list[np.ndarray], attributes: list[np.ndarray]) -> int:
    cell, first, calls = recorder.cell, "", -1
    found = [(f"operand {o.name!r}", array, int(o.variadic)) for o, array in zip(cell.operands, operands, strict=True)]
    found += [
        (f"attribute {a.name!r}", array, len(a.spec.shape))
        for a, array in zip(cell.attributes, attributes, strict=True)
    ]
    for name, array, dimensions in found:
        if array.ndim == dimensions:
            continue
        if calls >= 0 and len(array) != calls:
            raise CellError(f"{len(array)} entries of {name} of {cell.name!r}", f"{calls}, as many as of {first}")
        first, calls = name, len(array)
    if calls < 0:
        raise CellError(
            f"no argument of {cell.name!r} with an entry for each call", f"at least one: {cell}", "call() records one"
        )
    return calls


def _require_equal_widths(recorder: CellRecorder, columns: list[np.ndarray]) -> None:
    """Variadic operands of a cell take equally many values."""
    cell = recorder.cell
    widths = [(o, array.shape[1]) for o, array in zip(cell.operands, columns, strict=True) if o.variadic]
    for operand, width in widths:
        if width != widths[0][1]:
            raise CellError(
                f"{width} values for {operand.name!r} of {cell.name!r}",
                f"{widths[0][1]}, as many as for the cell's other variadic operands",
            )

"""What a builder knows of each cell: how the arguments of a call are arranged, and the rows of attributes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edbatch_tvm.argument_checks import require_unmasked
from edbatch_tvm.errors import CellError, GraphError
from edbatch_tvm.graph.spec import CellSignature, Signature


class CellRecorder:
    """What a builder keeps for one cell: its signature and the attribute rows recorded so far."""

    __slots__ = ("arity", "attributes", "cell", "outputs", "plain", "type_id")

    def __init__(self, type_id: int, cell: CellSignature) -> None:
        self.type_id = type_id
        self.cell = cell
        self.arity = len(cell.operands)
        self.outputs = len(cell.outputs)
        self.plain = not cell.variadic_count
        self.attributes: dict[str, list[Any]] = {attribute.name: [] for attribute in cell.attributes}

    def require_arguments(self, given: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        """Refuse arguments that the cell does not have, has twice or lacks.

        Raises
        ------
        CellError
            If they do not fit.
        """
        cell = self.cell
        if len(given) > self.arity:
            raise CellError(
                f"{len(given)} operands by position for {cell.name!r}",
                f"{self.arity}: {cell}",
                "attributes are given by name" if cell.attributes else "",
            )
        for name in named:
            if any(operand.name == name for operand in cell.operands[: len(given)]):
                raise CellError(f"operand {name!r} of {cell.name!r} by position and by name", "one of the two")
            if name not in self.attributes and all(operand.name != name for operand in cell.operands):
                raise CellError(f"argument {name!r} for {cell.name!r}", f"the arguments of {cell}")
        for name in self.attributes:
            if name not in named:
                raise CellError(f"no attribute {name!r} in a call of {cell.name!r}", str(cell))
        for operand in cell.operands[len(given) :]:
            if operand.name not in named:
                raise CellError(f"missing operand {operand.name!r} in a call of {cell.name!r}", str(cell))


class CellRecorders:
    """The recorders of all cells of a signature, by name and by type id."""

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        self.of: Mapping[str, CellRecorder] = {cell.name: CellRecorder(i, cell) for i, cell in enumerate(signature)}

    def find(self, cell: Any) -> CellRecorder:
        """The recorder of a cell.

        Raises
        ------
        CellError
            If there is no such cell.
        """
        recorder = self.of.get(cell) if isinstance(cell, str) else None
        if recorder is None:
            raise CellError(f"unknown cell {cell!r:.60}", f"one of {', '.join(self.signature.names)}")
        return recorder

    def arrange(
        self, cell: Any, given: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[int, tuple[Any, ...], tuple[Any, ...]]:
        """Type id, operands and attributes of a call: what the native builder asks for where a call is unusual.

        Raises
        ------
        CellError
            If there is no such cell or the arguments do not fit it.
        """
        recorder = self.find(cell)
        operands = arranged(recorder, given, named)
        return recorder.type_id, operands, tuple([named[name] for name in recorder.attributes])

    def attribute_array(self, column: int, rows: list[Any]) -> np.ndarray:
        """The rows of the attribute with this number among those of all cells, as one contiguous array.

        Raises
        ------
        GraphError
            If they are none.
        """
        type_id, name = self.signature.attribute_columns[column][0]
        return np.ascontiguousarray(attribute_array(self.signature[type_id], name, rows))


def arranged(recorder: CellRecorder, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
    """Operands in parameter order with variadic ones flattened; errors for what does not fit."""
    recorder.require_arguments(given, named)
    cell = recorder.cell
    flat: list[Any] = []
    repeat = None
    for position, operand in enumerate(cell.operands):
        value = given[position] if position < len(given) else named[operand.name]
        if not operand.variadic:
            flat.append(value)
            continue
        if not isinstance(value, Sequence) and np.ndim(value) == 0:
            raise CellError(f"one value for the variadic operand {operand.name!r} of {cell.name!r}", "a list")
        if repeat is not None and len(value) != repeat:
            raise CellError(
                f"{len(value)} values for {operand.name!r} of {cell.name!r}",
                f"{repeat}, as many as for the cell's other variadic operands",
            )
        repeat = len(value)
        flat.extend(value)
    return tuple(flat)


def attribute_array(cell: CellSignature, name: str, rows: Any) -> np.ndarray:
    """The rows of an attribute, a list or an array, as one array of its dtype.

    Raises
    ------
    GraphError
        If a row has another shape, or numbers that the dtype cannot hold.
    """
    attribute = next(a for a in cell.attributes if a.name == name)
    wanted = np.dtype(attribute.spec.dtype)
    what = f"attribute {name!r} of {cell.name!r}"
    if isinstance(rows, np.ndarray):
        require_unmasked(what, rows, GraphError)
    elif any(issubclass(kind, np.ma.MaskedArray) for kind in set(map(type, rows))):
        for row in rows:
            require_unmasked(what, row, GraphError)
    try:
        array = np.asarray(rows)
    except ValueError:
        try:
            shapes = sorted({np.shape(row) for row in rows})
        except ValueError:  # of a list that holds lists of several lengths, or itself
            shapes = []
        raise GraphError(f"{what} has shapes {shapes}", str(attribute.spec)) from None
    if array.shape[1:] != attribute.spec.shape:
        raise GraphError(f"{what} has shape {array.shape[1:]} (first: {rows[0]!r})", str(attribute.spec))
    if array.dtype == wanted:
        return array
    if array.dtype.kind == "f" and wanted.kind != "f" and all(np.asarray(row).dtype.kind in "iub" for row in rows):
        # NumPy makes floats of uint64 and signed integers together.
        array = np.array([np.asarray(row).astype(object) for row in rows], object).reshape(array.shape)
        fits = np.iinfo(wanted) if wanted.kind in "iu" else None
        for number in array.ravel().tolist():
            if fits is not None and not fits.min <= number <= fits.max:
                raise GraphError(f"{what} holds {number}", f"numbers that fit {wanted}")
        return array.astype(wanted)
    if array.dtype.kind not in ("iufb" if wanted.kind == "f" else "iub"):
        raise GraphError(f"{what} has dtype {array.dtype} (first: {rows[0]!r})", attribute.spec.dtype)
    cast = array.astype(wanted)
    if wanted.kind != "f" and not np.array_equal(cast, array):
        raise GraphError(f"{what} holds {array[cast != array][0]}", f"numbers that fit {wanted}")
    return cast

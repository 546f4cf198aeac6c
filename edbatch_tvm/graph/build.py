"""The builder: record cell calls one by one, get an instance graph.

A call appends to flat lists, about a microsecond; everything is checked at once, on arrays, when the graph is
finished.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NewType

import numpy as np

from edbatch_tvm.errors import CellError, GraphError
from edbatch_tvm.graph.instance import FIRST_EXTERNAL, ZERO, InstanceGraph
from edbatch_tvm.graph.spec import CellSignature, Signature
from edbatch_tvm.graph.validate import validate

Value = NewType("Value", int)
"""One output of a recorded call: ``node * stride + slot``; pass it on as an operand of later calls."""


class _Recorder:
    """What a builder keeps for one cell: its signature and the attribute rows recorded so far."""

    __slots__ = ("arity", "attributes", "cell", "outputs", "plain", "type_id")

    def __init__(self, type_id: int, cell: CellSignature) -> None:
        self.type_id = type_id
        self.cell = cell
        self.arity = len(cell.operands)
        self.outputs = len(cell.outputs)
        self.plain = not cell.variadic_count
        self.attributes: dict[str, list[Any]] = {attribute.name: [] for attribute in cell.attributes}


class Builder:
    """Records the cell calls of one instance.

    Parameters
    ----------
    signature : Signature
        The cells that may be called.

    Examples
    --------
    >>> from edbatch_tvm.graph.spec import Attribute, Operand, ValueSpec
    >>> vector = ValueSpec((4,))
    >>> leaf = CellSignature("leaf", (), (Attribute("word", ValueSpec((), "int32"), 9),), (vector,))
    >>> add = CellSignature("add", (Operand("a", vector), Operand("b", vector)), (), (vector,))
    >>> b = Builder(Signature([leaf, add]))
    >>> b.finish(b.call("add", b.call("leaf", word=1), b.call("leaf", word=2)))
    InstanceGraph(node_type=[3], operand_value=[2], types=2, outputs=[1])
    """

    zero = Value(ZERO)
    """A zero state of whatever shape the operand has."""

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        self._stride = signature.stride
        self._reset()

    def _reset(self) -> None:
        self._recorders = {cell.name: _Recorder(i, cell) for i, cell in enumerate(self.signature)}
        self._types: list[int] = []
        self._counts: list[int] = []
        self._operands: list[Any] = []

    def call(self, cell: str, /, *operands: Any, **named: Any) -> Any:
        """Record one call of `cell`.

        Parameters
        ----------
        cell : str
            Name of the cell.
        *operands
            Values in the order of the cell's operands: results of earlier calls, :attr:`zero`, or an array (a row
            of external data; a Python float for a float32 scalar). A variadic operand takes a list of them.
        **named
            Attributes, and operands not given by position.

        Returns
        -------
        Value or tuple of Value
            The cell's output, or its outputs.

        Raises
        ------
        CellError
            If there is no such cell or the arguments do not fit it.
        """
        recorder = self._recorders.get(cell)
        if recorder is None:
            raise CellError(f"unknown cell {cell!r}", f"one of {', '.join(self.signature.names)}")
        attributes = recorder.attributes
        if not (recorder.plain and len(operands) == recorder.arity and named.keys() == attributes.keys()):
            operands = self._arrange(recorder, operands, named)
        for name, rows in attributes.items():
            rows.append(named[name])
        node = len(self._types)
        self._types.append(recorder.type_id)
        self._operands.extend(operands)
        self._counts.append(len(operands))
        value = node * self._stride
        if recorder.outputs == 1:
            return value
        return tuple(range(value, value + recorder.outputs))

    def _arrange(self, recorder: _Recorder, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
        """Operands in parameter order with variadic ones flattened; errors for what does not fit."""
        cell = recorder.cell
        if len(given) > recorder.arity:
            raise CellError(
                f"{len(given)} operands by position for {cell.name!r}",
                f"{recorder.arity}: {cell}",
                "attributes are given by name" if cell.attributes else "",
            )
        known = {operand.name for operand in cell.operands[len(given) :]} | recorder.attributes.keys()
        for name in named:
            if name not in known:
                raise CellError(f"argument {name!r} for {cell.name!r}", f"the arguments of {cell}")
        for name in recorder.attributes:
            if name not in named:
                raise CellError(f"no attribute {name!r} in a call of {cell.name!r}", str(cell))
        flat: list[Any] = []
        repeat = None
        for position, operand in enumerate(cell.operands):
            if position < len(given):
                value = given[position]
            elif operand.name in named:
                value = named[operand.name]
            else:
                raise CellError(f"missing operand {operand.name!r} in a call of {cell.name!r}", str(cell))
            if not operand.variadic:
                flat.append(value)
                continue
            if not isinstance(value, Sequence):
                raise CellError(f"one value for the variadic operand {operand.name!r} of {cell.name!r}", "a list")
            if repeat is not None and len(value) != repeat:
                raise CellError(
                    f"{len(value)} values for {operand.name!r} of {cell.name!r}",
                    f"{repeat}, as many as for the cell's other variadic operands",
                )
            repeat = len(value)
            flat.extend(value)
        return tuple(flat)

    def finish(self, *outputs: Any) -> InstanceGraph:
        """The recorded calls as an instance graph; the builder is empty afterwards.

        Parameters
        ----------
        *outputs
            Declared outputs: values, or one list of values. A single value makes the result of the instance the
            array itself; otherwise it is a list.

        Raises
        ------
        GraphError
            If the graph is not well formed; see :func:`edbatch_tvm.graph.validate`.
        """
        listed = len(outputs) == 1 and isinstance(outputs[0], list | tuple | np.ndarray)
        declared = list(outputs[0]) if listed else list(outputs)
        operand_value, external = self._operand_array()
        operand_ptr = np.zeros(len(self._types) + 1, np.int32)
        np.cumsum(self._counts, out=operand_ptr[1:])
        graph = InstanceGraph(
            np.array(self._types, np.int16),
            operand_ptr,
            operand_value,
            self.signature,
            attributes=self._attribute_arrays(),
            outputs=_value_array("declared output", declared),
            scalar_output=len(outputs) == 1 and not listed,
            **self._external_tables(external),
        )
        self._reset()
        validate(graph)
        return graph

    def _operand_array(self) -> tuple[np.ndarray, list[np.ndarray]]:
        """Operand values, with arrays among them taken out and numbered as external rows."""
        try:
            return np.array(self._operands, np.int32), []
        except (TypeError, ValueError, OverflowError):
            external: list[np.ndarray] = []
            values = []
            for value in self._operands:
                if isinstance(value, float):
                    value = np.float32(value)
                if hasattr(value, "__array__") or hasattr(value, "__dlpack__"):
                    array = np.asarray(value)
                    if array.ndim or array.dtype.kind not in "iu":
                        values.append(FIRST_EXTERNAL - len(external))
                        external.append(array)
                        continue
                values.append(value)
            return _value_array("operand", values), external

    def _external_tables(self, external: list[np.ndarray]) -> dict[str, Any]:
        if not external:
            return {}
        specs = self.signature.value_specs
        arena_of = {(spec.shape, np.dtype(spec.dtype)): arena for arena, spec in enumerate(specs)}
        rows: list[list[np.ndarray]] = [[] for _ in specs]
        arenas, positions = [], []
        for array in external:
            arena = arena_of.get((array.shape, array.dtype))
            if arena is None:
                raise GraphError(
                    f"an external row of shape {array.shape} and dtype {array.dtype}",
                    f"one of {', '.join(map(str, specs))}",
                )
            arenas.append(arena)
            positions.append(len(rows[arena]))
            rows[arena].append(array)
        return {
            "external_spec": np.array(arenas, np.int16),
            "external_row": np.array(positions, np.int32),
            "external_data": tuple(
                np.stack(group) if group else np.empty((0, *spec.shape), spec.dtype)
                for group, spec in zip(rows, specs, strict=True)
            ),
        }

    def _attribute_arrays(self) -> dict[tuple[int, str], np.ndarray]:
        arrays: dict[tuple[int, str], np.ndarray] = {}
        for recorder in self._recorders.values():
            for attribute in recorder.cell.attributes:
                rows = recorder.attributes[attribute.name]
                if rows:
                    arrays[recorder.type_id, attribute.name] = _attribute_array(recorder.cell, attribute.name, rows)
        return arrays


def _value_array(what: str, values: list[Any]) -> np.ndarray:
    try:
        array = np.array(values, np.int32)
    except (TypeError, ValueError, OverflowError):
        array = np.empty((0, 0))
    if array.ndim != 1:
        wrong = next(value for value in values if not isinstance(value, int | np.integer))
        raise GraphError(
            f"{what} is a {type(wrong).__name__}", "a value returned by call()", "a cell of several outputs returns a tuple"
        ) from None
    return array


def _attribute_array(cell: CellSignature, name: str, rows: list[Any]) -> np.ndarray:
    attribute = next(a for a in cell.attributes if a.name == name)
    try:
        array = np.asarray(rows)
    except ValueError:
        shapes = sorted({np.shape(row) for row in rows})
        raise GraphError(f"attribute {name!r} of {cell.name!r} has shapes {shapes}", str(attribute.spec)) from None
    wanted = np.dtype(attribute.spec.dtype)
    if array.dtype != wanted:
        both_numbers = array.dtype.kind in "iufb" and (array.dtype.kind != "f" or wanted.kind == "f")
        if not both_numbers:
            raise GraphError(
                f"attribute {name!r} of {cell.name!r} has dtype {array.dtype} (first: {rows[0]!r})", attribute.spec.dtype
            )
        cast = array.astype(wanted)
        if wanted.kind in "iu" and not np.array_equal(cast, array):
            raise GraphError(f"attribute {name!r} of {cell.name!r} holds {array.max()}", f"numbers that fit {wanted}")
        array = cast
    if array.shape[1:] != attribute.spec.shape:
        raise GraphError(
            f"attribute {name!r} of {cell.name!r} has shape {array.shape[1:]} (first: {rows[0]!r})", str(attribute.spec)
        )
    return array

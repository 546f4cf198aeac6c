"""The builder: record cell calls one by one, get an instance graph.

A call appends to flat lists, about a microsecond; everything is checked at once, on arrays, when the graph is
finished: also that a value is one of this instance, which its number says (:mod:`edbatch_tvm.graph.value_serials`).
"""

from __future__ import annotations

from array import array as integer_array
from collections.abc import Sequence
from typing import Any

import numpy as np

from edbatch_tvm.argument_checks import require_type, require_unmasked
from edbatch_tvm.errors import CellError, GraphError
from edbatch_tvm.graph.instance import FIRST_EXTERNAL, InstanceGraph
from edbatch_tvm.graph.spec import CellSignature, Signature, ValueSpec, can_widen
from edbatch_tvm.graph.validate import validate
from edbatch_tvm.graph.value import Value
from edbatch_tvm.graph.value_serials import LOCAL_BITS, ZERO_VALUE, Serials, local_of

_OUTPUT = "declared output"


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

    zero = Value(ZERO_VALUE)
    """A zero state of whatever shape the operand has."""

    def __init__(self, signature: Signature) -> None:
        require_type(signature, Signature, "a Signature", CellError)
        self.signature = signature
        self._stride = signature.stride
        self._serials = Serials(signature)
        self._reset()

    def _reset(self) -> None:
        self._serial = self._serials.take()
        self._first = self._serial << LOCAL_BITS
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
            of external data; a Python float for a scalar). A variadic operand takes a list of them, or an array of
            such rows. A float32 array for an operand of float64 is widened; a float64 array for one of float32 is an
            error.
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
        recorder = self._recorders.get(cell) if type(cell) is str or isinstance(cell, str) else None
        if recorder is None:
            raise CellError(f"unknown cell {cell!r:.60}", f"one of {', '.join(self.signature.names)}")
        attributes = recorder.attributes
        if not (recorder.plain and len(operands) == recorder.arity and named.keys() == attributes.keys()):
            operands = self._arrange(recorder, operands, named)
        for name, rows in attributes.items():
            rows.append(named[name])
        value = self._first + len(self._types) * self._stride
        self._types.append(recorder.type_id)
        self._operands.extend(operands)
        self._counts.append(len(operands))
        if recorder.outputs == 1:
            return Value(value)
        if recorder.outputs == 2:  # of most cells that have several; a loop takes three times as long
            return Value(value), Value(value + 1)
        return tuple([Value(value + slot) for slot in range(recorder.outputs)])

    def _arrange(self, recorder: _Recorder, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
        """Operands in parameter order with variadic ones flattened; errors for what does not fit."""
        cell = recorder.cell
        if len(given) > recorder.arity:
            raise CellError(
                f"{len(given)} operands by position for {cell.name!r}",
                f"{recorder.arity}: {cell}",
                "attributes are given by name" if cell.attributes else "",
            )
        for name in named:
            if any(operand.name == name for operand in cell.operands[: len(given)]):
                raise CellError(f"operand {name!r} of {cell.name!r} by position and by name", "one of the two")
            if name not in recorder.attributes and all(operand.name != name for operand in cell.operands):
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
        try:
            graph = self._graph(outputs)
        finally:
            self._reset()
        validate(graph)
        graph.freeze()
        return graph

    def _graph(self, outputs: tuple[Any, ...]) -> InstanceGraph:
        listed = len(outputs) == 1 and isinstance(outputs[0], list | tuple | np.ndarray)
        listed = listed and getattr(outputs[0], "shape", None) != ()
        declared = list(outputs[0]) if listed else list(outputs)
        for value in declared:
            self._require_own(_OUTPUT, value)
        operand_ptr = np.zeros(len(self._types) + 1, np.int32)
        np.cumsum(self._counts, out=operand_ptr[1:])
        operand_value = self._as_values(self._operands)
        external: dict[str, Any] = {}
        if operand_value is None:
            operand_value, external = self._take_external(operand_ptr)
        graph = InstanceGraph(
            np.array(self._types, np.int16),
            operand_ptr,
            operand_value,
            self.signature,
            attributes=self._attribute_arrays(),
            outputs=local_of(np.array(declared, np.int64)),
            scalar_output=len(outputs) == 1 and not listed,
            **external,
        )
        graph.serial = self._serial
        return graph

    def _as_values(self, items: list[Any]) -> np.ndarray | None:
        """`items` as values of the graph, int32[len(items)]; None if one of them is no value of this instance."""
        if not items:
            return np.empty(0, np.int32)
        try:
            numbers = np.frombuffer(integer_array("q", items), np.int64)
        except (TypeError, ValueError, OverflowError, RuntimeError):  # a row of external data is among them
            return None
        own = (numbers >> LOCAL_BITS) == self._serial
        own |= numbers == ZERO_VALUE
        return local_of(numbers) if own.all() else None

    def _is_own(self, value: Any) -> bool:
        """Whether a number is a value of this instance: one that :meth:`call` returned, or :attr:`zero`."""
        return int(value) >> LOCAL_BITS == self._serial or value == ZERO_VALUE

    def _require_own(self, what: str, value: Any) -> None:
        """Refuse what is no value of this instance, and say what it is instead."""
        if not _is_integer(value):
            raise _no_value(what, value)
        if self._is_own(value):
            return
        belongs = self._serials.describe(int(value))
        if belongs is None:
            raise _no_value(what, value)
        raise GraphError(
            f"{what} is {belongs}", "a value of the instance that is being built", "values end with finish()"
        )

    def _take_external(self, operand_ptr: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
        """Operand values with the arrays among them numbered as external rows, and the tables of these rows."""
        specs = self.signature.value_specs
        arena_of = {(spec.shape, np.dtype(spec.dtype)): arena for arena, spec in enumerate(specs)}
        rows: list[list[np.ndarray]] = [[] for _ in specs]
        values: list[int] = []
        arenas: list[int] = []
        positions: list[int] = []
        for index, value in enumerate(self._operands):
            if _is_integer(value) and self._is_own(value):
                values.append(int(value))
                continue
            node = int(np.searchsorted(operand_ptr, index, side="right")) - 1
            where = f"of node {node} ({self.signature.names[self._types[node]]})"
            if _is_integer(value):
                self._require_own(f"an operand {where}", value)
            array = _as_row(value)
            if array is None:
                raise _no_value(f"an operand {where}", value)
            if isinstance(value, float):
                array = array.astype(self._operand_dtype(node, index - int(operand_ptr[node])))
            arena = arena_of.get((array.shape, array.dtype))
            if arena is None:
                arena = next((a for a, s in enumerate(specs) if _widens_to(array, s)), None)
            if arena is None:
                raise GraphError(
                    f"an operand {where} is an external row of shape {array.shape} and dtype {array.dtype}",
                    f"one of {', '.join(map(str, specs))}",
                )
            values.append(FIRST_EXTERNAL - len(arenas))
            arenas.append(arena)
            positions.append(len(rows[arena]))
            rows[arena].append(array.astype(specs[arena].dtype, copy=False))
        return local_of(np.array(values, np.int64)), {
            "external_spec": np.array(arenas, np.int16),
            "external_row": np.array(positions, np.int32),
            "external_data": tuple(
                np.stack(group) if group else np.empty((0, *spec.shape), spec.dtype)
                for group, spec in zip(rows, specs, strict=True)
            ),
        }

    def _operand_dtype(self, node: int, position: int) -> str:
        """The dtype that operand number `position` of a call is of, rows of variadic operands counted one by one."""
        cell = self.signature[self._types[node]]
        rows = (self._counts[node] - cell.fixed_arity) // max(cell.variadic_count, 1)
        for operand in cell.operands:
            position -= rows if operand.variadic else 1
            if position < 0:
                return operand.spec.dtype
        raise AssertionError(position)

    def _attribute_arrays(self) -> dict[tuple[int, str], np.ndarray]:
        arrays: dict[tuple[int, str], np.ndarray] = {}
        for recorder in self._recorders.values():
            for attribute in recorder.cell.attributes:
                rows = recorder.attributes[attribute.name]
                if rows:
                    arrays[recorder.type_id, attribute.name] = _attribute_array(recorder.cell, attribute.name, rows)
        return arrays


def _is_integer(item: Any) -> bool:
    return isinstance(item, int | np.integer) and not isinstance(item, bool)


def _no_value(what: str, item: Any) -> GraphError:
    given, hint = f"is a {type(item).__name__}", ""
    if isinstance(item, int | np.integer):
        given = f"is {item}"
        if what != _OUTPUT and abs(int(item)) < 2**31:
            hint = f"a scalar is written as a float: {float(item)}"
    if isinstance(item, tuple):
        hint = "a cell of several outputs returns a tuple"
    return GraphError(f"{what} {given}", "a value returned by call()", hint)


def _widens_to(array: np.ndarray, spec: ValueSpec) -> bool:
    return array.shape == spec.shape and can_widen(array.dtype, np.dtype(spec.dtype))


def _as_row(item: Any) -> np.ndarray | None:
    """`item` as an external row; None if it is no array."""
    if isinstance(item, float):
        return np.array(item)
    require_unmasked("an operand", item, GraphError)
    try:
        if hasattr(item, "__array__"):
            array = np.asarray(item)
            return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
        if hasattr(item, "__dlpack__"):
            return np.from_dlpack(item)
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        raise GraphError(
            f"a {type(item).__name__} that NumPy cannot read ({error})", "an array in host memory"
        ) from None
    return None


def _attribute_array(cell: CellSignature, name: str, rows: list[Any]) -> np.ndarray:
    attribute = next(a for a in cell.attributes if a.name == name)
    wanted = np.dtype(attribute.spec.dtype)
    what = f"attribute {name!r} of {cell.name!r}"
    if any(issubclass(kind, np.ma.MaskedArray) for kind in set(map(type, rows))):
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

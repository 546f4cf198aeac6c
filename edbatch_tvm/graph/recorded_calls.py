"""The calls of one instance in lists of Python, and the graph that they make.

The native builder does the same (:mod:`edbatch_tvm.graph.native_builder`); what it does not know comes here.
"""

from __future__ import annotations

from array import array as integer_array
from collections.abc import Sequence
from typing import Any

import numpy as np

from edbatch_tvm.errors import GraphError
from edbatch_tvm.graph.cell_recorders import CellRecorder, CellRecorders, arranged, attribute_array
from edbatch_tvm.graph.external_rows import OUTPUT, is_integer, no_value, take_external
from edbatch_tvm.graph.instance import InstanceGraph
from edbatch_tvm.graph.spec import Signature
from edbatch_tvm.graph.value import Value
from edbatch_tvm.graph.value_serials import LOCAL_BITS, ZERO_VALUE, Serials, local_of


class RecordedCalls:
    """The calls of one instance. Everything is checked when the graph is made, on arrays.

    Parameters
    ----------
    signature : Signature
    serials : Serials
        Those of the builder, which say whose a value is.
    """

    def __init__(self, signature: Signature, serials: Serials) -> None:
        self.signature = signature
        self._serials = serials
        self._stride = signature.stride
        self.begin(0)

    def begin(self, serial: int) -> None:
        """Forget all calls; the next values are of this serial number."""
        self._serial = serial
        self._first = serial << LOCAL_BITS
        self._recorders = CellRecorders(self.signature)
        self._of_name = self._recorders.of
        self._types: list[int] = []
        self._counts: list[int] = []
        self._operands: list[Any] = []

    def call(self, cell: str, /, *operands: Any, **named: Any) -> Any:
        """Record one call; see :meth:`edbatch_tvm.graph.Builder.call`."""
        recorder = self._of_name.get(cell) if type(cell) is str else None
        if recorder is None:
            recorder = self._recorders.find(cell)
        attributes = recorder.attributes
        if not (recorder.plain and len(operands) == recorder.arity and named.keys() == attributes.keys()):
            operands = arranged(recorder, operands, named)
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

    def calls(self, recorder: CellRecorder, values: np.ndarray, attributes: Sequence[np.ndarray]) -> int:
        """Record calls of one cell.

        Parameters
        ----------
        recorder : CellRecorder
            Of the cell.
        values : int64 array of shape [n, operands of a call]
            The operands, as numbers that calls returned.
        attributes : sequence of array
            Of each attribute n rows.

        Returns
        -------
        int
            The node of the first call.
        """
        own, first = self._recorders.of[recorder.cell.name], len(self._types)
        self._types += [recorder.type_id] * len(values)
        self._counts += [values.shape[1]] * len(values)
        self._operands += values.ravel().tolist()
        for rows, given in zip(own.attributes.values(), attributes, strict=True):
            rows.extend(given.tolist() if given.ndim == 1 else given)
        return first

    def take(self, types: list[int], counts: list[int], operands: list[Any], attributes: Sequence[list[Any]]) -> None:
        """Record what the native builder recorded.

        Parameters
        ----------
        types, counts : list of int
            The type id of each node, and its number of operands.
        operands : list
            Those of all nodes.
        attributes : sequence of list
            The rows of all attributes of the signature.
        """
        self._types, self._counts, self._operands = types, counts, operands
        columns = iter(attributes)
        for recorder in self._recorders.of.values():
            for name in recorder.attributes:
                recorder.attributes[name] = next(columns)

    def graph(self, outputs: tuple[Any, ...]) -> InstanceGraph:
        """The graph of all calls, still to be validated.

        Parameters
        ----------
        outputs : tuple
            What :meth:`edbatch_tvm.graph.Builder.finish` is given.

        Raises
        ------
        GraphError
            If operands or outputs are no values of this instance, or attributes are not what they should be.
        """
        listed = len(outputs) == 1 and isinstance(outputs[0], list | tuple | np.ndarray)
        listed = listed and getattr(outputs[0], "shape", None) != ()
        declared = list(outputs[0]) if listed else list(outputs)
        for value in declared:
            self._require_own(OUTPUT, value)
        operand_ptr = np.zeros(len(self._types) + 1, np.int32)
        np.cumsum(self._counts, out=operand_ptr[1:])
        operand_value = self._as_values(self._operands)
        external: dict[str, Any] = {}
        if operand_value is None:
            numbers, external = take_external(
                self.signature, self._types, operand_ptr, self._operands, self._is_own_operand
            )
            operand_value = local_of(numbers)
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
        """Whether a number is a value of this instance: one that :meth:`call` returned, or the zero state."""
        return int(value) >> LOCAL_BITS == self._serial or value == ZERO_VALUE

    def _is_own_operand(self, what: str, operand: Any) -> bool:
        """Whether an operand is a value of this instance; one of another instance is refused."""
        if not is_integer(operand):
            return False
        self._require_own(what, operand)
        return True

    def _require_own(self, what: str, value: Any) -> None:
        """Refuse what is no value of this instance, and say what it is instead."""
        if not is_integer(value):
            raise no_value(what, value)
        if self._is_own(value):
            return
        belongs = self._serials.describe(int(value))
        if belongs is None:
            raise no_value(what, value)
        raise GraphError(
            f"{what} is {belongs}", "a value of the instance that is being built", "values end with finish()"
        )

    def _attribute_arrays(self) -> dict[tuple[int, str], np.ndarray]:
        arrays: dict[tuple[int, str], np.ndarray] = {}
        for recorder in self._recorders.of.values():
            for name, rows in recorder.attributes.items():
                if rows:
                    arrays[recorder.type_id, name] = attribute_array(recorder.cell, name, rows)
        return arrays

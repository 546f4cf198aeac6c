"""The builder: record cell calls one by one or many at once, get an instance graph.

A call appends to flat lists; everything is checked at once when the graph is finished: also that a value is one of this
instance, which its number says (:mod:`edbatch_tvm.graph.value_serials`). Compiled code does it where it can be had
(:mod:`edbatch_tvm.graph.native_builder`), Python elsewhere (:mod:`edbatch_tvm.graph.recorded_calls`).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from edbatch_tvm.argument_checks import require_type
from edbatch_tvm.errors import CellError
from edbatch_tvm.graph.cell_recorders import CellRecorders
from edbatch_tvm.graph.instance import InstanceGraph
from edbatch_tvm.graph.instances_from_arrays import minibatch_from_arrays
from edbatch_tvm.graph.many_calls import arrange_many
from edbatch_tvm.graph.native_builder import kept_rows, native_builder
from edbatch_tvm.graph.recorded_calls import RecordedCalls
from edbatch_tvm.graph.spec import Signature
from edbatch_tvm.graph.validate import validate
from edbatch_tvm.graph.value import Value
from edbatch_tvm.graph.value_serials import LOCAL_BITS, ZERO_VALUE, Serials


class Builder:
    """Records the cell calls of one instance.

    Parameters
    ----------
    signature : Signature
        The cells that may be called.

    Examples
    --------
    >>> from edbatch_tvm.graph.spec import Attribute, CellSignature, Operand, ValueSpec
    >>> vector = ValueSpec((4,))
    >>> leaf = CellSignature("leaf", (), (Attribute("word", ValueSpec((), "int32"), 9),), (vector,))
    >>> add = CellSignature("add", (Operand("a", vector), Operand("b", vector)), (), (vector,))
    >>> b = Builder(Signature([leaf, add]))
    >>> b.finish(b.call("add", b.call("leaf", word=1), b.call("leaf", word=2)))
    InstanceGraph(node_type=[3], operand_value=[2], types=2, outputs=[1])
    """

    zero = Value(ZERO_VALUE)
    """A zero state of whatever shape the operand has."""

    _compiled = True

    def __init__(self, signature: Signature) -> None:
        require_type(signature, Signature, "a Signature", CellError)
        self.signature = signature
        self._serials = Serials(signature)
        self._calls = RecordedCalls(signature, self._serials)
        self._recorders: CellRecorders | None = None
        native = native_builder() if self._compiled else None
        self._native = native.recording(signature) if native is not None else None
        if type(self).call is Builder.call:
            # Found sooner than a method that calls another.
            self.__dict__["call"] = (self._calls if self._native is None else self._native).call
        self._begin()

    def _begin(self) -> None:
        self._serial = self._serials.take()
        (self._calls if self._native is None else self._native).begin(self._serial)

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
        return (self._calls if self._native is None else self._native).call(cell, *operands, **named)

    def calls(self, cell: str, /, *operands: Any, **named: Any) -> Any:
        """Record many calls of `cell` at once, from arrays.

        Parameters
        ----------
        cell : str
            Name of the cell.
        *operands
            In the order of the cell's operands. For each an array of values with an entry for each call, as this
            method returns them; or one value for all calls. A variadic operand takes an array of shape [calls, k],
            or of shape [k], the same k values for all calls. Rows of external data are for :meth:`call`.
        **named
            Attributes, each as an array of shape ``[calls, *shape]``, or one of its shape for all calls; and operands
            not given by position.

        Returns
        -------
        int64 array of shape [calls], or tuple of such arrays
            The cell's outputs, as values that :meth:`call`, :meth:`calls` and :meth:`finish` take.

        Raises
        ------
        CellError
            If there is no such cell, the arguments do not fit it or have entries for different numbers of calls.
        GraphError
            If an attribute has another shape or dtype.

        Examples
        --------
        >>> from edbatch_tvm.graph.spec import Attribute, CellSignature, Operand, ValueSpec
        >>> vector = ValueSpec((4,))
        >>> leaf = CellSignature("leaf", (), (Attribute("word", ValueSpec((), "int32"), 9),), (vector,))
        >>> add = CellSignature("add", (Operand("a", vector), Operand("b", vector)), (), (vector,))
        >>> b = Builder(Signature([leaf, add]))
        >>> leaves = b.calls("leaf", word=[1, 2, 3, 4])
        >>> b.finish(b.calls("add", leaves[::2], leaves[1::2])).operand_value
        array([0, 1, 2, 3], dtype=int32)
        """
        if self._recorders is None:
            self._recorders = CellRecorders(self.signature)
        recorder = self._recorders.find(cell)
        values, attributes = arrange_many(recorder, operands, named)
        if self._native is None:
            node = self._calls.calls(recorder, values, attributes)
        else:
            rows = kept_rows(recorder.cell, attributes)
            node = self._native.calls(recorder.type_id, len(values), values, values.shape[1], rows)
        stride = self.signature.stride
        first = (self._serial << LOCAL_BITS) + node * stride
        made = np.arange(first, first + len(values) * stride, stride)
        return made if recorder.outputs == 1 else tuple([made + slot for slot in range(recorder.outputs)])

    def finish(self, *outputs: Any) -> InstanceGraph:
        """The recorded calls as an instance graph; the builder is empty afterwards.

        Parameters
        ----------
        *outputs
            Declared outputs: values, or one list or array of values. A single value makes the result of the instance
            the array itself; otherwise it is a list.

        Raises
        ------
        GraphError
            If the graph is not well formed; see :func:`edbatch_tvm.graph.validate`.
        """
        try:
            graph = self._graph(outputs)
        finally:
            self._begin()
        if not graph.checked:
            validate(graph)
            graph.freeze()
        return graph

    def instances(
        self,
        node_type: Any,
        operand_ptr: Any,
        operand_value: Any,
        *,
        node_ptr: Any,
        outputs: Any = (),
        output_ptr: Any = None,
        attributes: Mapping[tuple[str, str], Any] = MappingProxyType({}),
        scalar_output: bool = False,
    ) -> list[InstanceGraph]:
        """The instances of a whole minibatch, from arrays; what is recorded by calls is not touched.

        Nodes are numbered through the minibatch. Output `slot` of node v is the value ``v * signature.stride + slot``.

        Parameters
        ----------
        node_type : array_like of int, shape [nodes]
            Type ids, as ``signature.type_id(cell)`` gives them.
        operand_ptr : array_like of int, shape [nodes + 1]
            Where the operands of each node begin.
        operand_value : array_like of int, shape [operands]
            Values of the same instance, or -1 for a zero state. Those of a variadic operand stand together.
        node_ptr : array_like of int, shape [instances + 1]
            Where the nodes of each instance begin.
        outputs : array_like of int
            Declared outputs as values, instance by instance.
        output_ptr : array_like of int, shape [instances + 1], optional
            Where the outputs of each instance begin. Default: no instance has outputs, or each has one.
        attributes : mapping of (cell, attribute) to array_like
            The rows of all nodes of the cell, in node order.
        scalar_output : bool
            Whether the result of an instance is the array of its one output, not a list.

        Raises
        ------
        CellError, GraphError
            If an instance is not well formed, or reads values of another.

        Examples
        --------
        >>> from edbatch_tvm.graph.spec import Attribute, CellSignature, Operand, ValueSpec
        >>> vector = ValueSpec((4,))
        >>> leaf = CellSignature("leaf", (), (Attribute("word", ValueSpec((), "int32"), 9),), (vector,))
        >>> add = CellSignature("add", (Operand("a", vector), Operand("b", vector)), (), (vector,))
        >>> b = Builder(Signature([leaf, add]))
        >>> words = {("leaf", "word"): [1, 2, 3]}
        >>> b.instances([0, 0, 1, 0], [0, 0, 0, 2, 2], [0, 1], node_ptr=[0, 3, 4], attributes=words)
        [InstanceGraph(node_type=[3], operand_value=[2], types=2),
         InstanceGraph(node_type=[1], operand_value=[0], types=2)]
        """
        made: list[InstanceGraph] = self._minibatch(
            False, node_type, operand_ptr, operand_value, node_ptr, outputs, output_ptr, attributes, scalar_output
        )
        return made

    def minibatch(
        self,
        node_type: Any,
        operand_ptr: Any,
        operand_value: Any,
        *,
        node_ptr: Any,
        outputs: Any = (),
        output_ptr: Any = None,
        attributes: Mapping[tuple[str, str], Any] = MappingProxyType({}),
        scalar_output: bool = False,
    ) -> InstanceGraph:
        """The instances of a whole minibatch as one graph: what :func:`edbatch_tvm.merge` makes of :meth:`instances`.

        ``model([graph])`` runs it; ``result[i]`` is what instance i declared. Parameters and errors are those of
        :meth:`instances`.
        """
        made: InstanceGraph = self._minibatch(
            True, node_type, operand_ptr, operand_value, node_ptr, outputs, output_ptr, attributes, scalar_output
        )
        return made

    def _minibatch(
        self,
        merged: bool,
        node_type: Any,
        operand_ptr: Any,
        operand_value: Any,
        node_ptr: Any,
        outputs: Any,
        output_ptr: Any,
        attributes: Mapping[tuple[str, str], Any],
        scalar_output: bool,
    ) -> Any:
        if output_ptr is None:
            output_ptr = np.arange(len(node_ptr)) if len(outputs) else np.zeros(len(node_ptr), np.int32)
        return minibatch_from_arrays(
            self.signature,
            node_type,
            operand_ptr,
            operand_value,
            node_ptr,
            outputs,
            output_ptr,
            attributes,
            scalar_output,
            merged,
        )

    def _graph(self, outputs: tuple[Any, ...]) -> InstanceGraph:
        if self._native is not None:
            graph: InstanceGraph | None = self._native.finish(outputs)
            if graph is not None:
                return graph
            self._calls.begin(self._serial)
            self._calls.take(*self._native.drain())
        return self._calls.graph(outputs)


class PythonBuilder(Builder):
    """The builder without compiled code, which it is compared with."""

    _compiled = False

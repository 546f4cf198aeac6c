"""Where the rows lie that weight gradients are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from edbatch_tvm.cached_property import cached_property
from edbatch_tvm.graph.spec import Signature, ValueSpec
from edbatch_tvm.native.backward_tables import BackwardArrays, BackwardSteps
from edbatch_tvm.runtime.result import Result
from edbatch_tvm.training.backward_types import BackwardGraph, Group
from edbatch_tvm.training.graph_rows import OperandEntries, arena_rows, attribute_rows
from relay_ext.gradients.adjoint_cells import Source, WeightTerm
from schedules.abi import padded


class Place(NamedTuple):
    """Rows in memory.

    Attributes
    ----------
    memory : array
        Of two dimensions; its rows may be padded.
    rows : int array
        Which rows.
    shape : tuple of int
        The shape of what a row holds.
    """

    memory: np.ndarray
    rows: np.ndarray
    shape: tuple[int, ...]

    @property
    def width(self) -> int:
        """Elements of a vector."""
        return self.shape[-1] if self.shape else 1


class PassRows:
    """The rows of a backward pass and of its forward pass.

    Parameters
    ----------
    forward, backward : Result
    arrays : BackwardArrays or BackwardSteps or None
        What a compiled kernel made of it, if one did.
    make : callable
        Gives the graph of the backward pass.
    terms : callable
        What nodes of a type contribute to gradients.
    """

    def __init__(
        self,
        forward: Result,
        backward: Result,
        arrays: BackwardArrays | BackwardSteps | None,
        make: Callable[[], BackwardGraph],
        terms: Callable[[int], Sequence[WeightTerm]],
    ) -> None:
        self.forward, self.backward, self.arrays = forward, backward, arrays
        self._make, self._terms = make, terms

    @cached_property
    def made(self) -> BackwardGraph:
        """The graph of the backward pass."""
        return self._make()

    @cached_property
    def groups(self) -> list[GroupRows]:
        """Those of the nodes of each type."""
        types = self.forward.graph.node_type.astype(np.int64)
        return [
            GroupRows(self.forward, self.backward, self.made, one, types, self._terms(one.type_id))
            for one in self.made.groups
        ]


class GroupRows:
    """Rows of the nodes of a group, in the order of the nodes.

    Attributes
    ----------
    terms : sequence of WeightTerm
        What these nodes contribute to gradients.
    """

    def __init__(
        self,
        forward: Result,
        backward: Result,
        made: BackwardGraph,
        group: Group,
        types: np.ndarray,
        terms: Sequence[WeightTerm],
    ) -> None:
        self.terms = terms
        self.forward, self.backward, self.made, self.group, self.types = forward, backward, made, group, types
        assert forward.graph.signature is not None
        self.signature: Signature = forward.graph.signature
        self.cell = self.signature[group.type_id]
        self.entries = OperandEntries(forward.graph, group.type_id, group.forward)
        self._known: dict[Source, Place] = {}

    def places(self, source: Source) -> list[Place]:
        """The places of the parts whose vectors lie side by side in the rows of a source."""
        if source.kind == "joined":
            return [place for part in source.parts for place in self.places(part)]
        return [self.place(source)]

    def place(self, source: Source) -> Place:
        """The place of a source that is not made of others."""
        if source not in self._known:
            self._known[source] = self._place(source)
        return self._known[source]

    def attribute(self, number: int) -> np.ndarray:
        """An attribute of the nodes: ``[nodes, *shape]``."""
        name = self.cell.attributes[number].name
        return attribute_rows(self.forward.graph, self.types, self.group.type_id, name, self.group.forward)

    def _place(self, source: Source) -> Place:
        nodes = self.group.forward
        forward, backward = self.forward, self.backward
        assert backward.graph.signature is not None
        if source.kind == "attribute":
            attribute = self.attribute(source.number)
            return Place(padded_rows(attribute), np.arange(len(attribute)), attribute.shape[1:])
        if source.kind == "operand":
            spec = self.cell.operands[source.number].spec
            values = forward.graph.operand_value[self.entries.of(source.number)].astype(np.int64)
            return Place(arena_of(forward, spec), arena_rows(forward.graph, forward.plan, values), spec.shape)
        if source.kind == "value":
            values = nodes * forward.graph.stride + source.number
            spec = self.cell.outputs[source.number]
            return Place(arena_of(forward, spec), forward.plan.value_row[values].astype(np.int64), spec.shape)
        if source.kind == "cotangent":
            values = self.made.cotangent[nodes, source.number, 0]
            spec = self.cell.outputs[source.number]
            return Place(arena_of(backward, spec), arena_rows(backward.graph, backward.plan, values), spec.shape)
        own = self.group.sections[source.part]
        spec = backward.graph.signature[self.group.section_types[source.part]].outputs[source.number]
        rows = backward.plan.value_row[own * backward.graph.stride + source.number].astype(np.int64)
        return Place(arena_of(backward, spec), rows, spec.shape)


def arena_of(result: Result, spec: ValueSpec) -> np.ndarray:
    """The arena of a spec."""
    return result.arena(result.signature.value_specs.index(spec))


def padded_rows(values: np.ndarray) -> np.ndarray:
    """Values as rows, padded as those of an arena: kernels read a few elements more than a row has."""
    count, size = len(values), int(np.prod(values.shape[1:]))
    memory = np.zeros((count + 1, padded(size)), values.dtype)
    memory[:count, :size] = values.reshape(count, size)
    return memory[:, :size]

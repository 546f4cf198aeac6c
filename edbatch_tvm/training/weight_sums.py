"""Gradients of weights: one contraction, sum or scatter over all nodes of a cell, from rows of arenas."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edbatch_tvm.graph.spec import Signature
from edbatch_tvm.runtime.result import Result
from edbatch_tvm.training.backward_cells import BackwardCell
from edbatch_tvm.training.backward_graph import (
    BackwardGraph,
    Group,
    arena_rows,
    attribute_rows,
    kinds_of,
)
from relay_ext.gradients.adjoint_cells import Source


@dataclass(eq=False)
class Sums:
    """The gradient of one expression of weights, as it grows.

    Attributes
    ----------
    dense : array or None
    rows : list of (int array, array)
        What is added to rows of a table: their numbers and the gradients.
    """

    dense: np.ndarray | None = None
    rows: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)

    def add(self, part: np.ndarray) -> None:
        """Add to all of it."""
        self.dense = part if self.dense is None else self.dense + part

    def table(self) -> tuple[np.ndarray, np.ndarray]:
        """The rows that are not zero: their numbers, rising, and their gradients."""
        index = np.concatenate([one for one, _ in self.rows])
        parts = np.concatenate([one for _, one in self.rows])
        return sum_rows(index, parts)

    def total(self, shape: Sequence[int]) -> np.ndarray:
        """All of it as one array of the shape of the expression."""
        dense = None if self.dense is None else self.dense.reshape(shape)
        if not self.rows:
            return np.zeros(shape, np.float32) if dense is None else dense
        index, parts = self.table()
        total = np.zeros(shape, parts.dtype) if dense is None else dense.copy()
        total[index] += parts.reshape(len(index), *shape[1:])
        return total


def sum_rows(index: np.ndarray, parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of one number added up, in their order."""
    order = np.argsort(index, kind="stable")
    index, parts = index[order], parts[order]
    starts = np.flatnonzero(np.diff(index, prepend=-1))
    return index[starts], np.add.reduceat(parts, starts, axis=0) if len(starts) else parts[:0]


def weight_sums(
    forward: Result, backward: Result, made: BackwardGraph, cell_of: Callable[[Any], BackwardCell]
) -> dict[str, Sums]:
    """The gradients of all expressions of weights of a minibatch.

    Parameters
    ----------
    forward, backward : Result
        Of the minibatch and of its backward graph.
    made : BackwardGraph
    cell_of : callable
        The backward cell of a kind.
    """
    sums: dict[str, Sums] = {}
    types, _ = kinds_of(forward.graph)
    for group in made.groups:
        cell = cell_of(group.kind)
        rows = _Rows(forward, backward, made, group, types)
        for term in cell.terms:
            into = sums.setdefault(term.expression, Sums())
            right = rows.of(term.right)
            if term.kind == "sum":
                into.add(right.sum(axis=0))
            elif term.kind == "product":
                assert term.left is not None
                left = rows.of(term.left)
                into.add(_as_rows(left).T @ _as_rows(right))
            else:
                assert term.left is not None
                index = rows.of(term.left).astype(np.int64)
                into.rows.append((index.ravel(), right.reshape(index.size, -1)))
    return sums


def _as_rows(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1, values.shape[-1])


class _Rows:
    """Rows of the nodes of a group, in the order of the nodes."""

    def __init__(self, forward: Result, backward: Result, made: BackwardGraph, group: Group, types: np.ndarray) -> None:
        self.forward, self.backward, self.made, self.group, self.types = forward, backward, made, group, types
        assert forward.graph.signature is not None
        self.signature: Signature = forward.graph.signature
        self.cell = self.signature[group.kind[0]]

    def of(self, source: Source) -> np.ndarray:
        """The rows of a source: ``[nodes, *shape]``; of variadic operands ``[nodes, rows, *shape]``."""
        type_id, count = self.group.kind
        nodes = self.group.forward
        if source.kind == "attribute":
            name = self.cell.attributes[source.number].name
            return attribute_rows(self.forward.graph, self.types, type_id, name, nodes)
        if source.kind == "joined":
            return np.concatenate([self.of(part) for part in source.parts], axis=-1)
        if source.kind == "operand":
            return self._operand(source.number, count)
        if source.kind == "value":
            spec = self.cell.outputs[source.number]
            values = nodes * self.forward.graph.stride + source.number
            rows = self.forward.arena(self.signature.value_specs.index(spec))[self.forward.plan.value_row[values]]
            return rows.reshape(len(nodes), *spec.shape)
        if source.kind == "cotangent":
            spec = self.cell.outputs[source.number]
            values = self.made.cotangent[nodes * self.forward.graph.stride + source.number]
            return gradient_rows(self.backward, values, spec)
        assert self.backward.graph.signature is not None
        stride = self.backward.graph.stride
        backward_type = int(self.backward.graph.node_type[self.group.backward[0]])
        spec = self.backward.graph.signature[backward_type].outputs[source.number]
        return gradient_rows(self.backward, self.group.backward * stride + source.number, spec)

    def _operand(self, number: int, count: int) -> np.ndarray:
        graph = self.forward.graph
        before = sum(count if one.variadic else 1 for one in self.cell.operands[:number])
        operand = self.cell.operands[number]
        width = count if operand.variadic else 1
        entries = graph.operand_ptr[self.group.forward][:, None].astype(np.int64) + before + np.arange(width)
        values = graph.operand_value[entries.ravel()].astype(np.int64)
        arena = self.signature.value_specs.index(operand.spec)
        rows = self.forward.arena(arena)[arena_rows(graph, self.forward.plan, values)]
        shape = (width, *operand.spec.shape) if operand.variadic else operand.spec.shape
        return rows.reshape(len(self.group.forward), *shape)


def gradient_rows(backward: Result, values: np.ndarray, spec: Any) -> np.ndarray:
    """Rows of values, external rows and zeros of a backward graph; all have one spec."""
    assert backward.graph.signature is not None
    arena = backward.graph.signature.value_specs.index(spec)
    rows = arena_rows(backward.graph, backward.plan, values)
    found: np.ndarray = backward.arena(arena)[rows].reshape(len(values), *spec.shape)
    return found


def external_gradients(forward: Result, backward: Result, made: BackwardGraph) -> tuple[np.ndarray, ...]:
    """The gradients of the external rows of the forward graph, laid out as they are."""
    found = [np.zeros(rows.shape, rows.dtype) for rows in forward.graph.external_data]
    graph = forward.graph
    specs = () if graph.signature is None else graph.signature.value_specs
    arenas = graph.external_spec[made.external_of]
    for arena in np.unique(arenas).tolist():
        chosen = arenas == arena
        parts = gradient_rows(backward, made.external_use[chosen], specs[arena])
        index, total = sum_rows(graph.external_row[made.external_of[chosen]].astype(np.int64), parts)
        found[arena][index] = total
    return tuple(found)

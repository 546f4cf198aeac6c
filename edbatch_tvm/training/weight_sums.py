"""Gradients of weights: one contraction, sum or scatter over all nodes of a cell, from rows of arenas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from edbatch_tvm.graph import InstanceGraph
from edbatch_tvm.graph.spec import Signature, ValueSpec
from edbatch_tvm.runtime.result import Result
from edbatch_tvm.training.backward_graph import (
    BackwardGraph,
    Group,
    OperandEntries,
    arena_rows,
    attribute_rows,
)
from relay_ext.gradients.adjoint_cells import Source, WeightTerm
from relay_ext.gradients.sections import BackwardCell


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

    def add_rows(self, index: np.ndarray, rows: np.ndarray) -> None:
        """Add to rows of a table: rising numbers, each once."""
        self.rows.append((index, rows))

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


class Scratch:
    """Memory for rows that are copied, multiplied and forgotten: fresh pages would cost more than the copies."""

    def __init__(self) -> None:
        self._bytes = np.empty(0, np.uint8)
        self._used = 0

    def clear(self) -> None:
        """Let the memory be used again."""
        if self._used > len(self._bytes):
            self._bytes = np.empty(self._used, np.uint8)
        self._used = 0

    def array(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """An array in it; a new one where it is too small, which it is the first time."""
        size = int(np.prod(shape)) * dtype.itemsize
        begin = -self._used % 64 + self._used
        self._used = begin + size
        if self._used > len(self._bytes):
            return np.empty(shape, dtype)
        return self._bytes[begin : self._used].view(dtype).reshape(shape)


def weight_sums(
    forward: Result,
    backward: Result,
    made: BackwardGraph,
    cells: Mapping[int, BackwardCell],
    scratch: Scratch,
) -> dict[str, Sums]:
    """The gradients of all expressions of weights of a minibatch.

    Parameters
    ----------
    forward, backward : Result
        Of the minibatch and of its backward graph.
    made : BackwardGraph
    cells : mapping of int to BackwardCell
        The backward cells of the types of `forward`.
    scratch : Scratch
    """
    sums: dict[str, Sums] = {}
    types = forward.graph.node_type.astype(np.int64)
    for group in made.groups:
        cell = cells[group.type_id]
        scratch.clear()
        rows = _Rows(forward, backward, made, group, types, scratch)
        products: dict[Source, list[WeightTerm]] = {}
        for term in cell.terms:
            into = sums.setdefault(term.expression, Sums())
            if term.kind == "sum":
                into.add(rows.of(term.right).sum(axis=0))
            elif term.kind == "product":
                assert term.left is not None
                products.setdefault(term.left, []).append(term)
            else:
                assert term.left is not None
                index = rows.of(term.left).astype(np.int64)
                into.rows.append((index.ravel(), rows.of(term.right).reshape(index.size, -1).copy()))
        for left, terms in products.items():
            # One contraction for all that are multiplied with the same rows.
            right, widths = rows.side_by_side([term.right for term in terms])
            total = _as_rows(rows.of(left)).T @ right
            for term, part in zip(terms, np.split(total, np.cumsum(widths)[:-1], axis=1), strict=True):
                sums[term.expression].add(part)
    return sums


def _as_rows(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1, values.shape[-1])


class _Rows:
    """Rows of the nodes of a group, in the order of the nodes."""

    def __init__(
        self,
        forward: Result,
        backward: Result,
        made: BackwardGraph,
        group: Group,
        types: np.ndarray,
        scratch: Scratch,
    ) -> None:
        self.scratch = scratch
        self.forward, self.backward, self.made, self.group, self.types = forward, backward, made, group, types
        assert forward.graph.signature is not None
        self.signature: Signature = forward.graph.signature
        self.cell = self.signature[group.type_id]
        self.entries = OperandEntries(forward.graph, group.type_id, group.forward)
        self._known: dict[Source, np.ndarray] = {}

    def of(self, source: Source) -> np.ndarray:
        """The rows of a source: ``[nodes, *shape]``; of what there is for each variadic row, ``[rows, *shape]``."""
        if source not in self._known:
            self._known[source] = self._read(source)
        return self._known[source]

    def side_by_side(self, sources: Sequence[Source]) -> tuple[np.ndarray, list[int]]:
        """The rows of several sources as the columns of one matrix, and how many columns each has."""
        places = [self._place(source) for source in sources]
        first = places[0]
        if first is not None and all(one is not None and one[:2] == first[:2] for one in places):
            result, spec, _ = first
            if len(spec.shape) == 1:
                rows = np.stack([one[2] for one in places if one is not None], axis=1)
                taken = self._taken(result, spec, rows)
                return taken.reshape(len(rows), len(sources) * spec.size), [spec.size] * len(sources)
        parts = [_as_rows(self.of(source)) for source in sources]
        return np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0], [part.shape[1] for part in parts]

    def _read(self, source: Source) -> np.ndarray:
        nodes = self.group.forward
        if source.kind == "attribute":
            name = self.cell.attributes[source.number].name
            return attribute_rows(self.forward.graph, self.types, self.group.type_id, name, nodes)
        if source.kind == "joined":
            parts = [self._place(part) for part in source.parts]
            if all(one is not None and len(one[1].shape) == 1 for one in parts):
                return self.side_by_side(source.parts)[0]
            return np.concatenate([self.of(part) for part in source.parts], axis=-1)
        place = self._place(source)
        assert place is not None
        result, spec, rows = place
        return self._taken(result, spec, rows).reshape(len(rows), *spec.shape)

    def _place(self, source: Source) -> tuple[Result, ValueSpec, np.ndarray] | None:
        """The result, the spec and the rows of a source; None for attributes and for what is joined."""
        nodes = self.group.forward
        forward, backward = self.forward, self.backward
        assert backward.graph.signature is not None
        if source.kind == "operand":
            values = forward.graph.operand_value[self.entries.of(source.number)].astype(np.int64)
            rows = arena_rows(forward.graph, forward.plan, values)
            return forward, self.cell.operands[source.number].spec, rows
        if source.kind == "value":
            values = nodes * forward.graph.stride + source.number
            return forward, self.cell.outputs[source.number], forward.plan.value_row[values]
        if source.kind == "cotangent":
            values = self.made.cotangent[nodes * forward.graph.stride + source.number]
            return backward, self.cell.outputs[source.number], arena_rows(backward.graph, backward.plan, values)
        if source.kind == "output":
            own = self.group.sections[source.part]
            spec = backward.graph.signature[self.group.section_types[source.part]].outputs[source.number]
            return backward, spec, backward.plan.value_row[own * backward.graph.stride + source.number]
        return None

    def _taken(self, result: Result, spec: ValueSpec, rows: np.ndarray) -> np.ndarray:
        """Rows of the arena of a spec, in scratch memory."""
        arena = _arena(result, spec)
        out = self.scratch.array((*rows.shape, arena.shape[1]), arena.dtype)
        return np.take(arena, rows, axis=0, out=out, mode="clip")  # "raise" would copy twice


def _arena(result: Result, spec: ValueSpec) -> np.ndarray:
    assert result.graph.signature is not None
    return result.arena(result.graph.signature.value_specs.index(spec))


@dataclass(frozen=True, eq=False)
class ExternalSums:
    """The gradients of external rows of a forward graph.

    Attributes
    ----------
    numbers : int64 array of shape [m]
        The external rows that have one, rising: ``FIRST_EXTERNAL - value``.
    rows : array
        ``[m, *spec.shape]``.
    """

    numbers: np.ndarray
    rows: np.ndarray


def external_sums(forward: Result, backward: Result, made: BackwardGraph) -> dict[int, ExternalSums]:
    """The gradients of the external rows of the forward graph, by the arena that they belong to."""
    graph = forward.graph
    specs = () if graph.signature is None else graph.signature.value_specs
    arenas = graph.external_spec[made.external_of]
    found = {}
    for arena in np.unique(arenas).tolist():
        chosen = arenas == arena
        rows = arena_rows(backward.graph, backward.plan, made.external_use[chosen])
        parts = _arena(backward, specs[arena])[rows].reshape(len(rows), *specs[arena].shape)
        found[arena] = ExternalSums(*sum_rows(made.external_of[chosen].astype(np.int64), parts))
    return found


def external_gradients(graph: InstanceGraph, sums: Mapping[int, ExternalSums]) -> tuple[np.ndarray, ...]:
    """The gradients of the external rows of a forward graph, laid out as they are."""
    found = [np.zeros(rows.shape, rows.dtype) for rows in graph.external_data]
    for arena, one in sums.items():
        index, total = sum_rows(graph.external_row[one.numbers].astype(np.int64), one.rows)
        found[arena][index] = total
    return tuple(found)

"""Gradients of weights on a device: from arenas that stay there, by the kernels of ``schedules/cuda``.

All terms of a minibatch share one vector of positions, which is uploaded, and one buffer of results, which is
downloaded. Nodes are summed in pieces of fixed length, and the pieces in their order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edbatch_tvm.graph.spec import ValueSpec
from edbatch_tvm.runtime.device_memory import DeviceMemory
from edbatch_tvm.runtime.device_result import DeviceResult
from edbatch_tvm.training.backward_types import BackwardGraph, Group
from edbatch_tvm.training.graph_rows import OperandEntries, arena_rows, attribute_rows
from edbatch_tvm.training.weight_sums import Sums
from relay_ext.gradients.adjoint_cells import Source, WeightTerm
from schedules.cuda.gradient_kernels import PRODUCT, SUMS

PIECE = 512
"""Nodes of a product, or rows of a sum, that one block or thread adds."""


@dataclass(frozen=True, eq=False)
class _Vectors:
    """Vectors in an arena of a device.

    Attributes
    ----------
    memory : tensor
        The arena, flat.
    at : int array
        Where each begins.
    width : int
        Elements of one.
    """

    memory: Any
    at: np.ndarray
    width: int


class DeviceRows:
    """Rows of the nodes of a group, in arenas of a device."""

    def __init__(
        self,
        forward: DeviceResult,
        backward: DeviceResult,
        made: BackwardGraph,
        group: Group,
        types: np.ndarray,
        terms: Sequence[WeightTerm],
        memory: DeviceMemory,
    ) -> None:
        self.terms = terms
        self.forward, self.backward, self.made, self.group, self.types = forward, backward, made, group, types
        assert forward.graph.signature is not None
        self.cell = forward.graph.signature[group.type_id]
        self._memory = memory
        self._known: dict[Source, tuple[_Vectors, tuple[int, ...]]] = {}

    def attribute(self, number: int) -> np.ndarray:
        """An attribute of the nodes: ``[nodes, *shape]``."""
        name = self.cell.attributes[number].name
        return attribute_rows(self.forward.graph, self.types, self.group.type_id, name, self.group.forward)

    def whole(self, source: Source) -> list[_Vectors]:
        """What a source, or each part of it, holds for each node or variadic row."""
        return [self._place(one)[0] for one in _parts(source)]

    def vectors(self, source: Source) -> list[_Vectors]:
        """The same as vectors: a matrix is one for each of its rows."""
        found = []
        for one, shape in map(self._place, _parts(source)):
            width = shape[-1] if shape else 1
            found.append(_Vectors(one.memory, _divided(one.at, one.width // width, width), width))
        return found

    def _place(self, source: Source) -> tuple[_Vectors, tuple[int, ...]]:
        if source not in self._known:
            self._known[source] = self._found(source)
        return self._known[source]

    def _found(self, source: Source) -> tuple[_Vectors, tuple[int, ...]]:
        if source.kind == "attribute":
            values = self.attribute(source.number).astype(np.float32)
            size = int(np.prod(values.shape[1:]))
            uploaded = self._memory.tensor(np.append(values.ravel(), np.float32(0)))
            return _Vectors(uploaded, np.arange(len(values)) * size, size), values.shape[1:]
        result, spec, rows = self._arena(source)
        assert result.graph.signature is not None
        arena = result.tensor(result.graph.signature.arena(spec))
        count, pitch = (int(extent) for extent in arena.shape)
        flat = arena._create_view((count * pitch,), "float32", 0)
        return _Vectors(flat, rows.astype(np.int64) * pitch, spec.size), spec.shape

    def _arena(self, source: Source) -> tuple[DeviceResult, ValueSpec, np.ndarray]:
        """The result and the spec of a source, and its rows there."""
        nodes, graph, plan = self.group.forward, self.forward.graph, self.forward.plan
        if source.kind == "operand":
            entries = OperandEntries(graph, self.group.type_id, nodes).of(source.number)
            rows = arena_rows(graph, plan, graph.operand_value[entries].astype(np.int64))
            return self.forward, self.cell.operands[source.number].spec, rows
        values = nodes * graph.stride + source.number
        if source.kind == "value":
            return self.forward, self.cell.outputs[source.number], plan.value_row[values]
        graph, plan = self.backward.graph, self.backward.plan
        if source.kind == "cotangent":
            rows = arena_rows(graph, plan, self.made.cotangent[nodes, source.number, 0])
            return self.backward, self.cell.outputs[source.number], rows
        assert graph.signature is not None
        spec = graph.signature[self.group.section_types[source.part]].outputs[source.number]
        return self.backward, spec, plan.value_row[self.group.sections[source.part] * graph.stride + source.number]


def _parts(source: Source) -> list[Source]:
    return [part for one in source.parts for part in _parts(one)] if source.kind == "joined" else [source]


def _divided(at: np.ndarray, count: int, width: int) -> np.ndarray:
    """Where parts of rows begin, row after row."""
    return (at[:, None] + np.arange(count) * width).ravel()


class DeviceSums:
    """The gradients of weights of one minibatch.

    Parameters
    ----------
    memory : DeviceMemory
    library : mapping of str to function
        :func:`schedules.cuda.gradient_kernels.gradient_kernels`, compiled.
    """

    def __init__(self, memory: DeviceMemory, library: Any) -> None:
        self._memory = memory
        self._product, self._sums = library[PRODUCT], library[SUMS]
        self._tables: list[np.ndarray] = []
        self._words = 0
        self._room = {"out": 0, "pieces": 0}
        self._calls: list[Callable[[Any, dict[str, Any]], None]] = []

    def compute(self, groups: Sequence[DeviceRows]) -> dict[str, Sums]:
        """The gradients of all expressions of weights."""
        finish: list[Callable[[np.ndarray], None]] = []
        sums: dict[str, Sums] = {}
        for rows in groups:
            for term in rows.terms:
                into = sums.setdefault(term.expression, Sums())
                finish.append(self._term(rows, term, into))
        results = self._run()
        for one in finish:
            one(results)
        return sums

    def _run(self) -> np.ndarray:
        tables = self._memory.tensor(np.concatenate([np.zeros(1, np.int32), *self._tables]))
        buffers = {name: self._memory.empty((max(1, size),), "float32") for name, size in self._room.items()}
        for call in self._calls:
            call(tables, buffers)
        return self._memory.download(buffers["out"])

    def _term(self, rows: DeviceRows, term: WeightTerm, into: Sums) -> Callable[[np.ndarray], None]:
        """Ask for what a term needs; what is returned adds it to the gradient once it is there."""
        if term.kind == "sum":
            parts = [self._sum(one, len(one.at)) for one in rows.whole(term.right)]
            return lambda results: into.add(np.concatenate([results[part] for part in parts]))
        assert term.left is not None
        if term.kind == "table":
            index = rows.attribute(term.left.number).astype(np.int64).ravel()
            return self._table(index, rows.whole(term.right), into)
        left, right_sides = rows.vectors(term.left), rows.vectors(term.right)
        blocks = [[self._multiply(x, d) for d in right_sides] for x in left]
        shapes = [[(x.width, d.width) for d in right_sides] for x in left]

        def finish(results: np.ndarray) -> None:
            into.add(
                np.block(
                    [
                        [results[part].reshape(shape) for part, shape in zip(*row, strict=True)]
                        for row in zip(blocks, shapes, strict=True)
                    ]
                )
            )

        return finish

    def _table(self, index: np.ndarray, right: Sequence[_Vectors], into: Sums) -> Callable[[np.ndarray], None]:
        order = np.argsort(index, kind="stable")
        starts = np.flatnonzero(np.diff(index[order], prepend=-1))
        distinct = index[order][starts]
        parts = []
        for one in right:
            each = len(index) // max(1, len(one.at))  # rows of the table that a node reads
            at = _divided(one.at, each, one.width // max(1, each))
            width = one.width // max(1, each)
            parts.append(self._add(one.memory, at[order], np.append(starts, len(index)), width))

        def finish(results: np.ndarray) -> None:
            rows = [results[part].reshape(len(distinct), -1) for part in parts]
            into.add_rows(distinct, np.concatenate(rows, axis=1))

        return finish

    def _multiply(self, left: _Vectors, right: _Vectors) -> slice:
        """Where the product of two sides will be among the results."""
        count, size = len(left.at), left.width * right.width
        if not count:
            return self._add("pieces", left.at, np.array([0, 0]), size)
        pieces = -(-count // PIECE)
        name = "out" if pieces == 1 else "pieces"
        to = self._take(name, pieces * size)
        numbers = (self._position(left.at), self._position(right.at), count, PIECE, left.width, right.width, to.start)
        self._calls.append(
            lambda tables, buffers: self._product(tables, left.memory, right.memory, buffers[name], *numbers)
        )
        return to if pieces == 1 else self._add_pieces(to.start, pieces, size)

    def _sum(self, rows: _Vectors, count: int) -> slice:
        """Where the sum of rows will be among the results."""
        pieces = max(1, -(-count // PIECE))
        starts = np.minimum(np.arange(pieces + 1) * PIECE, count)
        if pieces == 1:
            return self._add(rows.memory, rows.at, starts, rows.width)
        to = self._add(rows.memory, rows.at, starts, rows.width, "pieces")
        return self._add_pieces(to.start, pieces, rows.width)

    def _add_pieces(self, begin: int, pieces: int, size: int) -> slice:
        return self._add("pieces", begin + np.arange(pieces) * size, np.array([0, pieces]), size)

    def _add(self, memory: Any, at: np.ndarray, starts: np.ndarray, width: int, to: str = "out") -> slice:
        """Where sums of vectors will be, one for each range between `starts`."""
        count = len(starts) - 1
        found = self._take(to, count * width)
        numbers = (self._position(at), self._position(starts), count, width, found.start, width)
        if count:
            self._calls.append(
                lambda tables, buffers: self._sums(
                    tables, buffers[memory] if isinstance(memory, str) else memory, buffers[to], *numbers
                )
            )
        return found

    def _take(self, name: str, size: int) -> slice:
        begin = self._room[name]
        self._room[name] += size
        return slice(begin, begin + size)

    def _position(self, values: np.ndarray) -> int:
        """Where values will be in the tables."""
        self._tables.append(values.astype(np.int32))
        self._words += len(values)
        return 1 + self._words - len(values)

"""The code of one tile of a stage kernel: contractions in registers, then the epilogue row by row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import gcd
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from edbatch_tvm.tvm_compat import builder_tirx as T
from edbatch_tvm.tvm_compat import tirx
from schedules import stage as ir
from schedules.cpu.dot_products import dot, moved, weights_from
from schedules.cpu.stage_config import Bucket, first_column, holds_weights, panels_of
from schedules.cpu.stage_tile_values import At, is_row, lane_of
from schedules.cpu.variadic_reductions import reduce_rows, reductions_first
from schedules.cpu.weight_packing import Sweep

if TYPE_CHECKING:
    from schedules.cpu.stage_kernel import StageKernel

_INT = "int32"

_Write = Callable[[list[list[Any]]], None]
"""Writes a contraction that adds to the sums of its gates, a buffer for each gate and chunk."""

_DOT_COLUMNS = 4
"""Most columns computed at once of a product whose sums run along the lanes."""


@dataclass(frozen=True)
class Panel:
    """A copy of a right factor, ``[k][column]``: of the columns of a tile, or of all (`whole`)."""

    buffer: Any
    width: int
    whole: bool


class Tile:
    """A tile of `rows` rows, from `start` on, and of the bucket's chunks, from `chunk` on.

    Rows are elements of the stage's domain, or rows of the matrix that is element `element` of it. If `short`, there
    may be fewer than `rows`; the last one stands in for those that are missing. `panels` are copies that
    :meth:`copy_panels` made, `weights` a copy of the packed weights of its chunks.
    """

    def __init__(
        self,
        kernel: StageKernel,
        bucket: Bucket,
        rows: int,
        chunk: Any,
        start: Any,
        element: Any,
        short: bool,
        panels: Mapping[tuple[int, int], Panel] | None = None,
        weights: Any = None,
    ) -> None:
        self.kernel = kernel
        self.stage = kernel.stage
        self.packing = kernel.packing
        self.lanes = kernel.packing.lanes
        self.dtype = kernel.stage.dtype
        self.bucket = bucket
        self.rows = rows
        self.chunk = chunk
        self.start = start
        self.element = element
        self.short = short
        self.panels = panels or {}
        self.weights = weights
        self.copies: dict[tuple[Any, ...], list[Callable[[Any], Any]]] = {}
        self.columns = [first_column(self.stage, kernel.machine, chunk + c) for c in range(bucket.chunks)]
        self.owners: Any = None
        self.results: dict[int, list[Any]] = {}

    def write(self) -> None:
        """Write the code."""
        self.find_owners()
        self.contract()
        self._epilogue()

    def copy_panels(self, tiles: int) -> dict[tuple[int, int], Panel]:
        """Copies of the columns of right factors that all rows of a matrix share, by gate and place.

        As they lie, a step of the sum may be a row of the matrix further, a power of two of bytes, for which a cache
        has few places; or the columns are not side by side. In the copy the steps follow one another.
        """
        self.find_owners()
        whole = self.stage.whole_rows
        chunks = self.packing.chunks if whole else len(self.columns)
        width = chunks * self.lanes
        panels: dict[tuple[int, int], Panel] = {}
        for place, one in panels_of(self.stage, tiles).items():
            right, read = self.kernel.buffer(one.right.source), one.right
            (row,) = self._rows_of(read.source)
            panel = T.alloc_buffer((one.length * width,), self.dtype, scope="global")
            with T.serial(0, one.length) as k, T.serial(0, chunks) as c:
                column = first_column(self.stage, self.kernel.machine, c if whole else self.chunk + c)
                at = read.offset + read.step * k + read.column * column
                T.buffer_store(
                    panel,
                    right[row, self.lanes_at(at, read.column)],
                    [self.lanes_at(k * width + (column if whole else c * self.lanes))],
                )
            panels[place] = Panel(panel, width, whole)
        return panels

    # Rows ------------------------------------------------------------------------------------------------------

    def position(self, row: Any) -> Any:
        """The element of the domain that row `row` of the tile belongs to."""
        if self.element is not None:
            return self.element
        at = self.start + row
        return tirx.min(at, self.kernel.count - 1) if self.short else at

    def matrix_row(self, row: Any) -> Any:
        """The row of the matrix that row `row` of the tile is."""
        return self.start + row if self.element is not None else tirx.const(0, _INT)

    def instance(self, row: Any) -> Any:
        """The instance of the batch that row `row` of the tile belongs to."""
        if self.owners is not None:
            return self.owners[0 if self.element is not None else row]
        return self.position(row)

    def find_owners(self) -> None:
        """The instances that variadic rows belong to, if they are read: the last one whose offset is not greater.

        The first by bisection, the others by going on from there.
        """
        if self.stage.domain != "rows" or not _reads_instances(self.stage):
            return
        kernel, index, pointer = self.kernel, self.kernel.index, self.kernel.pointer
        count = 1 if self.element is not None else self.rows
        self.owners = T.alloc_buffer((count,), _INT, scope="global")
        low = T.alloc_buffer((1,), _INT, scope="global")
        high = T.alloc_buffer((1,), _INT, scope="global")
        T.buffer_store(low, tirx.const(0, _INT), [0])
        T.buffer_store(high, kernel.instances, [0])
        wanted = kernel.bind("wanted", kernel.first_row + self.position(0))
        with T.While(high[0] - low[0] > 1):
            middle = kernel.bind("middle", tirx.floordiv(low[0] + high[0], 2))
            with T.If(index[pointer + middle] <= wanted):
                with T.Then():
                    T.buffer_store(low, middle, [0])
                with T.Else():
                    T.buffer_store(high, middle, [0])
        T.buffer_store(self.owners, low[0], [0])
        with T.serial(1, count) as row:
            with T.While(index[pointer + low[0] + 1] <= kernel.first_row + self.position(row)):
                T.buffer_store(low, low[0] + 1, [0])
            T.buffer_store(self.owners, low[0], [row])

    def _rows_of(self, source: ir.Source) -> list[Any]:
        """The row of `source` that each row of the tile reads."""
        kernel, name = self.kernel, f"{type(source).__name__.lower()}_row"
        if self.element is not None:
            return [kernel.bind(name, kernel.row(source, self.position(0), self.instance(0)))] * self.rows
        return [kernel.bind(name, kernel.row(source, self.position(r), self.instance(r))) for r in range(self.rows)]

    # Contractions ----------------------------------------------------------------------------------------------

    def contract(self) -> None:
        """All contractions; their results are in ``results`` then."""
        self._contract()
        for number, gate in enumerate(self.stage.gates):
            for place, one in enumerate(gate.passes):
                if isinstance(one, ir.Product) and self._is_dot(one, (number, place)):
                    self._dots(number, one, self.packing.factors.get((number, place)))

    def _is_dot(self, one: ir.Product, place: tuple[int, int]) -> bool:
        """Whether the sums of a product run along the lanes: its columns do not lie side by side, not in a copy."""
        return one.right.column != 1 and place not in self.panels

    def _contract(self) -> None:
        """All contractions but dots; a gate's sums stay in registers from its first pass to its last."""
        steps: list[tuple[tuple[int, ...], _Write]] = [
            (sweep.gates, partial(self._sweep, sweep)) for sweep in self.packing.sweeps
        ]
        for number, gate in enumerate(self.stage.gates):
            for place, one in enumerate(gate.passes):
                if isinstance(one, ir.Product) and not self._is_dot(one, (number, place)):
                    steps.append(((number,), partial(self._product, one, (number, place))))
        last = {number: place for place, (gates, _) in enumerate(steps) for number in gates}
        sums: dict[int, list[Any]] = {}
        for number in range(len(self.stage.gates)):
            if number not in last:
                self.results[number] = [self._zeros() for _ in self.columns]
        for place, (gates, write) in enumerate(steps):
            for number in gates:
                if number not in sums:
                    sums[number] = [self._zeros() for _ in self.columns]
            write([sums[number] for number in gates])
            for number in gates:
                if last[number] == place:
                    self.results[number] = [self._copy(one) for one in sums[number]]

    def _zeros(self) -> Any:
        buffer = T.alloc_buffer((self.rows * self.lanes,), self.dtype, scope="global")
        for row in range(self.rows):
            zero = self.broadcast(tirx.const(0, self.dtype))
            T.buffer_store(buffer, zero, [self.lanes_at(row * self.lanes)])
        return buffer

    def _copy(self, sums: Any) -> Any:
        """`sums` in a buffer of its own, so that reading it in a loop does not force the sums out of registers."""
        buffer = T.alloc_buffer((self.rows * self.lanes,), self.dtype, scope="global")
        for row in range(self.rows):
            lanes = self.lanes_at(row * self.lanes)
            T.buffer_store(buffer, sums[lanes], [lanes])
        return buffer

    def lanes_at(self, base: Any, stride: int = 1) -> Any:
        """The indices of a vector from `base` on."""
        return tirx.Ramp(base, stride, self.lanes) if self.lanes > 1 else base

    def broadcast(self, value: Any) -> Any:
        """A vector of `value` in all lanes."""
        return tirx.Broadcast(value, self.lanes) if self.lanes > 1 else value

    def each_lane(self) -> Any:
        """A loop over the lanes of a vector."""
        return T.vectorized(0, self.lanes) if self.lanes > 1 else T.serial(0, 1)

    def _unrolled(self, length: int, step: Callable[[Any], None]) -> None:
        """`step` for every k below `length`, several in one iteration."""
        unroll = min(self.bucket.unroll, length)
        whole = length // unroll
        with T.serial(0, whole) as outer:
            for inner in range(unroll):
                step(outer * unroll + inner)
        for k in range(whole * unroll, length):
            step(tirx.const(k, _INT))

    def _turns(self, wide: int) -> list[tuple[int, int]]:
        """The rows of a step and its `wide` vectors, in the order in which the fewer of both stay in registers."""
        turns = [(row, number) for row in range(self.rows) for number in range(wide)]
        return turns if holds_weights(self.rows, wide, self.kernel.machine) else sorted(turns, key=itemgetter(1))

    def _sweep(self, sweep: Sweep, sums: list[list[Any]]) -> None:
        source, rows = self.kernel.buffer(sweep.source), self._rows_of(sweep.source)
        packing, gates = self.packing, len(sweep.gates)
        offsets = [sweep.offset + sweep.row * self.matrix_row(row) for row in range(self.rows)]
        packed, first = (self.kernel.packed, self.chunk) if self.weights is None else (self.weights, 0)
        elements: list[Callable[[Any], Any]]
        elements = [partial(_at, source, rows[row], offsets[row]) for row in range(self.rows)]
        if self.kernel.narrow:
            key = (sweep.source, sweep.offset, sweep.row, sweep.length)
            if key not in self.copies:
                self.copies[key] = [self._copied(one, sweep.length) for one in elements]
            elements = self.copies[key]

        def step(k: Any) -> None:
            for row, number in self._turns(len(self.columns) * gates):
                c, gate = divmod(number, gates)
                x = self.broadcast(elements[row](k))
                base = (first + c) * packing.per_chunk + sweep.base
                weight = packed[self.lanes_at(base + (k * gates + gate) * self.lanes)]
                lanes = self.lanes_at(row * self.lanes)
                T.buffer_store(sums[gate][c], sums[gate][c][lanes] + x * weight, [lanes])

        self._unrolled(sweep.length, step)

    def _copied(self, elements: Callable[[Any], Any], length: int) -> Callable[[Any], Any]:
        """A copy of the first `length` of some elements that lie side by side."""
        copy = T.alloc_buffer((length,), self.dtype, scope="global")
        lanes = self.kernel.machine.lanes_of(self.dtype)
        whole = length // lanes
        with T.serial(0, whole) as vector:
            at = tirx.Ramp(vector * lanes, 1, lanes)
            T.buffer_store(copy, elements(at), [at])
        with T.serial(whole * lanes, length) as k:
            T.buffer_store(copy, elements(k), [k])
        return lambda k: copy[k]

    def _product(self, one: ir.Product, place: tuple[int, int], gate_sums: list[list[Any]]) -> None:
        """A product whose columns lie side by side in the right factor."""
        (sums,) = gate_sums
        left, right = self._left(one, self.packing.factors.get(place)), self._right(one, place)

        def step(k: Any) -> None:
            for row, c in self._turns(len(self.columns)):
                x = self.broadcast(left(row, k))
                lanes = self.lanes_at(row * self.lanes)
                T.buffer_store(sums[c], sums[c][lanes] + x * right(row, k, c), [lanes])

        self._unrolled(one.length, step)

    def _right(self, one: ir.Product, place: tuple[int, int]) -> Callable[[int, Any, int], Any]:
        """The elements of a product's right factor for a row of the tile, k and a chunk."""
        if place in self.panels:
            panel = self.panels[place]
            begins = self.columns if panel.whole else [c * self.lanes for c in range(len(self.columns))]
            return lambda row, k, c: panel.buffer[self.lanes_at(k * panel.width + begins[c])]
        read, buffer, rows = one.right, self.kernel.buffer(one.right.source), self._rows_of(one.right.source)

        def value(row: int, k: Any, c: int) -> Any:
            offset = read.offset + read.row * self.matrix_row(row) + read.step * k
            return buffer[rows[row], self.lanes_at(offset + self.columns[c])]

        return value

    def _left(self, one: ir.Product, factor: int | None) -> Callable[[int, Any], Any]:
        """The element of a product's left factor for a row of the tile and k."""
        if factor is not None:
            return lambda row, k: self.kernel.packed[factor + self.matrix_row(row) * one.length + k]
        read = one.left
        buffer, rows = self.kernel.buffer(read.source), self._rows_of(read.source)
        return lambda row, k: buffer[rows[row], read.offset + read.row * self.matrix_row(row) + read.step * k]

    def _dots(self, gate: int, one: ir.Product, factor: int | None) -> None:
        """Add a product whose elements of the sum lie side by side in both factors, a few columns at a time."""
        kernel, read = self.kernel, one.right
        together = gcd(self.lanes, _DOT_COLUMNS)
        with T.serial(0, self.rows) as row:
            matrix_row = self.matrix_row(row)
            left = (
                self._elements(one.left, row)
                if factor is None
                else weights_from(kernel.packed, factor, matrix_row, one)
            )
            right = self._elements(read, row)
            for c, first in enumerate(self.columns):
                with T.serial(0, self.lanes // together) as block:
                    places = [block * together + q for q in range(together)]
                    columns = [tirx.min(first + place, self.stage.columns - 1) for place in places]
                    starts = [kernel.bind("column", read.column * column) for column in columns]
                    sums = dot(left, right, starts, one.length, kernel.machine.lanes_of(self.dtype), self.dtype)
                    result = self.results[gate][c]
                    for place, value in zip(places, sums, strict=True):
                        at = row * self.lanes + place
                        T.buffer_store(result, result[at] + value, [at])

    def _elements(self, read: ir.Read, row: Any) -> Callable[[Any], Any]:
        """The elements of a value for one row of the tile, by their position from the first one on."""
        kernel, buffer = self.kernel, self.kernel.buffer(read.source)
        at = kernel.bind("row", kernel.row(read.source, self.position(row), self.instance(row)))
        offset = kernel.bind("offset", read.offset + read.row * self.matrix_row(row))
        return lambda position: buffer[at, moved(position, offset)]

    # Epilogue --------------------------------------------------------------------------------------------------

    def _epilogue(self) -> None:
        stage = self.stage
        with T.serial(0, self.rows) as row:
            position, instance = self.position(row), self.instance(row)
            rows, count, begin = self.element_rows(position, instance)
            parts = any(output.begin is not None for output in stage.outputs)
            # Many stores at a column: TVM fails to share such an expression, see tir_pipeline.py.
            columns = [self.kernel.bind("column", column) if parts else column for column in self.columns]
            places = [At(self, row, c, column, instance, rows, count) for c, column in enumerate(columns)]
            # Chunks share loops over variadic rows; the rest is done chunk after chunk, which needs few registers.
            first, rest = reductions_first(stage.body)
            for line in first:
                self.compute(line, places, begin)
            for at in places:
                for line in rest:
                    self.compute(line, [at], begin)
                for output in stage.outputs:
                    self.store(output, at, position)

    def element_rows(self, position: Any, instance: Any) -> tuple[dict[ir.Source, Any], Any, Any]:
        """The rows that the elements of the epilogue lie in, the number of variadic rows, and the first of them."""
        kernel, stage = self.kernel, self.stage
        elements = [leaf.source for leaf in stage.leaves.values() if isinstance(leaf, ir.Element)]
        rows = {
            source: kernel.bind("row", kernel.row(source, position, instance))
            for source in dict.fromkeys(elements)
            if not (stage.domain == "instances" and is_row(source))
        }
        count = begin = None
        if stage.reductions or any(isinstance(leaf, ir.RowCount) for leaf in stage.leaves.values()):
            offset = kernel.index[kernel.pointer + instance]
            count = kernel.bind("k", kernel.index[kernel.pointer + instance + 1] - offset)
            begin = kernel.bind("begin", offset - kernel.index[kernel.pointer])
        return rows, count, begin

    def result(self, gate: int, at: At, lane: Any) -> Any:
        """The result of a contraction at one place."""
        return self.results[gate][at.chunk][at.row * self.lanes + lane]

    def compute(self, line: ir.Line, places: Sequence[At], begin: Any) -> None:
        """Compute a let or a reduction for some chunks; `begin` is the first variadic row of the instance."""
        if isinstance(line, ir.Reduction):
            reduce_rows(self, places, line, begin)
            return
        for at in places:
            result = T.alloc_buffer((self.lanes,), str(line.variable.ty.dtype), scope="global")
            with self.each_lane() as lane:
                T.buffer_store(result, at.value(line.expression, lane), [lane])
            at.lets[line.variable] = partial(lane_of, result)

    def place_of(self, output: ir.Output, position: Any) -> tuple[Any, Any]:
        """The buffer that an output is stored in, and its row there."""
        kernel = self.kernel
        if output.scratch:
            return kernel.scratch[output.scratch], position
        row = kernel.output_row[output.slot] + position
        row = row if output.begin is None else kernel.bind("place", row)
        return kernel.arenas[kernel.binding.output_arena[output.slot]], row

    def store(self, output: ir.Output, at: At, position: Any) -> None:
        """Store an output: the lanes of a chunk, or the one element of a row."""
        buffer, row = self.place_of(output, position)
        if output.narrow:
            T.buffer_store(buffer, at.value(output.expression, tirx.const(0, _INT)), [row, self.matrix_row(at.row)])
            return
        base = self.matrix_row(at.row) * self.stage.columns + at.column + (output.begin or 0)
        with self.each_lane() as lane:
            T.buffer_store(buffer, at.value(output.expression, lane), [row, base + lane])


def _at(buffer: Any, row: Any, offset: Any, position: Any) -> Any:
    return buffer[row, moved(position, offset)]


def _reads_instances(stage: ir.Stage) -> bool:
    """Whether a stage over variadic rows reads anything of the instance that a row belongs to."""
    leaves = stage.leaves.values()
    return any(not is_row(source) for source in stage.sources) or any(
        isinstance(leaf, ir.AttributeValue | ir.RowCount) for leaf in leaves
    )

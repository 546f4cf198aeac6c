"""The kernel of weight gradients: products ``left^T right`` and sums over rows that are known by their addresses.

A weight's gradient is a sum over all nodes that use it. Each node has a row on the left, a row on the right, or both;
rows lie anywhere in memory. The columns of both sides are cut into *vectors* of as many elements as a register holds.
A *step* takes one product, a block of nodes after the other: it copies their vectors one behind the other into panels;
then it computes tiles of the product in registers, and adds them to what earlier blocks gave::

    for each step: for each block of its nodes:
        for vector in parallel:                                # a launch of the threads
            panel[vector][node][:] = *(address[node] + offset)
            total[vector][:] += ...                            # of right sides whose rows are summed as well
        for (right vectors, left vector) in parallel:          # a launch
            for node: sums[row][right vector][:] += panel[left][node][row] * panel[right][node][:]
        # with the last block of a product, sums go where the gradient is

Threads divide the vectors and the tiles, never the nodes, and one step follows the other: the bits of a gradient do not
depend on the number of threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm.script.ir_builder import IRBuilder

from edbatch_tvm.tvm_compat import builder_tirx as T
from edbatch_tvm.tvm_compat import tirx
from schedules.cpu.machine import Machine
from schedules.cpu.prefetch import prefetch

BLOCK = 128
"""Nodes of a block at most: the panels of a tile then fit into a first-level cache."""

RUN = 4
"""Vectors of a row that are copied together: whole cache lines, side by side."""

AHEAD = 8
"""Nodes whose rows are on their way while one is copied; rows that lie anywhere are not foreseen by the processor."""

COUNT, LEFT, LEFTS, RIGHT, RIGHTS = range(5)
"""Columns of ``steps``: the number of nodes; the first of the vectors of the left side in ``vectors`` and their number;
those of the right side."""

ADDRESSES, OFFSET, WIDTH, OUT, STRIDE, ADD, TOTAL, TOTAL_ADD = range(8)
"""Columns of ``vectors``: the first of its addresses in ``rows``; bytes from there; its columns, the rest is undefined.

Of a left vector: ``OUT`` is the row of the gradient of its first column. Of a right vector: the address of its first
column in the first row of the gradient, bytes from row to row, whether to add to what is there; and the address of the
sum of its rows, or 0, and whether to add to what is there.
"""

SEGMENTS, FIRST_SEGMENT, TABLE_WIDTH, TABLE_OUT, TABLE_STRIDE = range(5)
"""Columns of ``tables``: the number of sums of rows, where they begin in ``segments``, columns, the address of the
first result, and bytes from one to the next. Entry i of ``segments`` is the first address of sum i, and one more the
end."""

_PANEL_NODES = BLOCK + 1
"""Rows of a panel: with a power of two, the panels of a tile would fall on the same places of a cache."""

_ANY = 1 << 30
"""Length of arrays that are known by their address only."""

_INT = "int32"


@dataclass(frozen=True)
class Tiles:
    """How a product is cut.

    Attributes
    ----------
    lanes : int
        Columns of a vector.
    rows : int
        Left columns of a tile, a divisor of `lanes`.
    vectors : int
        Right vectors of a tile, at most.
    """

    lanes: int
    rows: int
    vectors: int

    def room(self, lefts: int, rights: int) -> int:
        """Elements of the workspace for a product of these numbers of vectors."""
        return (lefts + rights) * _PANEL_NODES * self.lanes + rights * self.lanes + lefts * rights * self.lanes**2


def tiles_of(machine: Machine, dtype: str) -> Tiles:
    """The largest tiles whose sums stay in registers beside the vectors of a node.

    Rows are a divisor of the lanes, so that the usual sizes of layers waste nothing.
    """
    lanes = machine.lanes_of(dtype)
    vectors = 3 if machine.registers >= 16 else 1
    rows = 1
    while 2 * rows * vectors + vectors + machine.reserved <= machine.registers and 2 * rows <= lanes:
        rows *= 2
    return Tiles(lanes, rows, vectors)


def weight_gradients(machine: Machine, dtype: str) -> tirx.PrimFunc:
    """The kernel; see the module's docstring. A schedule's ``kernel(step, steps, index, ...)`` it is not.

    Its arguments are ``rows`` (addresses), ``steps``, ``vectors``, ``segments``, ``tables`` (all int64) and ``work`` of
    `dtype`, which has :meth:`Tiles.room` for every step. Reading a vector may read up to its end behind a row.
    """
    return _Kernel(tiles_of(machine, dtype), dtype).build()


class _Kernel:
    def __init__(self, tiles: Tiles, dtype: str) -> None:
        self.tiles = tiles
        self.dtype = dtype
        self.lanes = tiles.lanes
        self.panel = _PANEL_NODES * tiles.lanes
        self.item = np.dtype(dtype).itemsize

    def build(self) -> tirx.PrimFunc:
        """The kernel."""
        with IRBuilder() as builder, T.prim_func():
            T.func_name("weight_gradients")
            self.rows = self._table("rows")
            self.steps = self._table("steps", 5)
            self.vectors = self._table("vectors", 8)
            self.segments = self._table("segments")
            self.tables = self._table("tables", 5)
            self.work = T.arg("work", T.buffer((tirx.Var("room", _INT),), self.dtype, align=64))
            T.func_attr({"global_symbol": "weight_gradients", "tirx.noalias": True})
            with T.serial(0, self.steps.shape[0]) as step:
                self._step(step)
            with T.serial(0, self.tables.shape[0]) as table:
                self._segments(table)
        return builder.get()

    # Products --------------------------------------------------------------------------------------------------

    def _step(self, step: Any) -> None:
        """A product."""
        nodes, self.left, self.lefts, self.right, self.rights = (
            _bind(name, tirx.Cast(_INT, self.steps[step, column]))
            for column, name in enumerate(("nodes", "left", "lefts", "right", "rights"))
        )
        # Without nodes there is a block of none: the product is 0.
        blocks = _bind("blocks", tirx.max(tirx.floordiv(nodes + (BLOCK - 1), BLOCK), 1))
        with T.serial(0, blocks) as block:
            self.begin = _bind("begin", block * BLOCK)
            self.count = tirx.min(nodes - self.begin, BLOCK)
            self.is_first, self.is_last = block == 0, block == blocks - 1
            self._block()

    def _block(self) -> None:
        """A block of nodes of a product."""
        lanes = self.lanes
        self.totals = _bind("totals", (self.lefts + self.rights) * self.panel)
        self.sums = _bind("sums", self.totals + self.rights * lanes)
        most = self.tiles.vectors
        groups = _bind("groups", tirx.floordiv(self.rights + (most - 1), most))
        # Of the groups of right vectors, the first have one more than the others.
        fewest = _bind("fewest", tirx.floordiv(self.rights, tirx.max(groups, 1)))
        larger = _bind("larger", self.rights - fewest * groups)
        with T.parallel(0, _runs(self.lefts) + _runs(self.rights)) as run:
            self._copy(run)
        items = _bind("items", groups * self.lefts)
        with T.parallel(0, items) as item:
            group = _bind("group", tirx.floordiv(item, self.lefts))
            left = _bind("left_vector", item - group * self.lefts)
            right = _bind("right_vector", group * fewest + tirx.min(group, larger))
            wide = _bind("wide", fewest + tirx.Cast(_INT, group < larger))
            self._tiles(left, right, wide)

    def _copy(self, run: Any) -> None:
        """Copy a run of vectors of the nodes of a block, and sum the rows of those for which that is asked."""
        of_left = _bind("runs_of_left", _runs(self.lefts))
        is_left = run < of_left
        first = _bind("first", tirx.Select(is_left, run, run - of_left) * RUN)
        length = _bind("length", tirx.min(tirx.Select(is_left, self.lefts, self.rights) - first, RUN))
        row = _bind("row", tirx.Select(is_left, self.left, self.right) + first)
        vector = _bind("vector", tirx.Select(is_left, 0, self.lefts) + first)
        last = row + length - 1
        apart = self.vectors[last, OFFSET] - self.vectors[row, OFFSET]
        side_by_side = apart == (RUN - 1) * self.lanes * self.item
        of_one = self.vectors[row, ADDRESSES] == self.vectors[last, ADDRESSES]
        with T.If((length == RUN) & of_one & side_by_side & (self.vectors[last, WIDTH] == self.lanes)):
            with T.Then(), T.If(is_left):
                with T.Then():
                    self._copy_run(RUN, row, vector)
                with T.Else():
                    self._copy_run(RUN, row, vector, sums=True)
            with T.Else(), T.serial(0, length) as number, T.If(is_left):
                with T.Then():
                    self._copy_run(1, row + number, vector + number)
                with T.Else():
                    self._copy_run(1, row + number, vector + number, sums=True)

    def _copy_run(self, length: int, row: Any, vector: Any, sums: bool = False) -> None:
        """Copy vectors that lie side by side; a single one may have fewer columns, the others are 0 then."""
        start = _bind("start", tirx.Cast(_INT, self.vectors[row, ADDRESSES]) + self.begin)
        offset = _bind("offset", self.vectors[row, OFFSET], "int64")
        width = _bind("width", tirx.Cast(_INT, self.vectors[row, WIDTH]))
        panels = [_bind("panel", (vector + number) * self.panel) for number in range(length)]
        totals = [T.alloc_buffer((self.lanes,), self.dtype, scope="global") for _ in panels] if sums else []
        for one in totals:
            T.buffer_store(one, self.zeros(), [self.span(0)])
        with T.serial(0, self.count) as node:
            later = self.rows[start + tirx.min(node + AHEAD, self.count - 1)] + offset
            for number in range(length):
                prefetch(T.reinterpret("handle", later + number * self.lanes * self.item))
            read = self.at(self.rows[start + node] + offset)
            for number, panel in enumerate(panels):
                value = read[self.span(number * self.lanes)]
                if length == 1 and self.lanes > 1:
                    value = tirx.Select(self.span(0) < self.vector(width), value, self.zeros())
                T.buffer_store(self.work, value, [self.span(panel + node * self.lanes)])
                if sums:
                    T.buffer_store(totals[number], totals[number][self.span(0)] + value, [self.span(0)])
        for number, one in enumerate(totals):
            self._write_total(row + number, vector + number, one[self.span(0)])

    def _write_total(self, row: Any, vector: Any, block_sum: Any) -> None:
        """Add the sum of a block of rows to that of the earlier ones, and after the last one to the gradient."""
        place = _bind("place", self.totals + (vector - self.lefts) * self.lanes)
        with T.If(self.is_first):
            with T.Then():
                T.buffer_store(self.work, block_sum, [self.span(place)])
            with T.Else():
                T.buffer_store(self.work, self.work[self.span(place)] + block_sum, [self.span(place)])
        with T.If(self.is_last & (self.vectors[row, TOTAL] != 0)), T.Then():
            out = self.at(self.vectors[row, TOTAL])
            with T.serial(0, tirx.Cast(_INT, self.vectors[row, WIDTH])) as column:
                there = tirx.if_then_else(self.vectors[row, TOTAL_ADD] != 0, out[column], self.zero())
                T.buffer_store(out, there + self.work[place + column], [column])

    def _tiles(self, left: Any, right: Any, wide: Any) -> None:
        """The tiles of a left vector and a group of `wide` right ones, from `right` on."""
        width = _bind("left_width", tirx.Cast(_INT, self.vectors[self.left + left, WIDTH]))
        rows = self.tiles.rows
        strips = tirx.min(tirx.floordiv(width + (rows - 1), rows), self.lanes // rows)
        with T.serial(0, strips) as strip:
            # Of each group all left vectors, of each left vector all strips: the next tile lies behind this one.
            before = right * self.lefts * self.lanes + (left * self.lanes + strip * rows) * wide
            tile = _bind("tile", self.sums + before * self.lanes)
            self._of_width(self.tiles.vectors, wide, left, right, strip, tile)
            with T.If(self.is_last), T.Then():
                self._write(left, right, wide, strip, tile, tirx.min(width - strip * rows, rows))

    def _of_width(self, vectors: int, wide: Any, left: Any, right: Any, strip: Any, tile: Any) -> None:
        """The code for the number of right vectors that there is."""
        if vectors == 1:
            self._sum(1, left, right, strip, tile)
            return
        with T.If(wide == vectors):
            with T.Then():
                self._sum(vectors, left, right, strip, tile)
            with T.Else():
                self._of_width(vectors - 1, wide, left, right, strip, tile)

    def _sum(self, vectors: int, left: Any, right: Any, strip: Any, tile: Any) -> None:
        """Add the products of the nodes of a block to a tile."""
        rows, lanes, work = self.tiles.rows, self.lanes, self.work
        sums = [T.alloc_buffer((rows * lanes,), self.dtype, scope="global") for _ in range(vectors)]
        each = [(number, row) for number in range(vectors) for row in range(rows)]

        def there(number: int, row: int) -> Any:
            return self.span(tile + (row * vectors + number) * lanes)

        with T.If(self.is_first):
            with T.Then():
                for number, row in each:
                    T.buffer_store(sums[number], self.zeros(), [self.span(row * lanes)])
            with T.Else():
                for number, row in each:
                    T.buffer_store(sums[number], work[there(number, row)], [self.span(row * lanes)])
        of_left = _bind("of_left", left * self.panel + strip * rows)
        of_right = _bind("of_right", (self.lefts + right) * self.panel)
        with T.serial(0, self.count) as node:
            for row in range(rows):
                x = self.vector(work[of_left + node * lanes + row])
                span = self.span(row * lanes)
                for number, one in enumerate(sums):
                    y = work[self.span(of_right + number * self.panel + node * lanes)]
                    T.buffer_store(one, one[span] + x * y, [span])
        for number, row in each:
            T.buffer_store(work, sums[number][self.span(row * lanes)], [there(number, row)])

    def _write(self, left: Any, right: Any, wide: Any, strip: Any, tile: Any, count: Any) -> None:
        """Write the first `count` rows of a tile to the gradients."""
        first_row = self.vectors[self.left + left, OUT] + tirx.Cast("int64", strip * self.tiles.rows)
        with T.serial(0, wide) as number:
            column = _bind("column", self.right + right + number)
            width = _bind("right_width", tirx.Cast(_INT, self.vectors[column, WIDTH]))
            stride = _bind("stride", self.vectors[column, STRIDE], "int64")
            begin = _bind("begin_out", self.vectors[column, OUT] + first_row * stride, "int64")
            add = _bind("add", self.vectors[column, ADD] != 0, "bool")
            with T.serial(0, count) as row:
                out = self.at(begin + tirx.Cast("int64", row) * stride)
                place = _bind("place", tile + (row * wide + number) * self.lanes)
                with T.If(width == self.lanes):
                    with T.Then():
                        self._add(out, self.span(0), self.span(place), add)
                    with T.Else(), T.serial(0, width) as lane:
                        self._add(out, lane, place + lane, add)

    def _add(self, out: Any, at: Any, place: Any, add: Any) -> None:
        with T.If(add):
            with T.Then():
                T.buffer_store(out, out[at] + self.work[place], [at])
            with T.Else():
                T.buffer_store(out, self.work[place], [at])

    # Sums of rows of tables ------------------------------------------------------------------------------------

    def _segments(self, table: Any) -> None:
        """Add up the rows of each segment, in their order."""
        count, begin, width = (
            _bind(name, tirx.Cast(_INT, self.tables[table, column]))
            for name, column in (("count", SEGMENTS), ("begin", FIRST_SEGMENT), ("width", TABLE_WIDTH))
        )
        results = _bind("results", self.tables[table, TABLE_OUT], "int64")
        with T.parallel(0, count) as segment:
            first = _bind("first_row", tirx.Cast(_INT, self.segments[begin + segment]))
            end = _bind("end", tirx.Cast(_INT, self.segments[begin + segment + 1]))
            out = self.at(results + tirx.Cast("int64", segment) * self.tables[table, TABLE_STRIDE])
            self._sum_rows(first, end, width, out)

    def _sum_rows(self, first: Any, end: Any, width: Any, out: Any) -> None:
        whole = _bind("whole", tirx.floordiv(width, self.lanes))
        with T.serial(0, whole) as vector:
            self._sum_columns(first, end, out, self.span(vector * self.lanes), self.zeros(), self.lanes)
        with T.serial(0, width - whole * self.lanes) as rest:
            self._sum_columns(first, end, out, whole * self.lanes + rest, self.zero(), 1)

    def _sum_columns(self, first: Any, end: Any, out: Any, at: Any, zero: Any, lanes: int) -> None:
        total = T.alloc_buffer((lanes,), self.dtype, scope="global")
        span = self.span(0) if lanes > 1 else tirx.const(0, _INT)
        T.buffer_store(total, zero, [span])
        with T.serial(0, end - first) as row:
            read = self.at(self.rows[first + row])[at]
            T.buffer_store(total, total[span] + read, [span])
        T.buffer_store(out, total[span], [at])

    # Expressions -----------------------------------------------------------------------------------------------

    def _table(self, name: str, *columns: int) -> Any:
        shape = (tirx.Var(f"{name}_length", _INT), *columns)
        return T.arg(name, T.buffer(shape, "int64", align=8))

    def at(self, address: Any) -> Any:
        """What lies at an address, as far as the kernel reads it."""
        return T.decl_buffer((_ANY,), self.dtype, data=T.reinterpret("handle", address), align=self.item)

    def span(self, begin: Any) -> Any:
        """The indices of a vector."""
        return tirx.Ramp(begin, 1, self.lanes) if self.lanes > 1 else begin

    def vector(self, value: Any) -> Any:
        """`value` in all lanes."""
        return tirx.Broadcast(value, self.lanes) if self.lanes > 1 else value

    def zero(self) -> Any:
        """A number."""
        return tirx.const(0, self.dtype)

    def zeros(self) -> Any:
        """A vector."""
        return self.vector(self.zero())


def _runs(vectors: Any) -> Any:
    return tirx.floordiv(vectors + (RUN - 1), RUN)


def _bind(name: str, value: Any, dtype: str = _INT) -> Any:
    """`value`, computed here, as a variable."""
    variable = tirx.Var(name, dtype)
    T.Bind(value, var=variable)
    return variable

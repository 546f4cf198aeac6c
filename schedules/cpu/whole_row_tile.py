"""The code of one tile of a stage with column reductions: contractions of whole rows, then the epilogue in phases.

The results of contractions go to buffers of whole rows, a group of column chunks at a time. A phase of the epilogue is
one loop over the columns of a row. It computes what depends on no later column reduction and adds to those that end
it; what a later phase reads, it keeps in a row buffer::

    x[:] = results + b;   t0 = max over j: x[j]          # phase 0 of a soft-max
    y[:] = exp(x - t0);   t1 = sum over j: y[j]          # phase 1
    output[:] = y / t1                                   # phase 2
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from edbatch_tvm.tvm_compat import builder_tirx as T
from edbatch_tvm.tvm_compat import tirx
from schedules import stage as ir
from schedules.cpu.column_totals import ColumnTotals
from schedules.cpu.prefetch import LINE, requests_of
from schedules.cpu.row_arithmetic import with_cheap_arithmetic
from schedules.cpu.row_phases import Phase, phases_of, read_later
from schedules.cpu.row_values import write_row_lines
from schedules.cpu.stage_config import first_column
from schedules.cpu.stage_tile import Tile
from schedules.cpu.stage_tile_values import At
from schedules.cpu.variadic_reductions import reduce_rows

_ZERO = tirx.const(0, "int32")

_TOGETHER = 8
"""Chunks whose reductions over variadic rows are under way at once: a row is found once for all of them."""


class WholeRowTile(Tile):
    """A tile of all columns of its rows; see the module's docstring."""

    def write(self) -> None:
        """Write the code."""
        stage, bucket = self.stage, self.bucket
        self.find_owners()
        self.width = self.packing.chunks * self.lanes
        self.rows_of_results = [self._row_buffer(self.rows) for _ in stage.gates]
        if stage.gates:
            groups = -(-self.packing.chunks // bucket.chunks)
            with T.serial(0, groups) as group:
                first = tirx.min(group * bucket.chunks, self.packing.chunks - bucket.chunks)
                self._contract_group(self.kernel.bind("chunk", first))
        self._epilogue_of_rows(with_cheap_arithmetic(stage))

    def _row_buffer(self, rows: int) -> Any:
        return T.alloc_buffer((rows * self.width,), self.dtype, scope="global")

    def _contract_group(self, chunk: Any) -> None:
        """The contractions of a group of chunks, copied to the buffers of whole rows."""
        part = Tile(self.kernel, self.bucket, self.rows, chunk, self.start, self.element, self.short, self.panels)
        part.owners = self.owners
        part.contract()
        for number, buffer in enumerate(self.rows_of_results):
            for column, result in zip(part.columns, part.results[number], strict=True):
                with T.serial(0, self.rows) as row:
                    lanes = self.lanes_at(row * self.lanes)
                    T.buffer_store(buffer, result[lanes], [self.lanes_at(row * self.width + column)])

    def result(self, gate: int, at: At, lane: Any) -> Any:
        """The result of a contraction at one place."""
        return self.rows_of_results[gate][at.row * self.width + at.column + lane]

    def _epilogue_of_rows(self, stage: ir.Stage) -> None:
        """Phase after phase, each for all rows of the tile: the next row need not wait for the end of a reduction."""
        phases = phases_of(stage)
        self.kept = {variable: self._row_buffer(self.rows) for variable in read_later(stage, phases)}
        self.of_rows = {
            line.variable: T.alloc_buffer((self.rows,), str(line.variable.ty.dtype), scope="global")
            for phase in phases
            for line in (*phase.scalars, *phase.lines)
            if isinstance(line, ir.ColumnReduction) or (line in phase.scalars and not isinstance(line, ir.RowValue))
        }
        self.row_values = {line.variable: self.kernel.scratch[line.scratch] for line in stage.row_values}
        for phase in phases:
            with T.serial(0, self.rows) as row:
                here, begin, position = self._at_row(row)
                write_row_lines(self, phase.scalars, here, begin)
                if phase.lines or phase.outputs:
                    requests = requests_of(self, phases, phase, position)
                    self._loop(phase, here, begin, position, requests)
        narrow = [output for output in stage.outputs if output.narrow]
        if narrow:
            with T.serial(0, self.rows) as row:
                here, _, position = self._at_row(row)
                for output in narrow:
                    self.store(output, here, position)

    def _at_row(self, row: Any) -> tuple[At, Any, Any]:
        """The place of row `row` of the tile, the first variadic row of its instance, and its element of the domain."""
        position, instance = self.position(row), self.instance(row)
        rows, count, begin = self.element_rows(position, instance)
        here = At(self, row, _ZERO, _ZERO, instance, rows, count)
        here.lets.update({variable: partial(_scalar, buffer) for variable, buffer in self.of_rows.items()})
        here.lets.update({variable: partial(_element, buffer, self.width) for variable, buffer in self.kept.items()})
        here.lets.update({variable: partial(_row_value, buffer) for variable, buffer in self.row_values.items()})
        return here, begin, position

    def _loop(
        self, phase: Phase, before: At, begin: Any, position: Any, requests: Sequence[Callable[[Any], None]]
    ) -> None:
        """The loop over columns of one phase for one row, with requests for other rows at the same columns.

        Chunks whose columns all count come first, several in a turn where there is a reduction: each has a total of
        its own, so that additions need not wait for one another. The last chunk of other widths follows by itself.
        """
        reductions = [line for line in phase.lines if isinstance(line, ir.ColumnReduction)]
        of_rows = any(isinstance(line, ir.Reduction) for line in phase.lines)
        whole = self.stage.columns // self.lanes
        most = _TOGETHER if of_rows else ColumnTotals.MOST if reductions else 1
        together = max(1, min(whole, most))
        totals = {line.variable: ColumnTotals(self, line, together) for line in reductions}

        def chunks(first: Any, count: int, masked: bool = False) -> None:
            places = []
            for number in range(count):
                chunk = first + number
                column = self.kernel.bind("column", first_column(self.stage, self.kernel.machine, chunk))
                places.append(before.moved(chunk, column))
                if number * self.lanes * np.dtype(self.dtype).itemsize % LINE == 0:
                    for request in requests:
                        request(column)
            # Line after line where a reduction over variadic rows serves all chunks, else chunk after chunk.
            for some in [places] if of_rows else [[place] for place in places]:
                self._chunks(phase, some, totals, places.index(some[0]), begin, position, masked)

        if whole // together:
            with T.serial(0, whole // together) as turn:
                chunks(turn * together, together)
        first, rest = whole // together * together, whole % together
        if rest and of_rows:
            chunks(tirx.const(first, "int32"), rest)
        elif rest:
            with T.serial(first, whole) as chunk:
                chunks(chunk, 1)
        if self.packing.chunks > whole:
            chunks(tirx.const(whole, "int32"), 1, masked=True)
        for line in reductions:
            T.buffer_store(self.of_rows[line.variable], totals[line.variable].folded(), [before.row])

    def _chunks(
        self,
        phase: Phase,
        places: Sequence[At],
        totals: dict[Any, ColumnTotals],
        number: int,
        begin: Any,
        position: Any,
        masked: bool,
    ) -> None:
        """The lines and outputs of a phase for some chunks, the first of which is `number` of those under way."""
        for line in phase.lines:
            if isinstance(line, ir.Reduction):
                reduce_rows(self, places, line, begin)
            for place, at in enumerate(places, number):
                if isinstance(line, ir.ColumnReduction):
                    totals[line.variable].add(place, at, masked)
                    continue
                if isinstance(line, ir.Let):
                    self.compute(line, [at], begin)
                if line.variable in self.kept:
                    base = at.row * self.width + at.column
                    with self.each_lane() as lane:
                        T.buffer_store(self.kept[line.variable], at.lets[line.variable](at, lane), [base + lane])
        for output in phase.outputs:
            for at in places:
                self.store(output, at, position)


def _scalar(buffer: Any, at: At, _lane: Any) -> Any:
    return buffer[at.row]


def _element(buffer: Any, width: int, at: At, lane: Any) -> Any:
    return buffer[at.row * width + at.column + lane]


def _row_value(buffer: Any, at: At, _lane: Any) -> Any:
    return buffer[at.variadic_row, at.tile.matrix_row(at.row)]

"""Code for what a stage computes once for a row of a tile: numbers, row values, and reductions over variadic rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from edbatch_tvm.tvm_compat import builder_tirx as T
from edbatch_tvm.tvm_compat import tirx
from schedules import stage as ir
from schedules.column_constants import variables_in
from schedules.cpu.column_totals import ColumnTotals
from schedules.cpu.stage_config import is_tight
from schedules.cpu.stage_tile_values import At
from schedules.cpu.variadic_reductions import COMBINE

if TYPE_CHECKING:
    from schedules.cpu.whole_row_tile import WholeRowTile

_ZERO = tirx.const(0, "int32")


def write_row_lines(tile: WholeRowTile, lines: Sequence[ir.Line], here: At, begin: Any) -> None:
    """The code of `lines`, which are the same in all columns, for one row of the tile.

    Lines that need a loop over the variadic rows share it where none needs the end of another::

        for p: score[p] = h[p] . q;             m = max(m, score[p])
        for p: power[p] = exp(score[p] - m);    z = z + power[p]
    """
    for group in _groups(lines):
        if isinstance(group[0], ir.Let):
            (line,) = group
            T.buffer_store(tile.of_rows[line.variable], here.value(line.expression, _ZERO), [here.row])
        else:
            _over_variadic_rows(tile, group, here, begin)


def _groups(lines: Sequence[ir.Line]) -> Iterator[list[ir.Line]]:
    """Lets one by one, and runs of other lines of which none reads a reduction of the run."""
    run: list[ir.Line] = []
    for line in lines:
        ended = {one.variable for one in run if isinstance(one, ir.Reduction)}
        if run and (isinstance(line, ir.Let) or ended.intersection(variables_in(line.expression))):
            yield run
            run = []
        if isinstance(line, ir.Let):
            yield [line]
        else:
            run.append(line)
    if run:
        yield run


def _over_variadic_rows(tile: WholeRowTile, lines: Sequence[ir.Line], here: At, begin: Any) -> None:
    totals = {line.variable: tile.of_rows[line.variable] for line in lines if isinstance(line, ir.Reduction)}
    for line in lines:
        if isinstance(line, ir.Reduction):
            T.buffer_store(totals[line.variable], tirx.const(line.identity, tile.dtype), [here.row])
    with T.serial(0, here.count) as p:
        at = here.moved(_ZERO, _ZERO)
        at.read_row(begin + p)
        for line in lines:
            if isinstance(line, ir.RowValue):
                number = T.alloc_buffer((1,), tile.dtype, scope="global")
                value = _total(tile, line, at) if line.combine is not None else at.value(line.expression, _ZERO)
                T.buffer_store(number, value, [0])
                T.buffer_store(tile.row_values[line.variable], number[0], [begin + p, tile.matrix_row(here.row)])
                at.lets[line.variable] = partial(_number, number)
            elif isinstance(line, ir.Reduction):
                total = totals[line.variable]
                value = COMBINE[line.combine](total[here.row], at.value(line.expression, _ZERO))
                T.buffer_store(total, value, [here.row])


def _total(tile: WholeRowTile, line: ir.RowValue, at: At) -> Any:
    """The sum (max, min) over the columns of one variadic row: whole chunks, several at once, then what is left."""
    whole = line.columns // tile.lanes
    together = max(1, min(whole, ColumnTotals.MOST))
    totals = ColumnTotals(tile, line, together)

    def chunks(first: Any, count: int) -> None:
        for number in range(count):
            totals.add(number, at.moved(first + number, tile.kernel.bind("column", (first + number) * tile.lanes)))

    if whole // together:
        with T.serial(0, whole // together) as turn:
            chunks(turn * together, together)
    if whole % together:
        chunks(tirx.const(whole // together * together, "int32"), whole % together)
    if line.columns % tile.lanes:
        begin, stage = whole * tile.lanes, tile.stage
        if line.columns == stage.columns and is_tight(stage) and whole:
            begin = stage.columns - tile.lanes  # as the weights of its last chunk are packed
        last = at.moved(tirx.const(whole, "int32"), tirx.const(begin, "int32"))
        with T.serial(whole * tile.lanes - begin, line.columns - begin) as lane:
            totals.add_one(last, lane)
    return totals.folded()


def _number(buffer: Any, _at: At, _lane: Any) -> Any:
    return buffer[0]

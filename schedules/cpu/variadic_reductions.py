"""Reductions over the variadic rows of an instance, as a tile computes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from edbatch_tvm.tvm_compat import builder_tirx as T
from edbatch_tvm.tvm_compat import tirx
from schedules import stage as ir
from schedules.column_constants import variables_in
from schedules.cpu.stage_tile_values import At, lane_of

if TYPE_CHECKING:
    from schedules.cpu.stage_tile import Tile

COMBINE: dict[ir.Combine, Callable[[Any, Any], Any]] = {
    "sum": lambda total, value: total + value,
    "max": tirx.max,
    "min": tirx.min,
    "prod": lambda total, value: total * value,
}


def reductions_first(body: Sequence[ir.Line]) -> tuple[list[ir.Line], list[ir.Line]]:
    """The lines of a body that are reductions or that reductions read, and the others, both in their order."""
    read: set[Any] = set()
    early = []
    for line in reversed(body):
        early.append(isinstance(line, ir.Reduction) or line.variable in read)
        if early[-1]:
            read.update(variables_in(line.expression))
    early.reverse()
    first = [line for line, is_early in zip(body, early, strict=True) if is_early]
    return first, [line for line, is_early in zip(body, early, strict=True) if not is_early]


def reduce_rows(tile: Tile, places: Sequence[At], line: ir.Reduction, begin: Any) -> None:
    """A reduction over the variadic rows of one instance, for some chunks; over no rows the identity.

    Nobody can tell how many rows an instance has, so a processor guesses wrong where a loop over them ends, and all
    chunks share one.
    """
    combine = COMBINE[line.combine]
    results = [T.alloc_buffer((tile.lanes,), tile.dtype, scope="global") for _ in places]
    for result in results:
        with tile.each_lane() as lane:
            T.buffer_store(result, tirx.const(line.identity, tile.dtype), [lane])
    with T.serial(0, places[0].count) as p:
        rows = places[0].read_row(begin + p)
        for at, result in zip(places, results, strict=True):
            at.rows.update(rows)
            at.variadic_row = begin + p
            with tile.each_lane() as lane:
                T.buffer_store(result, combine(result[lane], at.value(line.expression, lane)), [lane])
    for at, result in zip(places, results, strict=True):
        at.lets[line.variable] = partial(lane_of, result)

"""Reductions over columns in the lanes of vectors, several totals at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edbatch_tvm.tvm_compat import builder_tirx as T
from edbatch_tvm.tvm_compat import tirx
from schedules import stage as ir

if TYPE_CHECKING:
    from schedules.cpu.stage_tile import Tile
    from schedules.cpu.stage_tile_values import At


class ColumnTotals:
    """Totals of a column reduction, or of a row value that is one.

    Four at once hide the latency of an addition.
    """

    MOST = 4

    def __init__(self, tile: Tile, line: ir.ColumnReduction | ir.RowValue, count: int) -> None:
        assert line.combine is not None
        self.tile = tile
        self.line = line
        self.combine = line.combine
        self.identity = tirx.const(line.identity, tile.dtype)
        self.buffers = [T.alloc_buffer((tile.lanes,), tile.dtype, scope="global") for _ in range(min(count, self.MOST))]
        for buffer in self.buffers:
            T.buffer_store(buffer, tile.broadcast(self.identity), [tile.lanes_at(0)])

    def add(self, place: int, at: At, masked: bool = False) -> None:
        """Add chunk number `place` of those under way; what is beyond the columns, or came before, does not count."""
        buffer, tile = self.buffers[place % len(self.buffers)], self.tile
        with tile.each_lane() as lane:
            value = at.value(self.line.expression, lane)
            if masked:
                column = at.column + lane
                inside = tirx.And(column >= at.chunk * tile.lanes, column < tile.stage.columns)
                value = tirx.Select(inside, value, self.identity)
            T.buffer_store(buffer, self._combined(buffer[lane], value), [lane])

    def add_one(self, at: At, lane: Any) -> None:
        """Add one element of a chunk."""
        first = self.buffers[0]
        T.buffer_store(first, self._combined(first[0], at.value(self.line.expression, lane)), [0])

    def folded(self) -> Any:
        """The combination of all lanes of all totals: halves on halves, then what is left."""
        totals, count = self.buffers, self.tile.lanes
        every = self.tile.lanes_at(0)
        while len(totals) > 1:
            half = (len(totals) + 1) // 2
            for total, other in zip(totals[: len(totals) - half], totals[half:], strict=True):
                T.buffer_store(total, self._combined(total[every], other[every]), [every])
            totals = totals[:half]
        (total,) = totals
        while count > 1:
            half = count // 2
            low, high = (tirx.Ramp(start, 1, half) if half > 1 else start for start in (0, count - half))
            T.buffer_store(total, self._combined(total[low], total[high]), [low])
            count -= half
        return total[0]

    def _combined(self, total: Any, value: Any) -> Any:
        """`total` and one more element; for a maximum (minimum) in three instructions, NaN if one of them is."""
        if self.combine == "sum":
            return total + value
        if self.combine == "prod":
            return total * value
        v = tirx.Var("v", value.ty)
        chosen = tirx.Select(v < total if self.combine == "max" else total < v, total, v)
        infinity = tirx.const(float("inf"), self.tile.dtype)
        if str(value.ty.dtype) != self.tile.dtype:
            infinity = tirx.Broadcast(infinity, value.ty.dtype.lanes)
        return tirx.Let(v, value, tirx.Select(total <= infinity, chosen, total))

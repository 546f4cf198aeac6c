"""The values of a stage's expressions at one place of a tile: what its leaves are read from."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from edbatch_tvm.tvm_compat import structural_map, tirx
from schedules import stage as ir

if TYPE_CHECKING:
    from schedules.cpu.stage_tile import Tile


class At:
    """Expressions of a stage at one row of a tile and one chunk of columns."""

    def __init__(
        self, tile: Tile, row: Any, chunk: Any, column: Any, instance: Any, rows: dict[ir.Source, Any], count: Any
    ) -> None:
        self.tile = tile
        self.row = row
        self.chunk = chunk
        self.column = column
        self.instance = instance
        self.rows = dict(rows)
        self.count = count
        self.variadic_row: Any = None
        """Where variadic rows are read: the number of the row in the batch."""
        self.lets: dict[Any, Callable[[At, Any], Any]] = {}
        """For each variable of the body, what its value is at a place and in a lane."""

    def moved(self, chunk: Any, column: Any) -> At:
        """The same row at another chunk of columns; what it computes stays its own."""
        at = At(self.tile, self.row, chunk, column, self.instance, self.rows, self.count)
        at.lets = dict(self.lets)
        at.variadic_row = self.variadic_row
        return at

    def read_row(self, number: Any) -> dict[ir.Source, Any]:
        """Read variadic row `number` of the batch from here on; returns the row of each source of such rows."""
        kernel = self.tile.kernel
        found = {
            source: kernel.bind("variadic_row", kernel.row(source, number, self.instance))
            for source in self.tile.stage.sources
            if is_row(source)
        }
        self.rows.update(found)
        self.variadic_row = number
        return found

    def value(self, expression: Any, lane: Any) -> Any:
        """`expression` with every leaf and let replaced by what it stands for in this lane."""

        def replace(variable: Any) -> Any:
            if variable in self.lets:
                return self.lets[variable](self, lane)
            leaf = self.tile.stage.leaves.get(variable)
            return variable if leaf is None else self._leaf(leaf, lane)

        return structural_map(expression, (tirx.Var, replace))

    def _leaf(self, leaf: ir.Leaf, lane: Any) -> Any:
        tile, kernel, lanes = self.tile, self.tile.kernel, self.tile.lanes
        matrix_row = tile.matrix_row(self.row)
        match leaf:
            case ir.Element(source, offset, moving, row):
                at = offset + row * matrix_row
                return kernel.buffer(source)[self.rows[source], at + self.column + lane if moving else at]
            case ir.Vector(index):
                base, by_row = tile.packing.vectors[index]
                return kernel.packed[base + by_row * matrix_row + (tile.chunk + self.chunk) * lanes + lane]
            case ir.Accumulator(gate):
                return tile.result(gate, self, lane)
            case ir.RowCount():
                return tirx.Cast(tile.stage.dtype, self.count)
            case ir.AttributeValue(attribute, position):
                return kernel.attributes[attribute][kernel.first + self.instance, position]
            case ir.Column():
                return tirx.Cast(tile.stage.dtype, self.column + lane)
        raise TypeError(leaf)


def is_row(source: ir.Source) -> bool:
    """Whether `source` has a row for each variadic row."""
    return isinstance(source, ir.Variadic) or (isinstance(source, ir.Scratch) and source.domain == "rows")


def lane_of(buffer: Any, _at: At, lane: Any) -> Any:
    """The element of `buffer`, which holds a vector, in a lane: a value of :attr:`At.lets`."""
    return buffer[lane]

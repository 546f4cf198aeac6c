"""The epilogue of a stage at one element: the expressions of the body over what leaves stand for there."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from edbatch_tvm.tvm_compat import builder_tirx as T
from edbatch_tvm.tvm_compat import structural_map, tirx
from schedules import stage as ir
from schedules.cuda.execution_model import bind, loop
from schedules.cuda.row_sources import OWNER, is_row_scratch
from schedules.cuda.tiles import PACK_LANES

if TYPE_CHECKING:
    from schedules.cuda.tile_code import TileCode

_FLOAT = "float32"

_COMBINE: dict[ir.Combine, Callable[[Any, Any], Any]] = {
    "sum": lambda total, value: total + value,
    "max": tirx.max,
    "min": tirx.min,
    "prod": lambda total, value: total * value,
}


class ElementCode:
    """Expressions of a stage at one element: an instance and a column."""

    def __init__(self, tile: TileCode, row: Any, position: Any, column: Any, total: Any) -> None:
        self.tile = tile
        self.code = tile.code
        self.row = row
        self.position = position
        self.column = column
        self.total = total
        self.rows: dict[ir.Source, Any] = {}
        self.matrix_row: Any = 0
        self._offsets: tuple[Any, Any] | None = None

    def reduce(self, line: ir.Reduction, lets: dict[Any, Any]) -> Any:
        """A reduction over the rows of the variadic operands of the instance; over no rows the identity."""
        code = self.code
        begin, count = self.offsets()  # before the loop: its variables are used after it too
        total = code.threads.registers(f"total_{line.variable.name}", 1)
        total.store(tirx.const(line.identity, _FLOAT), 0)
        with loop("p", count) as p:
            for source in code.stage.sources:
                if isinstance(source, ir.Variadic) or is_row_scratch(source):
                    self.rows[source] = bind("reduced_row", code.row(source, begin + p))
            total.store(_COMBINE[line.combine](total.load(0), self.value(line.expression, lets)), 0)
        return total.load(0)

    def offsets(self) -> tuple[Any, Any]:
        """Number of the first variadic row of the instance, and how many it has."""
        if self._offsets is None:
            tables, at = self.code.tables, self.code.pointer + self.position
            begin = bind("begin", tables[at])
            self._offsets = bind("begin_in_batch", begin - self.code.first_row), bind("k", tables[at + 1] - begin)
        return self._offsets

    def value(self, expression: Any, lets: dict[Any, Any]) -> Any:
        """`expression` with every leaf and let replaced by what it stands for here."""

        def replace(variable: Any) -> Any:
            if variable in lets:
                return lets[variable]
            leaf = self.code.stage.leaves.get(variable)
            return variable if leaf is None else self._leaf(leaf, str(variable.ty.dtype))

        return structural_map(expression, (tirx.Var, replace))

    def vector(self, index: int) -> Any:
        """The element of a packed vector."""
        packed = self.code.arguments[f"packed:{self.code.stage.name}"]
        at = self.code.vectors_at + index * PACK_LANES + tirx.truncmod(self.column, PACK_LANES)
        return packed[tirx.truncdiv(self.column, PACK_LANES), at]

    def outputs(self) -> None:
        """Compute the body, and write every output."""
        code, stage = self.code, self.code.stage
        lets: dict[Any, Any] = {}
        for line in stage.body:
            value = self.reduce(line, lets) if isinstance(line, ir.Reduction) else self.value(line.expression, lets)
            lets[line.variable] = bind(str(line.variable.name), value)
        column = self.matrix_row * stage.columns + self.column if stage.rows > 1 else self.column
        for output in stage.outputs:
            value = self.value(output.expression, lets)
            if output.scratch:
                T.buffer_store(code.arguments[f"scratch:{output.scratch}"], value, [self.position, column])
            else:
                arena = code.arguments[f"arena:{code.binding.output_arena[output.slot]}"]
                at = column if output.begin is None else column + output.begin
                T.buffer_store(arena, value, [code.output_row[output.slot] + self.position, at])

    def _leaf(self, leaf: ir.Leaf, dtype: str) -> Any:
        code = self.code
        match leaf:
            case ir.Element(source, offset, moving):
                column = offset + self.column if moving else tirx.const(offset, "int32")
                column = column + leaf.row * self.matrix_row if leaf.row else column
                row = self.rows[source] if source in self.rows else self.tile.row(source, self.row)
                return code.buffer(source)[row, column]
            case ir.Vector(index):
                return self.vector(index)
            case ir.Accumulator(gate):
                return self.total(gate)
            case ir.RowCount():
                return tirx.Cast(_FLOAT, self.offsets()[1])
            case ir.AttributeValue(attribute, position):
                instance = self.position if code.stage.domain == "instances" else self.tile.row(OWNER, self.row)
                return tirx.Cast(dtype, code.attribute(attribute, instance, position))
        raise TypeError(leaf)

"""The code of one stage on a GPU, for one batch: which tiles, and where everything lies that they read and write."""

from __future__ import annotations

from typing import Any

from edbatch_tvm.tvm_compat import builder_tirx as T
from edbatch_tvm.tvm_compat import tirx
from schedules import abi
from schedules import stage as ir
from schedules.cuda.execution_model import Threads, bind
from schedules.cuda.kernel_arguments import Arguments, Tables
from schedules.cuda.product_precision import FLOAT32, Products
from schedules.cuda.row_sources import is_row_scratch, row_sources
from schedules.cuda.tile_code import TileCode
from schedules.cuda.tiles import Tile, is_tiled, least_rows, sweeps_of, tiles_of
from schedules.operand_rows import operand_row

_INT = "int32"


class StageCode:
    """Emits the code of a stage for one batch into the kernel that is being built.

    Parameters
    ----------
    first_attribute : int
        Number of the cell's first attribute among those of the model.
    fill : int
        Number of blocks that fill the machine.
    products : Products
    """

    def __init__(
        self,
        threads: Threads,
        stage: ir.Stage,
        binding: abi.CellBinding,
        first_attribute: int,
        tables: Tables,
        arguments: Arguments,
        fill: int,
        products: Products = FLOAT32,
    ) -> None:
        self.threads = threads
        self.stage = stage
        self.binding = binding
        self.first_attribute = first_attribute
        self.tables = tables
        self.arguments = arguments
        self.fill = fill
        self.products = products
        self.sweeps = sweeps_of(stage, products) if is_tiled(stage, products) else []
        self.vectors_at = sum(sweep.size for sweep in self.sweeps)
        self.row_sources = row_sources(stage)
        self.counts_rows = any(isinstance(leaf, ir.RowCount) for leaf in stage.leaves.values())
        self.counts_rows |= any(isinstance(line, ir.Reduction) for line in stage.body)

    @staticmethod
    def row_table_elements(stage: ir.Stage, products: Products) -> int:
        """Elements of the shared table of rows."""
        rows = max(tile.rows for tile in tiles_of(stage, products))
        return rows * len(row_sources(stage))

    def emit(self, step: Any, pool: Any, row_table: Any) -> None:
        """The code, inside a region; `pool` and `row_table` are shared memory for every stage."""
        self.pool, self.row_table = pool, row_table
        tables, layout = self.tables, self.binding.layout
        self.instances = self.count = bind("n", tables.step(step, abi.COUNT))
        self.first = bind("first", tables.step(step, abi.FIRST))
        self.pointer = bind("pointer", tables.step(step, abi.POINTER))
        self.output_row = {
            slot: bind(f"out{slot}", tables.step(step, layout.output(slot)))
            for slot in dict.fromkeys(o.slot for o in self.stage.outputs if o.slot >= 0)
        }
        self.base, self.stride = {}, {}
        for source in self.stage.sources:
            if isinstance(source, ir.StageOperand | ir.Variadic):
                number = source.index
                self.base[number] = bind(f"base{number}", tables.step(step, layout.base(number)))
                self.stride[number] = bind(f"stride{number}", tables.step(step, layout.stride(number)))
        if any(isinstance(s, ir.Variadic) or is_row_scratch(s) for s in self.stage.sources) or self.counts_rows:
            self.first_row = bind("first_row", tables[self.pointer])
        if self.stage.domain == "rows":
            self.count = bind("count", tables[self.pointer + self.instances] - self.first_row)
        self.loops()

    def loops(self) -> None:
        """The loops over tiles."""
        self._variants(tiles_of(self.stage, self.products))

    def _variants(self, tiles: list[Tile]) -> None:
        """The tile loops: the largest tile that the batch fills the machine with."""
        tile, rest = tiles[0], tiles[1:]
        least = least_rows(self.stage, tile, self.fill)
        if not rest or least <= 1:
            TileCode(self, tile).loop()
            return
        with T.If(self.count >= least):
            with T.Then():
                TileCode(self, tile).loop()
            with T.Else():
                self._variants(rest)

    def row(self, source: ir.Source, position: Any, owner: Any = None) -> Any:
        """Row of `source` for the element at `position` of the domain, whose instance is `owner`."""
        owner = position if owner is None else owner
        match source:
            case ir.StageOperand(number):
                return operand_row(self.base[number], self.stride[number], owner, self.tables)
            case ir.Variadic(number):
                return operand_row(self.base[number], self.stride[number], self.first_row + position, self.tables)
            case ir.Lookup(_, attribute, element):
                return self.attribute(attribute, owner, element)
            case ir.Scratch(_, domain):
                return position if domain == "rows" else owner
        raise TypeError(source)

    def owner(self, position: Any) -> Any:
        """The instance that variadic row `position` of the batch belongs to: the last whose first row is no later."""
        bounds = self.threads.registers("bounds", 2, _INT)
        bounds.store(tirx.const(0, _INT), 0)
        bounds.store(self.instances, 1)
        with T.While(bounds.load(1) - bounds.load(0) > 1):
            middle = bind("middle", tirx.truncdiv(bounds.load(0) + bounds.load(1), 2))
            with T.If(self.tables[self.pointer + middle] <= self.first_row + position):
                with T.Then():
                    bounds.store(middle, 0)
                with T.Else():
                    bounds.store(middle, 1)
        return bind("owner", bounds.load(0))

    def attribute(self, attribute: int, instance: Any, element: int) -> Any:
        """Element `element` of an attribute of an instance of the batch."""
        number, size = self.first_attribute + attribute, self.binding.attribute_size[attribute]
        dtype = self.binding.attribute_dtype[attribute]
        return self.tables.attribute(number, size, dtype, self.first + instance, element)

    def buffer(self, source: ir.Source) -> Any:
        """The buffer that the rows of `source` lie in."""
        match source:
            case ir.StageOperand(number) | ir.Variadic(number):
                return self.arguments[f"arena:{self.binding.operand_arena[number]}"]
            case ir.Lookup(weight, _, _):
                return self.arguments[f"table:{weight}"]
            case ir.Scratch(name, _):
                return self.arguments[f"scratch:{name}"]
        raise TypeError(source)

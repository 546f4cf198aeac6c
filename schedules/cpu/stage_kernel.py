"""Stage kernels for CPUs: row tiles, column chunks of every gate at once, accumulators in registers.

A kernel has one variant for each bucket of batch sizes (:mod:`schedules.cpu.stage_config`) and chooses at run time. A
variant is one parallel loop over tiles; :mod:`schedules.cpu.stage_tile` writes a tile::

    acc[gate][chunk][row][lane] = 0
    for each row the tile's instances read, for k:            # the gather: rows are read through the operand's index
        acc[gate][chunk][row][:] += source[row][k] * packed[chunk][k][gate][:]
    output[row][chunk] = epilogue(acc, other rows)            # in registers, vectorised

What makes it fast, and what was measured, is in docs/stage-kernels.md. A tile never needs a predicate: the last tile
of rows, and of chunks, begins earlier and computes some results twice, to the same values; where a batch may be
smaller than a tile, its last row stands in for those that are missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from tvm.script.ir_builder import IRBuilder

from edbatch_tvm.tvm_compat import builder_tirx as T
from edbatch_tvm.tvm_compat import tirx
from schedules import abi
from schedules import stage as ir
from schedules.cpu.gated_products import with_gated_products
from schedules.cpu.machine import Machine
from schedules.cpu.stage_config import Bucket, StageConfig, default_config, panels_of, rest_rows, rest_tiles
from schedules.cpu.stage_tile import Tile
from schedules.cpu.weight_packing import packing_of
from schedules.cpu.whole_row_tile import WholeRowTile
from schedules.operand_rows import operand_row

_INT = "int32"

_PANEL_USES = 256
"""Rows of a matrix that a task computes with the panels that it copies."""

_PANEL_TILES = 32
"""Tiles of rows for which a task copies weights that are kept in fewer bits."""


def stage_kernel(
    stage: ir.Stage,
    binding: abi.CellBinding,
    machine: Machine,
    weights: dict[str, Any],
    config: StageConfig | None = None,
    narrow: bool = False,
) -> tirx.PrimFunc:
    """The kernel of `stage`; see the module's docstring.

    Parameters
    ----------
    weights : dict from name to (shape, dtype)
        Weights of the model: the tables that lookups read.
    config : StageConfig, optional
        Default: :func:`~schedules.cpu.stage_config.default_config`.
    narrow : bool
        Whether values and weights will be kept in fewer bits (:class:`relay_ext.narrow_storage.NarrowStorage`):
        products then read copies, so that each number is widened once and not for each multiply-add.

    Raises
    ------
    ConfigError
        If the configuration does not fit the stage.
    """
    config = default_config(stage, machine) if config is None else config
    config.check(stage, machine)
    return StageKernel(stage, binding, machine, weights, narrow).build(config)


class StageKernel:
    """The kernel of one stage while it is built: its arguments, and where the rows of its sources lie."""

    def __init__(
        self, stage: ir.Stage, binding: abi.CellBinding, machine: Machine, weights: dict[str, Any], narrow: bool
    ) -> None:
        self.stage = with_gated_products(stage)
        self.narrow = narrow
        self.binding = binding
        self.machine = machine
        self.weights = weights
        self.packing = packing_of(stage, machine)
        self.arenas: dict[int, Any] = {}
        self.tables: dict[str, Any] = {}
        self.attributes: dict[int, Any] = {}
        self.scratch: dict[str, Any] = {}
        self.packed: Any = None
        self.arguments: list[str] = []

    def build(self, config: StageConfig) -> tirx.PrimFunc:
        """The kernel with the variants of `config`."""
        stage, layout = self.stage, self.binding.layout
        with IRBuilder() as builder, T.prim_func():
            T.func_name(stage.name)
            self.step = T.arg("step", tirx.Var("step", _INT))
            self.steps = self._argument("steps", (tirx.Var("batches", _INT), tirx.Var("columns", _INT)), _INT, 4)
            self.index = self._argument("index", (tirx.Var("indices", _INT),), _INT, 4)
            self._declare()
            T.func_attr({"global_symbol": stage.name, "tirx.noalias": True, abi.ARGUMENTS: self.arguments})
            self.instances = self.bind("n", self.steps[self.step, abi.COUNT])
            self.first = self.bind("first", self.steps[self.step, abi.FIRST])
            self.pointer = self.bind("pointer", self.steps[self.step, abi.POINTER])
            self.output_row = {
                slot: self.bind(f"out{slot}", self.steps[self.step, layout.output(slot)])
                for slot in dict.fromkeys(o.slot for o in stage.outputs if o.slot >= 0)
            }
            self.base, self.stride = {}, {}
            for source in stage.sources:
                if isinstance(source, ir.StageOperand | ir.Variadic):
                    number = source.index
                    base, stride = layout.base(number), layout.stride(number)
                    self.base[number] = self.bind(f"base{number}", self.steps[self.step, base])
                    self.stride[number] = self.bind(f"stride{number}", self.steps[self.step, stride])
            if self.reads_rows:
                self.first_row = self.bind("first_row", self.index[self.pointer])
            if stage.domain == "instances":
                self.count = self.instances
                self._variants(config.buckets, 1)
            else:
                self.count = self.bind("count", self.index[self.pointer + self.instances] - self.first_row)
                with T.If(self.count > 0), T.Then():
                    self._variants(config.buckets, 1)
        return builder.get()

    @property
    def reads_rows(self) -> bool:
        """Whether the offsets of variadic rows are read."""
        return bool(self.stage.domain == "rows" or self.stage.reductions)

    # Arguments -------------------------------------------------------------------------------------------------

    def _argument(self, name: str, shape: Iterable[Any], dtype: str, align: int) -> Any:
        return T.arg(name, T.buffer(tuple(shape), dtype, align=align))

    def _declare(self) -> None:
        """The arguments after (step, steps, index), each declared once."""
        stage, binding = self.stage, self.binding
        arenas = [binding.output_arena[o.slot] for o in stage.outputs if o.slot >= 0]
        arenas += [
            binding.operand_arena[s.index] for s in stage.sources if isinstance(s, ir.StageOperand | ir.Variadic)
        ]
        for arena in dict.fromkeys(arenas):
            shape = (tirx.Var(f"rows{arena}", _INT), binding.arena_width[arena])
            self.arenas[arena] = self._argument(f"arena{arena}", shape, binding.arena_dtype[arena], abi.ALIGNMENT)
            self.arguments.append(f"arena:{arena}")
        attributes = [s.attribute for s in stage.sources if isinstance(s, ir.Lookup)]
        attributes += [leaf.attribute for leaf in stage.leaves.values() if isinstance(leaf, ir.AttributeValue)]
        for number in dict.fromkeys(attributes):
            shape = (tirx.Var(f"nodes{number}", _INT), binding.attribute_size[number])
            self.attributes[number] = self._argument(f"attribute{number}", shape, binding.attribute_dtype[number], 4)
            self.arguments.append(f"attribute:{number}")
        for name in dict.fromkeys(s.weight for s in stage.sources if isinstance(s, ir.Lookup)):
            extents, dtype = self.weights[name]
            shape = abi.table_shape(extents)
            self.tables[name] = self._argument(f"table{len(self.tables)}", shape, dtype, abi.ALIGNMENT)
            self.arguments.append(f"table:{name}")
        scratch = {o.scratch: stage.dtype for o in stage.outputs if o.scratch}
        scratch |= {s.name: s.dtype for s in stage.sources if isinstance(s, ir.Scratch)}
        scratch |= {line.scratch: stage.dtype for line in stage.row_values}
        for name, dtype in scratch.items():
            shape = (tirx.Var(f"room{len(self.scratch)}", _INT), tirx.Var(f"wide{len(self.scratch)}", _INT))
            self.scratch[name] = self._argument(f"scratch{len(self.scratch)}", shape, dtype, abi.ALIGNMENT)
            self.arguments.append(f"scratch:{name}")
        if self.packing.size:
            self.packed = self._argument("packed", (self.packing.size,), stage.dtype, abi.ALIGNMENT)
            self.arguments.append(f"packed:{stage.name}")

    def bind(self, name: str, value: Any) -> Any:
        """`value`, computed here, as a variable."""
        variable = tirx.Var(name, _INT)
        T.Bind(value, var=variable)
        return variable

    # Variants --------------------------------------------------------------------------------------------------

    def _variants(self, buckets: tuple[Bucket, ...], least: int) -> None:
        """The tile loops, chosen by the number of elements; `least` is the smallest that can come here."""
        bucket, *others = buckets
        if bucket.upto is None:
            self._loop(bucket, least)
            return
        with T.If(self.count <= bucket.upto):
            with T.Then():
                self._loop(bucket, least)
            with T.Else():
                self._variants(tuple(others), bucket.upto + 1)

    def _loop(self, bucket: Bucket, least: int) -> None:
        groups = -(-self.packing.chunks // bucket.chunks)
        if self.stage.rows > 1:
            self._matrix_loop(bucket, groups)
            return
        rows, rest = bucket.rows, rest_rows(bucket)
        groups = 1 if self.stage.whole_rows else groups

        def start_of(first: Any, tile: Any, rows: int) -> Any:
            last = self.count - rows
            return self.bind("start", tirx.min(first + tile * rows, tirx.max(last, 0) if least < rows else last))

        if self.narrow and self.packing.sweeps and bucket.upto != rows > 1 and not self.stage.whole_rows:
            self._widened_loop(bucket, groups, self._tiles(rows), lambda tile: start_of(0, tile, rows), least < rows)
            return
        if not rest:
            tiles = self._tiles(rows)
            with self._tasks(bucket, tiles * groups) as work:
                group, tile = self._split(bucket, work, groups, tiles)
                self._tile(bucket, rows, group, start_of(0, tile, rows), None, least < rows)
            return
        whole, tiles = self._tiles_of_two_sizes(rows, rest)
        with self._tasks(bucket, tiles * groups) as work:
            group, tile = self._split(bucket, work, groups, tiles)
            with T.If(tile < whole):
                with T.Then():
                    self._tile(bucket, rows, group, start_of(0, tile, rows), None, False)
                with T.Else():
                    self._tile(bucket, rest, group, start_of(whole * rows, tile - whole, rest), None, least < rest)

    def _tiles(self, rows: int) -> Any:
        """The number of tiles of `rows` rows that cover a batch."""
        # The simplifier has to see that it divides by 1 or more, although no batch is empty.
        return self.bind("tiles", tirx.max(tirx.floordiv(self.count + (rows - 1), rows), 1))

    def _tiles_of_two_sizes(self, rows: int, rest: int) -> tuple[Any, Any]:
        """How many tiles of `rows` rows a batch begins with, and how many it has with those of `rest` rows after them.

        No tile of `rows` rows is longer than the batch.
        """
        # Four bits for each remainder: with nested choices instead, the kernel took twice as long to compile.
        table = sum(count << 4 * over for over, count in enumerate(rest_tiles(rows, rest)))
        over = tirx.Cast("int64", self.count % rows)
        wanted = tirx.Cast(_INT, tirx.const(table, "int64") >> over * 4 & tirx.const(15, "int64"))
        all_small = self._tiles(rest)
        small = self.bind("small", tirx.Select(self.count < rows, all_small, tirx.min(wanted, all_small)))
        whole = self.bind("whole", tirx.max(tirx.floordiv(self.count - small * rest + (rows - 1), rows), 0))
        return whole, self.bind("tiles", tirx.max(whole + small, 1))

    def _widened_loop(
        self, bucket: Bucket, groups: int, tiles: Any, start_of: Callable[[Any], Any], short: bool
    ) -> None:
        """The tiles of a stage in tasks that copy the weights of their chunks, for several tiles of rows."""
        parts = self.bind("parts", tirx.max(tirx.floordiv(tiles + (_PANEL_TILES - 1), _PANEL_TILES), 1))
        lanes, size = self.packing.lanes, bucket.chunks * self.packing.per_chunk
        with self._tasks(bucket, parts * groups) as work:
            group, part = self._split(bucket, work, groups, parts)
            chunk = self._first_chunk(bucket, group)
            panel = T.alloc_buffer((size,), self.stage.dtype, scope="global")
            with T.serial(0, size // lanes) as vector:
                at = [tirx.Ramp(vector * lanes + base, 1, lanes) for base in (chunk * self.packing.per_chunk, 0)]
                T.buffer_store(panel, self.packed[at[0]], [at[1]])
            first = self.bind("first", part * _PANEL_TILES)
            with T.serial(0, tirx.min(tiles - first, _PANEL_TILES)) as tile:
                start = start_of(first + tile)
                Tile(self, bucket, bucket.rows, chunk, start, None, short, weights=panel).write()

    def _matrix_loop(self, bucket: Bucket, groups: int) -> None:
        """The tiles of matrices; those that are multiplied with the same panels follow one another."""
        rows = min(bucket.rows, self.stage.rows)
        tiles = -(-self.stage.rows // rows)
        panels, whole = bool(panels_of(self.stage, tiles)), self.stage.whole_rows
        groups = 1 if whole else groups
        # With panels a task has several tiles, as many as make up for the copies.
        many = -(-tiles // max(1, self.stage.rows // _PANEL_USES)) if panels else 1
        parts = -(-tiles // many)
        tasks = groups * parts
        with self._tasks(bucket, self.count * tasks) as work:
            element = self.bind("element", tirx.floordiv(work, tasks))
            group, part = self._split(bucket, work - element * tasks, groups, parts)
            if not panels:
                start = self.bind("start", tirx.min(part * rows, self.stage.rows - rows))
                self._tile(bucket, rows, group, start, element, False)
                return
            chunk = tirx.const(0, _INT) if whole else self._first_chunk(bucket, group)
            copies = Tile(self, bucket, 1, chunk, tirx.const(0, _INT), element, False).copy_panels(tiles)
            first = self.bind("first", part * many)
            with T.serial(0, tirx.min(tiles - first, many)) as tile:
                start = self.bind("start", tirx.min((first + tile) * rows, self.stage.rows - rows))
                (WholeRowTile if whole else Tile)(self, bucket, rows, chunk, start, element, False, copies).write()

    def _tile(self, bucket: Bucket, rows: int, group: Any, start: Any, element: Any, short: bool) -> None:
        whole = self.stage.whole_rows
        chunk = tirx.const(0, _INT) if whole else self._first_chunk(bucket, group)
        (WholeRowTile if whole else Tile)(self, bucket, rows, chunk, start, element, short).write()

    def _tasks(self, bucket: Bucket, total: Any) -> Any:
        return (T.parallel if bucket.parallel else T.serial)(0, total)

    def _split(self, bucket: Bucket, work: Any, groups: int, tiles: Any) -> tuple[Any, Any]:
        """The group of chunks and the tile of rows that task number `work` is."""
        if bucket.order == "chunks":
            group = self.bind("group", tirx.floordiv(work, tiles))
            return group, work - group * tiles
        tile = self.bind("tile", tirx.floordiv(work, groups))
        return work - tile * groups, tile

    def _first_chunk(self, bucket: Bucket, group: Any) -> Any:
        return self.bind("chunk", tirx.min(group * bucket.chunks, self.packing.chunks - bucket.chunks))

    # Sources ---------------------------------------------------------------------------------------------------

    def row(self, source: ir.Source, position: Any, instance: Any) -> Any:
        """Row of `source` for element `position` of the stage's domain, which belongs to `instance` of the batch.

        For rows in a reduction, `position` is counted from the first variadic row of the batch.
        """
        match source:
            case ir.StageOperand(number):
                return operand_row(self.base[number], self.stride[number], instance, self.index)
            case ir.Variadic(number):
                return operand_row(self.base[number], self.stride[number], self.first_row + position, self.index)
            case ir.Lookup(_, attribute, element):
                return tirx.Cast(_INT, self.attributes[attribute][self.first + instance, element])
            case ir.Scratch(_, domain, _):
                return position if domain == "rows" else instance
        raise TypeError(source)

    def buffer(self, source: ir.Source) -> Any:
        """The buffer that the rows of `source` lie in."""
        match source:
            case ir.StageOperand(number) | ir.Variadic(number):
                return self.arenas[self.binding.operand_arena[number]]
            case ir.Lookup(weight, _, _):
                return self.tables[weight]
            case ir.Scratch(name, _, _):
                return self.scratch[name]
        raise TypeError(source)

"""Pass: the batch axis, and access to operands through the schedule, for cells outside the stage form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import tvm
from tvm import IRModule
from tvm.script.ir_builder import IRBuilder

from edbatch_tvm.graph.spec import CellSignature, Signature
from edbatch_tvm.tvm_compat import SBlock, TensorLoad, structural_map, structural_walk, tirx
from edbatch_tvm.tvm_compat import builder_tirx as T
from relay_ext.bind_cell import bind_cell
from relay_ext.fuse_cells import CELL, NUM_INPUT, NUM_OUTPUT, WEIGHTS
from relay_ext.share_cells import member_attribute
from relay_ext.stage_cells import ORDER, PATH, REASON, WORK
from schedules import abi
from schedules.cpu.general_cells import schedule_general
from schedules.cpu.instance_tiles import TunedTile
from schedules.operand_rows import operand_row
from schedules.tuning_records import Records


@tvm.transform.module_pass(opt_level=0, name="BatchCells")
@dataclass(frozen=True)
class BatchCells:
    """Turn every remaining cell into a kernel over a batch: one parallel loop around the cell's own code.

    Before::

        def cell(h: T.Buffer((16,)), U: T.Buffer((16, 16)), out: T.Buffer((16,))):
            tmp = T.alloc_buffer((16,))
            for j in range(16):
                tmp[j] = h[j] + U[0, j]
            ...

    After::

        def cell(step, steps, index, arena0: T.Buffer(("rows0", 16)), U):
            for b in T.parallel(steps[step, COUNT]):
                h_row = index[steps[step, base0] + b] if steps[step, stride0] < 0 else ...
                tmp = T.alloc_buffer((16,))
                for j in range(16):
                    tmp[j] = arena0[h_row, j] + U[0, j]
                ...

    The walk is on TIR, after legalization, so it covers every operator and user-written ``R.call_tir`` cells alike.
    A variadic size ``k`` becomes the number of rows of the instance; its rows are found through the offsets in
    ``index``.

    Where `records` hold tuned tiles of the cell, a batch runs tiles of instances first and what is left of it one by
    one::

        for w in T.parallel(tiles + rest):
            if w < tiles: ...      # the tuned code of a tile, on instances w * 16, w * 16 + 1, ...
            else: ...              # the cell's own code, on one instance
    """

    signature: Signature
    records: Records | None = None

    def transform_module(self, mod: IRModule, _context: tvm.transform.PassContext) -> IRModule:
        """Run the pass."""
        functions: dict[str, tirx.PrimFunc] = {}
        for var, function in mod.functions.items():
            if CELL in function.attrs and PATH not in function.attrs:
                cell = self.signature[str(function.attrs[CELL])]
                tiles = self.records.tiles(function, own_params(function)) if self.records is not None else ()
                kernel = batched_kernel(function, cell, self.signature, tiles)
                functions[var.name_hint] = kernel.with_attrs(
                    {REASON: function.attrs[REASON], WORK: work_of(function)} | member_attribute(function)
                )
            else:
                functions[var.name_hint] = function
        return IRModule(functions)


def work_of(function: tirx.PrimFunc) -> int:
    """About how many multiplications an instance takes: one for each turn of the loops around each block."""
    found: list[int] = []

    def visit(block: Any) -> None:
        extents = [axis.dom.extent for axis in block.iter_vars]
        found.append(prod(int(extent) for extent in extents if isinstance(extent, tirx.IntImm)))

    structural_walk(function.body, (SBlock, visit))
    return sum(found)


def own_params(function: tirx.PrimFunc) -> list[Any]:
    """The parameters of a fused cell that each instance has of its own: inputs and outputs."""
    params = list(function.params)
    return params[: int(function.attrs[NUM_INPUT])] + params[len(params) - int(function.attrs[NUM_OUTPUT]) :]


def batched_kernel(
    function: tirx.PrimFunc,
    cell: CellSignature,
    signature: Signature,
    tiles: Sequence[TunedTile] = (),
) -> tirx.PrimFunc:
    """The kernel of a fused cell over a batch; see :class:`BatchCells`.

    Parameters
    ----------
    tiles : sequence of TunedTile
        Scheduled code for tiles of instances, the largest first.
    """
    return _Batcher(schedule_general(function), cell, signature, tiles).kernel()


class _Batcher:
    def __init__(
        self, function: tirx.PrimFunc, cell: CellSignature, signature: Signature, tiles: Sequence[TunedTile]
    ) -> None:
        self.function = function
        self.tiles = tiles
        self.cell = cell
        self.binding = bind_cell(signature, cell.name)
        self.params = list(function.params)
        self.inputs = int(function.attrs[NUM_INPUT])
        self.weights = [str(name) for name in function.attrs[WEIGHTS]]
        self.operand = {operand.name: number for number, operand in enumerate(cell.operands)}
        self.attribute = {attribute.name: number for number, attribute in enumerate(cell.attributes)}
        self.buffers: list[Any] = []
        """What each parameter of the cell becomes."""

    def kernel(self) -> tirx.PrimFunc:
        """The batched kernel."""
        name = self.cell.name
        arguments: list[str] = []
        with IRBuilder() as builder, T.prim_func():
            T.func_name(name)
            self.step = T.arg("step", tirx.Var("step", "int32"))
            self.steps = T.arg("steps", _buffer(("batches", "columns"), "int32", 4))
            self.index = T.arg("index", _buffer(("indices",), "int32", 4))
            self._declare(arguments)
            T.func_attr(
                {"global_symbol": name, "tirx.noalias": True, CELL: name, ORDER: 0, PATH: "general"}
                | {abi.ARGUMENTS: arguments}
            )
            if self.tiles:
                self._tiled()
            else:
                with T.parallel(0, self.steps[self.step, abi.COUNT]) as b:
                    self._instance(b)
        return builder.get()

    def _declare(self, arguments: list[str]) -> None:
        binding = self.binding
        arenas: dict[int, Any] = {}

        def arena(number: int) -> Any:
            if number not in arenas:
                shape = (tirx.Var(f"rows{number}", "int32"), binding.arena_width[number])
                buffer = T.buffer(shape, binding.arena_dtype[number], align=abi.ALIGNMENT)
                arenas[number] = T.arg(f"arena{number}", buffer)
                arguments.append(f"arena:{number}")
            return arenas[number]

        found: dict[int, Any] = {}
        operands = [at for at in range(self.inputs) if self.params[at].name in self.operand]
        for at in operands:
            found[at] = arena(binding.operand_arena[self.operand[self.params[at].name]])
        first_output = self.inputs + len(self.weights)
        for slot in range(len(self.params) - first_output):
            found[first_output + slot] = arena(binding.output_arena[slot])
        for at in range(self.inputs):
            if at not in found:
                number = self.attribute[self.params[at].name]
                shape = (tirx.Var(f"nodes{number}", "int32"), binding.attribute_size[number])
                buffer = T.buffer(shape, binding.attribute_dtype[number], align=4)
                found[at] = T.arg(self.params[at].name, buffer)
                arguments.append(f"attribute:{number}")
        for at, name in enumerate(self.weights, self.inputs):
            param = self.params[at]
            extents = [int(extent) for extent in param.shape]
            found[at] = T.arg(param.name, T.buffer(extents, str(param.dtype), align=abi.ALIGNMENT))
            arguments.append(f"weight:{name}")
        self.buffers = [found[at] for at in range(len(self.params))]

    # Bodies ------------------------------------------------------------------------------------------------------

    def _tiled(self) -> None:
        """One parallel loop over tiles, the largest first, and over the instances that fill none."""
        count = _bind("n", self.steps[self.step, abi.COUNT])
        done: Any = tirx.const(0, "int32")
        before: Any = tirx.const(0, "int32")
        parts: list[tuple[Any, Any, Any, TunedTile]] = []
        for tile in self.tiles:
            fill = tirx.floordiv(count - done, tile.size)
            tiles = _bind("tiles", tirx.if_then_else(count >= tile.least, fill, 0))
            parts.append((before, before + tiles, done, tile))
            before, done = _bind("before", before + tiles), _bind("done", done + tiles * tile.size)
        with T.parallel(0, before + count - done) as work:
            self._part(parts, work, before, done)

    def _part(self, parts: list[tuple[Any, Any, Any, TunedTile]], work: Any, before: Any, done: Any) -> None:
        if not parts:
            self._instance(_bind("b", work - before + done))
            return
        begin, end, first, tile = parts[0]
        with T.If(work < end):
            with T.Then():
                self._tile(tile, _bind("start", first + (work - begin) * tile.size))
            with T.Else():
                self._part(parts[1:], work, before, done)

    def _instance(self, b: Any) -> None:
        """The cell's own code on instance `b` of the batch."""
        layout, steps, step, index = self.binding.layout, self.steps, self.step, self.index
        values: dict[Any, Any] = {}
        begin = None
        if self.cell.variadic_count:
            pointer = steps[step, abi.POINTER]
            begin = _bind("begin", index[pointer + b])
            # Not a bound variable: storage rewriting moves allocations of size k above its definition.
            values = self._sizes(index[pointer + b + 1] - index[pointer + b])
        rows: list[Any] = [None] * len(self.params)
        for at, param in enumerate(self.params[: self.inputs]):
            if param.name in self.attribute:
                rows[at] = _bind("row", steps[step, abi.FIRST] + b)
                continue
            number = self.operand[param.name]
            base, stride = steps[step, layout.base(number)], steps[step, layout.stride(number)]
            if self.cell.operands[number].variadic:
                rows[at] = (base, stride, begin, index)
            else:
                rows[at] = _bind("row", operand_row(base, stride, b, index))
        for slot, at in enumerate(range(self.inputs + len(self.weights), len(self.params))):
            rows[at] = _bind("row", steps[step, layout.output(slot)] + b)
        self._add(self.function, rows, values, tiled=False)

    def _tile(self, tile: TunedTile, start: Any) -> None:
        """The tuned code of a tile, on instances `start`, `start` + 1, ... of the batch."""
        layout, steps, step = self.binding.layout, self.steps, self.step
        rows: list[Any] = [None] * len(self.params)
        for at, param in enumerate(self.params[: self.inputs]):
            if param.name in self.attribute:
                row = _bind("row", steps[step, abi.FIRST] + start)
                rows[at] = lambda position, row=row: row + position
                continue
            number = self.operand[param.name]
            base, stride = steps[step, layout.base(number)], steps[step, layout.stride(number)]
            found = T.alloc_buffer((tile.size,), "int32", scope="global")
            with T.serial(0, tile.size) as position:
                T.buffer_store(found, operand_row(base, stride, start + position, self.index), [position])
            rows[at] = lambda position, found=found: found[position]
        for slot, at in enumerate(range(self.inputs + len(self.weights), len(self.params))):
            row = _bind("row", steps[step, layout.output(slot)] + start)
            rows[at] = lambda position, row=row: row + position
        self._add(tile.function, rows, {}, tiled=True)

    def _sizes(self, count: Any) -> dict[Any, Any]:
        for param in self.params[: self.inputs]:
            if param.name in self.operand and self.cell.operands[self.operand[param.name]].variadic:
                symbol = param.shape[0]
                return {symbol: tirx.Cast(symbol.ty.dtype, count)}
        return {}

    def _add(self, function: tirx.PrimFunc, rows: list[Any], values: dict[Any, Any], tiled: bool) -> None:
        """The body of `function` with accesses to its parameters moved to the buffers of the batch."""
        places = {param: (self.buffers[at], rows[at]) for at, param in enumerate(function.params)}

        def load(node: Any) -> Any:
            if node.source not in places:
                return node
            buffer, row = places[node.source]
            return tirx.BufferLoad(buffer, _place(node.source, node.indices, row, tiled))

        def store(node: Any) -> Any:
            if node.buffer not in places:
                return node
            buffer, row = places[node.buffer]
            return tirx.BufferStore(buffer, node.value, _place(node.buffer, node.indices, row, tiled))

        body = structural_map(function.body, [(TensorLoad, load), (tirx.BufferStore, store)], order="post")
        if values:
            body = structural_map(body, (tirx.Var, lambda variable: values.get(variable, variable)))
        T.add_to_parent(body)


def _place(param: Any, indices: Any, row: Any, tiled: bool) -> list[Any]:
    """Row and column of an element of a cell's value in the buffer of the batch."""
    if row is None:
        return list(indices)
    shape, at = list(param.shape), list(indices)
    if tiled:
        return [row(_narrow(at[0])), _flat(shape[1:], at[1:])]
    if isinstance(row, tuple):
        base, stride, begin, index = row
        position = begin + tirx.Cast("int32", at[0])
        return [operand_row(base, stride, position, index), _flat(shape[1:], at[1:])]
    return [row, _flat(shape, at)]


def _buffer(shape: tuple[str, ...], dtype: str, align: int) -> Any:
    return T.buffer(tuple(tirx.Var(name, "int32") for name in shape), dtype, align=align)


def _bind(name: str, value: Any) -> Any:
    variable = tirx.Var(name, "int32")
    T.Bind(value, var=variable)
    return variable


def _flat(shape: list[Any], indices: list[Any]) -> Any:
    """Position of an element in a row; the row index is int32, so this is too."""
    flat: Any = tirx.const(0, "int32")
    for position, (extent, at) in enumerate(zip(shape, indices, strict=True)):
        at = _narrow(at)
        flat = at if position == 0 else flat * int(extent) + at
    return flat


def _narrow(index: Any) -> Any:
    """`index` as int32, a vector of indices included."""
    if str(index.ty.dtype).startswith("int32"):
        return index
    if isinstance(index, tirx.Ramp):
        return tirx.Ramp(_narrow(index.base), _narrow(index.stride), index.lanes)
    if isinstance(index, tirx.IntImm):
        return tirx.const(int(index), "int32")
    return tirx.Cast("int32", index)

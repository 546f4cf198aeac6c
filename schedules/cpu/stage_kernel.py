"""Stage kernels for CPUs: row tiles, a column chunk of every gate at once, accumulators in registers.

For each chunk of :data:`~schedules.abi.LANES` columns and each tile of ``rows`` instances::

    acc[gate][row][lane] = 0
    for each row the tile's instances read, for k:            # the gather: rows are read through the operand's index
        acc[gate][row][:] += source[row][k] * packed[chunk][k][gate][:]
    output[row][chunk] = epilogue(acc, other rows)            # in registers, vectorised

What makes it fast, and what was measured, is in the design, section 6: accumulators are buffers of ``global`` scope
under 1,024 bytes, which LLVM keeps in registers. A tile never needs a predicate: with n >= rows, the last tile starts
at n - rows and computes some rows twice, to the same values; smaller batches have variants of 2 rows and of 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import tvm
import tvm_ffi
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T

from schedules import abi
from schedules import stage as ir
from schedules.cpu.machine import Machine
from schedules.rows import operand_row

_INT = "int32"

_COMBINE: dict[ir.Combine, Callable[[Any, Any], Any]] = {
    "sum": lambda total, value: total + value,
    "max": tirx.max,
    "min": tirx.min,
}


@dataclass(frozen=True)
class _Sweep:
    """Passes of several gates over the same elements of one source: x is loaded once for all of them."""

    source: ir.Source
    offset: int
    length: int
    gates: tuple[int, ...]
    passes: tuple[ir.Pass, ...]
    base: int
    """Where its weights begin in a chunk of the packed buffer."""


def _sweeps(stage: ir.Stage, lanes: int) -> tuple[list[_Sweep], int]:
    grouped: dict[tuple[ir.Source, int, int], list[tuple[int, ir.Pass]]] = {}
    for number, gate in enumerate(stage.gates):
        for sweep in gate.passes:
            assert isinstance(sweep, ir.Pass)
            grouped.setdefault((sweep.source, sweep.offset, sweep.length), []).append((number, sweep))
    sweeps, base = [], 0
    for (source, offset, length), members in grouped.items():
        gates = tuple(number for number, _ in members)
        sweeps.append(_Sweep(source, offset, length, gates, tuple(s for _, s in members), base))
        base += length * len(gates) * lanes
    return sweeps, base


def row_tile(stage: ir.Stage, machine: Machine) -> int:
    """Rows of a full tile: as many as the accumulators leave registers for."""
    gates = max(1, len(stage.gates) + len(stage.reductions))
    return max(1, min(machine.max_rows, (machine.registers - machine.reserved - gates) // gates))


def packed_shape(stage: ir.Stage, machine: Machine) -> tuple[int, int]:
    """Chunks, and elements of packed weights a chunk; the second is 0 for a stage without weights."""
    lanes = machine.lanes
    _, size = _sweeps(stage, lanes)
    return abi.padded(stage.columns, lanes) // lanes, size + len(stage.vectors) * lanes


def pack_kernel(stage: ir.Stage, machine: Machine, weights: dict[Any, str]) -> tirx.PrimFunc:
    """The function that packs the weights of `stage`: ``[chunk][sweep][k][gate][lane]``, then the vectors.

    Parameters
    ----------
    weights : dict from buffer to name
        The weight parameters that the stage's expressions read.
    """
    lanes = machine.lanes
    sweeps, size = _sweeps(stage, lanes)
    chunks, per_chunk = packed_shape(stage, machine)
    used = [b for b in weights if any(_reads(e, b) for e in _weight_expressions(stage))]
    with IRBuilder() as builder, T.prim_func():
        T.func_name(f"{stage.name}_pack")
        buffers = {old: T.arg(old.name, T.buffer(list(old.shape), str(old.dtype), align=4)) for old in used}
        packed = T.arg("packed", T.buffer((chunks, per_chunk), "float32", align=abi.ALIGNMENT))
        T.func_attr(
            {
                "global_symbol": f"{stage.name}_pack",
                "tirx.noalias": True,
                abi.ARGUMENTS: [f"weight:{weights[b]}" for b in used] + [f"packed:{stage.name}"],
            }
        )

        def store(expression: Any, position: Any, chunk: Any, lane: Any, values: dict[Any, Any]) -> None:
            column = tirx.Cast("int64", chunk * lanes + lane)
            value = _rewrite(expression, {**values, stage.column: column}, buffers)
            inside = tirx.if_then_else(chunk * lanes + lane < stage.columns, value, tirx.const(0, "float32"))
            T.buffer_store(packed, inside, [chunk, position])

        with T.serial(0, chunks) as chunk:
            for sweep in sweeps:
                with T.serial(0, sweep.length) as k:
                    for place, one in enumerate(sweep.passes):
                        with T.serial(0, lanes) as lane:
                            position = sweep.base + (k * len(sweep.gates) + place) * lanes + lane
                            store(one.weight, position, chunk, lane, {one.k: tirx.Cast("int64", k)})
            for number, vector in enumerate(stage.vectors):
                with T.serial(0, lanes) as lane:
                    store(vector, size + number * lanes + lane, chunk, lane, {})
    return builder.get()


def stage_kernel(stage: ir.Stage, binding: abi.CellBinding, machine: Machine, weights: dict[str, Any]) -> tirx.PrimFunc:
    """The kernel of `stage`; see the module's docstring.

    Parameters
    ----------
    weights : dict from name to (shape, dtype)
        Weights of the model: the tables that lookups read.
    """
    return _KernelBuilder(stage, binding, machine, weights).build()


class _KernelBuilder:
    def __init__(self, stage: ir.Stage, binding: abi.CellBinding, machine: Machine, weights: dict[str, Any]) -> None:
        self.stage = stage
        self.binding = binding
        self.machine = machine
        self.lanes = machine.lanes
        self.weights = weights
        self.layout = binding.layout
        self.sweeps, self.vectors_at = _sweeps(stage, self.lanes)
        self.chunks, self.per_chunk = packed_shape(stage, machine)
        self.rows = row_tile(stage, machine)
        self.arenas: dict[int, Any] = {}
        self.tables: dict[str, Any] = {}
        self.attributes: dict[int, Any] = {}
        self.scratch: dict[str, Any] = {}
        self.packed: Any = None
        self.arguments: list[str] = []

    def build(self) -> tirx.PrimFunc:
        stage, layout = self.stage, self.layout
        with IRBuilder() as builder, T.prim_func():
            T.func_name(stage.name)
            self.step = T.arg("step", tirx.Var("step", _INT))
            self.steps = self._argument("steps", (tirx.Var("batches", _INT), tirx.Var("columns", _INT)), _INT, 4)
            self.index = self._argument("index", (tirx.Var("indices", _INT),), _INT, 4)
            self._declare()
            T.func_attr({"global_symbol": stage.name, "tirx.noalias": True, abi.ARGUMENTS: self.arguments})
            self.count = self._bind("n", self.steps[self.step, abi.COUNT])
            self.first = self._bind("first", self.steps[self.step, abi.FIRST])
            self.pointer = self._bind("pointer", self.steps[self.step, abi.POINTER])
            self.output_row = {
                o.slot: self._bind(f"out{o.slot}", self.steps[self.step, layout.output(o.slot)])
                for o in stage.outputs
                if o.slot >= 0
            }
            self.base, self.stride = {}, {}
            for source in stage.sources:
                if isinstance(source, ir.Operand | ir.Variadic):
                    number = source.index
                    base, stride = layout.base(number), layout.stride(number)
                    self.base[number] = self._bind(f"base{number}", self.steps[self.step, base])
                    self.stride[number] = self._bind(f"stride{number}", self.steps[self.step, stride])
            self._variants([r for r in (self.rows, 2, 1) if r <= self.rows])
        return builder.get()

    # Arguments -------------------------------------------------------------------------------------------------

    def _argument(self, name: str, shape: Iterable[Any], dtype: str, align: int) -> Any:
        return T.arg(name, T.buffer(tuple(shape), dtype, align=align))

    def _declare(self) -> None:
        """The arguments after (step, steps, index), each declared once."""
        stage, binding = self.stage, self.binding
        arenas = [binding.output_arena[o.slot] for o in stage.outputs if o.slot >= 0]
        arenas += [binding.operand_arena[s.index] for s in stage.sources if isinstance(s, ir.Operand | ir.Variadic)]
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
            (rows, width), dtype = self.weights[name]
            shape = (rows, abi.padded(width))
            self.tables[name] = self._argument(f"table{len(self.tables)}", shape, dtype, abi.ALIGNMENT)
            self.arguments.append(f"table:{name}")
        written = [o.scratch for o in stage.outputs if o.scratch]
        read = [s.name for s in stage.sources if isinstance(s, ir.Scratch)]
        for name in dict.fromkeys(written + read):
            shape = (tirx.Var(f"room{len(self.scratch)}", _INT), tirx.Var(f"wide{len(self.scratch)}", _INT))
            self.scratch[name] = self._argument(f"scratch{len(self.scratch)}", shape, "float32", abi.ALIGNMENT)
            self.arguments.append(f"scratch:{name}")
        if self.per_chunk:
            shape = (self.chunks, self.per_chunk)
            self.packed = self._argument("packed", shape, "float32", abi.ALIGNMENT)
            self.arguments.append(f"packed:{stage.name}")

    def _bind(self, name: str, value: Any) -> Any:
        variable = tirx.Var(name, _INT)
        T.Bind(value, var=variable)
        return variable

    # Tiles -----------------------------------------------------------------------------------------------------

    def _variants(self, rows: list[int]) -> None:
        """The tile loops: the largest tile that the batch fills."""
        if len(rows) == 1:
            self._loop(rows[0])
            return
        with T.If(self.count >= rows[0]):
            with T.Then():
                self._loop(rows[0])
            with T.Else():
                self._variants(rows[1:])

    def _loop(self, rows: int) -> None:
        # The simplifier has to see that it divides by 1 or more, although no batch is empty.
        tiles = self._bind("tiles", tirx.max(tirx.floordiv(self.count + (rows - 1), rows), 1))
        with T.parallel(0, self.chunks * tiles) as work:
            # Chunk-major, so that the tiles that share a chunk's weights run one after another in one thread.
            chunk = self._bind("chunk", tirx.floordiv(work, tiles))
            start = self._bind("start", tirx.min((work - chunk * tiles) * rows, self.count - rows))
            self._tile(rows, chunk, start)

    def _tile(self, rows: int, chunk: Any, start: Any) -> None:
        stage, lanes = self.stage, self.lanes
        row_of: dict[ir.Source, list[Any]] = {
            source: self._rows(source, rows, start) for source in stage.sources if not isinstance(source, ir.Variadic)
        }
        accumulators = [self._zeros(rows) for _ in stage.gates]
        for sweep in self.sweeps:
            self._sweep(sweep, rows, chunk, row_of[sweep.source], accumulators)
        for row in range(rows):
            at = _At(self, row, chunk, start, {s: r[row] for s, r in row_of.items()}, accumulators)
            lets: dict[Any, Any] = {}
            begin = None
            if any(isinstance(leaf, ir.RowCount) for leaf in stage.leaves.values()) or stage.reductions:
                begin = self._bind("begin", self.index[self.pointer + start + row])
                at.count = self._bind("k", self.index[self.pointer + start + row + 1] - begin)
            for line in stage.body:
                if isinstance(line, ir.Reduction):
                    lets[line.variable] = self._reduce(at, line, begin, lets)
                    continue
                lets[line.variable] = T.alloc_buffer((lanes,), str(line.variable.ty.dtype), scope="global")
                with T.vectorized(0, lanes) as lane:
                    T.buffer_store(lets[line.variable], at.value(line.expression, lane, lets), [lane])
            for output in stage.outputs:
                with T.vectorized(0, lanes) as lane:
                    value = at.value(output.expression, lane, lets)
                    if output.scratch:
                        T.buffer_store(self.scratch[output.scratch], value, [start + row, chunk * lanes + lane])
                    else:
                        arena = self.arenas[self.binding.output_arena[output.slot]]
                        T.buffer_store(arena, value, [self.output_row[output.slot] + start + row, chunk * lanes + lane])

    def _zeros(self, rows: int) -> Any:
        lanes = self.lanes
        buffer = T.alloc_buffer((rows * lanes,), "float32", scope="global")
        for row in range(rows):
            zero = tirx.Broadcast(tirx.const(0, "float32"), lanes)
            T.buffer_store(buffer, zero, [tirx.Ramp(row * lanes, 1, lanes)])
        return buffer

    def _rows(self, source: ir.Source, rows: int, start: Any) -> list[Any]:
        """The row of `source` that each instance of the tile reads."""
        name = type(source).__name__.lower()
        return [self._bind(f"{name}_row", self.row(source, start + row)) for row in range(rows)]

    def row(self, source: ir.Source, position: Any) -> Any:
        """Row of `source` for the instance at `position` of the batch (for a variadic operand, at that row of it)."""
        match source:
            case ir.Operand(number) | ir.Variadic(number):
                return operand_row(self.base[number], self.stride[number], position, self.index)
            case ir.Lookup(_, attribute, element):
                return tirx.Cast(_INT, self.attributes[attribute][self.first + position, element])
            case ir.Scratch(_):
                return position
        raise TypeError(source)

    def buffer(self, source: ir.Source) -> Any:
        """The buffer that the rows of `source` lie in."""
        match source:
            case ir.Operand(number) | ir.Variadic(number):
                return self.arenas[self.binding.operand_arena[number]]
            case ir.Lookup(weight, _, _):
                return self.tables[weight]
            case ir.Scratch(name):
                return self.scratch[name]
        raise TypeError(source)

    def _sweep(self, sweep: _Sweep, rows: int, chunk: Any, row_of: list[Any], accumulators: list[Any]) -> None:
        lanes, source = self.lanes, self.buffer(sweep.source)
        with T.serial(0, sweep.length) as k:
            for place, gate in enumerate(sweep.gates):
                at = sweep.base + (k * len(sweep.gates) + place) * lanes
                weight = self.packed[chunk, tirx.Ramp(at, 1, lanes)]
                for row in range(rows):
                    lane = tirx.Ramp(row * lanes, 1, lanes)
                    x = tirx.Broadcast(source[row_of[row], sweep.offset + k], lanes)
                    T.buffer_store(accumulators[gate], accumulators[gate][lane] + x * weight, [lane])

    def _reduce(self, at: _At, line: ir.Reduction, begin: Any, lets: dict[Any, Any]) -> Any:
        """A reduction over the rows of the variadic operands of one instance; over no rows the identity."""
        lanes, combine = self.lanes, _COMBINE[line.combine]
        result = T.alloc_buffer((lanes,), "float32", scope="global")
        with T.vectorized(0, lanes) as lane:
            T.buffer_store(result, tirx.const(line.identity, "float32"), [lane])
        with T.serial(0, at.count) as p:
            for source in self.stage.sources:
                if isinstance(source, ir.Variadic):
                    at.rows[source] = self._bind("variadic_row", self.row(source, begin + p))
            with T.vectorized(0, lanes) as lane:
                T.buffer_store(result, combine(result[lane], at.value(line.expression, lane, lets)), [lane])
        return result


class _At:
    """Expressions of a stage at one row of a tile and one chunk of columns."""

    def __init__(
        self,
        kernel: _KernelBuilder,
        row: int,
        chunk: Any,
        start: Any,
        rows: dict[ir.Source, Any],
        accumulators: list[Any],
    ) -> None:
        self.kernel = kernel
        self.row = row
        self.chunk = chunk
        self.start = start
        self.rows = dict(rows)
        self.accumulators = accumulators
        self.count: Any = None

    def value(self, expression: Any, lane: Any, lets: dict[Any, Any]) -> Any:
        """`expression` with every leaf and let replaced by what it stands for in this lane."""

        def replace(variable: Any) -> Any:
            if variable in lets:
                return lets[variable][lane]
            leaf = self.kernel.stage.leaves.get(variable)
            return variable if leaf is None else self._leaf(leaf, lane)

        return tvm_ffi.structural_map(expression, (tirx.Var, replace))

    def _leaf(self, leaf: ir.Leaf, lane: Any) -> Any:
        kernel, lanes = self.kernel, self.kernel.lanes
        match leaf:
            case ir.Element(source, offset, moving):
                column = offset + self.chunk * lanes + lane if moving else tirx.const(offset, _INT)
                return kernel.buffer(source)[self.rows[source], column]
            case ir.Vector(index):
                return kernel.packed[self.chunk, kernel.vectors_at + index * lanes + lane]
            case ir.Accumulator(gate):
                return self.accumulators[gate][self.row * lanes + lane]
            case ir.RowCount():
                return tirx.Cast("float32", self.count)
            case ir.AttributeValue(attribute, position):
                value = kernel.attributes[attribute][kernel.first + self.start + self.row, position]
                return tirx.Cast("float32", value)
        raise TypeError(leaf)


# Expressions ------------------------------------------------------------------------------------------------------


def _weight_expressions(stage: ir.Stage) -> list[Any]:
    passes = [one for gate in stage.gates for one in gate.passes if isinstance(one, ir.Pass)]
    return [one.weight for one in passes] + list(stage.vectors)


def _reads(expression: Any, buffer: Any) -> bool:
    found: list[Any] = []
    keep: Callable[[Any], None] = found.append
    tvm_ffi.structural_walk(expression, (tvm.ir.TensorLoad, lambda load: keep(load.source)))
    return any(other.same_as(buffer) for other in found)


def _rewrite(expression: Any, values: dict[Any, Any], buffers: dict[Any, Any]) -> Any:
    """`expression` with variables replaced by `values` and loads moved to `buffers`."""

    def load(node: Any) -> Any:
        return tirx.BufferLoad(buffers[node.source], node.indices)

    moved = tvm_ffi.structural_map(expression, (tirx.Var, lambda variable: values.get(variable, variable)))
    return tvm_ffi.structural_map(moved, (tvm.ir.TensorLoad, load))

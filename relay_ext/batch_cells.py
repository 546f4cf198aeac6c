"""Pass 6: the batch axis, and access to operands through the schedule, for cells outside the stage form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tvm
import tvm_ffi
from tvm import IRModule, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T

from edbatch_tvm.graph.spec import CellSignature, Signature
from relay_ext.binding import bind_cell
from relay_ext.fuse_cells import CELL, NUM_INPUT, WEIGHTS
from relay_ext.stage_cells import ORDER, PATH, REASON
from schedules import abi
from schedules.cpu.general import schedule_general
from schedules.cpu.machine import Machine
from schedules.rows import operand_row


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
    """

    signature: Signature
    machine: Machine

    def transform_module(self, mod: IRModule, _context: tvm.transform.PassContext) -> IRModule:
        """Run the pass."""
        functions: dict[str, tirx.PrimFunc] = {}
        for var, function in mod.functions.items():
            if CELL in function.attrs and PATH not in function.attrs:
                cell = self.signature[str(function.attrs[CELL])]
                plain = schedule_general(function, self.machine)
                kernel = _Batcher(plain, cell, self.signature).kernel()
                functions[var.name_hint] = kernel.with_attr(REASON, function.attrs[REASON])
            else:
                functions[var.name_hint] = function
        return IRModule(functions)


class _Batcher:
    def __init__(self, function: tirx.PrimFunc, cell: CellSignature, signature: Signature) -> None:
        self.function = function
        self.cell = cell
        self.binding = bind_cell(signature, cell.name)
        params = list(function.params)
        inputs = int(function.attrs[NUM_INPUT])
        names = [str(name) for name in function.attrs[WEIGHTS]]
        self.inputs, self.outputs = params[:inputs], params[inputs + len(names) :]
        self.weights = dict(zip(params[inputs : inputs + len(names)], names, strict=True))
        self.operand = {operand.name: number for number, operand in enumerate(cell.operands)}
        self.attribute = {attribute.name: number for number, attribute in enumerate(cell.attributes)}
        self.rows: dict[Any, Any] = {}
        self.buffers: dict[Any, Any] = {}

    def kernel(self) -> tirx.PrimFunc:
        """The batched kernel."""
        layout, name = self.binding.layout, self.cell.name
        arguments: list[str] = []
        with IRBuilder() as builder, T.prim_func():
            T.func_name(name)
            step = T.arg("step", tirx.Var("step", "int32"))
            steps = T.arg("steps", _buffer(("batches", "columns"), "int32", 4))
            index = T.arg("index", _buffer(("indices",), "int32", 4))
            self._declare(arguments)
            T.func_attr(
                {"global_symbol": name, "tirx.noalias": True, CELL: name, ORDER: 0, PATH: "general"}
                | {abi.ARGUMENTS: arguments}
            )
            with T.parallel(0, steps[step, abi.COUNT]) as b:
                values: dict[Any, Any] = {}
                begin = None
                if self.cell.variadic_count:
                    pointer = steps[step, abi.POINTER]
                    begin = _bind("begin", index[pointer + b])
                    # Not a bound variable: storage rewriting moves allocations of size k above its definition.
                    values = self._sizes(index[pointer + b + 1] - index[pointer + b])
                for param in self.inputs:
                    if param.name in self.attribute:
                        self.rows[param] = _bind("row", steps[step, abi.FIRST] + b)
                        continue
                    number = self.operand[param.name]
                    base, stride = steps[step, layout.base(number)], steps[step, layout.stride(number)]
                    if self.cell.operands[number].variadic:
                        self.rows[param] = (base, stride, begin, index)
                    else:
                        self.rows[param] = _bind("row", operand_row(base, stride, b, index))
                for slot, param in enumerate(self.outputs):
                    self.rows[param] = _bind("row", steps[step, layout.output(slot)] + b)
                T.add_to_parent(self._body(values))
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

        for param in self.inputs:
            if param.name in self.operand:
                self.buffers[param] = arena(binding.operand_arena[self.operand[param.name]])
        for slot, param in enumerate(self.outputs):
            self.buffers[param] = arena(binding.output_arena[slot])
        for param in self.inputs:
            if param.name in self.attribute:
                number = self.attribute[param.name]
                shape = (tirx.Var(f"nodes{number}", "int32"), binding.attribute_size[number])
                self.buffers[param] = T.arg(param.name, T.buffer(shape, binding.attribute_dtype[number], align=4))
                arguments.append(f"attribute:{number}")
        for param, name in self.weights.items():
            extents = [int(extent) for extent in param.shape]
            self.buffers[param] = T.arg(param.name, T.buffer(extents, str(param.dtype), align=abi.ALIGNMENT))
            arguments.append(f"weight:{name}")

    def _sizes(self, count: Any) -> dict[Any, Any]:
        for param in self.inputs:
            if param.name in self.operand and self.cell.operands[self.operand[param.name]].variadic:
                symbol = param.shape[0]
                return {symbol: tirx.Cast(symbol.ty.dtype, count)}
        return {}

    def _body(self, values: dict[Any, Any]) -> Any:
        def load(node: Any) -> Any:
            if node.source not in self.buffers:
                return node
            return tirx.BufferLoad(self.buffers[node.source], self._at(node.source, node.indices))

        def store(node: Any) -> Any:
            if node.buffer not in self.buffers:
                return node
            return tirx.BufferStore(self.buffers[node.buffer], node.value, self._at(node.buffer, node.indices))

        body = tvm_ffi.structural_map(
            self.function.body, [(tvm.ir.TensorLoad, load), (tirx.BufferStore, store)], order="post"
        )
        if values:
            body = tvm_ffi.structural_map(body, (tirx.Var, lambda variable: values.get(variable, variable)))
        return body

    def _at(self, param: Any, indices: Any) -> list[Any]:
        """Row and column of an element of one instance's value in the buffer of the batch."""
        if param in self.weights:
            return list(indices)
        row = self.rows[param]
        shape = list(param.shape)
        if isinstance(row, tuple):
            base, stride, begin, index = row
            position = begin + tirx.Cast("int32", indices[0])
            return [operand_row(base, stride, position, index), _flat(shape[1:], list(indices)[1:])]
        return [row, _flat(shape, list(indices))]


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

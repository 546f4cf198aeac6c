"""Pass: kernels become parts of a program: their parallel loops are shared by threads that are already running."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tvm
from tvm import IRModule
from tvm.script.ir_builder import IRBuilder

from edbatch_tvm.tvm_compat import Call, PointerType, PrimType, structural_map, structural_walk, tirx
from edbatch_tvm.tvm_compat import builder_tirx as T
from relay_ext.stage_cells import PATH
from schedules import abi
from schedules.cpu.general_cells import LANES
from schedules.cpu.work_sharing import CLAIM, FINISH

DIMENSIONS = "edbatch.dimensions"
"""Attribute of a part: its last parameters but the pointers, as texts ``number:axis`` of a buffer of the kernel."""

GRAIN_OPERATIONS = 8192
"""Fewest vector operations that a thread takes at a time: about a microsecond."""

GRAINS_PER_THREAD = 4
"""Grains per thread that a loop is cut into, if they are large enough; another thread can take over a grain."""

MOST_GRAIN_OPERATIONS = 64 * GRAIN_OPERATIONS
"""And into more where a grain would have more vector operations: who has none left waits for the grains of others."""

C_ABI = 1
"""``CallingConv::kCPackedFunc``: arguments are lowered already, leave them alone."""

_ASSUMED_EXTENT = 4
"""Turns of a loop whose extent is known at run time only, for the estimate of its work."""

_OPERATIONS = (tirx.Add, tirx.Sub, tirx.Mul, tirx.Div, tirx.Select, Call)
"""Expressions that are counted as work; in one walk, as each walk costs more than the expressions of a store."""


@tvm.transform.module_pass(opt_level=0, name="WorkshareLoops")
@dataclass(frozen=True)
class WorkshareLoops:
    """Turn every kernel into a function that several threads call at once, and its parallel loops into functions.

    Before::

        def kernel(step: T.int32, steps: T.Buffer(("batches", "columns"), "int32"), ...):
            n = steps[step, COUNT]
            for work in T.parallel(tiles):
                ...

    After::

        def kernel_loop0(begin, count, step, n, columns, steps_data, ...):
            for i in range(count):
                work = begin + i
                ...

        def kernel(task, tasks, board, launches, step, columns, steps_data: T.handle, ...):
            n = steps[step, COUNT]
            size = ...                                             # items of a grain
            launches[0] += 1
            grain[0] = claim(board, launches[0], task, tasks, ceildiv(tiles, size), tiles)
            while grain[0] >= 0:
                kernel_loop0(grain[0] * size, min(size, tiles - grain[0] * size), step, n, columns, steps_data, ...)
                finish(board, launches[0], min(size, tiles - grain[0] * size))
                grain[0] = claim(...)                              # -1 once every item is finished

    Statements outside parallel loops run in every thread; a kernel that stores something there becomes one item.
    """

    def transform_module(self, mod: IRModule, _context: tvm.transform.PassContext) -> IRModule:
        """Run the pass."""
        functions: dict[Any, tirx.PrimFunc] = {}
        for var, function in mod.functions.items():
            if str(function.attrs[PATH]) == "pack":
                functions[var] = function
            else:
                sharer = _Sharer(function)
                functions[var] = sharer.part()
                functions.update(sharer.loops)
        return IRModule(functions)


class _Sharer:
    def __init__(self, kernel: tirx.PrimFunc) -> None:
        self.kernel = kernel
        self.name = f"edbatch_{kernel.attrs['global_symbol']}"
        self.scalars = [p for p in kernel.params if not isinstance(p.ty, tirx.BufferType)]
        self.buffers = [p for p in kernel.params if isinstance(p.ty, tirx.BufferType)]
        self.dimensions = [
            (number, axis)
            for number, buffer in enumerate(self.buffers)
            for axis, extent in enumerate(buffer.shape)
            if isinstance(extent, tirx.Var)
        ]
        self.extents = [self.buffers[number].shape[axis] for number, axis in self.dimensions]
        self.data = [pointer(f"{buffer.name}_data", str(buffer.dtype)) for buffer in self.buffers]
        self.task, self.tasks = tirx.Var("task", "int32"), tirx.Var("tasks", "int32")
        self.board, self.launches_data = pointer("board", "int64"), pointer("launches_data", "int32")
        self.launches = tirx.decl_buffer((1,), "int32", "launches")
        self.loops: dict[Any, tirx.PrimFunc] = {}

    def part(self) -> tirx.PrimFunc:
        """The kernel as a part."""
        body = self._body()
        attributes = {key: value for key, value in self.kernel.attrs.items() if key != "global_symbol"}
        attributes[DIMENSIONS] = [f"{number}:{axis}" for number, axis in self.dimensions]
        declare = tirx.DeclBuffer(self.launches, data=self.launches_data)
        shared = [self.task, self.tasks, self.board, self.launches_data, *self.scalars]
        return self._function(self.name, shared, [declare, body], attributes)

    def _function(self, name: str, scalars: list[Any], body: list[Any], attributes: dict[str, Any]) -> tirx.PrimFunc:
        """A function of `scalars` and the kernel's buffers that returns 0."""
        with IRBuilder() as builder, T.prim_func():
            T.func_name(name)
            for one in (*scalars, *self.extents, *self.data):
                T.arg(one.name, one)
            # A symbol, so that LLVM does not inline everything into one function that takes it long to compile.
            T.func_attr(attributes | {"tirx.noalias": True, "calling_conv": C_ABI})
            # Allocations of unknown size are lowered to calls for a device, and to returns of an error code.
            T.func_ret(PrimType("int32"))
            for buffer, one in zip(self.buffers, self.data, strict=True):
                T.add_to_parent(tirx.DeclBuffer(buffer, data=one))
            cpu = tvm.cpu()
            with T.attr(0, "device_type", cpu.dlpack_device_type()), T.attr(0, "device_id", cpu.index):
                for one in body:
                    T.add_to_parent(one)
            T.add_to_parent(tirx.Return(tirx.const(0, "int32")))
        return builder.get()

    def _body(self) -> Any:
        inner: list[Any] = []

        def look(loop: Any) -> None:
            if loop.kind == tirx.ForKind.PARALLEL:
                structural_walk(loop.body, (tirx.For, lambda one: inner.append(one.loop_var)))

        def change(loop: Any) -> Any:
            if loop.kind != tirx.ForKind.PARALLEL:
                return loop
            if any(loop.loop_var.same_as(var) for var in inner):
                return tirx.For(loop.loop_var, loop.min, loop.extent, tirx.ForKind.SERIAL, loop.body)
            return self._shared(loop)

        def drop(loop: Any) -> Any:
            return tirx.Evaluate(0) if loop.kind == tirx.ForKind.PARALLEL else loop

        body = self.kernel.body
        stores: list[Any] = []
        rest = structural_map(body, (tirx.For, drop), order="post")
        structural_walk(rest, (tirx.BufferStore, stores.append))
        if stores:
            body = tirx.For(tirx.Var("one", "int32"), 0, 1, tirx.ForKind.PARALLEL, body)
        structural_walk(body, (tirx.For, look))
        return structural_map(body, (tirx.For, change), order="post")

    def _outlined(self, loop: Any, begin: Any, count: Any) -> Any:
        """A call of the items of `loop` from `begin` on, in a function of its own."""
        free = free_variables(loop.body, [*self.scalars, *self.extents, loop.loop_var])
        first, items, i = (tirx.Var(name, "int32") for name in ("begin", "count", "i"))
        # Storage rewriting moves allocations up to the next scope it knows; their extents may use the loop variable.
        alone = tirx.IterVar((0, 1), tirx.Var("alone", "int32"), tirx.IterVar.Parallelized, "vthread")
        scope = tirx.AttrStmt(alone, "virtual_thread", tirx.const(1, "int32"), loop.body)
        turn = tirx.SeqStmt([tirx.Bind(loop.loop_var, first + i), scope])
        name = f"{self.name}_loop{len(self.loops)}"
        scalars = [*self.scalars, *free]
        var = tvm.ir.GlobalVar(name)
        body = [tirx.For(i, 0, items, tirx.ForKind.SERIAL, turn)]
        self.loops[var] = self._function(name, [first, items, *scalars], body, {PATH: "loop"})
        return tirx.Evaluate(var(begin, count, *scalars, *self.extents, *self.data))

    def _shared(self, loop: Any) -> Any:
        """The loop over the grains that this thread gets."""
        items, size, grains, launch, begin, count = (
            tirx.Var(name, "int32") for name in ("items", "size", "grains", "launch", "begin", "count")
        )
        work = max(1, operations(loop.body))
        least, most = (max(1, n // work) for n in (GRAIN_OPERATIONS, MOST_GRAIN_OPERATIONS))
        share = tirx.floordiv(loop.extent + (self.tasks * GRAINS_PER_THREAD - 1), self.tasks * GRAINS_PER_THREAD)
        grain = tirx.decl_buffer((1,), "int32", "grain")
        arguments = (self.board, launch, self.task, self.tasks, grains, items)
        claim = tirx.BufferStore(grain, tirx.call_extern("int32", CLAIM, *arguments), [0])
        turn = [
            tirx.Bind(begin, grain[0] * size),
            tirx.Bind(count, tirx.min(size, items - begin)),
            self._outlined(loop, begin, count),
            tirx.Evaluate(tirx.call_extern("void", FINISH, self.board, launch, count)),
            claim,
        ]
        return tirx.SeqStmt(
            [
                tirx.Bind(items, loop.extent),
                tirx.Bind(size, tirx.max(tirx.min(share, most), least)),
                tirx.Bind(grains, tirx.floordiv(items + (size - 1), tirx.max(size, 1))),
                tirx.Bind(launch, self.launches[0] + 1),
                tirx.BufferStore(self.launches, launch, [0]),
                tirx.AllocBuffer(grain),
                claim,
                tirx.While(grain[0] >= 0, tirx.SeqStmt(turn)),
            ]
        )


def buffers_of(part: tirx.PrimFunc) -> list[Any]:
    """The buffers of the kernel that `part` was, in order."""
    return [statement.buffer for statement in part.body.seq if isinstance(statement, tirx.DeclBuffer)]


def free_variables(statement: Any, known: list[Any]) -> list[Any]:
    """Variables, but buffers, that `statement` uses and neither defines nor finds among the `known`."""
    used: list[Any] = []
    defined = list(known)
    structural_walk(statement, (tirx.Var, used.append))
    structural_walk(statement, (tirx.Bind, lambda bind: defined.append(bind.var)))
    structural_walk(statement, (tirx.Let, lambda let: defined.append(let.var)))
    structural_walk(statement, (tirx.For, lambda loop: defined.append(loop.loop_var)))
    free = dict.fromkeys(var for var in used if not isinstance(var.ty, tirx.BufferType))
    for var in defined:
        free.pop(var, None)
    return list(free)


def pointer(name: str, dtype: str) -> tirx.Var:
    """A variable that holds the address of elements of `dtype`."""
    return tirx.Var(name, PointerType(PrimType(dtype), "global"))


def operations(statement: Any) -> int:
    """About how many vector operations `statement` takes."""
    match statement:
        case tirx.SeqStmt():
            return sum(operations(one) for one in statement.seq)
        case tirx.For():
            extent = _most(statement.extent) or _ASSUMED_EXTENT
            if statement.kind == tirx.ForKind.VECTORIZED or LANES in statement.annotations:
                extent = -(-extent // abi.LANES)
            return extent * operations(statement.body)
        case tirx.IfThenElse():
            other = operations(statement.else_case) if statement.else_case is not None else 0
            return max(operations(statement.then_case), other)
        case tirx.While():
            return _ASSUMED_EXTENT * operations(statement.body)
        case tirx.AttrStmt():
            return operations(statement.body)
        case tirx.BufferStore():
            nodes: list[Any] = []
            structural_walk(statement.value, (_OPERATIONS, nodes.append))
            return max(1, len(nodes) // 2)
    return 0


def _most(extent: Any) -> int | None:
    """The most turns of a loop: a number, or the smaller of one and something else; None where nothing is known."""
    if isinstance(extent, tirx.Min):
        known = [one for one in map(_most, (extent.a, extent.b)) if one is not None]
        return min(known, default=None)
    return int(extent) if isinstance(extent, tirx.IntImm) else None

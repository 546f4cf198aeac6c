"""Pass 9: all kernels of a model in one function that runs a whole schedule."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import IRModule, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T

from edbatch_tvm.graph.spec import Signature
from relay_ext.add_gathers import ARENA
from relay_ext.fuse_cells import CELL
from relay_ext.share_loops import DIMENSIONS, pointer
from relay_ext.stage_cells import ORDER
from schedules import abi
from schedules.cpu.sharing import PATIENCE, ROW

PROGRAM = "program"
"""Name of the function."""

_LEADING = ("steps", "index", "copies", "copy_ptr")


@tvm.transform.module_pass(opt_level=0, name="JoinKernels")
@dataclass(frozen=True)
class JoinKernels:
    """Add the function that runs the batches of a schedule one after the other, in one parallel region.

    Before::

        leaf(task, tasks, board, launches, step, ...)        # parts, as ShareLoops leaves them
        internal(task, tasks, board, launches, step, ...)

    After, beside them::

        def run_steps(task, tasks, board, first, last, ...):
            for step in range(first, last):
                if steps[step, TYPE] == 0:
                    leaf(task, tasks, board, launches, step, ...)
                elif steps[step, TYPE] == 1:
                    internal(...)

        def program(tasks, first, last, board, steps, index, copies, copy_ptr, arena0, ...):
            if tasks == 1:
                run_steps(0, 1, ...)
            else:
                for task in T.parallel(tasks):
                    run_steps(task, tasks, ...)

    The arguments after ``copy_ptr`` are listed in :data:`~schedules.abi.ARGUMENTS` as for a kernel, but an attribute
    is named ``<type>.<number>``. ``copies`` and ``copy_ptr`` are those of a
    :class:`~edbatch_tvm.memory.gathers.GatheredPlan`; a model without kernels that copy rows does not read them.

    Attributes
    ----------
    signature : Signature
    sharing : str
        LLVM IR of the functions that parts call; see :mod:`schedules.cpu.sharing`.
    """

    signature: Signature
    sharing: str

    def transform_module(self, mod: IRModule, _context: tvm.transform.PassContext) -> IRModule:
        """Run the pass."""
        joined = IRModule(dict(mod.functions.items()))
        parts = {var: f for var, f in mod.functions.items() if DIMENSIONS in f.attrs}
        arguments = _Arguments(self.signature, parts)
        run_steps = tvm.ir.GlobalVar("run_steps")
        joined[run_steps] = _run_steps(arguments, self.signature, parts)
        joined[tvm.ir.GlobalVar(PROGRAM)] = _program(arguments, run_steps, self.sharing)
        return joined


class _Arguments:
    """The buffers of the program, and where a part finds its own among them."""

    def __init__(self, signature: Signature, parts: dict[Any, tirx.PrimFunc]) -> None:
        self.types: dict[str, tuple[Any, ...]] = {
            "steps": (("batches", "columns"), "int32", 4),
            "index": (("indices",), "int32", 4),
            "copies": (("copies", 5), "int32", 4),
            "copy_ptr": (("copy_ptrs",), "int32", 4),
        }
        self._names: dict[str, list[str]] = {}
        for var, part in parts.items():
            if ARENA in part.attrs:
                names = ["index", f"arena:{int(part.attrs[ARENA])}"]
            else:
                names = [_qualified(signature, part, str(text)) for text in part.attrs[abi.ARGUMENTS]]
                names = ["steps", "index", *names]
            self._names[var.name_hint] = names
            for name, buffer in zip(names, _buffers(part), strict=True):
                shape = tuple(
                    f"{name}.{axis}" if isinstance(extent, tirx.Var) else int(extent)
                    for axis, extent in enumerate(buffer.shape)
                )
                self.types.setdefault(name, (shape, str(buffer.dtype), int(buffer.ty.data_alignment)))

    @property
    def texts(self) -> list[str]:
        """The arguments after the leading ones."""
        return [name for name in self.types if name not in _LEADING]

    def declare(self) -> dict[str, Any]:
        """Declare the buffers as parameters of the function that is being built."""
        buffers = {}
        for number, (name, (shape, dtype, align)) in enumerate(self.types.items()):
            extents = [
                tirx.Var(f"extent{number}_{axis}", "int32") if isinstance(extent, str) else extent
                for axis, extent in enumerate(shape)
            ]
            label = name if name in _LEADING else f"argument{number}"
            buffers[name] = T.arg(label, T.buffer(extents, dtype, align=align))
        return buffers

    def flat(self, buffers: dict[str, Any]) -> tuple[list[Any], list[Any]]:
        """Extents that are not constant, and addresses, of all buffers."""
        extents = [e for buffer in buffers.values() for e in buffer.shape if isinstance(e, tirx.Var)]
        return extents, [buffer.data for buffer in buffers.values()]

    def of_part(self, var: Any, part: tirx.PrimFunc, extents: dict[str, list[Any]], data: dict[str, Any]) -> list[Any]:
        """Extents and addresses that `part` takes."""
        names = self._names[var.name_hint]
        dimensions = [str(text).split(":") for text in part.attrs[DIMENSIONS]]
        return [extents[names[int(number)]][int(axis)] for number, axis in dimensions] + [data[name] for name in names]


def _qualified(signature: Signature, part: tirx.PrimFunc, text: str) -> str:
    kind, name = text.split(":", 1)
    return f"attribute:{signature.type_id(str(part.attrs[CELL]))}.{name}" if kind == "attribute" else text


def _buffers(part: tirx.PrimFunc) -> list[Any]:
    """The buffers of the kernel that `part` was, in order."""
    return [statement.buffer for statement in part.body.seq if isinstance(statement, tirx.DeclBuffer)]


def _run_steps(arguments: _Arguments, signature: Signature, parts: dict[Any, tirx.PrimFunc]) -> tirx.PrimFunc:
    kernels: dict[int, list[tuple[Any, tirx.PrimFunc]]] = {}
    gathers: dict[int, tuple[Any, tirx.PrimFunc]] = {}
    for var, part in parts.items():
        if ARENA in part.attrs:
            gathers[int(part.attrs[ARENA])] = var, part
        else:
            kernels.setdefault(signature.type_id(str(part.attrs[CELL])), []).append((var, part))
    with IRBuilder() as builder, T.prim_func(is_private=True):
        T.func_name("run_steps")
        task, tasks, first, last = (T.arg(name, tirx.Var(name, "int32")) for name in ("task", "tasks", "first", "last"))
        board = T.arg("board", pointer("board", "int64"))
        extents: dict[str, list[Any]] = {name: [] for name in arguments.types}
        for number, (name, (shape, _, _)) in enumerate(arguments.types.items()):
            for axis, extent in enumerate(shape):
                one = f"extent{number}_{axis}"
                extents[name].append(T.arg(one, tirx.Var(one, "int32")) if isinstance(extent, str) else extent)
        data = {}
        for number, (name, (_, dtype, _)) in enumerate(arguments.types.items()):
            data[name] = T.arg(f"data{number}", pointer(f"data{number}", dtype))
        T.func_attr({"tirx.noalias": True})
        steps = T.decl_buffer(extents["steps"], "int32", data=data["steps"], align=4)
        launches = T.alloc_buffer((1,), "int32")
        T.buffer_store(launches, 0, [0])
        shared = task, tasks, board, launches.data

        def call(var: Any, part: tirx.PrimFunc, scalars: Iterable[Any]) -> None:
            T.evaluate(var(*shared, *scalars, *arguments.of_part(var, part, extents, data)))

        with T.serial(0, last - first) as number:
            step = tirx.Var("step", "int32")
            T.Bind(first + number, var=step)
            if gathers:
                _copy(arguments, gathers, extents, data, step, call)
            for type_id, members in kernels.items():
                with T.If(steps[step, abi.TYPE] == type_id), T.Then():
                    for var, part in sorted(members, key=lambda member: int(member[1].attrs[ORDER])):
                        call(var, part, [step])
    return builder.get()


def _copy(
    arguments: _Arguments,
    gathers: dict[int, tuple[Any, tirx.PrimFunc]],
    extents: dict[str, list[Any]],
    data: dict[str, Any],
    step: Any,
    call: Any,
) -> None:
    """The copies before one batch."""
    copies = T.decl_buffer(extents["copies"], "int32", data=data["copies"], align=4)
    copy_ptr = T.decl_buffer(extents["copy_ptr"], "int32", data=data["copy_ptr"], align=4)
    with T.serial(0, copy_ptr[step + 1] - copy_ptr[step]) as number:
        copy = tirx.Var("copy", "int32")
        T.Bind(copy_ptr[step] + number, var=copy)
        for arena, (var, part) in gathers.items():
            with T.If(copies[copy, 0] == arena), T.Then():
                call(var, part, [copies[copy, column] for column in range(1, 5)])


def _program(arguments: _Arguments, run_steps: Any, sharing: str) -> tirx.PrimFunc:
    with IRBuilder() as builder, T.prim_func():
        T.func_name(PROGRAM)
        tasks, first, last = (T.arg(name, tirx.Var(name, "int32")) for name in ("tasks", "first", "last"))
        board = T.arg("board", T.buffer((tirx.Var("words", "int32"),), "int64", align=abi.ALIGNMENT))
        buffers = arguments.declare()
        T.func_attr({"global_symbol": PROGRAM, "tirx.noalias": True, abi.ARGUMENTS: arguments.texts})
        extents, data = arguments.flat(buffers)
        rest = (first, last, board.data, *extents, *data)
        with T.attr(0, "pragma_import_llvm", sharing):
            with T.serial(0, tasks + 1) as row:
                T.buffer_store(board, tirx.const(0, "int64"), [row * ROW])
                patience = tirx.if_then_else(row > 0, tirx.const(PATIENCE, "int64"), tirx.const(0, "int64"))
                T.buffer_store(board, patience, [row * ROW + 1])
            with T.If(tasks == 1):
                with T.Then():
                    T.evaluate(run_steps(0, 1, *rest))
                with T.Else(), T.attr(0, "pragma_parallel_launch_point", 1), T.parallel(0, tasks) as task:
                    T.evaluate(run_steps(task, tasks, *rest))
    return builder.get()

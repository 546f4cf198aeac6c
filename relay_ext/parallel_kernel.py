"""A kernel alone as a function that any number of threads run: its parallel loops shared as those of a model's kernels.

:class:`~relay_ext.join_model_kernels.JoinModelKernels` does this for all kernels of a model.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import IRModule
from tvm.script.ir_builder import IRBuilder

from edbatch_tvm.tvm_compat import builder_tirx as T
from edbatch_tvm.tvm_compat import tirx
from relay_ext.parallel_region import parallel_region
from relay_ext.pipeline import run_passes
from relay_ext.stage_cells import PATH
from relay_ext.workshare_loops import WorkshareLoops, buffers_of
from schedules import abi


def parallel_kernel(kernel: tirx.PrimFunc, sharing: str) -> IRModule:
    """A module whose function runs a kernel in any number of threads.

    Before::

        def kernel(a: T.Buffer(("n",), "float32"), ...):
            for i in T.parallel(n):
                ...

    After, beside the parts of the kernel::

        def kernel(tasks: T.int32, board: T.Buffer(("words",), "int64"), a: T.Buffer(("n",), "float32"), ...):
            ...
    """
    name = str(kernel.attrs["global_symbol"])
    kernel = kernel.with_attrs({PATH: "general"})
    # Of another name, so that the function can have this one.
    shared = run_passes(IRModule({f"{name}_part": kernel}), [WorkshareLoops()])
    functions = dict(shared.functions.items())
    (part,) = (var for var in functions if var.name_hint == f"{name}_part")
    functions[tvm.ir.GlobalVar(name)] = _program(name, part, buffers_of(functions[part]), sharing)
    return IRModule(functions)


def _program(name: str, part: Any, buffers: list[Any], sharing: str) -> tirx.PrimFunc:
    with IRBuilder() as builder, T.prim_func():
        T.func_name(name)
        tasks = T.arg("tasks", tirx.Var("tasks", "int32"))
        board = T.arg("board", T.buffer((tirx.Var("words", "int32"),), "int64", align=abi.ALIGNMENT))
        own = []
        for buffer in buffers:
            shape = [tirx.Var(one.name, "int32") if isinstance(one, tirx.Var) else one for one in buffer.shape]
            own.append(T.arg(buffer.name, T.buffer(shape, str(buffer.dtype), align=int(buffer.ty.data_alignment))))
        T.func_attr({"global_symbol": name, "tirx.noalias": True})
        extents = [extent for buffer in own for extent in buffer.shape if isinstance(extent, tirx.Var)]
        data = [buffer.data for buffer in own]

        def call(task: Any, tasks: Any) -> None:
            launches = T.alloc_buffer((1,), "int32")
            T.buffer_store(launches, 0, [0])
            T.evaluate(part(task, tasks, board.data, launches.data, *extents, *data))

        parallel_region(tasks, board, sharing, call)
    return builder.get()

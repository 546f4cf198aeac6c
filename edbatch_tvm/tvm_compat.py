"""What differs between releases of TVM, under one name each: no other module of the package imports it from TVM.

A new release is adopted here. The comments say where releases from 0.20 on have a name. docs/tvm-notes.md says what
ties the package to one release all the same.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import tvm_ffi

# TIR: tvm.tir up to 0.23; s_tir was part of it. Arithmetic on integer expressions: tvm.arith up to 0.26. Tensors:
# tvm.nd up to 0.21.
from tvm import runtime, s_tir, sym, tirx

# Up to 0.26 a constant is relax.Constant, a buffer read tirx.BufferLoad and a text tirx.StringImm; up to 0.25 Relax and
# TIR each have a class of calls.
from tvm.ir import (
    Array,
    Call,
    GenericConst,
    PointerType,
    PrimType,
    StringImm,
    TensorLoad,
    load_json,
    make_node,
    save_json,
)
from tvm.libinfo import find_libtvm_runtime

# Up to 0.25 relax.TensorStructInfo and relax.TupleStructInfo, in the field struct_info of an expression.
from tvm.relax import TensorType, TupleType
from tvm.rpc import server as _rpc_server

# tvm.meta_schedule and tvm.tir up to 0.23.
from tvm.s_tir import meta_schedule, renew_defs
from tvm.s_tir.meta_schedule import _ffi_api as _meta_schedule_ffi
from tvm.s_tir.pipeline import finalize_device_passes, finalize_host_passes
from tvm.s_tir.schedule import LoopRV, SBlockRV, Schedule, ScheduleError, Trace

# In tvm.tirx up to 0.26; tvm.tir.Block and BlockRealize up to 0.23.
from tvm.s_tir.stmt import SBlock, SBlockRealize

# TVMScript as source: tvm.script.tir up to 0.23.
from tvm.script import tirx as script_tirx

# Private: what makes a function a macro. TIRMacro up to 0.24.
from tvm.script.parser._core import scan_macro

# tvm.contrib up to 0.24.
from tvm.support import cc
from tvm.support.nvcc import compile_cuda

# TVMScript through calls: tvm.script.ir_builder.tir up to 0.23.
from tvm.tirx.script.builder import ir as builder_tirx
from tvm.tirx.script.parser.entry import TIRInline

# Trees are walked by tirx.stmt_functor up to 0.26. The package is tvm.ffi in 0.21 and tvm._ffi in 0.20.
from tvm_ffi import StructuralKey, register_error, structural_equal, structural_map, structural_walk

__all__ = [
    "Array",
    "Call",
    "GenericConst",
    "LoopRV",
    "PointerType",
    "PrimType",
    "SBlock",
    "SBlockRV",
    "SBlockRealize",
    "Schedule",
    "ScheduleError",
    "StringImm",
    "StructuralKey",
    "TIRInline",
    "TensorLoad",
    "TensorType",
    "Trace",
    "TupleType",
    "builder_tirx",
    "cc",
    "compile_cuda",
    "config_thread_pool",
    "ffi_addresses",
    "fields_of",
    "finalize_device_passes",
    "finalize_host_passes",
    "init_tune_context",
    "load_json",
    "make_node",
    "meta_schedule",
    "raw_stream",
    "register_cuda_compiler",
    "register_error",
    "renew_defs",
    "rpc_listen_loop",
    "runtime",
    "s_tir",
    "save_json",
    "scan_macro",
    "script_tirx",
    "structural_equal",
    "structural_map",
    "structural_walk",
    "sym",
    "tirx",
]


def config_thread_pool(mode: int, threads: int) -> None:
    """Set how many workers of the calling thread's pool are used; `mode` is that of ``runtime.config_threadpool``."""
    tvm_ffi.get_global_func("runtime.config_threadpool")(mode, threads)


def ffi_addresses() -> tuple[int, int, int, int]:
    """Addresses of the C functions that call a function, take the error that it raised, and let go of an object.

    And of the one that has the threads of the pool run a task.
    """
    ffi = ctypes.CDLL(tvm_ffi.libinfo.find_libtvm_ffi())  # those that are loaded already
    pool = ctypes.CDLL(find_libtvm_runtime())
    names = ("TVMFFIFunctionCall", "TVMFFIErrorMoveFromRaised", "TVMFFIObjectDecRef")
    found = *(ffi[name] for name in names), pool["TVMBackendParallelLaunch"]
    call, take_error, let_go, launch = (ctypes.cast(function, ctypes.c_void_p).value or 0 for function in found)
    return call, take_error, let_go, launch


_NUMBERS = (1, 2, 3)
"""Type indices of int, bool and float."""


def fields_of(kind: str) -> dict[str, tuple[bool, bool]]:
    """The fields of objects of the type with this key, as :func:`save_json` writes them.

    For each whether its number stands there itself, instead of the place of another node; and whether structural
    equality ignores it.
    """
    fields: dict[str, tuple[bool, bool]] = {}
    # Private: a public form needs the Python class, which not every type has.
    info = tvm_ffi.core._lookup_or_register_type_info_from_type_key(kind)
    while info is not None:
        for one in info.fields:
            number = one.field_static_type_index in _NUMBERS
            fields.setdefault(one.name, (number, one.c_structural_eq == "ignore"))
        info = info.parent_type_info
    return fields


def raw_stream(device: Any) -> int:
    """Handle of the current stream of a CUDA device."""
    return int(tvm_ffi.get_raw_stream(tvm_ffi.device("cuda", device.index)))


def register_cuda_compiler(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make `function` what TVM calls to compile CUDA source."""
    return tvm_ffi.register_global_func("tvm_callback_cuda_compile", function, override=True)


def init_tune_context(context: Any, *arguments: Any) -> None:
    """The constructor of MetaSchedule's tuning context in C++, which TVM's own class calls after slow imports."""
    context.__init_handle_by_constructor__(_meta_schedule_ffi.TuneContext, *arguments)
    _meta_schedule_ffi.TuneContextInitialize(context)


def rpc_listen_loop(*arguments: Any) -> None:
    """The loop of an RPC server that serves one session after the other, in this process."""
    _rpc_server._listen_loop(*arguments)

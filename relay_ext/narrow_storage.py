"""Pass: kernels keep values and weights of float32 in 16 bits, and compute in float32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tvm
from tvm import IRModule

from edbatch_tvm.tvm_compat import PrimType, TensorLoad, structural_map, tirx
from relay_ext.stage_cells import PATH
from schedules import abi

STORAGE = "edbatch.storage"
"""Attribute of a kernel: the dtype that it keeps values and weights of float32 in, where that is another one."""

STORAGES = ("bfloat16", "float16")
"""What 16 bits can be."""

_KINDS = ("arena", "table", "weight", "packed")


def held_dtype(storage: str) -> str:
    """The dtype of arrays that hold `storage`: NumPy has no bfloat16, whose bits are in integers."""
    return "uint16" if storage == "bfloat16" else storage


@tvm.transform.module_pass(opt_level=0, name="NarrowStorage")
@dataclass(frozen=True)
class NarrowStorage:
    """Let kernels read and write arenas, tables and weights of float32 as `storage`.

    Before::

        def kernel(..., arena0: T.Buffer(("rows0", 64), "float32"), packed: T.Buffer((4096,), "float32")):
            arena0[row, j] = arena0[other, j] * packed[j]

    After, with ``storage="bfloat16"``::

        def kernel(..., arena0: T.Buffer(("rows0", 64), "uint16"), packed: T.Buffer((4096,), "uint16")):
            arena0[row, j] = rounded(widened(arena0[other, j]) * widened(packed[j]))

    Scratch rows and what is in registers stay float32. The functions that pack weights are left as they are: what they
    write is rounded when weights are loaded.

    Attributes
    ----------
    storage : {"bfloat16", "float16"}
    """

    storage: str

    def transform_module(self, mod: IRModule, _context: tvm.transform.PassContext) -> IRModule:
        """Run the pass."""
        functions = {
            var: function if str(function.attrs[PATH]) == "pack" else narrowed(function, self.storage)
            for var, function in mod.functions.items()
        }
        return IRModule(functions)


def narrowed(kernel: tirx.PrimFunc, storage: str) -> tirx.PrimFunc:
    """`kernel` with its arguments of float32 in `storage`; see :class:`NarrowStorage`."""
    buffers = [param for param in kernel.params if isinstance(param.ty, tirx.BufferType)]
    kinds = ["steps", "index", *(str(text).partition(":")[0] for text in kernel.attrs[abi.ARGUMENTS])]
    moved: dict[Any, Any] = {}
    for buffer, kind in zip(buffers, kinds, strict=True):
        if kind in _KINDS and str(buffer.dtype) == "float32":
            align = int(buffer.ty.data_alignment)
            moved[buffer] = tirx.decl_buffer(list(buffer.shape), held_dtype(storage), buffer.name, data_alignment=align)

    def load(node: Any) -> Any:
        if node.source not in moved:
            return node
        return widened(tirx.BufferLoad(moved[node.source], list(node.indices)), storage)

    def store(node: Any) -> Any:
        if node.buffer not in moved:
            return node
        return tirx.BufferStore(moved[node.buffer], rounded(node.value, storage), list(node.indices))

    body = structural_map(kernel.body, [(TensorLoad, load), (tirx.BufferStore, store)], order="post")
    params = [moved.get(param, param) for param in kernel.params]
    attributes = {str(key): value for key, value in kernel.attrs.items()} | {STORAGE: storage}
    return tirx.PrimFunc(params, body, kernel.ret_type).with_attrs(attributes)


def widened(value: Any, storage: str) -> Any:
    """A number, or a vector of them, of `storage` as float32: exact."""
    lanes = _lanes(value)
    if storage == "float16":
        return tirx.Cast(_vector("float32", lanes), value)
    bits = tirx.Cast(_vector("uint32", lanes), value) << _many(tirx.const(16, "uint32"), lanes)
    return tirx.reinterpret(_vector("float32", lanes), bits)


def rounded(value: Any, storage: str) -> Any:
    """A number, or a vector of them, of float32 as `storage`: the nearest, of two the even one; NaN stays NaN."""
    lanes = _lanes(value)
    if storage == "float16":
        return tirx.Cast(_vector("float16", lanes), value)

    def number(bits: int) -> Any:
        return _many(tirx.const(bits, "uint32"), lanes)

    given = tirx.Var("given", PrimType(_vector("uint32", lanes)))
    upper = given >> number(16)
    nearest = (given + number(0x7FFF) + (upper & number(1))) >> number(16)
    is_nan = (given & number(0x7FFFFFFF)) > number(0x7F800000)
    chosen = tirx.Select(is_nan, upper | number(0x40), nearest)
    bits = tirx.Let(given, tirx.reinterpret(_vector("uint32", lanes), value), chosen)
    return tirx.Cast(_vector("uint16", lanes), bits)


def _lanes(value: Any) -> int:
    return int(str(value.ty.dtype).partition("x")[2] or 1)


def _vector(dtype: str, lanes: int) -> str:
    return f"{dtype}x{lanes}" if lanes > 1 else dtype


def _many(value: Any, lanes: int) -> Any:
    return tirx.Broadcast(value, lanes) if lanes > 1 else value

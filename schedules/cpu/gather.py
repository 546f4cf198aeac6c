"""Copies of rows inside an arena, for the unfused form."""

from __future__ import annotations

from tvm.script.ir_builder import IRBuilder

from edbatch_tvm.tvm_compat import builder_tirx as T
from edbatch_tvm.tvm_compat import tirx
from schedules import abi
from schedules.operand_rows import operand_row


def gather_kernel(name: str, width: int, dtype: str) -> tirx.PrimFunc:
    """A kernel that copies rows of an arena to rows ``to``, ``to + 1``, ... of the same arena.

    ``kernel(base, stride, count, to, index, arena)``; row i is ``index[base + i]`` if the stride is negative, else
    ``base + i * stride``.

    Parameters
    ----------
    name : str
    width : int
        Padded width of the rows.
    dtype : str
    """
    with IRBuilder() as builder, T.prim_func():
        T.func_name(name)
        base, stride, count, to = (T.arg(one, tirx.Var(one, "int32")) for one in ("base", "stride", "count", "to"))
        index = T.arg("index", T.buffer((tirx.Var("indices", "int32"),), "int32", align=4))
        arena = T.arg("arena", T.buffer((tirx.Var("rows", "int32"), width), dtype, align=abi.ALIGNMENT))
        T.func_attr({"global_symbol": name, "tirx.noalias": True})
        with T.parallel(0, count) as i:
            row = tirx.Var("row", "int32")
            T.Bind(operand_row(base, stride, i, index), var=row)
            with T.serial(0, width // abi.LANES) as chunk, T.vectorized(0, abi.LANES) as lane:
                column = chunk * abi.LANES + lane
                T.buffer_store(arena, arena[row, column], [to + i, column])
    return builder.get()

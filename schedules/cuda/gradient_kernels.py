"""Kernels of weight gradients for GPUs: products ``left^T right`` and sums over rows that lie anywhere in arenas.

Rows are known by where they begin in an arena: one int32 vector, `tables`, has all of them, and a kernel is told where
its own begin there. Nodes are divided into pieces of fixed length. The product of a piece, or the sum of its rows, goes
to memory of its own, and a second call of ``sums`` adds the pieces in their order: nothing is accumulated by atomics,
and the bits depend neither on the grid nor on the machine.
"""

from __future__ import annotations

from typing import Any

from tvm import IRModule
from tvm.script.ir_builder import IRBuilder

from edbatch_tvm.tvm_compat import builder_tirx as T
from edbatch_tvm.tvm_compat import tirx
from schedules import abi
from schedules.cuda.execution_model import BLOCK, EmulatedThreads, GpuThreads, Threads, bind, loop

PRODUCT, SUMS = "edbatch_gradient_product", "edbatch_gradient_sums"
"""Names of the two kernels."""

TILE = 32
"""Columns of either side that a block multiplies; each of its threads has two by two."""

DEPTH = 16
"""Nodes whose rows are in shared memory at a time."""

_INT, _FLOAT = "int32", "float32"


def gradient_kernels(emulate: EmulatedThreads | None = None) -> IRModule:
    """Both kernels."""
    return IRModule({PRODUCT: product_kernel(emulate), SUMS: sums_kernel(emulate)})


def product_kernel(emulate: EmulatedThreads | None = None) -> tirx.PrimFunc:
    """``kernel(tables, left, right, out, left_at, right_at, count, piece, lefts, rights, out_at)``.

    Piece p of `piece` nodes: ``out[out_at + (p * lefts + i) * rights + j]`` is the sum over its nodes of ``left[i] *
    right[j]``, where a node's rows begin at ``tables[left_at + node]`` and ``tables[right_at + node]``.
    """
    threads: Threads = emulate or GpuThreads(cooperative=False)
    with IRBuilder() as builder, T.prim_func():
        _begin(PRODUCT)
        tables, left, right, out = _buffers("tables", "left", "right", "out")
        left_at, right_at, count, piece, lefts, rights, out_at = _numbers(
            "left_at", "right_at", "count", "piece", "lefts", "rights", "out_at"
        )
        across = bind("across", _pieces(rights, TILE))
        tiles = bind("tiles", _pieces(lefts, TILE) * across)
        with threads.launch(bind("blocks", tiles * _pieces(count, piece))):
            sides = [threads.shared(name, DEPTH * TILE, _FLOAT) for name in ("left_rows", "right_rows")]
            totals = threads.registers("totals", 4)
            with threads.region():
                number = bind("number", tirx.truncdiv(threads.block, tiles))
                tile = bind("tile", tirx.truncmod(threads.block, tiles))
                first = bind("first", number * piece)
                nodes = bind("nodes", tirx.min(piece, count - first))
                columns = [
                    bind("left_column", tirx.truncdiv(tile, across) * TILE),
                    bind("right_column", tirx.truncmod(tile, across) * TILE),
                ]
                with threads.phase(), threads.unrolled("q", 4) as q:
                    totals.store(tirx.const(0, _FLOAT), q)
                with loop("depth", _pieces(nodes, DEPTH)) as depth:
                    with threads.phase():
                        for side, source, at, width, column in zip(
                            sides, (left, right), (left_at, right_at), (lefts, rights), columns, strict=True
                        ):
                            with threads.unrolled("u", DEPTH * TILE // BLOCK) as u:
                                place = u * BLOCK + threads.thread
                                node = depth * DEPTH + tirx.truncdiv(place, TILE)
                                own = column + tirx.truncmod(place, TILE)
                                value = source[tables[at + first + node] + own]
                                inside = tirx.And(node < nodes, own < width)
                                T.buffer_store(side, tirx.if_then_else(inside, value, tirx.const(0, _FLOAT)), [place])
                    with threads.phase():
                        row, column = _places(threads)
                        with loop("node", DEPTH) as node, threads.unrolled("a", 2) as a, threads.unrolled("b", 2) as b:
                            x = sides[0][node * TILE + 2 * row + a]
                            d = sides[1][node * TILE + 2 * column + b]
                            totals.store(totals.load(2 * a + b) + x * d, 2 * a + b)
                with threads.phase():
                    row, column = _places(threads)
                    with threads.unrolled("a", 2) as a, threads.unrolled("b", 2) as b:
                        i = bind("i", columns[0] + 2 * row + a)
                        j = bind("j", columns[1] + 2 * column + b)
                        with T.If(tirx.And(i < lefts, j < rights)), T.Then():
                            to = out_at + (number * lefts + i) * rights + j
                            T.buffer_store(out, totals.load(2 * a + b), [to])
    return builder.get()


def sums_kernel(emulate: EmulatedThreads | None = None) -> tirx.PrimFunc:
    """``kernel(tables, rows, out, rows_at, starts_at, count, width, out_at, stride)``.

    ``out[out_at + s * stride + j]`` is the sum of element `j` of the rows that begin at ``tables[rows_at + i]``, for i
    from ``tables[starts_at + s]`` up to ``tables[starts_at + s + 1]``; there are `count` such sums.
    """
    threads: Threads = emulate or GpuThreads(cooperative=False)
    with IRBuilder() as builder, T.prim_func():
        _begin(SUMS)
        tables, rows, out = _buffers("tables", "rows", "out")
        rows_at, starts_at, count, width, out_at, stride = _numbers(
            "rows_at", "starts_at", "count", "width", "out_at", "stride"
        )
        with threads.launch(bind("blocks", _pieces(count * width, BLOCK))):
            total = threads.registers("total", 1)
            with threads.region(), threads.phase():
                place = bind("place", threads.block * BLOCK + threads.thread)
                with T.If(place < count * width), T.Then():
                    number = bind("number", tirx.truncdiv(place, width))
                    column = bind("column", tirx.truncmod(place, width))
                    begin = bind("begin", tables[starts_at + number])
                    total.store(tirx.const(0, _FLOAT), 0)
                    with loop("i", tables[starts_at + number + 1] - begin) as i:
                        total.store(total.load(0) + rows[tables[rows_at + begin + i] + column], 0)
                    T.buffer_store(out, total.load(0), [out_at + number * stride + column])
    return builder.get()


def _begin(name: str) -> None:
    T.func_name(name)
    T.func_attr({"global_symbol": name, "tirx.noalias": True})


def _buffers(*names: str) -> list[Any]:
    """Vectors of any length as parameters; the first one holds int32."""
    return [
        T.arg(
            name,
            T.buffer((tirx.Var(f"{name}_elements", _INT),), _FLOAT if place else _INT, align=abi.ALIGNMENT),
        )
        for place, name in enumerate(names)
    ]


def _numbers(*names: str) -> list[Any]:
    return [T.arg(name, tirx.Var(name, _INT)) for name in names]


def _pieces(extent: Any, size: Any) -> Any:
    return tirx.truncdiv(extent + size - 1, size)


def _places(threads: Threads) -> tuple[Any, Any]:
    """The place of a thread in a tile."""
    half = TILE // 2
    return tirx.truncdiv(threads.thread, half), tirx.truncmod(threads.thread, half)

"""How the weights of a stage are packed for a GPU: once, at load, by code for the CPU.

``[chunk of 8 columns][sweep][k][gate][column]``, for tensor cores ``[chunk][sweep][block of k][gate][word][column]``,
then the stage's vectors ``[vector][column]`` of that chunk. What a tile copies for one depth of k is then one run of
memory for each chunk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tvm
import tvm_ffi
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T

from schedules import abi
from schedules import stage as ir
from schedules.cuda.arguments import packed_shape
from schedules.cuda.products import FLOAT32, WORDS, Products
from schedules.cuda.tiles import PACK_LANES, sweeps_of


def pack_kernel(stage: ir.Stage, weights: dict[Any, str], products: Products = FLOAT32) -> tirx.PrimFunc:
    """The function ``pack(weights..., packed)`` of `stage`.

    Parameters
    ----------
    weights : dict from buffer to name
        The weight parameters that the stage's expressions read.
    """
    chunks, per_chunk = packed_shape(stage, products)
    expressions = [one.weight for gate in stage.gates for one in gate.passes if isinstance(one, ir.Pass)]
    used = [b for b in weights if any(reads(e, b) for e in [*expressions, *stage.vectors])]
    name = f"{stage.name}_pack"
    with IRBuilder() as builder, T.prim_func():
        T.func_name(name)
        buffers = {old: T.arg(old.name, T.buffer(list(old.shape), str(old.dtype), align=4)) for old in used}
        packed = T.arg("packed", T.buffer((chunks, per_chunk), "float32", align=abi.ALIGNMENT))
        texts = [f"weight:{weights[b]}" for b in used] + [f"packed:{stage.name}"]
        T.func_attr({"global_symbol": name, "tirx.noalias": True, abi.ARGUMENTS: texts})
        with T.serial(0, chunks) as chunk, T.serial(0, PACK_LANES) as lane:
            column = chunk * PACK_LANES + lane

            def value(expression: Any, inside: Any, values: dict[Any, Any]) -> Any:
                values = {v: tirx.Cast("int64", at) for v, at in {**values, stage.column: column}.items()}
                found = rewritten(expression, values, buffers)
                return tirx.if_then_else(tirx.And(column < stage.columns, inside), found, tirx.const(0, "float32"))

            at = 0
            words = WORDS if products.on_tensor_cores else 1
            for sweep in sweeps_of(stage, products):
                with T.serial(0, -(-sweep.length // products.block)) as block, T.serial(0, words) as word:
                    for place, one in enumerate(sweep.passes):
                        values = []
                        for part in range(products.per_word):
                            k = block * products.block + word * products.per_word + part
                            values.append(value(one.weight, k < sweep.length, {one.k: k}))
                        row = (block * len(sweep.gates) + place) * words + word
                        T.buffer_store(packed, products.packed(values), [chunk, sweep.base + row * PACK_LANES + lane])
                at = sweep.base + sweep.size
            for number, vector in enumerate(stage.vectors):
                T.buffer_store(packed, value(vector, True, {}), [chunk, at + number * PACK_LANES + lane])
    return builder.get()


def reads(expression: Any, buffer: Any) -> bool:
    """Whether `expression` reads `buffer`."""
    found: list[Any] = []
    keep: Callable[[Any], None] = found.append
    tvm_ffi.structural_walk(expression, (tvm.ir.TensorLoad, lambda load: keep(load.source)))
    return any(other.same_as(buffer) for other in found)


def rewritten(expression: Any, values: dict[Any, Any], buffers: dict[Any, Any]) -> Any:
    """`expression` with variables replaced by `values` and loads moved to `buffers`."""

    def load(node: Any) -> Any:
        return tirx.BufferLoad(buffers[node.source], node.indices)

    moved = tvm_ffi.structural_map(expression, (tirx.Var, lambda variable: values.get(variable, variable)))
    return tvm_ffi.structural_map(moved, (tvm.ir.TensorLoad, load))

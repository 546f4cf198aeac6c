"""How the weights of a stage are packed for a GPU: once, at load, by code for the CPU.

``[chunk of 8 columns][sweep][k][gate][column]``, for tensor cores ``[chunk][sweep][block of k][gate][word][column]``,
then the stage's vectors ``[vector][column]`` of that chunk. What a tile copies for one depth of k is then one run of
memory for each chunk.
"""

from __future__ import annotations

from typing import Any

from tvm.script.ir_builder import IRBuilder

from edbatch_tvm.tvm_compat import builder_tirx as T
from edbatch_tvm.tvm_compat import tirx
from schedules import stage as ir
from schedules.cuda.kernel_arguments import packed_shape
from schedules.cuda.product_precision import FLOAT32, WORDS, Products
from schedules.cuda.tiles import PACK_LANES, sweeps_of
from schedules.weight_packing import declare_pack, rewritten


def pack_kernel(stage: ir.Stage, weights: dict[Any, str], products: Products = FLOAT32) -> tirx.PrimFunc:
    """The function ``pack(weights..., packed)`` of `stage`.

    Parameters
    ----------
    weights : dict from buffer to name
        The weight parameters that the stage's expressions read.
    """
    chunks, per_chunk = packed_shape(stage, products)
    with IRBuilder() as builder, T.prim_func():
        buffers, packed = declare_pack(stage, weights, (chunks, per_chunk))
        with T.serial(0, chunks) as chunk, T.serial(0, PACK_LANES) as lane:
            column = chunk * PACK_LANES + lane

            def value(expression: Any, inside: Any, values: dict[Any, Any]) -> Any:
                found = rewritten(expression, {**values, stage.column: column}, buffers)
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

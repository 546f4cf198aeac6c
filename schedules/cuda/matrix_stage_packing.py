"""How the weights of stages of matrices are packed: one vector of everything, each part aligned to 16 bytes."""

from __future__ import annotations

from typing import Any

from tvm.script.ir_builder import IRBuilder

from edbatch_tvm.tvm_compat import builder_tirx as T
from edbatch_tvm.tvm_compat import tirx
from schedules import abi
from schedules import stage as ir
from schedules.weight_packing import declare_pack, rewritten, uses


class MatrixPacking:
    """Where the weights of `stage` lie.

    Attributes
    ----------
    vectors : list of (position, elements per row or 0)
        ``[row][column]`` each, one row where a vector does not depend on it.
    factors : dict
        By gate and place among its passes: weights of a pass ``[k][column]``, left factors ``[row][k]``.
    size : int
    """

    def __init__(self, stage: ir.Stage) -> None:
        self.vectors: list[tuple[int, int]] = []
        self.factors: dict[tuple[int, int], int] = {}
        self.size = 0
        for vector in stage.vectors:
            by_row = stage.rows > 1 and uses(vector, stage.row)
            self.vectors.append((self.size, stage.columns if by_row else 0))
            self._add(stage.columns * (stage.rows if by_row else 1))
        for number, gate in enumerate(stage.gates):
            for place, one in enumerate(gate.passes):
                if isinstance(one, ir.Product) and isinstance(one.left, ir.Read):
                    continue
                self.factors[number, place] = self.size
                self._add(one.length * (stage.columns if isinstance(one, ir.Pass) else stage.rows))

    def _add(self, elements: int) -> None:
        self.size += abi.padded(elements, 4)


def matrix_pack_kernel(stage: ir.Stage, weights: dict[Any, str]) -> tirx.PrimFunc:
    """The function ``pack(weights..., packed)``; see :func:`schedules.cuda.weight_packing.pack_kernel`."""
    packing = MatrixPacking(stage)
    parts: list[tuple[Any, int, int, int, Any, Any]] = []
    for vector, (base, by_row) in zip(stage.vectors, packing.vectors, strict=True):
        parts.append((vector, base, stage.rows if by_row else 1, stage.columns, stage.row, stage.column))
    for (gate, place), base in packing.factors.items():
        one = stage.gates[gate].passes[place]
        if isinstance(one, ir.Pass):
            parts.append((one.weight, base, one.length, stage.columns, one.k, stage.column))
        else:
            parts.append((one.left, base, stage.rows, one.length, stage.row, one.k))
    with IRBuilder() as builder, T.prim_func():
        buffers, packed = declare_pack(stage, weights, (packing.size,))
        for expression, base, rows, columns, row, column in parts:
            with T.serial(0, rows) as i, T.serial(0, columns) as j:
                values = {column: j} | ({} if row is None else {row: i})
                T.buffer_store(packed, rewritten(expression, values, buffers), [base + i * columns + j])
    return builder.get()

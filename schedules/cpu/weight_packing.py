"""How the weights of a stage are packed: once, at load, in the order its kernel reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvm.script.ir_builder import IRBuilder

from edbatch_tvm.tvm_compat import builder_tirx as T
from edbatch_tvm.tvm_compat import tirx
from schedules import stage as ir
from schedules.cpu.machine import Machine
from schedules.cpu.stage_config import chunks_of, first_column, gate_groups, lanes_of
from schedules.weight_packing import declare_pack, rewritten, uses


@dataclass(frozen=True)
class Sweep:
    """Passes of several gates over the same elements of one source: x is loaded once for all of them.

    ``base`` is where its weights begin within those of a chunk.
    """

    source: ir.Source
    offset: int
    length: int
    row: int
    gates: tuple[int, ...]
    passes: tuple[ir.Pass, ...]
    base: int


@dataclass(frozen=True, eq=False)
class Packing:
    """Where the packed weights of a stage lie, in one vector.

    First the weights of the sweeps, ``[chunk][sweep][k][gate][lane]``; then the vectors, ``[row][chunk][lane]`` each
    (one row where a vector does not depend on it); then the left factors of products, ``[row][k]`` each.

    Attributes
    ----------
    sweeps : tuple of Sweep
    per_chunk : int
        Elements of the sweeps' weights for one chunk.
    vectors : tuple of (position, elements per row or 0)
    factors : dict
        By gate and place among its passes: position of the left factor, where it is made of weights.
    size : int
        Elements in all.
    """

    lanes: int
    chunks: int
    sweeps: tuple[Sweep, ...]
    per_chunk: int
    vectors: tuple[tuple[int, int], ...]
    factors: dict[tuple[int, int], int]
    size: int


def packing_of(stage: ir.Stage, machine: Machine) -> Packing:
    """The packing of `stage`; it does not depend on how the kernel is tiled."""
    lanes, chunks = lanes_of(stage, machine), chunks_of(stage, machine)
    sweeps: list[Sweep] = []
    base = 0
    for group in gate_groups(stage, machine):
        for (source, offset, length, row), members in _passes(stage, group).items():
            gates = tuple(number for number, _ in members)
            sweeps.append(Sweep(source, offset, length, row, gates, tuple(one for _, one in members), base))
            base += length * len(gates) * lanes
    size, vectors, factors = base * chunks, [], {}
    for vector in stage.vectors:
        by_row = stage.rows > 1 and uses(vector, stage.row)
        vectors.append((size, chunks * lanes if by_row else 0))
        size += chunks * lanes * (stage.rows if by_row else 1)
    for number, gate in enumerate(stage.gates):
        for place, one in enumerate(gate.passes):
            if isinstance(one, ir.Product) and not isinstance(one.left, ir.Read):
                factors[number, place] = size
                size += stage.rows * one.length
    return Packing(lanes, chunks, tuple(sweeps), base, tuple(vectors), factors, size)


def _passes(
    stage: ir.Stage, gates: tuple[int, ...]
) -> dict[tuple[ir.Source, int, int, int], list[tuple[int, ir.Pass]]]:
    """The passes of some gates by the elements they read."""
    found: dict[tuple[ir.Source, int, int, int], list[tuple[int, ir.Pass]]] = {}
    for number in gates:
        for one in stage.gates[number].passes:
            if isinstance(one, ir.Pass):
                found.setdefault((one.source, one.offset, one.length, one.row), []).append((number, one))
    return found


def pack_kernel(stage: ir.Stage, machine: Machine, weights: dict[Any, str]) -> tirx.PrimFunc:
    """The function that packs the weights of `stage`; see :class:`Packing`.

    Parameters
    ----------
    weights : dict from buffer to name
        The weight parameters that the stage's expressions read.
    """
    packing = packing_of(stage, machine)
    lanes = packing.lanes
    with IRBuilder() as builder, T.prim_func():
        buffers, packed = declare_pack(stage, weights, (packing.size,))

        def store(expression: Any, position: Any, values: dict[Any, Any], inside: Any = None) -> None:
            value = rewritten(expression, values, buffers)
            if inside is not None:
                value = tirx.if_then_else(inside, value, tirx.const(0, stage.dtype))
            T.buffer_store(packed, value, [position])

        # The lanes of a vector one after the other: rows of weights are read, and packed ones written, in their order.
        with T.serial(0, packing.chunks) as chunk:
            first = first_column(stage, machine, chunk)
            for sweep in packing.sweeps:
                with T.serial(0, sweep.length) as k:
                    for place, one in enumerate(sweep.passes):
                        begin = chunk * packing.per_chunk + sweep.base + (k * len(sweep.gates) + place) * lanes
                        with T.serial(0, lanes) as lane:
                            column = first + lane
                            store(one.weight, begin + lane, {one.k: k, stage.column: column}, column < stage.columns)
            for vector, (base, by_row) in zip(stage.vectors, packing.vectors, strict=True):
                with T.serial(0, stage.rows if by_row else 1) as i, T.serial(0, lanes) as lane:
                    column = first + lane
                    position = base + i * by_row + chunk * lanes + lane
                    values = {stage.column: column} | ({stage.row: i} if by_row else {})
                    store(vector, position, values, column < stage.columns)
        for (gate, place), base in packing.factors.items():
            product = stage.gates[gate].passes[place]
            assert isinstance(product, ir.Product)
            with T.serial(0, stage.rows) as i, T.serial(0, product.length) as k:
                store(product.left, base + i * product.length + k, {product.k: k, stage.row: i})
    return builder.get()

"""Valid ranges of index attributes, read off the TIR of a cell.

A generated kernel that reads a table out of range crashes the process; the ranges found here let the graph be checked
before it runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tvm import IRModule

from edbatch_tvm.errors import CellError
from edbatch_tvm.graph.spec import CellSignature, Signature
from edbatch_tvm.tvm_compat import TensorLoad, structural_walk, tirx
from relay_ext.fuse_cells import CELL
from relay_ext.index_ranges import IndexRanges
from relay_ext.share_cells import members_of


def with_index_bounds(signature: Signature, fused: IRModule) -> Signature:
    """`signature` with the bound of every attribute that indexes a buffer.

    Parameters
    ----------
    fused : IRModule
        The cells as GuardIndices leaves them; equal cells may be one.

    Raises
    ------
    CellError
        If the range of an index is not known: the place of a store, or in a table that GuardIndices leaves alone.
    """
    first = {
        name: str(function.attrs[CELL])
        for function in fused.functions.values()
        for name, _ in members_of(function, str(function.attrs[CELL]))
    }
    bound = {name: _bound_cell(signature[name], fused[name]) for name in dict.fromkeys(first.values())}
    return Signature(_bound_like(cell, bound[first[cell.name]]) for cell in signature)


def bounds_of(signature: Signature) -> dict[str, list[int | None]]:
    """For each cell the bounds of its attributes."""
    return {cell.name: [attribute.bound for attribute in cell.attributes] for cell in signature}


def with_bounds(signature: Signature, bounds: Mapping[str, Sequence[int | None]]) -> Signature:
    """`signature` with the bounds that :func:`bounds_of` found."""
    cells = []
    for cell in signature:
        pairs = zip(cell.attributes, bounds[cell.name], strict=True)
        cells.append(replace(cell, attributes=tuple(replace(one, bound=bound) for one, bound in pairs)))
    return Signature(cells)


def _bound_like(cell: CellSignature, other: CellSignature) -> CellSignature:
    """`cell` with the bounds of a cell that is equal to it."""
    pairs = zip(cell.attributes, other.attributes, strict=True)
    return replace(cell, attributes=tuple(replace(mine, bound=its.bound) for mine, its in pairs))


def _bound_cell(cell: CellSignature, function: tirx.PrimFunc) -> CellSignature:
    ranges = IndexRanges(function)
    bounds: dict[str, int] = {a.name: a.bound for a in cell.attributes if a.bound is not None}

    def visit(buffer: Any, indices: Any) -> None:
        for extent, index in zip(buffer.shape, indices, strict=True):
            name = ranges.attribute(index)
            if name is not None and isinstance(extent, tirx.IntImm):
                bounds[name] = min(int(extent), bounds.get(name, int(extent)))
            elif not ranges.inside(index, extent):
                raise CellError(
                    f"cell {cell.name!r} indexes {buffer.name!r} with {index}, whose range is not known",
                    "an attribute itself as index, or an expression clipped to the table",
                )

    structural_walk(
        function.body,
        [
            (TensorLoad, lambda load: visit(load.source, load.indices)),
            (tirx.BufferStore, lambda store: visit(store.buffer, store.indices)),
        ],
    )
    return replace(cell, attributes=tuple(replace(a, bound=bounds.get(a.name)) for a in cell.attributes))

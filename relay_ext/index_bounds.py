"""Valid ranges of index attributes, read off the TIR of a cell.

A generated kernel that reads a table out of range crashes the process; the ranges found here let the graph be checked
before it runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import tvm
import tvm_ffi
from tvm import IRModule, sym, tirx

from edbatch_tvm.errors import CellError
from edbatch_tvm.graph.spec import CellSignature, Signature
from relay_ext.fuse_cells import CELL, NUM_INPUT
from relay_ext.share_cells import members_of


def with_index_bounds(signature: Signature, fused: IRModule) -> Signature:
    """`signature` with the bound of every attribute that indexes a buffer.

    Parameters
    ----------
    fused : IRModule
        The cells as FuseCells leaves them; equal cells may be one.

    Raises
    ------
    CellError
        If an attribute takes part in an index whose range is not known.
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
    if not cell.attributes:
        return cell
    params = {param: param.name for param in list(function.params)[: int(function.attrs[NUM_INPUT])]}
    names = {attribute.name for attribute in cell.attributes}
    attributes = {param: name for param, name in params.items() if name in names}
    bounds: dict[str, int] = {a.name: a.bound for a in cell.attributes if a.bound is not None}

    def visit(buffer: Any, indices: Any) -> None:
        for extent, index in zip(buffer.shape, indices, strict=True):
            bare = index
            while isinstance(bare, tirx.Cast):
                bare = bare.value
            if isinstance(bare, tvm.ir.TensorLoad) and bare.source in attributes and isinstance(extent, tirx.IntImm):
                name = attributes[bare.source]
                bounds[name] = min(int(extent), bounds.get(name, int(extent)))
            elif not _stays_inside(index, extent):
                raise CellError(
                    f"cell {cell.name!r} indexes {buffer.name!r} with {index}, whose range is not known",
                    "an attribute itself as index, or an expression clipped to the table",
                )

    tvm_ffi.structural_walk(
        function.body,
        [
            (tvm.ir.TensorLoad, lambda load: visit(load.source, load.indices)),
            (tirx.BufferStore, lambda store: visit(store.buffer, store.indices)),
        ],
    )
    return replace(cell, attributes=tuple(replace(a, bound=bounds.get(a.name)) for a in cell.attributes))


def _stays_inside(index: Any, extent: Any) -> bool:
    """True if `index` depends on no data, or lies in [0, extent) whatever the data is."""
    found = False

    def unknown(load: Any) -> Any:
        nonlocal found
        found = True
        return tirx.Var("unknown", load.ty.dtype)

    free = tvm_ffi.structural_map(index, (tvm.ir.TensorLoad, unknown))
    if not found:
        return True
    if str(index.ty.dtype).startswith("uint") and isinstance(extent, tirx.IntImm):
        return _stays_below(index, int(extent))
    analyzer = sym.Analyzer()
    return bool(analyzer.can_prove(free >= 0) and analyzer.can_prove(free < extent))


def _stays_below(index: Any, extent: int) -> bool:
    """The same for an unsigned `index`, which the analyzer does not take: what was clipped last decides."""
    if isinstance(index, tirx.Min):
        return any(isinstance(side, tirx.IntImm) and int(side) < extent for side in (index.a, index.b))
    if isinstance(index, tirx.Mod | tirx.FloorMod):
        return isinstance(index.b, tirx.IntImm) and 0 < int(index.b) <= extent
    return False

"""Pass: no index that a cell computes reads outside its table."""

from __future__ import annotations

from typing import Any

import tvm
from tvm import IRModule

from edbatch_tvm.tvm_compat import TensorLoad, structural_map, tirx
from relay_ext.index_ranges import IndexRanges

OUTSIDE = -(2**30)
"""What a table of integers gives for an index outside of it."""


@tvm.transform.module_pass(opt_level=0, name="GuardIndices")
class GuardIndices:
    """Reads at a computed index of unknown range give NaN where it is outside the table.

    Before::

        i[0] = T.Cast("int64", x[0])
        y[j] = table[i[0], j]

    After::

        y[j] = T.Select(0 <= i[0] < 16, table[T.max(T.min(i[0], 15), 0), j], nan)

    PyTorch raises an error there, which a kernel cannot. Tables of integers give :data:`OUTSIDE`. Attributes are
    checked before a batch runs (:mod:`relay_ext.index_bounds`): reads at an attribute stay as they are.
    """

    def transform_module(self, mod: IRModule, _context: tvm.transform.PassContext) -> IRModule:
        """Run the pass."""
        return IRModule({var: _guarded(function) for var, function in mod.functions.items()}, attrs=mod.attrs)


def _guarded(function: tirx.PrimFunc) -> tirx.PrimFunc:
    ranges = IndexRanges(function)

    def read(load: Any) -> Any:
        buffer, indices, inside = load.source, list(load.indices), None
        for dim, (extent, index) in enumerate(zip(buffer.shape, load.indices, strict=True)):
            fixed = isinstance(extent, tirx.IntImm)
            if not fixed or ranges.attribute(index) is not None or ranges.inside(index, extent):
                continue
            dtype = str(index.ty.dtype)
            least, most = tirx.const(0, dtype), tirx.const(int(extent) - 1, dtype)
            here = tirx.And(index >= least, index <= most)
            inside = here if inside is None else tirx.And(inside, here)
            indices[dim] = tirx.Max(tirx.Min(index, most), least)
        nothing = _nothing(str(buffer.dtype))
        if inside is None or nothing is None:
            return load
        return tirx.Select(inside, tirx.BufferLoad(buffer, indices), nothing)

    body = structural_map(function.body, (TensorLoad, read), order="post")
    return function.with_body(body)


def _nothing(dtype: str) -> Any:
    """What says in a table of `dtype` that there is no such element; None if nothing can."""
    if dtype.startswith(("float", "bfloat")):
        return tirx.const(float("nan"), dtype)
    return tirx.const(OUTSIDE, dtype) if dtype in ("int32", "int64") else None

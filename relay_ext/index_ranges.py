"""What is known of the integers in the TIR of a cell: ranges, and which of them are attributes."""

from __future__ import annotations

from typing import Any

import tvm

from edbatch_tvm.tvm_compat import SBlock, TensorLoad, structural_map, structural_walk, sym, tirx
from relay_ext.fuse_cells import cell_params


class IndexRanges:
    """Ranges of integer expressions in a cell as FuseCells leaves it.

    A buffer of integers has the range of all that is stored to it; one that holds nothing but the elements of an
    attribute stands for the attribute.
    """

    def __init__(self, function: tirx.PrimFunc) -> None:
        self._ranges: dict[Any, tuple[int, int] | None] = {}
        self._copies: dict[Any, str | None] = {
            param: param.name for param in cell_params(function).inputs if _is_integer(param.dtype)
        }
        self._variables: dict[Any, Any] = {}
        structural_walk(function.body, [(SBlock, self._block), (tirx.For, self._loop)])
        structural_walk(function.body, [(tirx.BufferStore, self._store)])

    def attribute(self, index: Any) -> str | None:
        """The attribute of which `index` is an element, as it is; None if it is something else."""
        while isinstance(index, tirx.Cast) and _is_integer(index.value.ty.dtype):
            index = index.value
        return self._copies.get(index.source) if isinstance(index, TensorLoad) else None

    def inside(self, index: Any, extent: Any) -> bool:
        """True if `index` depends on no data, or lies in [0, extent) whatever the data is."""
        depends, free, analyzer = self._free(index)
        if not depends:
            return True
        if not isinstance(extent, tirx.IntImm):
            return bool(analyzer.can_prove(free >= 0) and analyzer.can_prove(free < extent))
        found = _bound(analyzer, free)
        return found is not None and found[0] >= 0 and found[1] < int(extent)

    def _block(self, block: SBlock) -> None:
        for one in block.iter_vars:
            self._variables[one.var] = one.dom

    def _loop(self, loop: tirx.For) -> None:
        self._variables[loop.loop_var] = tvm.ir.Range.from_min_extent(loop.min, loop.extent)

    def _store(self, store: tirx.BufferStore) -> None:
        buffer = store.buffer
        if not _is_integer(buffer.dtype) or (buffer in self._copies and buffer not in self._ranges):
            return
        attribute, known = self.attribute(store.value), None
        if attribute is None:
            _, free, analyzer = self._free(store.value)
            known = _bound(analyzer, free)
        if buffer not in self._ranges:
            self._ranges[buffer], self._copies[buffer] = known, attribute
            return
        before = self._ranges[buffer]
        self._ranges[buffer] = None if before is None or known is None else _joined(before, known)
        self._copies[buffer] = attribute if attribute == self._copies[buffer] else None

    def _free(self, expression: Any) -> tuple[bool, Any, Any]:
        """Whether `expression` reads data, the expression over variables in place of what it reads, their ranges."""
        depends, analyzer = False, sym.Analyzer()

        def variable(load: Any) -> Any:
            nonlocal depends
            depends = True
            dtype = str(load.ty.dtype)
            found = tirx.Var("read", dtype)
            known = self._ranges.get(load.source)
            if known is not None:
                analyzer.bind(found, tvm.ir.Range(tirx.const(known[0], dtype), tirx.const(known[1] + 1, dtype)))
            return found

        free = structural_map(expression, (TensorLoad, variable))
        if depends:
            variables: list[Any] = []
            structural_walk(free, [(tirx.Var, variables.append)])
            for one in variables:
                if one in self._variables:
                    analyzer.bind(one, self._variables[one])
        return depends, free, analyzer


def _is_integer(dtype: Any) -> bool:
    return str(dtype).startswith(("int", "uint"))


def _bound(analyzer: Any, expression: Any) -> tuple[int, int] | None:
    """Least and greatest value of an integer expression; None if it is not known or leaves the range of its dtype."""
    dtype = str(expression.ty.dtype)
    if dtype.startswith("uint"):
        return (int(expression), int(expression)) if isinstance(expression, tirx.IntImm) else _unsigned(expression)
    if isinstance(expression, tirx.IntImm):
        least = most = int(expression)
    else:
        found = analyzer.const_int_bound(expression)
        least, most = int(found.min_value), int(found.max_value)
    limit = 2 ** (min(int(dtype.removeprefix("int")), 63) - 1)  # beyond it the code may wrap around
    return (least, most) if -limit < least and most < limit - 1 else None


def _unsigned(expression: Any) -> tuple[int, int] | None:
    """The same where the analyzer takes no part: what was clipped last decides."""
    if isinstance(expression, tirx.Min):
        most = [int(side) for side in (expression.a, expression.b) if isinstance(side, tirx.IntImm)]
        return (0, min(most)) if most else None
    if isinstance(expression, tirx.Mod | tirx.FloorMod):
        return (0, int(expression.b) - 1) if isinstance(expression.b, tirx.IntImm) and int(expression.b) > 0 else None
    return None


def _joined(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    return min(one[0], other[0]), max(one[1], other[1])

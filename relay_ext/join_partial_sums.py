"""Sums in interleaved parts, as :func:`relay_ext.row_sums.row_sum` writes them, read as one sum again.

A stage kernel sums the columns of a row in the lanes of a vector anyway.
"""

from __future__ import annotations

from typing import Any

import tvm

from edbatch_tvm.tvm_compat import TensorLoad, structural_equal, sym, tirx
from relay_ext.block_reader import Definition, Reduce
from relay_ext.tir_expressions import as_condition, substitute


def join_partial_sums(definitions: dict[Any, Definition]) -> dict[Any, Definition]:
    """`definitions`, with every sum of partial sums as the sum that it is.

    Before::

        p[i, lane] += x[i, 16 * k + lane] if 16 * k + lane < n else 0
        s[i] += p[i, lane]

    After::

        s[i] += x[i, j]                                      # j < n
    """
    joined = dict(definitions)
    for buffer, total in definitions.items():
        if isinstance(total, Reduce):
            whole = _whole_sum(total, definitions)
            joined[buffer] = total if whole is None else whole
    return joined


def _whole_sum(total: Reduce, definitions: dict[Any, Definition]) -> Reduce | None:
    """The sum that `total` is, if it adds up partial sums; else None."""
    load = total.source
    if total.combine != "sum" or not isinstance(load, TensorLoad):
        return None
    parts = definitions.get(load.source)
    lanes = [(var, extent) for var, extent in total.reduce_iters if load.indices[-1].same_as(var)]
    if not isinstance(parts, Reduce) or parts.combine != "sum" or len(lanes) != 1 or len(parts.reduce_iters) != 1:
        return None
    ((lane, lane_count),), ((k, count),) = lanes, parts.reduce_iters
    if not all(isinstance(extent, tirx.IntImm) for extent in (lane_count, count)):
        return None
    width = int(lane_count)
    place = tirx.Var("j", "int64")
    outer = dict(zip(parts.iters[:-1], load.indices[:-1], strict=True))

    def at(step: Any, offset: Any, limit: int) -> Any:
        """The element that is summed, where ``16 * k + lane`` is the place j."""
        analyzer = sym.Analyzer()
        analyzer.bind(place, tvm.ir.Range(0, limit))
        values = {k: tirx.Cast(k.ty.dtype, step), parts.iters[-1]: tirx.Cast(parts.iters[-1].ty.dtype, offset)}
        return analyzer.simplify(substitute(parts.source, {**outer, **values}))

    limit: int | None = width * int(count)
    condition = as_condition(at(tirx.const(0, "int64"), place, width * int(count)))
    if condition is not None:
        limit = _bound(condition, place)
    if limit is None:
        return None
    source = at(tirx.const(0, "int64"), place, limit)
    if not structural_equal(source, at(tirx.floordiv(place, width), tirx.floormod(place, width), limit)):
        return None
    others = tuple((var, extent) for var, extent in total.reduce_iters if not var.same_as(lane))
    return Reduce(total.iters, (*others, (place, tirx.const(limit, "int64"))), source)


def _bound(condition: tuple[Any, Any, Any], place: Any) -> int | None:
    """The bound of the condition ``place < bound``, beyond which 0 is added; None if it is another one."""
    test, _, otherwise = condition
    zero = isinstance(otherwise, tirx.FloatImm) and float(otherwise.value) == 0
    if zero and isinstance(test, tirx.LT) and test.a.same_as(place) and isinstance(test.b, tirx.IntImm):
        return int(test.b)
    return None

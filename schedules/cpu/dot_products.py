"""Sums of products along the lanes: both factors lie side by side in memory, as in a matrix times a vector."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edbatch_tvm.tvm_compat import builder_tirx as T
from edbatch_tvm.tvm_compat import tirx
from schedules import stage as ir

_INT = "int32"


def weights_from(packed: Any, factor: int, row: Any, one: ir.Product) -> Callable[[Any], Any]:
    """The elements of a left factor that is made of weights, by their position in one row."""
    return lambda position: packed[moved(position, factor + row * one.length)]


def moved(position: Any, offset: Any) -> Any:
    """`position`, a number or a vector of them, `offset` further on."""
    if isinstance(position, tirx.Ramp):
        return tirx.Ramp(position.base + offset, position.stride, position.lanes)
    return position + offset


def dot(
    left: Callable[[Any], Any], right: Callable[[Any], Any], starts: list[Any], length: int, lanes: int, dtype: str
) -> list[Any]:
    """Dot products of `left` and of `right` from each of `starts` on, as expressions."""
    whole = length // lanes * lanes
    vector = tirx.Ramp(0, 1, lanes)
    totals = [T.alloc_buffer((lanes,), dtype, scope="global") for _ in starts]
    tails = [T.alloc_buffer((1,), dtype, scope="global") for _ in starts]
    for total, tail in zip(totals, tails, strict=True):
        T.buffer_store(total, tirx.Broadcast(tirx.const(0, dtype), lanes), [vector])
        T.buffer_store(tail, tirx.const(0, dtype), [0])
    with T.serial(0, whole // lanes) as k:
        x = left(tirx.Ramp(k * lanes, 1, lanes))
        for total, start in zip(totals, starts, strict=True):
            y = right(tirx.Ramp(start + k * lanes, 1, lanes))
            T.buffer_store(total, total[vector] + x * y, [vector])
    with T.serial(whole, length) as k:
        for tail, start in zip(tails, starts, strict=True):
            T.buffer_store(tail, tail[0] + left(k) * right(start + k), [0])
    return [_lane_sum(total, lanes) + tail[0] for total, tail in zip(totals, tails, strict=True)]


def _lane_sum(vector: Any, lanes: int) -> Any:
    """The sum of the lanes of a buffer, by halves."""
    value = vector[tirx.Ramp(0, 1, lanes)]
    while lanes > 1:
        lanes //= 2
        half = tirx.Var("v", value.ty)
        low = tirx.Shuffle([half], [tirx.const(i, _INT) for i in range(lanes)])
        high = tirx.Shuffle([half], [tirx.const(lanes + i, _INT) for i in range(lanes)])
        value = tirx.Let(half, value, low + high)
    return value

"""Typewise heights, and the schedule by depth."""

# ruff: noqa: D103
# mypy: ignore-errors

from tvm.script import tirx as T

from edbatch_tvm.native.constants import BATCHES, LANES
from edbatch_tvm.native.tir.shared import longest_depths, typewise_heights


@T.prim_func
def heights(
    node_type_: T.handle,
    use_ptr_: T.handle,
    user_: T.handle,
    height_: T.handle,
):
    n = T.int32()
    e = T.int32()
    p = T.int32()
    node_type = T.match_buffer(node_type_, (n,), "int16", align=2)
    use_ptr = T.match_buffer(use_ptr_, (n + 1,), "int32", align=4)
    user = T.match_buffer(user_, (e,), "int32", align=4)
    height = T.match_buffer(height_, (n, p), "int32", align=4)
    typewise_heights(n, T.truncdiv(p, LANES), node_type, use_ptr, user, height)


@T.prim_func
def depth_schedule(
    node_type_: T.handle,
    use_ptr_: T.handle,
    user_: T.handle,
    depth_: T.handle,
    by_depth_: T.handle,
    level_end_: T.handle,
    count_: T.handle,
    order_: T.handle,
    batch_ptr_: T.handle,
    batch_type_: T.handle,
    io_: T.handle,
):
    n = T.int32()
    e = T.int32()
    t = T.int32()
    io_size = T.int32()
    node_type = T.match_buffer(node_type_, (n,), "int16", align=2)
    use_ptr = T.match_buffer(use_ptr_, (n + 1,), "int32", align=4)
    user = T.match_buffer(user_, (e,), "int32", align=4)
    depth = T.match_buffer(depth_, (n,), "int32", align=4)
    by_depth = T.match_buffer(by_depth_, (n,), "int32", align=4)
    level_end = T.match_buffer(level_end_, (n,), "int32", align=4)
    count = T.match_buffer(count_, (t,), "int32", align=4)
    order = T.match_buffer(order_, (n,), "int32", align=4)
    batch_ptr = T.match_buffer(batch_ptr_, (n + 1,), "int32", align=4)
    batch_type = T.match_buffer(batch_type_, (n,), "int16", align=2)
    io = T.match_buffer(io_, (io_size,), "int64", align=8)
    longest_depths(n, use_ptr, user, depth)
    levels = 0
    for v in range(n):
        level_end[v] = 0
    for v in range(n):
        level_end[depth[v]] += 1
        levels = T.max(levels, depth[v] + 1)
    before = 0
    for d in range(levels):
        size: T.let = level_end[d]
        level_end[d] = before
        before += size
    for v in range(n):
        by_depth[level_end[depth[v]]] = v
        level_end[depth[v]] += 1
    batches = 0
    first = 0
    batch_ptr[0] = 0
    for d in range(levels):
        size: T.let = level_end[d] - first
        for u in range(t):
            count[u] = 0
        for i in range(size):
            count[T.Cast("int32", node_type[by_depth[first + i]])] += 1
        filled = first
        for u in range(t):
            if count[u] > 0:
                batch_type[batches] = T.Cast("int16", u)
                batches += 1
                share: T.let = count[u]
                count[u] = filled
                filled += share
                batch_ptr[batches] = filled
        for i in range(size):
            v: T.let = by_depth[first + i]
            u: T.let = T.Cast("int32", node_type[v])
            order[count[u]] = v
            count[u] += 1
        first = level_end[d]
    io[BATCHES] = T.Cast("int64", batches)

"""Typewise heights, and the schedule by depth."""

# ruff: noqa: D103, F823
# mypy: ignore-errors

from edbatch_tvm.native.constants import BATCHES, LANES
from edbatch_tvm.native.tir.buffers import GraphArguments, ScheduleResults, argument, size
from edbatch_tvm.native.tir.depths_and_heights import longest_depths, typewise_heights
from edbatch_tvm.tvm_compat import script_tirx as T


@T.prim_func
def heights(
    node_type_: T.handle,
    use_ptr_: T.handle,
    user_: T.handle,
    height_: T.handle,
):
    graph = T.meta_var(GraphArguments(node_type_, use_ptr_, user_))
    columns = T.int32()
    height = T.meta_var(argument(height_, (graph.n, columns)))
    typewise_heights(graph.n, T.truncdiv(columns, LANES), graph.node_type, graph.use_ptr, graph.user, height)


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
    graph = T.meta_var(GraphArguments(node_type_, use_ptr_, user_))
    n = T.meta_var(graph.n)
    t = T.int32()
    node_type = T.meta_var(graph.node_type)
    depth = T.meta_var(argument(depth_, (n,)))
    by_depth = T.meta_var(argument(by_depth_, (n,)))
    level_end = T.meta_var(argument(level_end_, (n,)))
    count = T.meta_var(argument(count_, (t,)))
    results = T.meta_var(ScheduleResults(n, order_, batch_ptr_, batch_type_))
    order = T.meta_var(results.order)
    batch_ptr = T.meta_var(results.batch_ptr)
    batch_type = T.meta_var(results.batch_type)
    io = T.meta_var(argument(io_, (size("io_size"),), "int64"))
    longest_depths(n, graph.use_ptr, graph.user, depth)
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

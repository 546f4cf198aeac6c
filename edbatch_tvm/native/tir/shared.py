"""Depths, typewise heights and grouping by batch, expanded in the kernels."""

# ruff: noqa: D103
# mypy: ignore-errors

from tvm.script import tirx as T

from edbatch_tvm.native.constants import LANES

WAITS, USES, TYPE, BATCH = range(4)
"""Columns of the `node` table of the stepping kernels."""


@T.inline
def longest_depths(n, use_ptr, user, depth):
    # depth[v] = edges on the longest path that ends at v.
    for v in range(n):
        depth[v] = 0
    for v in range(n):
        next_depth: T.let = depth[v] + 1
        begin: T.let = use_ptr[v]
        for i in range(use_ptr[v + 1] - begin):
            s: T.let = user[begin + i]
            depth[s] = T.max(depth[s], next_depth)


@T.inline
def typewise_heights(n, chunks, node_type, use_ptr, user, height):
    # height[v, t] = largest number of type-t nodes on a path that starts at v; columns are padded with zeros.
    for i in range(n):
        v: T.let = n - 1 - i
        for c in range(chunks):
            for j in T.vectorized(LANES):
                height[v, c * LANES + j] = 0
        begin: T.let = use_ptr[v]
        for k in range(use_ptr[v + 1] - begin):
            s: T.let = user[begin + k]
            for c in range(chunks):
                for j in T.vectorized(LANES):
                    height[v, c * LANES + j] = T.max(height[v, c * LANES + j], height[s, c * LANES + j])
        own: T.let = T.Cast("int32", node_type[v])
        # As vectors: a vector load right after a store of one element has to wait for it.
        for c in range(chunks):
            for j in T.vectorized(LANES):
                height[v, c * LANES + j] += T.Select(c * LANES + j == own, 1, 0)


@T.inline
def group_by_batch(n, batches, node, batch_ptr, cursor, order):
    # Counting sort of the nodes by batch; nodes of a batch stay in node order.
    for b in range(batches):
        cursor[b] = batch_ptr[b]
    for v in range(n):
        b: T.let = node[v, BATCH]
        order[cursor[b]] = v
        cursor[b] += 1

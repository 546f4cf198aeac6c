"""Depths, typewise heights, and rows of typewise numbers as vectors."""

# ruff: noqa: D103
# mypy: ignore-errors

from edbatch_tvm.native.constants import LANES
from edbatch_tvm.native.tir.inlined import inlined
from edbatch_tvm.tvm_compat import script_tirx as T


@inlined
def clear_row(chunks, table, row):
    for c in range(chunks):
        for j in T.vectorized(LANES):
            table[row, c * LANES + j] = 0


@inlined
def raise_row(chunks, table, row, other_table, other):
    # table[row] = the maximum of that row and another.
    for c in range(chunks):
        for j in T.vectorized(LANES):
            table[row, c * LANES + j] = T.max(table[row, c * LANES + j], other_table[other, c * LANES + j])


@inlined
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


@inlined
def typewise_heights(n, chunks, node_type, use_ptr, user, height):
    # height[v, t] = largest number of type-t nodes on a path that starts at v; columns are padded with zeros.
    for i in range(n):
        v: T.let = n - 1 - i
        begin: T.let = use_ptr[v]
        uses: T.let = use_ptr[v + 1] - begin
        own: T.let = T.Cast("int32", node_type[v])
        # Most nodes have one user or two: their row is written once. As vectors: a vector load right after a store of
        # one element has to wait for it.
        if uses == 1 or uses == 2:
            for c in range(chunks):
                for j in T.vectorized(LANES):
                    height[v, c * LANES + j] = T.max(
                        height[user[begin], c * LANES + j], height[user[begin + uses - 1], c * LANES + j]
                    ) + T.Select(c * LANES + j == own, 1, 0)
        else:
            clear_row(chunks, height, v)
            for k in range(uses):
                raise_row(chunks, height, v, height, user[begin + k])
            for c in range(chunks):
                for j in T.vectorized(LANES):
                    height[v, c * LANES + j] += T.Select(c * LANES + j == own, 1, 0)

"""Depths, typewise heights and grouping by batch, expanded in the kernels."""

# ruff: noqa: D103
# mypy: ignore-errors

from tvm.script import tirx as T

from edbatch_tvm.native.constants import LANES


@T.inline
def longest_depths(n, operand_ptr, operand_node, depth):
    # depth[v] = edges on the longest path that ends at v.
    for v in range(n):
        begin: T.let = operand_ptr[v]
        deepest = 0
        for i in range(operand_ptr[v + 1] - begin):
            p: T.let = operand_node[begin + i]
            if p >= 0:
                deepest = T.max(deepest, depth[p] + 1)
        depth[v] = deepest


@T.inline
def typewise_heights(n, chunks, node_type, operand_ptr, operand_node, height):
    # height[v, t] = largest number of type-t nodes on a path that starts at v; columns are padded with zeros.
    for v in range(n):
        for c in range(chunks):
            for j in T.vectorized(LANES):
                height[v, c * LANES + j] = 0
    for i in range(n):
        v: T.let = n - 1 - i
        height[v, T.Cast("int32", node_type[v])] += 1
        begin: T.let = operand_ptr[v]
        for k in range(operand_ptr[v + 1] - begin):
            p: T.let = operand_node[begin + k]
            if p >= 0:
                for c in range(chunks):
                    for j in T.vectorized(LANES):
                        height[p, c * LANES + j] = T.max(height[p, c * LANES + j], height[v, c * LANES + j])


@T.inline
def link_uses(n, operand_ptr, operand_node, first_use, next_use, user, indegree):
    # Uses of each node as linked lists, and the number of operands each node waits for.
    for v in range(n):
        first_use[v] = -1
    for v in range(n):
        begin: T.let = operand_ptr[v]
        waits = 0
        for i in range(operand_ptr[v + 1] - begin):
            producer: T.let = operand_node[begin + i]
            if producer >= 0:
                next_use[begin + i] = first_use[producer]
                first_use[producer] = begin + i
                user[begin + i] = v
                waits += 1
        indegree[v] = waits


@T.inline
def group_by_batch(n, batches, batch_of, batch_ptr, cursor, order):
    # Counting sort of the nodes by batch; nodes of a batch stay in node order.
    for b in range(batches):
        cursor[b] = batch_ptr[b]
    for v in range(n):
        b: T.let = batch_of[v]
        order[cursor[b]] = v
        cursor[b] += 1

"""Depths, typewise heights and grouping by batch, expanded in the kernels."""

# ruff: noqa: D103
# mypy: ignore-errors

from tvm.script import tirx as T

from edbatch_tvm.native.constants import LANES

WAITS, USES, TYPE, BATCH = range(4)
"""Columns of the `node` table of the stepping kernels."""


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
        own: T.let = T.Cast("int32", node_type[v])
        # As vectors: a vector load right after a store of one element has to wait for it.
        for c in range(chunks):
            for j in T.vectorized(LANES):
                height[v, c * LANES + j] += T.Select(c * LANES + j == own, 1, 0)
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
def list_uses(n, node_type, operand_ptr, operand_node, node, user):
    # Users of each node v as user[node[v, USES]:node[v + 1, USES]]; operands each node waits for; its type.
    for v in range(n + 1):
        node[v, USES] = 0
    for v in range(n):
        begin: T.let = operand_ptr[v]
        waits = 0
        for i in range(operand_ptr[v + 1] - begin):
            producer: T.let = operand_node[begin + i]
            if producer >= 0:
                node[producer, USES] += 1
                waits += 1
        node[v, WAITS] = waits
        node[v, TYPE] = T.Cast("int32", node_type[v])
    # Row v + 1 is the cursor of v while the list is filled: it begins at the first use of v and ends at that of v + 1.
    before = 0
    count = 0
    for v in range(n + 1):
        start: T.let = before
        before += count
        count = node[v, USES]
        node[v, USES] = start
    for v in range(n):
        begin: T.let = operand_ptr[v]
        for i in range(operand_ptr[v + 1] - begin):
            producer: T.let = operand_node[begin + i]
            if producer >= 0:
                at: T.let = node[producer + 1, USES]
                user[at] = v
                node[producer + 1, USES] = at + 1


@T.inline
def group_by_batch(n, batches, node, batch_ptr, cursor, order):
    # Counting sort of the nodes by batch; nodes of a batch stay in node order.
    for b in range(batches):
        cursor[b] = batch_ptr[b]
    for v in range(n):
        b: T.let = node[v, BATCH]
        order[cursor[b]] = v
        cursor[b] += 1

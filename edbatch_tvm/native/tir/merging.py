"""Merging: the arrays of a minibatch graph from those of its instances, in one pass over a table of addresses.

The same as :mod:`edbatch_tvm.graph.merge`; :mod:`edbatch_tvm.graph.array_addresses` defines the table.
"""

# ruff: noqa: D103
# mypy: ignore-errors

from edbatch_tvm.graph.array_addresses import (
    ATTRIBUTES,
    EDGES,
    INSTANCES,
    NODE_PTR,
    NODE_TYPE,
    NODES,
    OPERAND_PTR,
    OPERAND_VALUE,
    OUTPUT,
    OUTPUT_PTR,
    OUTPUTS,
    SCALAR,
    TYPE_COUNT,
    USE_PTR,
    USER,
    USES,
    WAITS,
)
from edbatch_tvm.tvm_compat import script_tirx as T

ANY = 1 << 30
"""Length of arrays that are known by their address only."""


@T.prim_func
def merge(
    stride: T.int32,
    wide: T.int32,  # values of the merged graph are node * wide + slot
    rows_: T.handle,
    node_type_: T.handle,
    # The int32 arrays of the merged graph one behind the other, in the order of their declarations below.
    block_: T.handle,
    scalar_: T.handle,
    type_count_: T.handle,
    # Address, bytes of a row and rows so far of each attribute of the merged graph.
    attribute_: T.handle,
):
    T.func_attr({"tirx.noalias": True})
    graphs = T.int32()
    columns = T.int32()
    n = T.int32()
    room = T.int32()
    instances = T.int32()
    types = T.int32()
    attributes = T.int32()
    rows = T.match_buffer(rows_, (graphs, columns), "int64", align=8)
    node_type = T.match_buffer(node_type_, (n,), "int16", align=2)
    block = T.match_buffer(block_, (room,), "int32", align=4)
    scalar = T.match_buffer(scalar_, (instances,), "int8", align=1)
    type_count = T.match_buffer(type_count_, (types,), "int64", align=8)
    attribute = T.match_buffer(attribute_, (attributes, 3), "int64", align=8)

    edge_total = 0
    use_total = 0
    output_total = 0
    for g in range(graphs):
        edge_total += T.Cast("int32", rows[g, EDGES])
        use_total += T.Cast("int32", rows[g, USES])
        output_total += T.Cast("int32", rows[g, OUTPUTS])
    edges: T.let = edge_total
    links: T.let = use_total
    declared: T.let = output_total
    operand_ptr = T.decl_buffer((n + 1,), "int32", data=block.data, elem_offset=0)
    operand_value = T.decl_buffer((edges,), "int32", data=block.data, elem_offset=n + 1)
    use_ptr = T.decl_buffer((n + 1,), "int32", data=block.data, elem_offset=n + 1 + edges)
    after_ptr: T.let = 2 * n + 2 + edges
    user = T.decl_buffer((links,), "int32", data=block.data, elem_offset=after_ptr)
    waits = T.decl_buffer((n,), "int32", data=block.data, elem_offset=after_ptr + links)
    output = T.decl_buffer((declared,), "int32", data=block.data, elem_offset=after_ptr + links + n)
    after_output: T.let = after_ptr + links + n + declared
    node_ptr = T.decl_buffer((instances + 1,), "int32", data=block.data, elem_offset=after_output)
    output_ptr = T.decl_buffer((instances + 1,), "int32", data=block.data, elem_offset=after_output + instances + 1)

    node = 0
    edge = 0
    out = 0
    instance = 0
    use = 0
    operand_ptr[0] = 0
    use_ptr[0] = 0
    node_ptr[0] = 0
    output_ptr[0] = 0
    for g in range(graphs):
        size: T.let = T.Cast("int32", rows[g, NODES])
        from_type = T.decl_buffer((ANY,), "int16", data=T.reinterpret("handle", rows[g, NODE_TYPE]), align=2)
        for i in range(size):
            node_type[node + i] = from_type[i]
        from_count = T.decl_buffer((ANY,), "int64", data=T.reinterpret("handle", rows[g, TYPE_COUNT]), align=8)
        for u in range(types):
            type_count[u] += from_count[u]
        from_ptr = T.decl_buffer((ANY,), "int32", data=T.reinterpret("handle", rows[g, OPERAND_PTR]), align=4)
        for i in range(size):
            operand_ptr[node + i + 1] = from_ptr[i + 1] + edge
        from_value = T.decl_buffer((ANY,), "int32", data=T.reinterpret("handle", rows[g, OPERAND_VALUE]), align=4)
        for i in range(T.Cast("int32", rows[g, EDGES])):
            value: T.let = from_value[i]
            operand_value[edge + i] = T.Select(value >= 0, value + node * wide, value)
        if wide != stride:
            for i in range(T.Cast("int32", rows[g, EDGES])):
                value: T.let = from_value[i]
                if value >= 0:
                    operand_value[edge + i] += T.truncdiv(value, stride) * (wide - stride)
        from_use_ptr = T.decl_buffer((ANY,), "int32", data=T.reinterpret("handle", rows[g, USE_PTR]), align=4)
        for i in range(size):
            use_ptr[node + i + 1] = from_use_ptr[i + 1] + use
        from_user = T.decl_buffer((ANY,), "int32", data=T.reinterpret("handle", rows[g, USER]), align=4)
        for i in range(T.Cast("int32", rows[g, USES])):
            user[use + i] = from_user[i] + node
        from_waits = T.decl_buffer((ANY,), "int32", data=T.reinterpret("handle", rows[g, WAITS]), align=4)
        for i in range(size):
            waits[node + i] = from_waits[i]
        from_output = T.decl_buffer((ANY,), "int32", data=T.reinterpret("handle", rows[g, OUTPUT]), align=4)
        for i in range(T.Cast("int32", rows[g, OUTPUTS])):
            output[out + i] = from_output[i] + node * wide + T.truncdiv(from_output[i], stride) * (wide - stride)
        inner: T.let = T.Cast("int32", rows[g, INSTANCES])
        from_nodes = T.decl_buffer((ANY,), "int32", data=T.reinterpret("handle", rows[g, NODE_PTR]), align=4)
        from_outputs = T.decl_buffer((ANY,), "int32", data=T.reinterpret("handle", rows[g, OUTPUT_PTR]), align=4)
        from_scalar = T.decl_buffer((ANY,), "int8", data=T.reinterpret("handle", rows[g, SCALAR]), align=1)
        for i in range(inner):
            node_ptr[instance + i + 1] = from_nodes[i + 1] + node
            output_ptr[instance + i + 1] = from_outputs[i + 1] + out
            scalar[instance + i] = from_scalar[i]
        for a in range(attributes):
            count: T.let = T.Cast("int32", rows[g, ATTRIBUTES + 2 * a + 1])
            width: T.let = T.Cast("int32", attribute[a, 1])
            if count > 0:
                from_rows = T.decl_buffer(
                    (ANY,), "int8", data=T.reinterpret("handle", rows[g, ATTRIBUTES + 2 * a]), align=1
                )
                to_rows = T.decl_buffer((ANY,), "int8", data=T.reinterpret("handle", attribute[a, 0]), align=1)
                begin: T.let = T.Cast("int32", attribute[a, 2])
                for i in range(count * width):
                    to_rows[begin + i] = from_rows[i]
                attribute[a, 2] += T.Cast("int64", count * width)
        node += size
        edge += T.Cast("int32", rows[g, EDGES])
        use += T.Cast("int32", rows[g, USES])
        out += T.Cast("int32", rows[g, OUTPUTS])
        instance += inner

"""Where the rows lie that weight gradients are made of; the same as :mod:`edbatch_tvm.training.row_sources`."""

# ruff: noqa: D103
# mypy: ignore-errors

from edbatch_tvm.graph.instance import FIRST_EXTERNAL
from edbatch_tvm.native.backward_tables import (
    BASE,
    COTANGENT,
    OF_KIND,
    OF_NUMBER,
    OF_PART,
    OF_ROWS,
    OF_TYPE,
    OPERAND,
    OUTPUT,
    PITCH,
    TERM_COLUMNS,
    VALUE,
)
from edbatch_tvm.native.cell_tables import FIXED, REPEATED
from edbatch_tvm.native.tir.addressed_rows import AddressedRows, list_operand_rows, spread_vectors
from edbatch_tvm.native.tir.buffers import argument, size
from edbatch_tvm.tvm_compat import script_tirx as T


@T.prim_func
def term_addresses(
    stride: T.int32,
    out_stride: T.int32,
    # The forward graph and its plan.
    operand_ptr_: T.handle,
    operand_value_: T.handle,
    value_row_: T.handle,
    external_row_: T.handle,
    cells_: T.handle,
    operands_: T.handle,
    # The backward graph and its plan.
    node_order_: T.handle,
    group_ptr_: T.handle,
    node_rank_: T.handle,
    place_of_: T.handle,
    cotangent_: T.handle,
    backward_row_: T.handle,
    backward_external_: T.handle,
    # What is asked for, see backward_tables.py, and where the addresses of each begin among the results.
    terms_: T.handle,
    starts_: T.handle,
    addresses_: T.handle,
):
    T.func_attr({"tirx.noalias": True})
    n = T.int32()
    types = T.int32()
    operand_most = T.int32()
    most = T.int32()
    outputs = T.int32()
    k = T.int32()
    operand_ptr = T.meta_var(argument(operand_ptr_, (n + 1,)))
    operand_value = T.meta_var(argument(operand_value_, (size("entries"),)))
    value_row = T.meta_var(argument(value_row_, (n * stride,)))
    external_row = T.meta_var(argument(external_row_, (size("externals"),)))
    cells = T.meta_var(argument(cells_, (types, 5)))
    operands = T.meta_var(argument(operands_, (types, operand_most, 4)))
    node_order = T.meta_var(argument(node_order_, (size("nodes"),)))
    group_ptr = T.meta_var(argument(group_ptr_, (types + 1,)))
    node_rank = T.meta_var(argument(node_rank_, (n,)))
    place_of = T.meta_var(argument(place_of_, (n, most)))
    cotangent = T.meta_var(argument(cotangent_, (n, outputs, 2)))
    backward_row = T.meta_var(argument(backward_row_, (size("values"),)))
    backward_external = T.meta_var(argument(backward_external_, (size("outside"),)))
    terms = T.meta_var(argument(terms_, (k, TERM_COLUMNS), "int64"))
    starts = T.meta_var(argument(starts_, (k + 1,), "int64"))
    addresses = T.meta_var(argument(addresses_, (size("room"),), "int64"))

    p = T.meta_var(
        AddressedRows(
            terms,
            (node_order, group_ptr),
            (operand_ptr, operand_value, value_row, external_row),
            (cells, operands),
            addresses,
        )
    )
    for c in range(k):
        at: T.let = T.Cast("int32", starts[c])
        u: T.let = T.Cast("int32", terms[c, OF_TYPE])
        kind: T.let = T.Cast("int32", terms[c, OF_KIND])
        number: T.let = T.Cast("int32", terms[c, OF_NUMBER])
        part: T.let = T.Cast("int32", terms[c, OF_PART])
        base: T.let = terms[c, BASE]
        pitch: T.let = terms[c, PITCH]
        p.done = 0
        if kind == OPERAND:
            list_operand_rows(p, c, at, base, pitch)
        elif kind == VALUE:
            for i in range(group_ptr[u + 1] - group_ptr[u]):
                v: T.let = node_order[group_ptr[u] + i]
                addresses[at + i] = base + T.Cast("int64", value_row[v * stride + number]) * pitch
            p.done = group_ptr[u + 1] - group_ptr[u]
        elif kind == COTANGENT:
            for i in range(group_ptr[u + 1] - group_ptr[u]):
                v: T.let = node_order[group_ptr[u] + i]
                value: T.let = cotangent[v, number, 0]
                addresses[at + i] = base
                if value >= 0:
                    addresses[at + i] = base + T.Cast("int64", backward_row[value]) * pitch
                elif value <= FIRST_EXTERNAL:
                    addresses[at + i] = base + T.Cast("int64", 1 + backward_external[FIRST_EXTERNAL - value]) * pitch
            p.done = group_ptr[u + 1] - group_ptr[u]
        elif kind == OUTPUT:
            for i in range(group_ptr[u + 1] - group_ptr[u]):
                v: T.let = node_order[group_ptr[u] + i]
                repeat = 0
                if cells[u, REPEATED] > 0:
                    repeat = T.truncdiv(operand_ptr[v + 1] - operand_ptr[v] - cells[u, FIXED], cells[u, REPEATED])
                for j in range(T.Select(terms[c, OF_ROWS] == T.int64(1), repeat, 1)):
                    row: T.let = backward_row[(place_of[v, part] + j) * out_stride + number]
                    addresses[at + p.done] = base + T.Cast("int64", row) * pitch
                    p.done += 1
        else:
            for i in range(group_ptr[u + 1] - group_ptr[u]):
                v: T.let = node_order[group_ptr[u] + i]
                addresses[at + i] = base + T.Cast("int64", node_rank[v]) * pitch
            p.done = group_ptr[u + 1] - group_ptr[u]
        spread_vectors(p, c, at)

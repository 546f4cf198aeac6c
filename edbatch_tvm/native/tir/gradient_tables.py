"""The tables of a minibatch's weight gradients, by those of its backward pass.

Where the rows lie that products and sums are made of, in the order of the nodes, and in what order rows of tables are
added: what :mod:`edbatch_tvm.training.compiled_sums` does by NumPy for other passes.
"""

# ruff: noqa: D103
# mypy: ignore-errors

from edbatch_tvm.memory.steps_table import COUNT, OUTPUTS
from edbatch_tvm.native.backward_tables import (
    BASE,
    COTANGENT,
    EACH,
    OF_KIND,
    OF_NUMBER,
    OF_PART,
    OF_TYPE,
    OPERAND,
    OUTPUT,
    PRODUCT_COLUMN,
    PRODUCT_MULTIPLIES,
    PRODUCT_SLOTS,
    READ_BYTES,
    READ_EACH,
    READ_MEMORY,
    READ_SLOTS,
    READ_TYPE,
    TABLE_COLUMN,
    TABLE_COLUMNS,
    TABLE_READ,
    TABLE_READS,
    TABLE_SLOTS,
    TERM_COLUMNS,
    VALUE,
    VECTOR_COLUMN,
    VECTOR_OUT,
    VECTOR_SLOTS,
    VECTOR_TOTAL,
)
from edbatch_tvm.native.tir.addressed_rows import AddressedRows, list_operand_rows, spread_vectors
from edbatch_tvm.native.tir.buffers import argument, constant, scalar, size
from edbatch_tvm.native.tir.inlined import inlined
from edbatch_tvm.tvm_compat import script_tirx as T

ANY = 1 << 30
"""Length of arrays that are known by their address only."""

_DIGITS = 256


class GradientArguments:
    """Arguments and scalars of ``gradient_tables``."""

    def __init__(self, stride, outputs, arenas, forward, backward, cells, layout, dynamic, scratch, results):
        self.stride, self.outputs, self.arenas = stride, outputs, arenas
        self.n, self.m, self.k, types = size("n"), size("m"), size("k"), size("types")
        node_type, operand_ptr, operand_value, order, batch_ptr, value_row, external_row = forward
        self.node_type = argument(node_type, (self.n,), "int16")
        self.operand_ptr = argument(operand_ptr, (self.n + 1,))
        self.operand_value = argument(operand_value, (size("entries"),))
        self.order = argument(order, (self.n,))
        self.batch_ptr = argument(batch_ptr, (self.m + 1,))
        self.value_row = argument(value_row, (self.n * stride,))
        self.external_row = argument(external_row, (size("externals"),))
        self.cells = argument(cells[0], (types, 5))
        self.operands = argument(cells[1], (types, size("operand_most"), 4))
        steps, node_order, group_ptr, group_rows, node_rank, batch_at, cotangent_row = backward
        self.steps = argument(steps, (size("batches"), size("step_columns")))
        self.node_order = argument(node_order, (self.n,))
        self.group_ptr = argument(group_ptr, (types + 1,))
        self.group_rows = argument(group_rows, (types,))
        self.node_rank = argument(node_rank, (self.n,))
        self.batch_at = argument(batch_at, (self.m, size("width")))
        self.cotangent_row = argument(cotangent_row, (self.n * outputs * 2,))
        terms, ends, products, vectors, tables, reads = layout
        self.products_count, self.vectors_count, self.tables_count = size("p"), size("v"), size("t")
        self.terms = argument(terms, (self.k, TERM_COLUMNS), "int64")
        ends_count = size("ends_count")
        self.ends = argument(ends, (ends_count,), "int64")
        self.products = argument(products, (self.products_count, PRODUCT_SLOTS), "int64")
        self.vectors = argument(vectors, (self.vectors_count, VECTOR_SLOTS), "int64")
        self.tables = argument(tables, (self.tables_count, TABLE_SLOTS), "int64")
        self.reads = argument(reads, (size("reads_count"), READ_SLOTS), "int64")
        self.memory = argument(dynamic[0], (size("memories"), 2), "int64")
        self.gradients = argument(dynamic[1], (size("gradients_count"),), "int64")
        starts, room, made_products, made_vectors, segments, table_index, io = results
        self.starts = argument(starts, (ends_count,), "int64")
        self.addresses = argument(room, (size("room"),), "int64")
        self.rows = AddressedRows(
            self.terms,
            (self.node_order, self.group_ptr),
            (self.operand_ptr, self.operand_value, self.value_row, self.external_row),
            (self.cells, self.operands),
            self.addresses,
        )
        self.made_products = argument(made_products, (self.products_count, 5), "int64")
        self.made_vectors = argument(made_vectors, (self.vectors_count, 8), "int64")
        self.segments = argument(segments, (size("room_segments"),), "int64")
        self.table_index = argument(table_index, (size("room_index"),), "int64")
        self.io = argument(io, (1 + self.tables_count,), "int64")
        # Rows of a table and where they were, twice; and digits of these rows.
        rows = size("room_rows")
        scratch = argument(scratch, (5, rows), "int64").data
        self.keys = T.decl_buffer((rows,), "int64", data=scratch, elem_offset=0)
        self.places = T.decl_buffer((rows,), "int64", data=scratch, elem_offset=rows)
        self.other_keys = T.decl_buffer((rows,), "int64", data=scratch, elem_offset=2 * rows)
        self.other_places = T.decl_buffer((rows,), "int64", data=scratch, elem_offset=3 * rows)
        self.digits = T.decl_buffer((_DIGITS,), "int64", data=scratch, elem_offset=4 * rows)
        self.columns = constant("columns", ends_count - 1)
        self.at = scalar("at", 0)  # addresses so far
        self.count = scalar("count", 0)
        self.largest = scalar("largest", T.int64(0), "int64")
        self.shift = scalar("shift", T.int64(0), "int64")
        self.segment = scalar("segment", 0)
        self.listed = scalar("listed", 0)


@inlined
def list_addresses(p, c):
    # Those of term c.
    u: T.let = T.Cast("int32", p.terms[c, OF_TYPE])
    kind: T.let = T.Cast("int32", p.terms[c, OF_KIND])
    number: T.let = T.Cast("int32", p.terms[c, OF_NUMBER])
    base: T.let = p.memory[p.terms[c, BASE], 0]
    pitch: T.let = p.memory[p.terms[c, BASE], 1]
    first: T.let = p.group_ptr[u]
    nodes: T.let = p.group_ptr[u + 1] - first
    at: T.let = p.at
    p.rows.done = 0
    if kind == OPERAND:
        list_operand_rows(p.rows, c, at, base, pitch)
    elif kind == OUTPUT:
        # The rows of a batch are contiguous.
        column: T.let = p.arenas + T.Cast("int32", p.terms[c, OF_PART])
        for b in range(p.m):
            if T.Cast("int32", p.node_type[p.order[p.batch_ptr[p.m - 1 - b]]]) == u:
                batch: T.let = p.batch_at[b, column]
                if batch >= 0:
                    begin: T.let = base + T.Cast("int64", p.steps[batch, OUTPUTS + number]) * pitch
                    for i in range(p.steps[batch, COUNT]):
                        p.addresses[at + p.rows.done + i] = begin + T.Cast("int64", i) * pitch
                    p.rows.done += p.steps[batch, COUNT]
    else:
        for i in range(nodes):
            v: T.let = p.node_order[first + i]
            p.rows.row = p.node_rank[v]  # of an attribute
            if kind == VALUE:
                p.rows.row = p.value_row[v * p.stride + number]
            elif kind == COTANGENT:
                p.rows.row = p.cotangent_row[2 * (v * p.outputs + number)]
            p.addresses[at + i] = base + T.Cast("int64", p.rows.row) * pitch
        p.rows.done = nodes
    spread_vectors(p.rows, c, at)
    p.at += p.rows.done * T.Cast("int32", p.terms[c, EACH])


@inlined
def list_products(p):
    # The nodes of each step, what all multiply, and where the vectors are read and written.
    total = T.int64(0)
    for i in range(p.products_count):
        column: T.let = p.products[i, PRODUCT_COLUMN]
        nodes: T.let = p.starts[column + T.int64(1)] - p.starts[column]
        p.made_products[i, 0] = T.Select(p.products[i, 4] > T.int64(0), nodes, T.int64(0))
        for slot in range(4):
            p.made_products[i, slot + 1] = p.products[i, slot + 1]
        total += nodes * p.products[i, PRODUCT_MULTIPLIES]
    p.io[0] = total
    for i in range(p.vectors_count):
        for slot in range(8):
            p.made_vectors[i, slot] = p.vectors[i, slot]
        p.made_vectors[i, 0] = p.starts[p.vectors[i, VECTOR_COLUMN]]
        p.made_vectors[i, 3] += p.gradients[p.vectors[i, VECTOR_OUT]]
        p.made_vectors[i, 6] += p.gradients[p.vectors[i, VECTOR_TOTAL]]


@inlined
def read_table(p, t):
    # The rows of table t that nodes read, in the order of the nodes.
    p.count = 0
    p.largest = T.int64(0)
    for i in range(T.Cast("int32", p.tables[t, TABLE_READS])):
        read: T.let = T.Cast("int32", p.tables[t, TABLE_READ]) + i
        u: T.let = T.Cast("int32", p.reads[read, READ_TYPE])
        each: T.let = T.Cast("int32", p.reads[read, READ_EACH])
        address: T.let = p.memory[p.reads[read, READ_MEMORY], 0]
        short = T.decl_buffer((ANY,), "int32", data=T.reinterpret("handle", address), align=4)
        long = T.decl_buffer((ANY,), "int64", data=T.reinterpret("handle", address), align=8)
        first: T.let = p.group_ptr[u]
        for j in range(p.group_ptr[u + 1] - first):
            rank: T.let = p.node_rank[p.node_order[first + j]]
            for e in range(each):
                key = T.int64(0)
                if p.reads[read, READ_BYTES] == T.int64(4):
                    key = T.Cast("int64", short[rank * each + e])
                else:
                    key = long[rank * each + e]
                p.keys[p.count] = key
                p.places[p.count] = T.Cast("int64", p.count)
                p.largest = T.max(p.largest, key)
                p.count += 1


@inlined
def sort_keys(p):
    # By digits, the lowest first: equal ones stay in their order.
    p.shift = T.int64(0)
    while T.shift_right(p.largest, p.shift) > T.int64(0):
        for d in range(_DIGITS):
            p.digits[d] = T.int64(0)
        for i in range(p.count):
            p.digits[digit_of(p, i)] += T.int64(1)
        total = T.int64(0)
        for d in range(_DIGITS):
            those: T.let = p.digits[d]
            p.digits[d] = total
            total += those
        for i in range(p.count):
            digit: T.let = digit_of(p, i)
            to: T.let = p.digits[digit]
            p.other_keys[to] = p.keys[i]
            p.other_places[to] = p.places[i]
            p.digits[digit] = to + T.int64(1)
        for i in range(p.count):
            p.keys[i] = p.other_keys[i]
            p.places[i] = p.other_places[i]
        p.shift += T.int64(8)


def digit_of(p, i):
    return T.bitwise_and(T.shift_right(p.keys[i], p.shift), T.int64(_DIGITS - 1))


@inlined
def list_sums(p, t):
    # The rows of the table that have a gradient, each once; the addresses of what is added to them in their order.
    begin: T.let = p.listed
    for i in range(p.count):
        if i == 0 or p.keys[i] != p.keys[T.max(i - 1, 0)]:
            p.table_index[p.listed] = p.keys[i]
            p.listed += 1
    distinct: T.let = p.listed - begin
    p.io[1 + t] = T.Cast("int64", distinct)
    for w in range(T.Cast("int32", p.tables[t, TABLE_COLUMNS])):
        start: T.let = T.Cast("int32", p.starts[p.tables[t, TABLE_COLUMN] + T.Cast("int64", w)])
        for i in range(p.count):
            p.other_keys[i] = p.addresses[start + i]
        for i in range(p.count):
            p.addresses[start + i] = p.other_keys[p.places[i]]
        for i in range(p.count):
            if i == 0 or p.keys[i] != p.keys[T.max(i - 1, 0)]:
                p.segments[p.segment] = T.Cast("int64", start + i)
                p.segment += 1
        p.segments[p.segment] = T.Cast("int64", start + p.count)
        p.segment += 1


@T.prim_func
def gradient_tables(
    stride: T.int32,
    outputs: T.int32,
    arenas: T.int32,  # of the forward pass
    # The forward graph, its schedule and plan.
    node_type_: T.handle,
    operand_ptr_: T.handle,
    operand_value_: T.handle,
    order_: T.handle,
    batch_ptr_: T.handle,
    value_row_: T.handle,
    external_row_: T.handle,
    cells_: T.handle,
    operands_: T.handle,
    # See BackwardSteps.
    steps_: T.handle,
    node_order_: T.handle,
    group_ptr_: T.handle,
    group_rows_: T.handle,
    node_rank_: T.handle,
    batch_at_: T.handle,
    cotangent_row_: T.handle,
    # What is computed, see SumTables in backward_tables.py.
    terms_: T.handle,
    ends_: T.handle,
    products_: T.handle,
    vectors_: T.handle,
    tables_: T.handle,
    reads_: T.handle,
    # Addresses and bytes from row to row of what is read, and addresses of what is written.
    memory_: T.handle,
    gradients_: T.handle,
    scratch_: T.handle,
    # Results: where the addresses of the rows of each columns begin, these, the kernel's tables, the rows of tables,
    # multiplications and for each table how many of its rows have a gradient.
    starts_: T.handle,
    addresses_: T.handle,
    made_products_: T.handle,
    made_vectors_: T.handle,
    segments_: T.handle,
    table_index_: T.handle,
    io_: T.handle,
):
    T.func_attr({"tirx.noalias": True})
    p = T.meta_var(
        GradientArguments(
            stride,
            outputs,
            arenas,
            (node_type_, operand_ptr_, operand_value_, order_, batch_ptr_, value_row_, external_row_),
            (steps_, node_order_, group_ptr_, group_rows_, node_rank_, batch_at_, cotangent_row_),
            (cells_, operands_),
            (terms_, ends_, products_, vectors_, tables_, reads_),
            (memory_, gradients_),
            scratch_,
            (starts_, addresses_, made_products_, made_vectors_, segments_, table_index_, io_),
        )
    )
    p.starts[0] = T.int64(0)
    for column in range(p.columns):
        for i in range(T.Cast("int32", p.ends[column + 1] - p.ends[column])):
            list_addresses(p, T.Cast("int32", p.ends[column]) + i)
        p.starts[column + 1] = T.Cast("int64", p.at)
    list_products(p)
    for t in range(p.tables_count):
        if p.tables[t, TABLE_READS] > T.int64(0):
            read_table(p, t)
            sort_keys(p)
            list_sums(p, t)

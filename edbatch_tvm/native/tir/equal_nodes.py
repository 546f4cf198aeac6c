"""Nodes that compute the same: one walk over a graph with a table of the nodes that were met.

The same as :func:`edbatch_tvm.graph.equal_nodes.reference`, and the users of the nodes that are left.
"""

# ruff: noqa: D103
# mypy: ignore-errors

from edbatch_tvm.batching.encoding import HASH_FACTOR
from edbatch_tvm.native.tir.buffers import Workspace, argument, scalar, size
from edbatch_tvm.native.tir.inlined import inlined
from edbatch_tvm.tvm_compat import script_tirx as T

ANY = 1 << 30
"""Length of arrays that are known by their address only."""

LEFT, EDGES, USES = range(3)
"""Results: how many nodes, operands and users are left."""


class Walk:
    """Arguments of the kernel, and the node that is looked at."""

    def __init__(
        self, stride, types, work, node_type, operand_ptr, operand_value, columns, column_ptr, same, kept, table
    ):
        self.stride = stride
        self.t = types
        self.n, self.e, self.slots = size("n"), size("e"), size("slots")
        self.node_type = argument(node_type, (self.n,), "int16")
        self.operand_ptr = argument(operand_ptr, (self.n + 1,))
        self.operand_value = argument(operand_value, (self.e,))
        # Of each attribute: its address and the bytes of a row; those of type t are column_ptr[t] to column_ptr[t + 1].
        self.columns = argument(columns, (size("c"), 2), "int64")
        self.column_ptr = argument(column_ptr, (size("types_and_end"),))
        # The node that is left for each node; the nodes that are left; their codes.
        self.same = argument(same, (self.n,))
        self.kept = argument(kept, (self.n,))
        self.table = argument(table, (self.slots,))
        self.space = Workspace(work)

    def begin(self):
        """Declare what is no argument; all arguments come first."""
        space = self.space
        self.ordinal = space.cut("ordinal", self.n)
        self.count = space.cut("count", self.t)
        self.code_of = space.cut("code_of", self.n)
        self.first = space.cut("first", self.n + 1)
        self.last = space.cut("last", self.n)
        self.code = scalar("code", T.uint64(0), "uint64")
        self.word = scalar("word", 0)
        self.slot = scalar("slot", 0)
        self.found = scalar("found", 0)
        self.differs = scalar("differs", 0)
        self.left = scalar("left", 0)
        self.end = scalar("end", 0)


@inlined
def read_operands(w, v, new_value):
    # The operands of v as the nodes that are left have them, behind the operands that were kept; and their code.
    begin: T.let = w.operand_ptr[v]
    w.code = T.Cast("uint64", w.node_type[v] + 1) * T.uint64(HASH_FACTOR)
    for i in range(w.operand_ptr[v + 1] - begin):
        value: T.let = w.operand_value[begin + i]
        if value >= 0:
            producer: T.let = T.truncdiv(value, w.stride)
            new_value[w.end + i] = w.same[producer] * w.stride + (value - producer * w.stride)
        else:
            new_value[w.end + i] = value
        w.code = (w.code ^ T.Cast("uint64", T.reinterpret("uint32", new_value[w.end + i]))) * T.uint64(HASH_FACTOR)
        w.code = w.code ^ (w.code >> T.uint64(29))


@inlined
def read_attributes(w, v):
    u: T.let = T.Cast("int32", w.node_type[v])
    for c in range(w.column_ptr[u + 1] - w.column_ptr[u]):
        column: T.let = w.column_ptr[u] + c
        width: T.let = w.columns[column, 1]
        begin: T.let = w.columns[column, 0] + T.Cast("int64", w.ordinal[v]) * width
        row = T.decl_buffer((ANY,), "uint8", data=T.reinterpret("handle", begin), align=1)
        for i in range(T.Cast("int32", width)):
            w.code = (w.code ^ T.Cast("uint64", row[i])) * T.uint64(HASH_FACTOR)
        w.code = w.code ^ (w.code >> T.uint64(29))


@inlined
def compare(w, v, new_ptr, new_value):
    # Whether v is the node that is left as number `found`.
    other: T.let = w.kept[w.found]
    w.differs = T.Select(w.node_type[v] != w.node_type[other], 1, 0)
    length: T.let = w.operand_ptr[v + 1] - w.operand_ptr[v]
    if length != w.operand_ptr[other + 1] - w.operand_ptr[other]:
        w.differs = 1
    if w.differs == 0:
        begin: T.let = new_ptr[w.found]
        for i in range(length):
            if new_value[begin + i] != new_value[w.end + i]:
                w.differs = 1
    if w.differs == 0:
        u: T.let = T.Cast("int32", w.node_type[v])
        for c in range(w.column_ptr[u + 1] - w.column_ptr[u]):
            column: T.let = w.column_ptr[u] + c
            width: T.let = w.columns[column, 1]
            mine: T.let = w.columns[column, 0] + T.Cast("int64", w.ordinal[v]) * width
            its: T.let = w.columns[column, 0] + T.Cast("int64", w.ordinal[other]) * width
            row = T.decl_buffer((ANY,), "uint8", data=T.reinterpret("handle", mine), align=1)
            known = T.decl_buffer((ANY,), "uint8", data=T.reinterpret("handle", its), align=1)
            for i in range(T.Cast("int32", width)):
                if row[i] != known[i]:
                    w.differs = 1


@inlined
def find(w, v, new_ptr, new_value):
    # The slot of a node like v, or a free one.
    short: T.let = T.Cast("int32", T.Cast("uint32", w.code >> T.uint64(33)))
    w.slot = short & (w.slots - 1)
    w.found = w.table[w.slot]
    w.differs = 1
    while w.found >= 0 and w.differs == 1:
        w.differs = 1
        if w.code_of[w.found] == short:
            compare(w, v, new_ptr, new_value)
        if w.differs == 1:
            w.slot = (w.slot + 1) & (w.slots - 1)
            w.found = w.table[w.slot]
    w.code_of[w.left] = short


@inlined
def find_users(w, new_ptr, new_value, use_ptr, user, waits):
    # Users in ascending order, each once for a producer.
    for v in range(w.left + 1):
        use_ptr[v] = 0
    for v in range(w.left):
        w.last[v] = -1
    for v in range(w.left):
        waits[v] = 0
        begin: T.let = new_ptr[v]
        for i in range(new_ptr[v + 1] - begin):
            if new_value[begin + i] >= 0:
                producer: T.let = T.truncdiv(new_value[begin + i], w.stride)
                if w.last[producer] != v:
                    w.last[producer] = v
                    use_ptr[producer + 1] += 1
                    waits[v] += 1
    for v in range(w.left):
        use_ptr[v + 1] += use_ptr[v]
    for v in range(w.left):
        w.first[v] = use_ptr[v]
        w.last[v] = -1
    for v in range(w.left):
        begin: T.let = new_ptr[v]
        for i in range(new_ptr[v + 1] - begin):
            if new_value[begin + i] >= 0:
                producer: T.let = T.truncdiv(new_value[begin + i], w.stride)
                if w.last[producer] != v:
                    w.last[producer] = v
                    user[w.first[producer]] = v
                    w.first[producer] += 1


@T.prim_func
def merge_equal(
    stride: T.int32,
    types: T.int32,
    node_type_: T.handle,
    operand_ptr_: T.handle,
    operand_value_: T.handle,
    columns_: T.handle,
    column_ptr_: T.handle,
    # A table of twice as many slots as there are nodes, or more: a power of two.
    table_: T.handle,
    work_: T.handle,
    # Results.
    same_: T.handle,
    kept_: T.handle,
    new_ptr_: T.handle,
    new_value_: T.handle,
    use_ptr_: T.handle,
    user_: T.handle,
    waits_: T.handle,
    io_: T.handle,
):
    T.func_attr({"tirx.noalias": True})
    w = T.meta_var(
        Walk(
            stride,
            types,
            work_,
            node_type_,
            operand_ptr_,
            operand_value_,
            columns_,
            column_ptr_,
            same_,
            kept_,
            table_,
        )
    )
    new_ptr = T.meta_var(argument(new_ptr_, (w.n + 1,)))
    new_value = T.meta_var(argument(new_value_, (w.e,)))
    use_ptr = T.meta_var(argument(use_ptr_, (w.n + 1,)))
    user = T.meta_var(argument(user_, (w.e,)))
    waits = T.meta_var(argument(waits_, (w.n,)))
    io = T.meta_var(argument(io_, (3,), "int64"))
    w.begin()
    for i in range(w.slots):
        w.table[i] = -1
    for u in range(w.t):
        w.count[u] = 0
    new_ptr[0] = 0
    for v in range(w.n):
        own: T.let = T.Cast("int32", w.node_type[v])
        w.ordinal[v] = w.count[own]
        w.count[own] += 1
        read_operands(w, v, new_value)
        read_attributes(w, v)
        find(w, v, new_ptr, new_value)
        if w.found >= 0:
            w.same[v] = w.found
        else:
            w.table[w.slot] = w.left
            w.same[v] = w.left
            w.kept[w.left] = v
            w.end += w.operand_ptr[v + 1] - w.operand_ptr[v]
            w.left += 1
            new_ptr[w.left] = w.end
    find_users(w, new_ptr, new_value, use_ptr, user, waits)
    io[LEFT] = T.Cast("int64", w.left)
    io[EDGES] = T.Cast("int64", w.end)
    io[USES] = T.Cast("int64", use_ptr[w.left])

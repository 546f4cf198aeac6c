"""Parts of ``term_addresses`` and ``gradient_tables``: the addresses of the rows that operands are, and of vectors."""

# ruff: noqa: D103
# mypy: ignore-errors

from edbatch_tvm.graph.instance import FIRST_EXTERNAL
from edbatch_tvm.native.backward_tables import EACH, OF_NUMBER, OF_ROWS, OF_TYPE, STEP
from edbatch_tvm.native.cell_tables import FIXED, FIXED_BEFORE, REPEATED, REPEATED_BEFORE
from edbatch_tvm.native.tir.buffers import scalar
from edbatch_tvm.native.tir.inlined import inlined
from edbatch_tvm.tvm_compat import script_tirx as T


class AddressedRows:
    """What the parts read, and the addresses that they write: ``done`` rows of a term so far."""

    def __init__(self, terms, groups, forward, cells, addresses):
        self.terms = terms
        self.node_order, self.group_ptr = groups
        self.operand_ptr, self.operand_value, self.value_row, self.external_row = forward
        self.cells, self.operands = cells
        self.addresses = addresses
        self.done = scalar("done", 0)
        self.row = scalar("row", 0)


@inlined
def list_operand_rows(p, c, at, base, pitch):
    # The rows that the operand of term c is, from address `at` on; row 0 is a zero.
    u: T.let = T.Cast("int32", p.terms[c, OF_TYPE])
    number: T.let = T.Cast("int32", p.terms[c, OF_NUMBER])
    for i in range(p.group_ptr[u + 1] - p.group_ptr[u]):
        v: T.let = p.node_order[p.group_ptr[u] + i]
        repeat = 0
        if p.cells[u, REPEATED] > 0:
            spread: T.let = p.operand_ptr[v + 1] - p.operand_ptr[v] - p.cells[u, FIXED]
            repeat = T.truncdiv(spread, p.cells[u, REPEATED])
        before: T.let = p.operands[u, number, FIXED_BEFORE] + repeat * p.operands[u, number, REPEATED_BEFORE]
        for j in range(T.Select(p.terms[c, OF_ROWS] == T.int64(1), repeat, 1)):
            value: T.let = p.operand_value[p.operand_ptr[v] + before + j]
            p.row = 0
            if value >= 0:
                p.row = p.value_row[value]
            elif value <= FIRST_EXTERNAL:
                p.row = 1 + p.external_row[FIRST_EXTERNAL - value]
            p.addresses[at + p.done] = base + T.Cast("int64", p.row) * pitch
            p.done += 1


@inlined
def spread_vectors(p, c, at):
    # Rows of several vectors, from the last one on: none is overwritten before it is read.
    each: T.let = T.Cast("int32", p.terms[c, EACH])
    if each > 1:
        for i in range(p.done):
            address: T.let = p.addresses[at + p.done - 1 - i]
            for e in range(each):
                p.addresses[at + (p.done - 1 - i) * each + e] = address + T.Cast("int64", e) * p.terms[c, STEP]

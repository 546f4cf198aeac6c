"""Arguments and working storage of the kernel that plans backward passes."""

# mypy: ignore-errors

from edbatch_tvm.native.backward_tables import NEW_IO_SLOTS
from edbatch_tvm.native.tir.buffers import Workspace, argument, constant, scalar, size
from edbatch_tvm.tvm_compat import script_tirx as T

_ANY = 1 << 30
"""Length of what ends where the memory does that it lies in."""


class BackwardPass:
    """Arguments and working storage of ``backward_steps``."""

    def __init__(
        self,
        m,
        node_type,
        operand_ptr,
        operand_value,
        order,
        batch_ptr,
        value_row,
        forward_steps,
        forward_index,
        output_arena,
        cells,
        operands,
        external_row,
        detached,
        given,
        sections,
        slots,
        reads,
        arenas,
        cotangents,
        new_cells,
        new_operands,
        new_arena,
        work,
        steps,
        rows,
        arena_rows,
        type_count,
        node_order,
        group_ptr,
        group_rows,
        node_rank,
        batch_at,
        external_use,
        external_of,
        io,
    ):
        self.m = m
        self.n, self.types, self.stride, self.most = size("n"), size("types"), size("stride"), size("most")
        self.outputs, self.a, self.new_types = size("outputs"), size("a"), size("new_types")
        self.columns = size("columns")
        operand_most, new_most, new_stride = size("operand_most"), size("new_most"), size("new_stride")
        n, types, a, t = self.n, self.types, self.a, self.new_types
        self.node_type = argument(node_type, (n,), "int16")
        self.operand_ptr = argument(operand_ptr, (n + 1,))
        self.operand_value = argument(operand_value, (size("entries"),))
        self.order = argument(order, (n,))
        self.batch_ptr = argument(batch_ptr, (m + 1,))
        self.value_row = argument(value_row, (n * self.stride,))
        self.forward_steps = argument(forward_steps, (m, size("forward_columns")))
        self.forward_index = argument(forward_index, (size("room_forward"),))
        self.output_arena = argument(output_arena, (types, self.stride))
        self.cells = argument(cells, (types, 5))
        self.operands = argument(operands, (types, operand_most, 4))
        self.external_row = argument(external_row, (size("rows"),))
        self.detached = argument(detached, (size("flags"),), "int8")
        self.given = argument(given, (size("room_given"),))
        self.sections = argument(sections, (types, self.most, 5))
        self.slots = argument(slots, (types, operand_most, 2))
        self.reads = argument(reads, (size("room_reads"), 5))
        self.arenas = argument(arenas, (a, 4))
        self.cotangents = argument(cotangents, (types, self.outputs))
        self.new_cells = argument(new_cells, (t, 5))
        self.new_operands = argument(new_operands, (t, new_most, 4))
        self.new_arena = argument(new_arena, (t, new_stride))
        self.width = a + self.most
        self.steps = argument(steps, (size("room_batches"), self.columns))
        # First the rows of cotangents, two for each output of a node, then the index.
        self.rows = argument(rows, (size("room_rows"),))
        self.arena_rows = argument(arena_rows, (size("specs"),))
        self.type_count = argument(type_count, (t,), "int64")
        self.node_order = argument(node_order, (n,))
        self.group_ptr = argument(group_ptr, (types + 1,))
        self.group_rows = argument(group_rows, (types,))
        self.node_rank = argument(node_rank, (n,))
        batch_at = argument(batch_at, (m, self.width))
        self.external_use = argument(external_use, (size("room_uses"),))
        self.external_of = argument(external_of, (size("room_of"),))
        self.io = argument(io, (NEW_IO_SLOTS,), "int64")
        cut = Workspace(work).cut
        self.batch_at = T.decl_buffer((m * self.width,), "int32", data=batch_at.data, elem_offset=0)
        outputs = self.outputs
        self.before_index = constant("before_index", 2 * n * outputs)
        self.cotangent_row = T.decl_buffer((self.before_index,), "int32", data=self.rows.data, elem_offset=0)
        self.index = T.decl_buffer((_ANY,), "int32", data=self.rows.data, elem_offset=self.before_index)
        self.active = cut("active", n)
        self.repeat = cut("repeat", n)  # variadic rows
        self.batch_of = cut("batch_of", n)  # counted from the last
        # The place of a node in its forward batch, and among those of the batch that have cotangents; where its
        # variadic rows begin among theirs.
        self.forward_seat = cut("forward_seat", n)
        self.seat = cut("seat", n)
        self.row_seat = cut("row_seat", n)
        # Of outputs, node after node: how many cotangents there are, and where in `rows` the next one goes.
        self.uses = cut("uses", n * outputs)
        self.next_at = cut("next_at", n * outputs)
        self.into = cut("into", self.operand_ptr[n] + 1)  # the output that an operand is, an external row, or -1
        self.count = cut("count", m * self.width)  # nodes of a new batch
        # Of forward batches: nodes with cotangents and their variadic rows, the first of them in node_order, whether
        # these are all nodes, in their order.
        self.live = cut("live", m)
        self.live_rows = cut("live_rows", m)
        self.first_node = cut("first_node", m)
        self.aligned = cut("aligned", m)
        self.next = cut("next", m)
        self.next_row = cut("next_row", m)
        self.counted = cut("counted", T.max(types, a))
        # Of new types: nodes and variadic rows, and how many of these are done; where the pieces of the index begin.
        self.done = cut("done", t)
        self.repeated = cut("repeated", t)
        self.rows_done = cut("rows_done", t)
        self.offsets_at = cut("offsets_at", t)
        self.piece_at = cut("piece_at", t, new_most)
        self.sum_type = cut("sum_type", a)  # by rank
        # The first row of the gradients of an operand of a batch, or -1.
        self.gradient = cut("gradient", m, operand_most)
        # value * multiplier >> shift is the node of a value: a division takes longer.
        self.shift = scalar("shift", T.int64(0), "int64")
        self.multiplier = scalar("multiplier", T.int64(0), "int64")
        self.batches = scalar("batches", 0)
        self.filled = scalar("filled", 0)


def node_of(p, value):
    """Return the node that a value belongs to."""
    return T.Cast("int32", T.shift_right(T.Cast("int64", value) * p.multiplier, p.shift))

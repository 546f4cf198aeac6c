"""Memory plans: where the blocks of batches begin; the same as :mod:`edbatch_tvm.memory.layout`."""

# ruff: noqa: D103
# mypy: ignore-errors

from edbatch_tvm.native.tir.buffers import Workspace, argument, size
from edbatch_tvm.native.tir.inlined import inlined
from edbatch_tvm.tvm_compat import script_tirx as T


@inlined
def put_block(b, slot, batch_ptr, batch_type, output_arena, base, arena_rows):
    # The block of a batch and slot, behind those that its arena has.
    arena: T.let = output_arena[T.Cast("int32", batch_type[b]), slot]
    if arena >= 0:
        base[b, slot] = arena_rows[arena]
        arena_rows[arena] += batch_ptr[b + 1] - batch_ptr[b]
    else:
        base[b, slot] = 0


@inlined
def put_batch_after_batch(m, slots, batch_ptr, batch_type, output_arena, base, arena_rows):
    for b in range(m):
        for slot in range(slots):
            put_block(b, slot, batch_ptr, batch_type, output_arena, base, arena_rows)


@inlined
def sort_by_type(m, t, batch_type, first, by_type):
    # Counting sort of the batches; those of a type stay in order.
    for u in range(t):
        first[u] = 0
    for b in range(m):
        first[T.Cast("int32", batch_type[b])] += 1
    total = 0
    for u in range(t):
        count: T.let = first[u]
        first[u] = total
        total += count
    for b in range(m):
        u: T.let = T.Cast("int32", batch_type[b])
        by_type[first[u]] = b
        first[u] += 1


@T.prim_func
def place(
    together: T.int32,
    batch_ptr_: T.handle,
    batch_type_: T.handle,
    output_arena_: T.handle,
    work_: T.handle,
    base_: T.handle,
    arena_rows_: T.handle,
):
    # together = 0: the blocks batch after batch; 1: slot after slot, those of one type together.
    T.func_attr({"tirx.noalias": True})
    m = T.int32()
    t = T.int32()
    slots = T.int32()
    batch_ptr = T.meta_var(argument(batch_ptr_, (m + 1,)))
    batch_type = T.meta_var(argument(batch_type_, (m,), "int16"))
    output_arena = T.meta_var(argument(output_arena_, (t, slots)))
    base = T.meta_var(argument(base_, (m, slots)))
    # Filled up to here: at first with the zero state and external rows.
    arena_rows = T.meta_var(argument(arena_rows_, (size("arenas"),)))
    work = T.meta_var(Workspace(work_))
    by_type = T.meta_var(work.cut("by_type", m))
    first = T.meta_var(work.cut("first", t))

    if together == 0:
        put_batch_after_batch(m, slots, batch_ptr, batch_type, output_arena, base, arena_rows)
    else:
        sort_by_type(m, t, batch_type, first, by_type)
        for slot in range(slots):
            for i in range(m):
                b: T.let = by_type[i]
                put_block(b, slot, batch_ptr, batch_type, output_arena, base, arena_rows)

"""The best children that a step of beam search has met: a heap, the worst first, until all are known.

`b` is the kernel's :class:`~edbatch_tvm.native.tir.beam_search.BeamSearch`. A candidate has four fields: its cost with
what is to come, its number in the order of preference, its state and the type that runs. The first two order them.
"""

# ruff: noqa: D103, SIM102
# mypy: ignore-errors

from edbatch_tvm.batching.encoding import HASH_FACTOR
from edbatch_tvm.native.tir.inlined import inlined
from edbatch_tvm.tvm_compat import script_tirx as T


@inlined
def offer_candidate(b, row, u, spent, total, rank):
    # Keep the child of state `row` by type u, unless an equal one was met or it is worse than all of a full heap.
    code = (b.marks[row, 0] ^ b.marks[row, u + 1] ^ T.Cast("uint64", spent)) * T.uint64(HASH_FACTOR)
    code = code ^ (code >> T.uint64(32))
    if code == T.uint64(0):
        code = T.uint64(1)
    slot = T.Cast("int32", code & T.Cast("uint64", b.slots - 1))
    while b.seen[slot] != code and b.seen[slot] != T.uint64(0):
        slot = (slot + 1) & (b.slots - 1)
    if b.seen[slot] == T.uint64(0):
        b.seen[slot] = code
        if b.kept < b.width:
            sift_up(b, b.kept, total, rank, T.Cast("int64", row), T.Cast("int64", u))
            b.kept += 1
        else:
            b.dropped = 1
            if b.candidate[0, 0] > total or (b.candidate[0, 0] == total and b.candidate[0, 1] > rank):
                sift_down(b, b.width, total, rank, T.Cast("int64", row), T.Cast("int64", u))


@inlined
def sort_candidates(b):
    # Best first.
    for k in range(b.kept - 1):
        end: T.let = b.kept - 1 - k
        total: T.let = b.candidate[end, 0]
        rank: T.let = b.candidate[end, 1]
        state: T.let = b.candidate[end, 2]
        kind: T.let = b.candidate[end, 3]
        for field in range(4):
            b.candidate[end, field] = b.candidate[0, field]
        sift_down(b, end, total, rank, state, kind)


@inlined
def sift_down(b, count, first, second, third, fourth):
    # Put a candidate at the root of the heap candidate[:count] and let it sink.
    at = 0
    sinking = 1
    while sinking == 1:
        sinking = 0
        child = 2 * at + 1
        if child < count:
            if child + 1 < count:
                if b.candidate[child + 1, 0] > b.candidate[child, 0] or (
                    b.candidate[child + 1, 0] == b.candidate[child, 0]
                    and b.candidate[child + 1, 1] > b.candidate[child, 1]
                ):
                    child += 1
            if b.candidate[child, 0] > first or (b.candidate[child, 0] == first and b.candidate[child, 1] > second):
                for field in range(4):
                    b.candidate[at, field] = b.candidate[child, field]
                at = child
                sinking = 1
    write_candidate(b, at, first, second, third, fourth)


@inlined
def sift_up(b, last, first, second, third, fourth):
    # Put a candidate at the end of the heap candidate[:last] and let it rise.
    at = last
    rising = 1
    while rising == 1:
        rising = 0
        if at > 0:
            parent: T.let = T.truncdiv(at - 1, 2)
            if b.candidate[parent, 0] < first or (b.candidate[parent, 0] == first and b.candidate[parent, 1] < second):
                for field in range(4):
                    b.candidate[at, field] = b.candidate[parent, field]
                at = parent
                rising = 1
    write_candidate(b, at, first, second, third, fourth)


@inlined
def write_candidate(b, at, first, second, third, fourth):
    b.candidate[at, 0] = first
    b.candidate[at, 1] = second
    b.candidate[at, 2] = third
    b.candidate[at, 3] = fourth

"""How threads share the work of a schedule: claims on a board in memory, as LLVM IR that kernels call.

All threads walk through the same parallel loops in the same order; each execution of one is a *launch* with a number.
The items of a launch are cut into grains. Every thread owns a run of them, which it takes one after the other; who has
none left waits until the launch is complete, and helps out only after a while. So a thread works on the same columns
of a weight in every batch (they stay in its cache), a launch of one grain never leaves its thread, and a thread whose
core another process took holds up the others with the grain it is in, not with all that it owns.

The board is a vector of int64 in rows of :data:`ROW` words. The first word of row 0 counts the finished items, that
of row ``1 + t`` the grains that were taken of those that thread t owns; these words hold the launch in their upper
half, so nothing has to be reset between launches. The second word of row 0 counts how often a thread gave up waiting
and offered its core to others, that of row ``1 + t`` is the patience of thread t: it halves when the thread had to help
out and doubles again when it had not; one of 0 stays.

``claim`` returns a grain, or -1 when all items of the launch are finished; what was written in the launch is visible
then, which makes it the barrier between batches.
"""

from __future__ import annotations

import platform

from tvm.target import Target

ROW = 16
"""Words from one row of the board to the next: two cache lines, since neighbours are fetched in pairs."""

YIELDS = 1
"""Word of the board that counts how often a thread offered its core to others."""

CLAIM, FINISH = "edbatch.claim", "edbatch.finish"
"""Names of ``claim(board, launch, task, tasks, grains, items) -> grain`` and ``finish(board, launch, items)``."""

PATIENCE = 100
"""Most pauses (1.5 to 6 µs) before a thread takes grains that another thread owns."""

SPINS = 4000
"""Pauses before a waiting thread offers its core to others."""

_PAUSE = {
    "x86_64": "call void @llvm.x86.sse2.pause()",
    "aarch64": "call void @llvm.aarch64.hint(i32 1)",
}
_DECLARE = {"x86_64": "declare void @llvm.x86.sse2.pause()", "aarch64": "declare void @llvm.aarch64.hint(i32)"}

_IR = """
DECLARE
declare i32 @sched_yield()
declare i64 @llvm.umin.i64(i64, i64)
declare i64 @llvm.umax.i64(i64, i64)

define i32 @edbatch.take(ptr %board, i32 %launch, i32 %owner, i32 %owners, i32 %grains) {
entry:
  %owner64 = zext i32 %owner to i64
  %owners64 = zext i32 %owners to i64
  %grains64 = zext i32 %grains to i64
  %low.all = mul i64 %owner64, %grains64
  %low = udiv i64 %low.all, %owners64
  %high.all = add i64 %low.all, %grains64
  %high = udiv i64 %high.all, %owners64
  %row = add i64 %owner64, 1
  %offset = mul i64 %row, ROW
  %place = getelementptr i64, ptr %board, i64 %offset
  %launch64 = zext i32 %launch to i64
  %tag = shl i64 %launch64, 32
  br label %try
try:
  %word = load atomic i64, ptr %place monotonic, align 8
  %later = icmp ugt i64 %word, %tag
  %taken.here = sub i64 %word, %tag
  %taken = select i1 %later, i64 %taken.here, i64 0
  %grain = add i64 %low, %taken
  %none = icmp uge i64 %grain, %high
  br i1 %none, label %fail, label %swap
swap:
  %new.taken = add i64 %taken, 1
  %new = or i64 %tag, %new.taken
  %pair = cmpxchg ptr %place, i64 %word, i64 %new acq_rel monotonic, align 8
  %won = extractvalue { i64, i1 } %pair, 1
  br i1 %won, label %success, label %try
success:
  %result = trunc i64 %grain to i32
  ret i32 %result
fail:
  ret i32 -1
}

define i32 @edbatch.claim(ptr %board, i32 %launch, i32 %task, i32 %tasks, i32 %grains, i32 %items) {
entry:
  %launch64 = zext i32 %launch to i64
  %tag = shl i64 %launch64, 32
  %items64 = zext i32 %items to i64
  %complete = or i64 %tag, %items64
  %fewer = icmp ult i32 %grains, %tasks
  %owners = select i1 %fewer, i32 %grains, i32 %tasks
  %task64 = zext i32 %task to i64
  %row = add i64 %task64, 1
  %offset = mul i64 %row, ROW
  %patience.at = add i64 %offset, 1
  %patience.place = getelementptr i64, ptr %board, i64 %patience.at
  %yields.place = getelementptr i64, ptr %board, i64 1
  %patience = load i64, ptr %patience.place, align 8
  %empty = icmp sle i32 %items, 0
  br i1 %empty, label %over, label %start
start:
  %owns = icmp ult i32 %task, %owners
  br i1 %owns, label %own, label %wait
own:
  %mine = call i32 @edbatch.take(ptr %board, i32 %launch, i32 %task, i32 %owners, i32 %grains)
  %got.mine = icmp sge i32 %mine, 0
  br i1 %got.mine, label %take.mine, label %wait
take.mine:
  ret i32 %mine
wait:
  %spins = phi i64 [ 0, %start ], [ 0, %own ], [ %spins.next, %again ]
  %done = load atomic i64, ptr %board acquire, align 8
  %all = icmp uge i64 %done, %complete
  br i1 %all, label %waited, label %spin
waited:
  %in.time = icmp ule i64 %spins, %patience
  br i1 %in.time, label %trust, label %over
trust:
  %doubled = shl i64 %patience, 1
  %capped = call i64 @llvm.umin.i64(i64 %doubled, i64 PATIENCE)
  store i64 %capped, ptr %patience.place, align 8
  br label %over
spin:
  PAUSE
  %spins.next = add i64 %spins, 1
  %patient = icmp ult i64 %spins, %patience
  br i1 %patient, label %again, label %steal
steal:
  %owner = phi i32 [ 0, %spin ], [ %owner.next, %steal.next ]
  %theirs = call i32 @edbatch.take(ptr %board, i32 %launch, i32 %owner, i32 %owners, i32 %grains)
  %got.theirs = icmp sge i32 %theirs, 0
  br i1 %got.theirs, label %take.theirs, label %steal.next
take.theirs:
  %halved = lshr i64 %patience, 1
  %least.of.thread = call i64 @llvm.umin.i64(i64 %patience, i64 1)
  %least = call i64 @llvm.umax.i64(i64 %halved, i64 %least.of.thread)
  store i64 %least, ptr %patience.place, align 8
  ret i32 %theirs
steal.next:
  %owner.next = add i32 %owner, 1
  %more = icmp ult i32 %owner.next, %owners
  br i1 %more, label %steal, label %long
long:
  %spin.on = icmp ult i64 %spins, SPINS
  br i1 %spin.on, label %again, label %yield
yield:
  %yielded = atomicrmw add ptr %yields.place, i64 1 monotonic, align 8
  %ignored = call i32 @sched_yield()
  br label %again
again:
  br label %wait
over:
  ret i32 -1
}

define void @edbatch.finish(ptr %board, i32 %launch, i32 %items) {
entry:
  %launch64 = zext i32 %launch to i64
  %tag = shl i64 %launch64, 32
  %items64 = zext i32 %items to i64
  %first = or i64 %tag, %items64
  br label %try
try:
  %word = load atomic i64, ptr %board monotonic, align 8
  %later = icmp uge i64 %word, %tag
  %more = add i64 %word, %items64
  %new = select i1 %later, i64 %more, i64 %first
  %pair = cmpxchg ptr %board, i64 %word, i64 %new acq_rel monotonic, align 8
  %won = extractvalue { i64, i1 } %pair, 1
  br i1 %won, label %over, label %try
over:
  ret void
}
"""


def sharing_ir(target: Target) -> str:
    """The functions for the CPU of `target`."""
    machine = str(target.attrs.get("mtriple", "")).partition("-")[0] or platform.machine()
    machine = {"arm64": "aarch64", "amd64": "x86_64"}.get(machine.lower(), machine.lower())
    text = _IR.replace("DECLARE", _DECLARE.get(machine, "")).replace("PAUSE", _PAUSE.get(machine, ""))
    for name, value in (("ROW", ROW), ("PATIENCE", PATIENCE), ("SPINS", SPINS)):
        text = text.replace(name, str(value))
    return text

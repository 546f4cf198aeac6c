"""Kernels timed side by side, in this process.

Other processes share the machine, so one number says little. Kernels to be compared are timed in turn, less than a
millisecond each, several rounds. Rounds in which a thread of this process had to wait for a processor are made again,
until patience ends; then those that waited least count. Where the system allows it, rounds run at a higher priority.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from glob import glob
from time import perf_counter
from typing import Any, Protocol

import tvm
from tvm.target import Target

from edbatch_tvm.bounded_cache import BoundedCache
from edbatch_tvm.tuning.kernels.timing_inputs import TimingInputs
from edbatch_tvm.tvm_compat import load_json, runtime, save_json, tirx
from schedules.cpu.tir_pipeline import KERNEL_PIPELINE

ROUNDS = 5
"""Rounds of a trial."""

BLOCK_SECONDS = 4e-4
"""Least time of one kernel in one round."""

PATIENCE = 6
"""Rounds are repeated up to this multiple of the wanted number."""

WAITING_SHARE = 0.02
"""Share of a round that threads may wait for processors."""

PRIORITY = -10
"""The niceness of rounds."""

KEPT = 16
"""Libraries and benches that a timer remembers."""


class TrialFailed(Exception):
    """A candidate that cannot be built or run, and why."""


@dataclass(frozen=True)
class Candidate:
    """A kernel to be timed: its module as JSON text, and the batch."""

    module: str
    bench: TimingInputs

    @classmethod
    def of(cls, function: tirx.PrimFunc, bench: TimingInputs) -> Candidate:
        """The candidate that is this one kernel."""
        return cls(save_json(tvm.IRModule({bench.name: function})), bench)


class Timer(Protocol):
    """Something that times kernels; this process, a worker, or another machine."""

    def time(self, candidates: Sequence[Candidate], rounds: int = ROUNDS) -> list[list[float]]:
        """Seconds of a call, for each candidate and round.

        Raises
        ------
        TrialFailed
            If one of them cannot be built or run.
        """

    def close(self) -> None:
        """Give back what the timer holds."""


class LocalTimer:
    """Times kernels in this process: a candidate that crashes takes it along.

    Parameters
    ----------
    target : tvm.target.Target
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self._libraries: BoundedCache[str, Any] = BoundedCache(KEPT)
        self._arrays: BoundedCache[TimingInputs, list[Any]] = BoundedCache(KEPT)

    def time(self, candidates: Sequence[Candidate], rounds: int = ROUNDS) -> list[list[float]]:
        """See :class:`Timer`."""
        try:
            calls = [self._call(candidate) for candidate in candidates]
            return time_calls(calls, tvm.cpu(0), rounds)
        except (RuntimeError, ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
            raise TrialFailed(reason_of(error)) from None

    def close(self) -> None:
        """Forget what was built."""
        self._libraries.clear()
        self._arrays.clear()

    def _call(self, candidate: Candidate) -> tuple[Any, str, list[Any]]:
        module = self._libraries.get_or_make(candidate.module, lambda: build(candidate.module, self.target).jit())
        arrays = self._arrays.get_or_make(
            candidate.bench, lambda: [runtime.tensor(array) for array in candidate.bench.arrays()]
        )
        return module, candidate.bench.name, arrays


def build(module: str, target: Target) -> Any:
    """The library of a kernel module given as JSON text."""
    return tvm.compile(load_json(module), target=target, tir_pipeline=KERNEL_PIPELINE)


def time_calls(calls: Sequence[tuple[Any, str, list[Any]]], device: Any, rounds: int) -> list[list[float]]:
    """Seconds a call, for each of `calls` (module, name of the function, arrays) and each round."""
    evaluators = []
    for module, name, arrays in calls:
        once = min(module.time_evaluator(name, device, number=1, repeat=3)(0, *arrays).results)
        number = max(1, min(10_000, int(BLOCK_SECONDS / max(once, 1e-9))))
        evaluators.append((module.time_evaluator(name, device, number=number, repeat=1), arrays))
    made: list[tuple[float, list[float]]] = []
    with raised_priority():
        while sum(waited <= WAITING_SHARE for waited, _ in made) < rounds and len(made) < PATIENCE * rounds:
            begin, waiting = perf_counter(), waiting_seconds()
            times = [float(evaluator(0, *arrays).results[0]) for evaluator, arrays in evaluators]
            made.append(((waiting_seconds() - waiting) / (perf_counter() - begin), times))
    made.sort(key=lambda one: one[0])
    return [list(times) for times in zip(*(times for _, times in made[:rounds]), strict=True)]


@contextmanager
def raised_priority() -> Iterator[None]:
    """All threads of this process at a higher priority, where the system allows it."""
    threads = [int(task) for task in os.listdir("/proc/self/task")] if os.path.isdir("/proc/self/task") else []
    usual = os.getpriority(os.PRIO_PROCESS, 0) if threads else 0
    raised = [thread for thread in threads if _set_priority(thread, PRIORITY)]
    try:
        yield
    finally:
        for thread in raised:
            _set_priority(thread, usual)


def _set_priority(thread: int, priority: int) -> bool:
    try:
        os.setpriority(os.PRIO_PROCESS, thread, priority)
    except OSError:  # not allowed, or the thread has ended
        return False
    return True


def waiting_seconds() -> float:
    """How long the threads of this process have waited for a processor; 0 where Linux does not say."""
    return sum(map(_waiting_nanoseconds, glob("/proc/self/task/*/schedstat"))) / 1e9


def _waiting_nanoseconds(path: str) -> int:
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read().split()[1])
    except (OSError, IndexError, ValueError):  # the thread has ended
        return 0


def reason_of(error: BaseException) -> str:
    """The last line of an error that came through TVM."""
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__

"""Two threads over one, and whether two cores were free: ``python -m benchmarks.two_threads --data-root DATA``.

In each turn a minibatch runs on one thread, on one thread while another process does the same, and on two threads;
each several times in a row, of which the shortest counts. Where the one thread is as fast beside the other process as
alone, there were two cores for two threads at that moment: this is ``kept``, its speed beside over its speed alone,
which should be 1. The time is that of the kernels and of the Python around them (``execute`` of the report).

``ratio`` is the median, over the turns in which at least 0.95 was kept, of the time on one thread over that on two, and
``least`` is that of the shortest times of all turns.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter, sleep
from typing import Any

import edbatch_tvm as eb
from edbatch_tvm.models import get_workload
from edbatch_tvm.models.data import load_minibatches
from edbatch_tvm.peers.compare import data_file

WAIT, RUN, STOP = range(3)
"""What the other process is told to do."""

KEPT = 0.95
"""Share of its speed that one thread keeps beside another process, where two cores are free."""

IN_A_ROW = 4
"""Runs of which the shortest counts; after the first one the second thread is awake."""

_PAUSE = 0.0005


def prepared(name: str, hidden: int, batch_size: int, data_root: Path | None, policy: str) -> Callable[[int], float]:
    """A function that gives the seconds of one minibatch on this number of threads."""
    workload = get_workload(name)
    model = eb.compile(workload.cells(hidden), workload.weights(hidden), policy=policy)
    (instances,) = load_minibatches(workload, model.cells, data_file(name, data_root), batch_size, 1, 0)

    def run(threads: int) -> float:
        eb.set_num_threads(threads)
        return min(float(model(instances).report.seconds["execute"]) for _ in range(IN_A_ROW))

    return run


def _beside(told: Any, arguments: tuple[Any, ...]) -> None:
    """What the other process does."""
    run = prepared(*arguments)
    run(1)
    told.value = WAIT
    while told.value != STOP:
        if told.value == RUN:
            run(1)
        else:
            sleep(_PAUSE)


def measure(seconds: float, *arguments: Any) -> list[tuple[float, float, float]]:
    """Seconds on one thread, on one beside another process, and on two: a row for each turn."""
    spawn = multiprocessing.get_context("spawn")
    told = spawn.Value("i", RUN, lock=False)
    other = spawn.Process(target=_beside, args=(told, arguments), daemon=True)
    other.start()
    try:
        run = prepared(*arguments)
        run(1)
        run(2)
        while told.value != WAIT:
            if not other.is_alive():
                raise RuntimeError("the other process has ended")
            sleep(_PAUSE)
        turns = []
        end = perf_counter() + seconds
        while not turns or perf_counter() < end:
            alone = run(1)
            told.value = RUN
            sleep(2 * _PAUSE)
            beside = run(1)
            told.value = WAIT
            sleep(2 * _PAUSE)
            turns.append((alone, beside, run(2)))
        return turns
    finally:
        told.value = STOP
        other.join(timeout=60)


def row_of(name: str, hidden: int, turns: list[tuple[float, float, float]]) -> str:
    """A row of the table."""
    alone, beside, two = (1e3 * min(column) for column in zip(*turns, strict=True))
    kept = [one / other for one, other, _ in turns]
    free = [one / both for one, other, both in turns if one >= KEPT * other]
    ratio = f"{median(free):.2f}" if free else "no turn"
    columns = (f"{alone:.3f}", f"{beside:.3f}", f"{two:.3f}", f"{median(kept):.2f}", f"{len(free)} of {len(turns)}")
    return " | ".join((f"| {name}", str(hidden), *columns, ratio, f"{alone / two:.2f} |"))


def main(argv: Sequence[str] | None = None) -> None:
    """Print one row for each workload."""
    parser = argparse.ArgumentParser(description=__doc__)
    usual = ["treelstm", "lattice-lstm", "bilstm-tagger"]
    parser.add_argument("workloads", nargs="*", metavar="workload", default=usual)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--hidden", type=int, nargs="+", default=[64])
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=10.0, help="of turns for each row (%(default)s)")
    parser.add_argument("--policy", default="agenda")
    given = parser.parse_args(argv)
    print("| workload | H | one thread, ms | beside | two threads | kept | turns | ratio | least |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    for name in given.workloads:
        for hidden in given.hidden:
            turns = measure(given.seconds, name, hidden, given.batch_size, given.data_root, given.policy)
            print(row_of(name, hidden, turns), flush=True)


if __name__ == "__main__":
    main()

"""Two threads over one, and whether two cores were free: ``python -m benchmarks.two_threads --data-root DATA``.

In each turn a minibatch runs on one thread, on one thread while another process does the same, on two threads, and
beside the other process once more; each several times in a row, of which the shortest counts. The other process sleeps
meanwhile. Two cores were free for the two threads if, before and after, each of the processes was as fast as one thread
alone in any turn: who is that fast shares neither a core nor its vector units with anybody. The time is that of the
kernels and of the Python around them (``execute`` of the report).

``ratio`` is the median, over the turns in which each process had at least 0.95 of that speed, of the time on one thread
over that on two, and ``least`` is that of the shortest times of all turns. ``kept`` is the median of the speed of one
thread beside the other process, over its speed alone.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

import edbatch_tvm as eb
from edbatch_tvm.models import get_workload
from edbatch_tvm.models.data import load_minibatches
from edbatch_tvm.peers.compare import data_file

KEPT = 0.95
"""Share of the speed of one thread that each of two processes has, where two cores are free."""

IN_A_ROW = 4
"""Runs of which the shortest counts."""


class Turn(NamedTuple):
    """Seconds of one thread alone, of two threads, and of one beside another process: of both, before and after."""

    alone: float
    two: float
    beside: tuple[float, ...]


def prepared(name: str, hidden: int, batch_size: int, data_root: Path | None, policy: str) -> Callable[[int], float]:
    """A function that gives the seconds of one minibatch on this number of threads."""
    workload = get_workload(name)
    model = eb.compile(workload.cells(hidden), workload.weights(hidden), policy=policy)
    (instances,) = load_minibatches(workload, model.cells, data_file(name, data_root), batch_size, 1, 0)

    def run(threads: int) -> float:
        eb.set_num_threads(threads)
        return min(float(model(instances).report.seconds["execute"]) for _ in range(IN_A_ROW))

    return run


def _beside(end: Connection, arguments: tuple[Any, ...]) -> None:
    """What the other process does: a run whenever it is told to."""
    run = prepared(*arguments)
    run(1)
    end.send(0.0)
    while end.recv():
        end.send(run(1))


def measure(seconds: float, *arguments: Any) -> list[Turn]:
    """Turns for about `seconds`."""
    spawn = multiprocessing.get_context("spawn")
    told, end = spawn.Pipe()
    other = spawn.Process(target=_beside, args=(end, arguments), daemon=True)
    other.start()
    end.close()  # that of the other process is left: recv() fails once it has ended
    try:
        run = prepared(*arguments)
        run(1)
        run(2)
        told.recv()

        def beside() -> tuple[float, float]:
            told.send(True)
            return run(1), told.recv()

        turns: list[Turn] = []
        last = perf_counter() + seconds
        while not turns or perf_counter() < last:
            alone, before, two = run(1), beside(), run(2)
            turns.append(Turn(alone, two, (*before, *beside())))
        return turns
    finally:
        with suppress(OSError):  # where the other process has ended
            told.send(False)
        other.join(timeout=60)


def row_of(name: str, hidden: int, turns: list[Turn]) -> str:
    """A row of the table."""
    one = min(turn.alone for turn in turns)
    two = min(turn.two for turn in turns)
    free = [turn.alone / turn.two for turn in turns if KEPT * max(turn.alone, *turn.beside) <= one]
    kept = median(turn.alone / turn.beside[0] for turn in turns)
    ratio = f"{median(free):.2f}" if free else "no turn"
    columns = (f"{1e3 * one:.3f}", f"{1e3 * two:.3f}", f"{kept:.2f}", f"{len(free)} of {len(turns)}")
    return " | ".join((f"| {name}", str(hidden), *columns, ratio, f"{one / two:.2f} |"))


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
    print("| workload | H | one thread, ms | two threads | kept | turns | ratio | least |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    for name in given.workloads:
        for hidden in given.hidden:
            turns = measure(given.seconds, name, hidden, given.batch_size, given.data_root, given.policy)
            print(row_of(name, hidden, turns), flush=True)


if __name__ == "__main__":
    main()

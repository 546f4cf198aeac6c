"""A training step beside its forward pass: ``python -m benchmarks.training treelstm --data FILE``.

Prints the median milliseconds of a forward pass without a backward pass (``inference``), of one that saves what the
backward pass reads, and of the parts of a backward pass: one thread, in turns.
"""

from __future__ import annotations

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # NumPy's contractions, which do not follow set_num_threads

import argparse
import itertools
import statistics
from collections.abc import Sequence

import numpy as np

import edbatch_tvm as eb
from edbatch_tvm.models import get_workload
from edbatch_tvm.training import TrainingModel

PARTS = ("build", "plan", "execute", "weights", "total")


def measure(name: str, data: str, hidden: int, batch_size: int, repeat: int, memory: str) -> dict[str, float]:
    """Medians, in milliseconds."""
    workload = get_workload(name)
    model = eb.compile(workload.cells(hidden), workload.weights(hidden), training=True, memory=memory)
    assert isinstance(model, TrainingModel)
    plain = eb.compile(workload.cells(hidden), workload.weights(hidden), policy=model.policy)
    instances = workload.read(data, model.cells)[:batch_size]
    times: dict[str, list[float]] = {part: [] for part in ("inference", "forward", *PARTS)}
    rng = np.random.default_rng(0)
    cotangents = None
    for number in range(repeat + 3):
        result = model(instances)
        if cotangents is None:
            outputs = np.unique(result.graph.outputs).tolist()
            cotangents = {value: rng.standard_normal(result.value(value).shape).astype(np.float32) for value in outputs}
        gradients = result.backward(cotangents)
        if number < 3:
            continue
        times["inference"].append(plain(instances).report.seconds["total"])
        times["forward"].append(result.report.seconds["total"])
        for part in PARTS:
            times[part].append(gradients.report.seconds[part])
    return {part: 1e3 * statistics.median(values) for part, values in times.items()}


def main(argv: Sequence[str] | None = None) -> None:
    """Print one row for each hidden size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workload")
    parser.add_argument("--data", required=True)
    parser.add_argument("--hidden", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--memory", nargs="+", default=["save"], help="save, recompute or both")
    given = parser.parse_args(argv)
    eb.set_num_threads(1)
    print("| workload | memory | H | inference | forward | " + " | ".join(PARTS) + " | step / inference |")
    print("|---|---|" + "--:|" * (len(PARTS) + 4))
    for hidden, memory in itertools.product(given.hidden, given.memory):
        found = measure(given.workload, given.data, hidden, given.batch_size, given.repeat, memory)
        cells = " | ".join(f"{found[part]:.2f}" for part in ("inference", "forward", *PARTS))
        ratio = (found["forward"] + found["total"]) / found["inference"]
        print(f"| {given.workload} | {memory} | {hidden} | {cells} | {ratio:.1f} |", flush=True)


if __name__ == "__main__":
    main()

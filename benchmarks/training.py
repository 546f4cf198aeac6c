"""A training step beside its forward pass: ``python -m benchmarks.training treelstm --data FILE``.

Prints the milliseconds of a forward pass without a backward pass (``inference``), of one that saves what the backward
pass reads, of the parts of a backward pass, and of taking over changed weights (``refresh``): one thread, in turns, the
best of all turns. Parts are wall time; the other columns, and the ratio, are processor time.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from time import process_time

import numpy as np

import edbatch_tvm as eb
from edbatch_tvm.models import get_workload
from edbatch_tvm.training import TrainingModel
from edbatch_tvm.training.cotangents import as_cotangents

PARTS = ("build", "plan", "execute", "weights")
COLUMNS = ("inference", "forward", *PARTS, "backward", "refresh")


def measure(name: str, data: str, hidden: int, batch_size: int, repeat: int, memory: str) -> dict[str, float]:
    """The best times, in milliseconds."""
    workload = get_workload(name)
    model = eb.compile(workload.cells(hidden), workload.weights(hidden), training=True, memory=memory)
    assert isinstance(model, TrainingModel)
    plain = eb.compile(workload.cells(hidden), workload.weights(hidden), policy=model.policy)
    instances = workload.read(data, model.cells)[:batch_size]
    times: dict[str, list[float]] = {column: [] for column in COLUMNS}
    rng = np.random.default_rng(0)
    cotangents = None
    for number in range(repeat + 3):
        begin = process_time()
        result = model(instances)
        forward = process_time() - begin
        if cotangents is None:
            outputs = np.unique(result.graph.outputs).tolist()
            values = {value: rng.standard_normal(result.value(value).shape).astype(np.float32) for value in outputs}
            cotangents = as_cotangents(result, values)
        begin = process_time()
        gradients = result.backward_of(cotangents)
        backward = process_time() - begin
        if number < 3:
            continue
        begin = process_time()
        plain(instances)
        times["inference"].append(process_time() - begin)
        times["forward"].append(forward)
        times["backward"].append(backward)
        for part in PARTS:
            times[part].append(gradients.report.seconds[part])
        changed = workload.weights(hidden, seed=number)
        begin = process_time()
        model.refresh(changed)
        times["refresh"].append(process_time() - begin)
    return {part: 1e3 * min(values) for part, values in times.items()}


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
    print("| workload | memory | H | " + " | ".join(COLUMNS) + " | step / inference |")
    print("|---|---|" + "--:|" * (len(COLUMNS) + 2))
    for hidden, memory in itertools.product(given.hidden, given.memory):
        found = measure(given.workload, given.data, hidden, given.batch_size, given.repeat, memory)
        cells = " | ".join(f"{found[part]:.2f}" for part in COLUMNS)
        ratio = (found["forward"] + found["backward"]) / found["inference"]
        print(f"| {given.workload} | {memory} | {hidden} | {cells} | {ratio:.1f} |", flush=True)


if __name__ == "__main__":
    main()

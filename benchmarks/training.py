"""A training step beside its forward pass: ``python -m benchmarks.training treelstm --data FILE``.

Prints the median milliseconds of a forward pass and of the parts of a backward pass, one thread, in turns.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence

import numpy as np

import edbatch_tvm as eb
from edbatch_tvm.models import get_workload
from edbatch_tvm.training import TrainingModel

PARTS = ("build", "plan", "execute", "weights", "total")


def measure(name: str, data: str, hidden: int, batch_size: int, repeat: int) -> dict[str, float]:
    """Medians, in milliseconds."""
    workload = get_workload(name)
    model = eb.compile(workload.cells(hidden), workload.weights(hidden), training=True)
    assert isinstance(model, TrainingModel)
    instances = workload.read(data, model.cells)[:batch_size]
    times: dict[str, list[float]] = {part: [] for part in ("forward", *PARTS)}
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
    given = parser.parse_args(argv)
    eb.set_num_threads(1)
    print("| workload | H | forward | " + " | ".join(PARTS) + " | step / forward |")
    print("|---|" + "--:|" * (len(PARTS) + 3))
    for hidden in given.hidden:
        found = measure(given.workload, given.data, hidden, given.batch_size, given.repeat)
        cells = " | ".join(f"{found[part]:.2f}" for part in ("forward", *PARTS))
        ratio = (found["forward"] + found["total"]) / found["forward"]
        print(f"| {given.workload} | {hidden} | {cells} | {ratio:.1f} |", flush=True)


if __name__ == "__main__":
    main()

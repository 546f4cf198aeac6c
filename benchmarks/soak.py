"""Steady memory: minibatches of changing size through one model, the resident set at every tenth of the way.

    python -m benchmarks.soak [--workload NAME] [--train] [--minibatches N] [--hidden H] [--largest N] [--json FILE]

With --train, they are steps of Adam on a PyTorch model through ``eb.autobatch`` instead, of trees drawn anew.

Sizes are drawn anew for every minibatch, from 1 to --largest instances out of a pool; every seventh minibatch is one
that ran before (its schedule is cached), every fifth result is kept until the next one. The last line says by how much
memory grew after the first fifth, in which the caches of schedules and plans fill; the exit code is 1 if that is more
than --allow MiB.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
from pathlib import Path
from typing import Any

import edbatch_tvm as eb
from edbatch_tvm.atomic_file import write_text
from edbatch_tvm.models import get_workload


def resident() -> float:
    """Resident set of this process in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def soak(workload: str, minibatches: int, hidden: int, largest: int, seed: int = 0) -> list[tuple[int, float]]:
    """Run, and return (minibatches done, resident MiB) at every tenth of the way."""
    made = get_workload(workload)
    model = eb.compile(made.cells(hidden), made.weights(hidden))
    pool = made.generate(16 * largest, model.cells, seed)
    draw = random.Random(seed)
    marks = {max(1, minibatches * tenth // 10) for tenth in range(1, 11)}
    repeated, kept, samples = pool[:largest], None, []
    for done in range(1, minibatches + 1):
        batch = repeated if done % 7 == 0 else draw.sample(pool, draw.randint(1, largest))
        result = model(batch)
        if done % 5 == 0:
            kept = list(result)
        del result
        if done in marks:
            gc.collect()
            samples.append((done, resident()))
            print(f"{done:>8}  {samples[-1][1]:8.1f} MiB", flush=True)
    del kept
    return samples


def soak_training(steps: int, hidden: int, largest: int, seed: int = 0) -> list[tuple[int, float]]:
    """Train a child-sum TreeLSTM, and return (steps done, resident MiB) at every tenth of the way."""
    import torch
    from torch.nn import functional as F

    from tests.recording.models import ChildSumTreeLSTM, random_trees

    torch.manual_seed(seed)
    model = ChildSumTreeLSTM(hidden, 400)
    fast = eb.autobatch(model, ["node_forward"])
    optimizer = torch.optim.Adam(model.parameters())
    draw = random.Random(seed)
    marks = {max(1, steps * tenth // 10) for tenth in range(1, 11)}
    pool = random_trees(64 * largest, 400, seed)
    kept, samples = None, []
    for done in range(1, steps + 1):
        trees = draw.sample(pool, draw.randint(1, largest))
        outputs = torch.cat(fast(trees))
        if done % 5 == 0:
            kept = outputs  # without a backward pass
        else:
            optimizer.zero_grad()
            F.nll_loss(outputs, torch.tensor([tree.word % 5 for tree in trees])).backward()
            optimizer.step()
        del outputs
        for tree in trees:
            forget_states(tree)
        if done in marks:
            gc.collect()
            samples.append((done, resident()))
            print(f"{done:>8}  {samples[-1][1]:8.1f} MiB", flush=True)
    del kept
    return samples


def forget_states(tree: Any) -> None:
    """Let go what the model leaves on a tree: states, which keep their whole minibatch, as in PyTorch."""
    tree.state = None
    for child in tree.children:
        forget_states(child)


def main() -> None:
    """Print the resident set as it goes, then the growth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", default="treelstm")
    parser.add_argument("--train", action="store_true", help="steps of training through eb.autobatch")
    parser.add_argument("--minibatches", type=int, default=10_000)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--largest", type=int, default=64)
    parser.add_argument("--allow", type=float, default=16.0, help="MiB (%(default)s)")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.train:
        samples = soak_training(arguments.minibatches, arguments.hidden, arguments.largest)
    else:
        samples = soak(arguments.workload, arguments.minibatches, arguments.hidden, arguments.largest)
    warm = samples[min(1, len(samples) - 1)]
    growth = samples[-1][1] - warm[1]
    if arguments.json:
        write_text(arguments.json, json.dumps({"resident_mib": samples, "growth_mib": growth}) + "\n")
    print(f"growth after {warm[0]} minibatches: {growth:.1f} MiB")
    raise SystemExit(growth > arguments.allow)


if __name__ == "__main__":
    main()

"""Time of minibatches of this checkout and of another one, in turns: old, new, old, new, ... in two processes.

python -m benchmarks.compare_revisions --old DIR [--workload NAME ...] [--hidden H ...] [--repeat N] [--json FILE]

DIR is a checkout (``git worktree add DIR COMMIT``). Each process compiles every model and then runs a few minibatches
when it is its turn, while the other waits. The ratio is new over old: the median over all turns, each turn's ratio
being of the least times of either.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from time import perf_counter

HERE = Path(__file__).resolve()
SETTLE = 5
"""Minibatches before the first that is measured."""


def work(settings: list[str]) -> None:
    """Compile models, named by ``workload:hidden:batch:target``; answer each line read with the seconds of a run."""
    import edbatch_tvm as eb
    from edbatch_tvm.models import get_workload

    runs = []
    for setting in settings:
        name, hidden, batch, target = setting.split(":", 3)
        workload = get_workload(name)
        kind = "llvm" if target == "llvm" else {"kind": "llvm", "mcpu": target}
        model = eb.compile(workload.cells(int(hidden)), workload.weights(int(hidden)), target=kind)
        instances = workload.generate(int(batch), model.signature, seed=0)
        for _ in range(SETTLE):
            model(instances)
        runs.append((model, instances))
    print(Path(eb.__file__).resolve().parents[1], flush=True)
    for line in sys.stdin:
        which, times = map(int, line.split())
        model, instances = runs[which]
        model(instances)
        least = float("inf")
        for _ in range(times):
            begin = perf_counter()
            model(instances)
            least = min(least, perf_counter() - begin)
        print(least, flush=True)


class Worker:
    """A process that runs the models of one checkout."""

    def __init__(self, folder: Path, settings: list[str]) -> None:
        environment = os.environ | {"PYTHONPATH": str(folder)}
        command = [sys.executable, str(HERE), "--worker", *settings]
        self._process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        found = self._answer()
        if Path(found) != folder:
            raise SystemExit(f"the process for {folder} imports {found}")

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a process ended before it answered")
        return line.strip()

    def seconds(self, which: int, times: int) -> float:
        """The least time of a minibatch of one model among `times`."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{which} {times}\n")
        self._process.stdin.flush()
        return float(self._answer())

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def main() -> None:
    """Print the ratio of every model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", type=Path, required=True)
    parser.add_argument("--workload", nargs="+", default=["treelstm", "lattice-lstm"])
    parser.add_argument("--hidden", nargs="+", type=int, default=[64, 128])
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--target", nargs="+", default=["llvm"], help="llvm, or values of mcpu such as haswell")
    parser.add_argument("--repeat", type=int, default=20, help="turns")
    parser.add_argument("--times", type=int, default=5, help="minibatches a turn")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    settings = [
        f"{name}:{hidden}:{arguments.batch_size}:{target}"
        for target in arguments.target
        for name in arguments.workload
        for hidden in arguments.hidden
    ]
    old, new = (Worker(folder.resolve(), settings) for folder in (arguments.old, HERE.parents[1]))
    rows = []
    for which, setting in enumerate(settings):
        pairs = []
        for turn in range(arguments.repeat):
            pair = {}
            for worker in (old, new) if turn % 2 else (new, old):
                pair[worker] = worker.seconds(which, arguments.times)
            pairs.append((pair[old], pair[new]))
        ratio = median(b / a for a, b in pairs)
        least = [min(times) * 1e3 for times in zip(*pairs, strict=True)]
        rows.append({"model": setting, "ratio": ratio, "old_ms": least[0], "new_ms": least[1]})
        print(f"{setting:34} old {least[0]:8.3f} ms  new {least[1]:8.3f} ms  new / old {ratio:.3f}", flush=True)
    for worker in (old, new):
        worker.close()
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        sys.path.remove(str(HERE.parent))  # `import cuda` would find the benchmark of that name, of this checkout
        work(sys.argv[2:])
    else:
        main()

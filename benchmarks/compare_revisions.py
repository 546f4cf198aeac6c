"""Time of minibatches of this checkout and of another one, in turns, each in a process of its own.

python -m benchmarks.compare_revisions --old DIR [--part PART ...] [--workload NAME ...] [--hidden H ...] [--json FILE]
python -m benchmarks.compare_revisions --old DIR --builds [--repeat N]

DIR is a checkout (``git worktree add DIR COMMIT``). There are three processes: old, old once more, and new. Each
compiles every model and then runs a few minibatches when it is its turn, while the others wait. The ratio is new over
old: the median over all turns of the ratio of the least times in a turn. The ratio of old to itself is the noise.

``--builds`` gives the processor time of the first build of the native libraries instead: a fresh process with an empty
cache folder for each of old, old and new in turns.

======= ==============================================================================================
part    what is timed
======= ==============================================================================================
whole   one call of the model on the instances; schedules and plans come from their caches
host    merge the instances, schedule, plan, with neither cache
execute the kernels, on an existing plan
======= ==============================================================================================
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

HERE = Path(__file__).resolve()
SETTLE = 5
"""Minibatches before the first that is measured."""


def work(settings: list[str]) -> None:
    """Compile models, named by ``workload:hidden:batch:target``; answer each line read with the seconds of a part."""
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
        runs.append(_parts(model, instances))
    print(Path(eb.__file__).resolve().parents[1], flush=True)
    for line in sys.stdin:
        which, part, times = line.split()
        run = runs[int(which)][part]
        run()
        least = float("inf")
        for _ in range(int(times)):
            begin = perf_counter()
            run()
            least = min(least, perf_counter() - begin)
        print(least, flush=True)


def _parts(model: Any, instances: list[Any]) -> dict[str, Callable[[], object]]:
    graph = model.merge(instances)
    schedule, _ = model.schedule(graph)
    plan = model.plan(graph, schedule)

    def host() -> None:
        merged = model.merge(instances)
        model.plan(merged, model.schedule(merged, cache=False)[0])

    return {"whole": lambda: model(instances), "host": host, "execute": lambda: model.execute(graph, plan)}


def build_libraries() -> None:
    """Print as JSON the processor time in which this process builds each native library; the cache folder is empty."""
    import edbatch_tvm.compiler  # noqa: F401  (not a part of the builds: importing TVM)
    from edbatch_tvm.native.build import LIBRARIES, load_library

    seconds = {}
    for name in LIBRARIES:
        begin = process_time()
        load_library(name)
        seconds[name] = process_time() - begin
    print(json.dumps(seconds))


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

    def seconds(self, which: int, part: str, times: int) -> float:
        """The least time of a part of one model among `times`."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{which} {part} {times}\n")
        self._process.stdin.flush()
        return float(self._answer())

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def compare_parts(
    old_tree: Path, settings: list[str], parts: list[str], repeat: int, times: int
) -> list[dict[str, Any]]:
    """A row for each part of each model."""
    workers = [Worker(folder, settings) for folder in (old_tree, old_tree, HERE.parents[1])]
    rows = []
    for which, setting in enumerate(settings):
        for part in parts:
            turns = []
            for turn in range(repeat):
                seconds = [0.0] * len(workers)
                for number in _order(turn):
                    seconds[number] = workers[number].seconds(which, part, times)
                turns.append(seconds)
            rows.append(_row(f"{setting} {part}", turns))
    for worker in workers:
        worker.close()
    return rows


def compare_builds(old_tree: Path, repeat: int) -> list[dict[str, Any]]:
    """A row for each native library, and for all of them."""
    turns: dict[str, list[list[float]]] = {}
    trees = [old_tree, old_tree, HERE.parents[1]]
    for turn in range(repeat):
        seconds: list[dict[str, float]] = [{}, {}, {}]
        for number in _order(turn):
            with tempfile.TemporaryDirectory() as cache:
                environment = os.environ | {"PYTHONPATH": str(trees[number]), "EDBATCH_CACHE": cache}
                command = [sys.executable, str(HERE), "--build-worker"]
                done = subprocess.run(
                    command, cwd=trees[number], env=environment, capture_output=True, text=True, check=True
                )
            seconds[number] = json.loads(done.stdout)
            seconds[number]["all"] = sum(seconds[number].values())
        for name in seconds[0]:
            turns.setdefault(name, []).append([one[name] for one in seconds])
    return [_row(f"build {name}", measured) for name, measured in turns.items()]


def _order(turn: int) -> tuple[int, ...]:
    """Each of the three comes first in one of three turns."""
    return tuple((turn + step) % 3 for step in range(3))


def _row(name: str, turns: list[list[float]]) -> dict[str, Any]:
    """Seconds of old, old and new in each turn as one row, printed."""
    ratio = median(new / old for old, _, new in turns)
    noise = median(again / old for old, again, _ in turns)
    least = [min(times) * 1e3 for times in zip(*turns, strict=True)]
    row = {"name": name, "ratio": ratio, "noise": noise, "old_ms": least[0], "new_ms": least[2]}
    print(
        f"{name:38} old {least[0]:9.3f} ms  new {least[2]:9.3f} ms  new / old {ratio:.3f}  old / old {noise:.3f}",
        flush=True,
    )
    return row


def main() -> None:
    """Print the ratio of every model and part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", type=Path, required=True)
    parser.add_argument("--builds", action="store_true", help="the first build of the native libraries instead")
    parser.add_argument("--part", nargs="+", choices=("whole", "host", "execute"), default=["whole", "host", "execute"])
    parser.add_argument("--workload", nargs="+", default=["treelstm", "lattice-lstm"])
    parser.add_argument("--hidden", nargs="+", type=int, default=[64, 128])
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--target", nargs="+", default=["llvm"], help="llvm, or values of mcpu such as haswell")
    parser.add_argument("--repeat", type=int, default=20, help="turns")
    parser.add_argument("--times", type=int, default=5, help="runs a turn")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.builds:
        rows = compare_builds(arguments.old.resolve(), arguments.repeat)
    else:
        settings = [
            f"{name}:{hidden}:{arguments.batch_size}:{target}"
            for target in arguments.target
            for name in arguments.workload
            for hidden in arguments.hidden
        ]
        rows = compare_parts(arguments.old.resolve(), settings, arguments.part, arguments.repeat, arguments.times)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] in (["--worker"], ["--build-worker"]):
        sys.path.remove(str(HERE.parent))  # `import cuda` would find the benchmark of that name, of this checkout
    if sys.argv[1:2] == ["--worker"]:
        work(sys.argv[2:])
    elif sys.argv[1:2] == ["--build-worker"]:
        build_libraries()
    else:
        main()

"""PyTorch's own samples of every operator through compiled cells, against PyTorch in float64.

    python -m benchmarks.operator_samples [--target avx2 llvm cuda-emulated] [--samples 6] [--only WORD]
        [--list] [--json FILE]

``benchmarks/operators/sample_filter.py`` says which samples count, ``compare.py`` there when a result is right. Every
operator runs in another process, so that a crash or a hang is recorded and does not end the run. With
``--json FILE`` results are added to FILE as they come, one operator per line, and operators that FILE has are not run
again. The exit code is 1 if a result is different or a process crashed.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import subprocess
import sys
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm

MARK = "@@"
ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", nargs="+", default=["avx2", "llvm", "cuda-emulated"])
    parser.add_argument("--samples", type=int, default=6, help="samples of an operator, spread over all; 0: all")
    parser.add_argument("--only", nargs="*", default=[], help="operators with one of these words in their names")
    parser.add_argument("--exact", nargs="*", default=[], help="operators of these names")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--limit", type=float, default=240, help="seconds an operator may take")
    parser.add_argument("--list", action="store_true", help="print every operator, not only what went wrong")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        serve(arguments.target, arguments.samples)
        return
    from benchmarks.operators.samples import operators

    chosen = [name for name in operators() if not arguments.only or any(word in name for word in arguments.only)]
    if arguments.exact:
        chosen = [name for name in operators() if name in arguments.exact]
    results = sweep(chosen, arguments.target, arguments.samples, arguments.jobs, arguments.limit, arguments.json)
    summary = Summary(results, arguments.target)
    print("\n".join(summary.lines(arguments.list)))
    raise SystemExit(bool(summary.bad))


# Processes ------------------------------------------------------------------------------------------------------


def serve(targets: list[str], count: int) -> None:
    """Check the operators named on standard input, one a line; results go to standard output, as JSON."""
    import torch

    from benchmarks.operators.check import check, quick_decompositions

    torch.set_num_threads(1)
    quick_decompositions()

    def say(kind: str, content: Any) -> None:
        print(MARK + json.dumps([kind, content]), flush=True)

    for line in sys.stdin:
        name = line.strip()
        try:
            result = check(name, targets, count, lambda text: say("at", text))
        except Exception as error:
            result = lost(name, targets, f"{type(error).__name__}: {error}"[:300])
        say("result", result)


def lost(name: str, targets: list[str], text: str) -> dict[str, Any]:
    """The result of an operator that gave none."""
    row = {"sample": -1, "shown": "", "outside": "", "targets": dict.fromkeys(targets, ("crash", text))}
    return {"operator": name, "samples": 0, "outside": {}, "rows": [row]}


def sweep(
    names: list[str], targets: list[str], count: int, jobs: int = 2, limit: float = 240, file: Path | None = None
) -> list[dict[str, Any]]:
    """Check the operators `names` in `jobs` processes; results are kept in `file`, and taken from there."""
    results: dict[str, dict[str, Any]] = {}
    if file is not None and file.exists():
        found = [json.loads(line) for line in file.read_text().splitlines()]
        results = {result["operator"]: result for result in found if result["operator"] in names}
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    for name in names:
        if name not in results:
            waiting.put(name)
    with tqdm(total=waiting.qsize(), unit="operator", disable=None) as bar:

        def work() -> None:
            process: Worker | None = None
            while True:
                try:
                    name = waiting.get_nowait()
                except queue.Empty:
                    break
                process = process or Worker(targets, count)
                results[name] = process.check(name, limit)
                if file is not None:
                    with file.open("a") as lines:
                        lines.write(json.dumps(results[name]) + "\n")
                if process.ended:
                    process = None
                bar.update()
            if process is not None:
                process.end()

        threads = [threading.Thread(target=work) for _ in range(min(jobs, waiting.qsize()))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return [results[name] for name in names]


class Worker:
    """A process that checks one operator after another."""

    def __init__(self, targets: list[str], count: int) -> None:
        self.targets, self.ended, self.fresh = targets, False, True
        command = [sys.executable, "-m", "benchmarks.operator_samples", "--worker", "--samples", str(count)]
        environment = os.environ | {"TVM_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [*command, "--target", *targets],
            cwd=ROOT,
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self.lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def check(self, name: str, limit: float) -> dict[str, Any]:
        """The result of an operator; that of :func:`lost` if the process ends or takes longer than `limit`."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended: the reader says so below
            self.process.stdin.write(f"{name}\n")
            self.process.stdin.flush()
        at = "start"
        while True:
            try:
                line = self.lines.get(timeout=limit)
            except queue.Empty:
                self.end()
                return lost(name, self.targets, f"no answer in {limit:.0f} s ({at})")
            if line is None:
                self.end()
                return lost(name, self.targets, f"the process ended with {self.process.wait()} ({at})")
            if line.startswith(MARK):
                kind, content = json.loads(line[len(MARK) :])
                if kind == "result":
                    return content
                at = content

    def end(self) -> None:
        """Stop the process."""
        self.ended = True
        self.process.kill()
        self.process.wait()
        self.reader.join()
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdout.close()


# The table ------------------------------------------------------------------------------------------------------


class Summary:
    """Operators and samples by verdict, for each target."""

    def __init__(self, results: list[dict[str, Any]], targets: list[str]) -> None:
        self.results, self.targets = results, targets
        rows = [(result["operator"], row) for result in results for row in result["rows"]]
        self.bad = [
            f"{operator} [{row['sample']}: {row['shown']}] on {target}: {verdict}: {text}"
            for operator, row in rows
            for target, (verdict, text) in row["targets"].items()
            if verdict in ("different", "crash")
        ]

    def verdict(self, result: dict[str, Any], target: str) -> str:
        """``outside`` if no sample counts; else what the samples that count are, the worst first, or ``partly``."""
        found = {row["targets"][target][0] for row in result["rows"] if not row["outside"]}
        if not found:
            return "outside"
        for bad in ("crash", "different"):
            if bad in found:
                return bad
        return found.pop() if len(found) == 1 else "partly"

    def lines(self, every: bool = False) -> list[str]:
        """The table, the reasons and, with `every`, all operators, as Markdown."""
        lines = [
            "| target | operators that count | all samples equal | some refused | refused | different | crash | equal "
            "| samples | equal | refused |",
            "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
        ]
        for target in self.targets:
            operators = Counter(self.verdict(result, target) for result in self.results)
            counted = sum(operators.values()) - operators["outside"]
            samples = Counter(
                row["targets"][target][0] for result in self.results for row in result["rows"] if not row["outside"]
            )
            numbers = [operators[kind] for kind in ("equal", "partly", "refused", "different", "crash")]
            share = f"{100 * operators['equal'] / max(counted, 1):.1f} %"
            more = [sum(samples.values()), samples["equal"], samples["refused"]]
            lines.append(f"| {target} | " + " | ".join(map(str, [counted, *numbers, share, *more])) + " |")
        lines += ["", *self._beyond(), "", *self._reasons()]
        if every:
            lines += ["", *self._every()]
        if self.bad:
            lines += ["", "Wrong:", *(f"- {line}" for line in self.bad)]
        return lines

    def _beyond(self) -> list[str]:
        """Operators of which no sample counts, by reason, and what the tried ones gave."""
        found: dict[str, list[str]] = {}
        verdicts: Counter[str] = Counter()
        for result in self.results:
            verdicts.update(v for row in result["rows"] if row["outside"] for v, _ in row["targets"].values())
            if result["outside"] and self.verdict(result, self.targets[0]) == "outside":
                reason = Counter(result["outside"]).most_common(1)[0][0]
                found.setdefault(reason.split(":")[0], []).append(result["operator"])
        lines = ["| operators that do not count | number |", "|---|--:|"]
        lines += [f"| {reason} | {len(names)} |" for reason, names in sorted(found.items(), key=lambda p: -len(p[1]))]
        shown = ", ".join(f"{verdicts[kind]} {kind}" for kind in ("equal", "refused", "different", "crash"))
        return [*lines, "", f"Their samples, over all targets: {shown}."]

    def _reasons(self) -> list[str]:
        reasons: dict[str, dict[str, None]] = {}
        count: Counter[str] = Counter()
        for result in self.results:
            for row in result["rows"]:
                for text in {text for verdict, text in row["targets"].values() if verdict == "refused"}:
                    if not row["outside"]:
                        reasons.setdefault(text, {})[result["operator"]] = None
                        count[text] += 1
        lines = ["| reason of a refusal | samples | operators |", "|---|--:|---|"]
        return lines + [
            f"| {text.replace('|', '/')} | {number} | {', '.join(reasons[text])} |"
            for text, number in count.most_common()
        ]

    def _every(self) -> list[str]:
        lines = [
            "| operator | samples tried | of | " + " | ".join(self.targets) + " |",
            "|---|--:|--:|" + "---|" * len(self.targets),
        ]
        for result in self.results:
            verdicts = [self.verdict(result, target) for target in self.targets]
            lines.append(
                f"| {result['operator']} | {len(result['rows'])} | {result['samples']} | {' | '.join(verdicts)} |"
            )
        return lines


if __name__ == "__main__":
    main()

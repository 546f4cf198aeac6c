"""How much faster than eager PyTorch each public model can become: what of its time is Python of its own.

Run as ``python -m benchmarks.public_models.bounds FOLDER [names]``; it needs Linux's ``perf``. Batching takes over what
cells do and what operators compute, but not the Python code around them, and every operator outside of cells is still
called once. So an eager call is sampled, and each sample is one of the interpreter or one of a library, inside of a
call of a cell or outside. The first bound is what is left if cells and operators cost nothing, the second if cells do
and operators outside of them cost what they cost in PyTorch.
"""

from __future__ import annotations

import argparse
import functools
import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch

from benchmarks.public_models.measure import Case
from benchmarks.public_models.models import MODELS
from benchmarks.public_models.repositories import checked_out

_SECONDS = 4.0
"""Of eager calls that are sampled, at least."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one line a model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", default=[], help="of models; default: all")
    parser.add_argument("--inside", action="store_true", help="sample one model in this process")
    options = parser.parse_args(arguments)
    for name in options.names or list(MODELS):
        if not options.inside:
            command = [sys.executable, "-m", "benchmarks.public_models.bounds", str(options.folder), name, "--inside"]
            subprocess.run(command, check=False)
            continue
        repository, driver = MODELS[name]
        place = checked_out(repository, options.folder).resolve()
        torch.manual_seed(0)
        torch.set_num_threads(1)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            here = Path.cwd()
            case = driver(place)
            os.chdir(here)  # a driver imports inside of the repository
            print(f"{name}: {_bounds(case)}", flush=True)


def _bounds(case: Case) -> str:
    """What one case may reach, as text."""
    for module in case.model.modules():
        module.training = False
    turns: list[float] = []
    for cell in case.cells or []:
        _watch(case.model, cell, turns)
    samples = _sampled(lambda: [case.model(*element) for element in case.elements])
    found: Counter[tuple[bool, bool]] = Counter()
    for moment, library in samples:
        in_cell = bisect_right(turns, moment) % 2 == 1  # between the begin and the end of a call
        found[in_cell, "python" in Path(library).name and "torch" not in library] += 1
    total = sum(found.values())
    outside = found[False, True] + found[False, False]
    return (
        f"{(found[True, True] + found[False, True]) / total:.0%} of an eager call is the interpreter, "
        f"{found[False, True] / total:.0%} outside of cells, where operators are {found[False, False] / total:.0%}; "
        f"at most {total / max(found[False, True], 1):.1f} x eager, {total / max(outside, 1):.1f} x with these"
    )


def _watch(model: torch.nn.Module, cell: Any, turns: list[float]) -> None:
    """Note when calls of a cell begin and end; of one inside of another, nothing."""
    if isinstance(cell, str):
        *path, name = cell.split(".")
        owner = attrgetter(".".join(path))(model) if path else model
        found = getattr(owner, name)
    else:
        found = cell

    @functools.wraps(found.forward if isinstance(found, torch.nn.Module) else found)
    def watched(*arguments: Any, **named: Any) -> Any:
        if len(turns) % 2:
            return call(*arguments, **named)
        turns.append(time.monotonic())
        try:
            return call(*arguments, **named)
        finally:
            turns.append(time.monotonic())

    if isinstance(found, torch.nn.Module):
        call: Callable[..., Any] = found.forward
        found.forward = watched
    elif isinstance(cell, str):
        call = found
        setattr(owner, name, watched)
    else:  # a function, wherever the model's code has it
        call = found
        for module in list(sys.modules.values()):
            for place in [one for one, thing in vars(module).items() if thing is found]:
                setattr(module, place, watched)


def _sampled(action: Callable[[], Any]) -> list[tuple[float, str]]:
    """When samples of a few seconds of calls were taken, and the library that each was in."""
    action()
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "samples")
        command = ["perf", "record", "-q", "-F", "1999", "-k", "CLOCK_MONOTONIC", "-e", "cpu-clock:u", "-o", file]
        watcher = subprocess.Popen([*command, "-t", str(os.getpid())])  # this thread alone
        time.sleep(0.5)  # until it has begun
        begin = time.monotonic()
        while time.monotonic() < begin + _SECONDS:
            action()
        watcher.send_signal(signal.SIGINT)
        watcher.wait()
        listed = subprocess.run(
            ["perf", "script", "-i", file, "-F", "time,ip,dso"], check=True, capture_output=True, text=True
        )
    samples = []
    for line in listed.stdout.splitlines():
        moment, _, rest = line.strip().partition(":")
        if rest and float(moment) >= begin:
            samples.append((float(moment), rest.rpartition("(")[2].rstrip(")")))
    return samples


if __name__ == "__main__":
    main()

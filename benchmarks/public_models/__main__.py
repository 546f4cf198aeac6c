"""Public models of dynamic networks, eagerly and by ``eb.autobatch``, in turn.

Run as ``python -m benchmarks.public_models FOLDER [names]``. It clones the repositories into FOLDER where they are not
there yet, at the commits of ``repositories.py``, applies the repairs listed there, and prints one line a model. Nothing
of the repositories is part of this project. Each model runs in a process of its own.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.public_models.measure import measure
from benchmarks.public_models.models import MODELS
from benchmarks.public_models.repositories import checked_out, edited_lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one line a model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", default=[], help="of models; default: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, help="elements of a minibatch, at most; default: what a driver makes")
    parser.add_argument("--cpu", action="store_true", help="processor time of one thread, for busy machines")
    parser.add_argument("--fallback", default="never", choices=("never", "auto"), help="of autobatch (%(default)s)")
    parser.add_argument("--inside", action="store_true", help="run one model in this process")
    options = parser.parse_args(arguments)
    names = options.names or list(MODELS)
    if not options.inside:
        for name in names:
            command = [sys.executable, "-m", "benchmarks.public_models", str(options.folder), name]
            command += ["--inside", "--rounds", str(options.rounds)]
            if options.count is not None:
                command += ["--count", str(options.count)]
            command += ["--fallback", options.fallback, *(["--cpu"] if options.cpu else [])]
            subprocess.run(command, check=False)
        return
    torch.manual_seed(0)
    for name in names:
        repository, driver = MODELS[name]
        place = checked_out(repository, options.folder).resolve()
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            here = Path.cwd()
            case = driver(place)
            os.chdir(here)  # a driver imports inside of the repository
            del case.elements[options.count or len(case.elements) :]
            figures = measure(case, options.rounds, options.cpu, options.fallback)
            print(f"{name}: {edited_lines(place)} lines edited, {figures}", flush=True)


if __name__ == "__main__":
    main()

"""Gradients of public models through ``eb.autobatch``, beside eager PyTorch's.

Run as ``python -m benchmarks.public_models.gradients FOLDER [names]``; each model runs in a process of its own. The
loss is a sum of all results, each number with a weight of its own. Printed is the largest difference of a parameter's
gradient, relative to its largest value, both computed in float64, or in float32 with ``--float32``.
"""

from __future__ import annotations

import argparse
import copy
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

import edbatch_tvm as eb
from benchmarks.public_models.measure import SEED, Case
from benchmarks.public_models.models import MODELS
from benchmarks.public_models.repositories import checked_out


def gradients(model: torch.nn.Module, run: Callable[[], Any]) -> dict[str, torch.Tensor]:
    """The gradients of a weighted sum of everything that is returned."""
    model.zero_grad(set_to_none=True)
    torch.manual_seed(SEED)  # of what the model draws
    numbers = torch.Generator().manual_seed(0)
    total: Any = 0.0
    for leaf in pytree.tree_leaves(run()):
        if isinstance(leaf, torch.Tensor) and leaf.requires_grad:
            weights = torch.randn(leaf.shape, generator=numbers, dtype=torch.float64)
            total = total + (leaf * weights.to(leaf.dtype)).sum()
    total.backward()
    return {name: one.grad.to_dense().clone() for name, one in model.named_parameters() if one.grad is not None}


def compare(case: Case) -> tuple[float, int]:
    """The largest relative error of a gradient, and how many there are."""
    model, elements = case.model, case.elements if case.to_train is None else case.to_train
    for module in model.modules():
        module.training = False  # a method `children` may hide the submodules from eval()
    # A model may keep its states on the elements: the two sides have their own, which nobody has computed with.
    own, given = copy.deepcopy(elements), copy.deepcopy(elements)
    wanted = gradients(model, lambda: [model(*one) for one in own])
    fast = eb.autobatch(model, cells=case.cells, **case.options)
    single = [one[0] if len(one) == 1 else one for one in given]
    fast.map(single)
    found = gradients(model, lambda: fast.map(single))
    # PyTorch has no gradient where autobatch has one of zeros.
    names = {name for name, one in (found | wanted).items() if (name in found and name in wanted) or bool(one.any())}
    if not names <= found.keys() & wanted.keys():
        raise AssertionError(f"gradients of {sorted(found.keys() ^ wanted.keys())} on one side alone")
    errors = [
        float((found[name] - wanted[name]).abs().max() / wanted[name].abs().max().clamp(min=1e-12)) for name in names
    ]
    return max(errors), len(wanted)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one line a model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", default=[], help="of models; default: all")
    parser.add_argument("--count", type=int, default=8, help="elements of a minibatch, at most (%(default)s)")
    parser.add_argument("--float32", action="store_true", help="compute in float32")
    parser.add_argument("--inside", action="store_true", help="run one model in this process")
    options = parser.parse_args(arguments)
    if not options.inside:
        for name in options.names or MODELS:
            command = [sys.executable, "-m", "benchmarks.public_models.gradients", str(options.folder), name]
            command += ["--inside", "--count", str(options.count)] + (["--float32"] if options.float32 else [])
            subprocess.run(command, check=False)
        return
    dtype = torch.float32 if options.float32 else torch.float64
    torch.set_default_dtype(dtype)
    for name in options.names:
        torch.manual_seed(0)
        repository, driver = MODELS[name]
        here, place = Path.cwd(), checked_out(repository, options.folder).resolve()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with torch.no_grad():  # which writes into parameters
                case = driver(place)
            os.chdir(here)  # a driver imports inside of the repository
            for parameter in case.model.parameters():  # some are of float32 whatever the default
                parameter.data = parameter.data.to(dtype)
            if case.to_train is not None:
                del case.to_train[options.count :]
            del case.elements[options.count :]
            error, count = compare(case)
        print(f"{name}: {count} gradients, error {error:.1e} in {str(dtype).removeprefix('torch.')}", flush=True)


if __name__ == "__main__":
    main()

"""Gradients of public models through ``eb.autobatch``, beside eager PyTorch's.

Run as ``python -m benchmarks.public_models.gradients FOLDER [names]``; default are two TreeLSTMs. The loss is a sum of
all results, each number with a weight of its own. Printed is the largest difference of a parameter's gradient, relative
to its largest value: in float32 and in float64 against float64, or in float32 against float32 where a model makes
tensors of float32 itself.
"""

from __future__ import annotations

import argparse
import copy
import os
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

SIMPLE = ("treelstm.pytorch", "TreeLSTMSentiment, constituency")


def gradients(model: torch.nn.Module, run: Callable[[], Any]) -> dict[str, torch.Tensor]:
    """The gradients of a weighted sum of everything that is returned."""
    model.zero_grad(set_to_none=True)
    torch.manual_seed(SEED)  # of what the model draws
    numbers = torch.Generator().manual_seed(0)
    total: Any = 0.0
    for leaf in pytree.tree_leaves(run()):
        if isinstance(leaf, torch.Tensor) and leaf.requires_grad:
            total = (
                total + (leaf * torch.randn(leaf.shape, generator=numbers, dtype=torch.float64).to(leaf.dtype)).sum()
            )
    total.backward()
    return {name: one.grad.to_dense().clone() for name, one in model.named_parameters() if one.grad is not None}


def compare(case: Case) -> tuple[list[float], int]:
    """The largest relative errors of gradients, in float32 and where it can be in float64, and how many there are."""
    found: list[dict[str, torch.Tensor]] = []
    pairs = [(case.model, case.elements, torch.float32)]
    if case.in_double is not None:
        pairs.append((*case.in_double(case.model, case.elements), torch.float64))
    for module in [module for model, _, _ in pairs for module in model.modules()]:
        module.training = False  # a method `children` may hide the submodules from eval()
    for own, given, dtype in pairs:
        torch.set_default_dtype(dtype)
        run = eb.autobatch(own, cells=case.cells, **case.options)
        single = [one[0] if len(one) == 1 else one for one in given]
        run.map(single)
        found.append(gradients(own, lambda run=run, single=single: run.map(single)))  # type: ignore[misc]
    model, elements, _ = pairs[-1]
    wanted = gradients(model, lambda: [model(*one) for one in copy.deepcopy(elements)])
    torch.set_default_dtype(torch.float32)
    errors = []
    for own in found:
        names = {name for name, one in (own | wanted).items() if (name in own and name in wanted) or bool(one.any())}
        assert names <= own.keys() & wanted.keys()
        errors.append(
            max(
                float((own[name] - wanted[name]).abs().max() / wanted[name].abs().max().clamp(min=1e-12))
                for name in names
            )
        )
    return errors, len(wanted)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one line a model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", default=[])
    parser.add_argument("--count", type=int, default=8, help="elements of a minibatch, at most (%(default)s)")
    options = parser.parse_args(arguments)
    for name in options.names or SIMPLE:
        torch.manual_seed(0)
        repository, driver = MODELS[name]
        here, place = Path.cwd(), checked_out(repository, options.folder).resolve()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            case = driver(place)
            os.chdir(here)  # a driver imports inside of the repository
            del case.elements[options.count :]
            errors, count = compare(case)
        shown = ", ".join(f"{one:.1e} in {dtype}" for one, dtype in zip(errors, ("float32", "float64"), strict=False))
        print(f"{name}: {count} gradients, error {shown}", flush=True)


if __name__ == "__main__":
    main()

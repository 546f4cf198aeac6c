"""Gradients of public models through ``eb.autobatch``, beside eager PyTorch's in float64.

Run as ``python -m benchmarks.public_models.gradients FOLDER [names]``; default are two TreeLSTMs. The loss is a sum of
all results, each number with a weight of its own. Printed is, in float32 and in float64, the largest difference of a
parameter's gradient, relative to its largest value.
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
from benchmarks.public_models.measure import Case
from benchmarks.public_models.models import MODELS
from benchmarks.public_models.repositories import checked_out

SIMPLE = ("treelstm.pytorch", "TreeLSTMSentiment, constituency")


def gradients(model: torch.nn.Module, run: Callable[[], Any]) -> dict[str, torch.Tensor]:
    """The gradients of a weighted sum of everything that is returned."""
    model.zero_grad(set_to_none=True)
    numbers = torch.Generator().manual_seed(0)
    total: Any = 0.0
    for leaf in pytree.tree_leaves(run()):
        if isinstance(leaf, torch.Tensor) and leaf.requires_grad:
            total = (
                total + (leaf * torch.randn(leaf.shape, generator=numbers, dtype=torch.float64).to(leaf.dtype)).sum()
            )
    total.backward()
    return {name: one.grad.to_dense().clone() for name, one in model.named_parameters() if one.grad is not None}


def compare(case: Case) -> tuple[float, float, int]:
    """The largest relative errors of gradients in float32 and float64, and how many parameters have one."""
    assert case.in_double is not None
    found: list[dict[str, torch.Tensor]] = []
    model, elements = case.in_double(case.model, case.elements)
    for module in (*case.model.modules(), *model.modules()):  # a method `children` may hide the submodules
        module.training = False
    pairs = ((case.model, case.elements, torch.float32), (model, elements, torch.float64))
    for own, given, dtype in pairs:
        torch.set_default_dtype(dtype)
        run = eb.autobatch(own, cells=case.cells, **case.options)
        single = [one[0] if len(one) == 1 else one for one in given]
        run.map(single)
        found.append(gradients(own, lambda run=run, single=single: run.map(single)))  # type: ignore[misc]
    wanted = gradients(model, lambda: [model(*one) for one in copy.deepcopy(elements)])
    torch.set_default_dtype(torch.float32)
    errors = []
    for own in found:
        assert own.keys() == wanted.keys()
        errors.append(
            max(float((own[name] - one).abs().max() / one.abs().max().clamp(min=1e-12)) for name, one in wanted.items())
        )
    return errors[0], errors[1], len(wanted)


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
            single, double, count = compare(case)
        print(f"{name}: {count} gradients, error {single:.1e} in float32, {double:.1e} in float64", flush=True)


if __name__ == "__main__":
    main()

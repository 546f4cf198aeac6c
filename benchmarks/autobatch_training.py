"""Training steps of PyTorch models, eagerly and by ``eb.autobatch``, in turns.

Run as ``python -m benchmarks.autobatch_training``. A step is a forward pass of every element, a loss, and a backward
pass, without an optimizer; the weights are changed between two steps. Times are the shortest of ``--rounds``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

import edbatch_tvm as eb
from benchmarks.autobatch import sentences, trees_of
from tests.recording.models import ChildSumTreeLSTM, ModularTreeLSTM, ShiftReduceParser

VOCABULARY = 256


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one line a model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hidden", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sst", type=Path, help="a file of Stanford Sentiment Treebank trees; default: generated ones")
    parser.add_argument("--models", nargs="+", default=["method", "records", "submodule", "parser"])
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    eb.set_num_threads(1)
    trees, tokens = trees_of(options.sst, options.batch_size, VOCABULARY), sentences(options.batch_size, VOCABULARY)
    columns = ("model", "hidden", "eager ms", "batched ms", "faster", "forward ms", "rounds", "error")
    print("".join(f"{name:>12}" for name in columns))
    for hidden in options.hidden:
        for name, kind, cells, elements in (
            ("method", ChildSumTreeLSTM, ["node_forward"], trees),
            ("records", ChildSumTreeLSTM, ["node_forward"], trees),
            ("submodule", ModularTreeLSTM, ["word", "cell", "classify"], trees),
            ("parser", ShiftReduceParser, ["shift", "reduce", "score"], tokens),
        ):
            if name in options.models:
                torch.manual_seed(0)
                figures = compare(kind(hidden, VOCABULARY), cells, elements, options.rounds, name == "records")
                print("".join(f"{cell:>12}" for cell in (name, str(hidden), *figures)), flush=True)


def compare(
    model: torch.nn.Module, cells: list[str], elements: list[Any], rounds: int, recorded: bool
) -> tuple[str, ...]:
    """The columns of one model."""
    fast = eb.autobatch(model, cells)
    fast(elements)
    given = [fast.record(one) for one in elements] if recorded else elements
    eager, batched, forward = [], [], []
    for _ in range(rounds + 1):
        wanted, needed, _ = step(model, lambda: [model(one) for one in elements])
        eager.append(needed)
        for _ in range(3):
            found, needed, before = step(model, lambda: fast(given))
            batched.append(needed)
            forward.append(before)
        error = max(
            float((one - other).abs().max() / other.abs().max()) for one, other in zip(found, wanted, strict=True)
        )
        with torch.no_grad():
            for one in model.parameters():
                one.mul_(0.999)
    return (
        f"{1e3 * min(eager):.1f}",
        f"{1e3 * min(batched):.1f}",
        f"{min(eager) / min(batched):.1f}",
        f"{1e3 * min(forward):.1f}",
        str(len(fast.reports)),
        f"{error:.0e}",
    )


def step(model: torch.nn.Module, run: Callable[[], Any]) -> tuple[list[torch.Tensor], float, float]:
    """The gradients of one step, how long it took, and how long its forward pass."""
    model.zero_grad(set_to_none=True)
    begin = perf_counter()
    outputs = run()
    forward = perf_counter()
    leaves = [leaf for leaf in torch.utils._pytree.tree_leaves(outputs) if isinstance(leaf, torch.Tensor)]
    loss = torch.stack([one.square().mean() for one in leaves if one.requires_grad]).sum()
    loss.backward()
    end = perf_counter()
    return [one.grad for one in model.parameters() if one.grad is not None], end - begin, forward - begin


if __name__ == "__main__":
    main()

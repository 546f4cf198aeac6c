"""Training steps of PyTorch models, eagerly and by ``eb.autobatch``, in turns.

Run as ``python -m benchmarks.autobatch_training``. A step is a forward pass of every element, a loss, and a backward
pass, without an optimizer; the weights are changed between two steps. Times are the shortest of ``--rounds``.

``--core`` compares a step of recorded elements with the same step of the compiled model: the instance graphs, losses
and cotangents by NumPy, gradients as arrays, and new weights packed. It also prints what PyTorch does in any loop and
the compiled model does not: a tensor for each result, the loss, autograd, and rows of the table and their gradient;
measured by a step that does this and computes nothing else. Times are then of the processor. ``--curve N`` follows the
losses of N steps of Adam, eager and batched, in float32 and float64.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter, thread_time
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

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
    parser.add_argument("--core", action="store_true", help="beside the compiled model's own step")
    parser.add_argument("--curve", type=int, metavar="N", help="losses of N steps of Adam")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    eb.set_num_threads(1)
    if options.core or options.curve:
        for hidden in options.hidden:
            if options.core:
                trees = trees_of(options.sst, options.batch_size, VOCABULARY)
                print(f"H = {hidden}: {beside_core(hidden, trees, options.rounds)}", flush=True)
            for dtype in (torch.float32, torch.float64) if options.curve else ():
                print(f"H = {hidden}, {dtype}: {curve(hidden, options, dtype)}", flush=True)
        return
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


def beside_core(hidden: int, trees: list[Any], rounds: int) -> str:
    """The processor time of a step of recorded elements, of the compiled model's own, and of PyTorch's part."""
    torch.manual_seed(0)
    model = ChildSumTreeLSTM(hidden, VOCABULARY)
    fast = eb.autobatch(model, ["node_forward"])
    fast(trees)
    records = [fast.record(tree) for tree in trees]
    fast(records)
    core: Any = fast.compiled
    graphs = [one.content.graph(core) for one in records]
    read = torch.from_numpy(np.concatenate([np.frombuffer(one.content.externals, np.int64)[1::2] for one in records]))
    table = model.embedding.weight
    others = [one for one in model.parameters() if one is not table]
    given = torch.stack(fast(records)).detach()
    times: dict[str, list[float]] = {"autobatch": [], "core": [], "PyTorch": []}
    for number in range(4 * rounds + 2):
        for name in ("autobatch", "core", "PyTorch", "core"):  # the two others find the same caches
            with torch.no_grad():
                for one in model.parameters():
                    one.mul_(0.999)
            model.zero_grad(set_to_none=True)
            begin = thread_time()
            if name == "autobatch":
                torch.stack(fast(records)).square().sum().backward()
                found = {path: one.grad.numpy() for path, one in model.named_parameters() if one.grad is not None}
            elif name == "PyTorch":
                torch.stack(Nothing.apply(given, read, table, *others)).square().sum().backward()
            else:
                core.refresh()
                result = core(graphs)
                values = result.graph.outputs
                cotangents = dict(zip(values.tolist(), 2 * result.values(values), strict=True))
                gradients = result.backward(cotangents)
                wanted = {path: gradients[path] for path in gradients}
            if number >= 2:
                times[name].append(thread_time() - begin)
            result = cotangents = gradients = None  # nobody runs beside what another has left in memory
    assert len(wanted) <= len(found)
    best = {name: 1e3 * min(own) for name, own in times.items()}
    ratio = best["autobatch"] / best["core"]
    return (
        f"autobatch {best['autobatch']:.2f} ms, core {best['core']:.2f} ms, {100 * (ratio - 1):.0f} % more; "
        f"PyTorch's part {best['PyTorch']:.2f} ms, {100 * best['PyTorch'] / best['core']:.0f} %"
    )


class Nothing(torch.autograd.Function):
    """Results that are given, of weights and rows of a table; gradients of any numbers."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, read: torch.Tensor, table: torch.Tensor, *weights: torch.Tensor) -> Any:
        ctx.rows, ctx.read = table[read], read
        ctx.save_for_backward(table, *weights)
        return torch.unbind_copy(values)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        table, *weights = ctx.saved_tensors
        torch.stack(gradients).numpy()
        of_table = torch.zeros_like(table).index_add_(0, ctx.read, ctx.rows)
        return None, None, of_table, *map(torch.empty_like, weights)


def curve(hidden: int, options: argparse.Namespace, dtype: torch.dtype) -> str:
    """The largest relative difference of a loss over the steps."""
    torch.manual_seed(0)
    model = ChildSumTreeLSTM(hidden, VOCABULARY).to(dtype)
    plain = copy.deepcopy(model)
    fast = eb.autobatch(model, ["node_forward"])
    trees = trees_of(options.sst, options.batch_size * 8, VOCABULARY)
    optimizers = [torch.optim.Adam(one.parameters()) for one in (model, plain)]
    worst = 0.0
    for number in range(options.curve):
        chosen = np.random.default_rng(number).choice(len(trees), options.batch_size, replace=False).tolist()
        some = [trees[one] for one in chosen]
        labels = torch.tensor([tree.word % 5 for tree in some])
        losses = []
        for run, optimizer in zip((fast, lambda trees: [plain(one) for one in trees]), optimizers, strict=True):
            loss = F.nll_loss(torch.cat(run(some)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        worst = max(worst, abs(losses[0] - losses[1]) / abs(losses[1]))
    return f"{options.curve} steps, largest relative difference of a loss {worst:.1e}, last loss {losses[1]:.4f}"


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

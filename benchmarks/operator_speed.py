"""Cells with reductions over columns beside PyTorch, one call over all rows: ``python -m benchmarks.operator_speed``.

One batch of a compiled model (its kernels; the rows lie in the arena) and the module on a tensor of the same rows, in
turns, one thread each. Prints medians in milliseconds and how many times as fast the batch is.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import nn

import edbatch_tvm as eb
from edbatch_tvm.explanation.batch_timing import batch_seconds


class Attention(nn.Module):
    """Attention of a query over the rows of the children."""

    def forward(self, query: torch.Tensor, children: torch.Tensor) -> torch.Tensor:
        return torch.softmax(children @ query, -1) @ children


class Function(nn.Module):
    """A function of a row as a module."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


def modules(width: int) -> dict[str, nn.Module]:
    """The modules by name."""
    linear = lambda: nn.Linear(width, width)  # noqa: E731
    return {
        "linear-relu-linear-logsoftmax": nn.Sequential(linear(), nn.ReLU(), linear(), nn.LogSoftmax(-1)),
        "linear-softmax": nn.Sequential(linear(), nn.Softmax(-1)),
        "linear-layernorm-tanh": nn.Sequential(linear(), nn.LayerNorm(width), nn.Tanh()),
        "softmax": nn.Softmax(-1),
        "log_softmax": nn.LogSoftmax(-1),
        "layer_norm": nn.LayerNorm(width),
        "rms_norm": nn.RMSNorm(width),
        "normalize": Function(lambda x: nn.functional.normalize(x, dim=-1)),
        "logsumexp": Function(lambda x: torch.logsumexp(x, -1)),
        "max": Function(lambda x: x.amax(-1)),
    }


def measure(module: nn.Module, rows: int, width: int, repeat: int, target: Any) -> tuple[float, float, str]:
    """Seconds of a batch and of PyTorch, medians; and the path of the cell."""
    module.eval().requires_grad_(False)
    x = torch.randn(rows, width)
    model = eb.compile(*eb.cells_from_torch({"cell": module}, {"cell": (x[0],)}), target=target)
    builder = model.builder()
    instances = [builder.finish(builder.call("cell", row)) for row in x.numpy()]
    ours, theirs = in_turns(model, instances, lambda: module(x), repeat)
    return ours, theirs, model.paths["cell"]


def measure_attention(rows: int, width: int, children: int, repeat: int, target: Any) -> tuple[float, float, str]:
    """The same for attention over children; PyTorch gets one tensor of all of them."""
    queries, states = torch.randn(rows, width), torch.randn(rows, children, width)
    examples = {"cell": (queries[0], states[0])}
    model = eb.compile(
        *eb.cells_from_torch({"cell": Attention()}, examples, variadic={"cell": ["children"]}), target=target
    )
    builder = model.builder()
    pairs = zip(queries.numpy(), states.numpy(), strict=True)
    instances = [builder.finish(builder.call("cell", query, list(own))) for query, own in pairs]

    def batched() -> Any:
        weights = torch.softmax(torch.bmm(states, queries[:, :, None])[:, :, 0], -1)
        return torch.bmm(weights[:, None], states)

    ours, theirs = in_turns(model, instances, batched, repeat)
    return ours, theirs, model.paths["cell"]


def in_turns(model: eb.Model, instances: list[Any], batched: Callable[[], Any], repeat: int) -> tuple[float, float]:
    """Seconds of one batch of `instances` and of `batched`, medians of `repeat` runs in turns."""
    graph = model.merge(instances)
    schedule, _ = model.schedule(graph)
    plan = model.plan(graph, schedule)
    times: list[tuple[float, float]] = []
    for _ in range(repeat + 2):
        ours = float(np.sum(batch_seconds(model, graph, plan, 1)))
        begin = perf_counter()
        batched()
        times.append((ours, perf_counter() - begin))
    ours, theirs = zip(*times[2:], strict=True)
    return statistics.median(ours), statistics.median(theirs)


def row_text(name: str, hidden: int, ours: float, theirs: float, path: str) -> str:
    """A row of the table; a batch that takes no longer than an empty run counts as 0 seconds."""
    ratio = theirs / ours if ours else math.inf
    return f"{name:34} {hidden:6} {ours * 1e3:8.2f} {theirs * 1e3:8.2f} {ratio:6.2f}  {path[:40]}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--hidden", type=int, nargs="+", default=[128, 300])
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--children", type=int, nargs="+", default=[3, 8])
    parser.add_argument("--only", nargs="+", help="names of modules")
    parser.add_argument("--repeat", type=int, default=21)
    parser.add_argument("--cpu", help="compile for this CPU: haswell has AVX2 and no AVX-512")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    target = {"kind": "llvm", "mcpu": arguments.cpu} if arguments.cpu else "llvm"
    eb.set_num_threads(1)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    table: list[dict[str, Any]] = []
    print(f"{'cell':34} {'hidden':>6} {'ours':>8} {'torch':>8} {'ratio':>6}  path")

    def show(name: str, hidden: int, result: tuple[float, float, str]) -> None:
        ours, theirs, path = result
        table.append({"cell": name, "hidden": hidden, "ours": ours, "torch": theirs, "path": path})
        print(row_text(name, hidden, ours, theirs, path), flush=True)

    for hidden in arguments.hidden:
        for name, module in modules(hidden).items():
            if not arguments.only or name in arguments.only:
                show(name, hidden, measure(module, arguments.rows, hidden, arguments.repeat, target))
        for children in arguments.children:
            name = f"attention over {children}"
            if not arguments.only or "attention" in arguments.only:
                show(name, hidden, measure_attention(arguments.rows, hidden, children, arguments.repeat, target))
    if arguments.json:
        arguments.json.write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()

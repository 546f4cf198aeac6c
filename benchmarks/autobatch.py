"""PyTorch models as they are, eagerly and by ``eb.autobatch``, in turn.

Run as ``python -m benchmarks.autobatch``. Times are the shortest of ``--rounds``, each of which runs eager PyTorch
(with one thread or two) and then the batched model on the same elements. ``--cpu`` gives processor time instead, of one
thread: for machines that are busy.
"""

from __future__ import annotations

import argparse
import timeit
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter, thread_time
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

import edbatch_tvm as eb
from edbatch_tvm.models.childsum_tree.arity import flat
from edbatch_tvm.models.treelstm.reader import read_labelled_trees
from edbatch_tvm.recording.cell_call import CellCall
from edbatch_tvm.recording.core import core
from edbatch_tvm.recording.lazy import LazyTensor
from edbatch_tvm.recording.recorder import Recorder
from edbatch_tvm.runtime import Report
from tests.recording.models import (
    ChildSumTreeLSTM,
    GreedyDecoder,
    ModularTreeLSTM,
    ShiftReduceParser,
    random_trees,
    tree_of,
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one line a model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sst", type=Path, help="a file of Stanford Sentiment Treebank trees; default: generated ones")
    parser.add_argument("--cpu", action="store_true", help="processor time, everything in one thread")
    parser.add_argument("--vocabulary", type=int, default=256, help="numbers of words are taken modulo this")
    parser.add_argument("--calls", type=int, default=20_000, help="calls that the cost of recording is measured on")
    options = parser.parse_args(arguments)
    if options.cpu:
        eb.set_num_threads(1)
    torch.manual_seed(0)
    torch.set_grad_enabled(False)
    hidden, count, vocabulary = options.hidden, options.batch_size, options.vocabulary
    trees = trees_of(options.sst, count, vocabulary)
    tokens = sentences(count, vocabulary)
    print(f"hidden {hidden}, {count} elements, float32, CPU")
    columns = ("model", "eager ms", "batched ms", "faster", "calls", "nodes", "batches", "rounds", "relative error")
    print("".join(f"{name:>15}" for name in columns))
    for name, model, cells, elements in [
        ("tree, method", ChildSumTreeLSTM(hidden, vocabulary), ["node_forward"], trees),
        ("tree, records", ChildSumTreeLSTM(hidden, vocabulary), ["node_forward"], trees),
        ("tree, submodule", ModularTreeLSTM(hidden, vocabulary), ["word", "cell", "classify"], trees),
        ("parser", ShiftReduceParser(hidden, vocabulary), ["shift", "reduce", "score"], tokens),
        ("decoder", GreedyDecoder(hidden, vocabulary), ["encode", "step"], tokens),
    ]:
        print(
            "".join(
                f"{cell:>15}"
                for cell in (
                    name,
                    *compare(model, cells, elements, options.rounds, options.cpu, name.endswith("records")),
                )
            )
        )
    compiled = core.in_use
    costs = {}
    for way in (False, True) if compiled else (False,):
        core.use(way)
        costs["compiled" if way else "Python"] = recording_cost(hidden, options.calls, vocabulary)
    print("recording a call: " + ", ".join(f"{cost:.2f} µs ({way})" for way, cost in costs.items()))


def trees_of(path: Path | None, count: int, vocabulary: int) -> list[Any]:
    """Trees of a file, or generated ones of any arity."""
    if path is None:
        return random_trees(count, vocabulary)
    trees = []
    for labelled in read_labelled_trees(path)[:count]:
        # Numbers of words as the reader makes them; binary, as the treebank is.
        symbols = [symbol for symbol, _ in labelled]
        trees.append(tree_of(flat(symbols, [False] * len(symbols)), vocabulary))
    return trees


def sentences(count: int, vocabulary: int) -> list[list[int]]:
    """Random sentences of 10 to 29 words."""
    rng = np.random.default_rng(0)
    return [rng.integers(1, vocabulary, rng.integers(10, 30)).tolist() for _ in range(count)]


def compare(
    model: torch.nn.Module,
    cells: list[str],
    elements: list[Any],
    rounds: int,
    cpu: bool = False,
    recorded: bool = False,
) -> list[str]:
    """The columns of one model: times, ratio, calls of cells, nodes, batches, rounds, error.

    Times are processor time with `cpu`. With `recorded`, elements were recorded before.
    """
    fast = eb.autobatch(model, cells, fallback="never")
    fast(elements)
    given = [fast.record(element) for element in elements] if recorded else elements
    found, expected = fast(given), [model(element) for element in elements]
    leaves = zip(pytree.tree_leaves(found), pytree.tree_leaves(expected), strict=True)
    error = max(difference(one, other) for one, other in leaves)
    clock = thread_time if cpu else perf_counter
    eager, batched = float("inf"), float("inf")
    for number in range(rounds):
        torch.set_num_threads(1 if cpu else 1 + number % 2)
        eager = min(eager, seconds(lambda: [model(element) for element in elements], clock))
        torch.set_num_threads(1)
        batched = min(batched, seconds(lambda: fast(given), clock))
    ratio = f"{eager / batched:.1f} x"
    times = [f"{eager * 1e3:.1f}", f"{batched * 1e3:.1f}", ratio]
    graphs = [(report.calls, report.graph.num_nodes) for report in fast.reports if isinstance(report, Report)]
    sizes = [f"{sum(column)}" for column in zip(*graphs, strict=True)]
    return [*times, *sizes, f"{fast.batches}", f"{len(fast.reports)}", f"{error:.1e}"]


def seconds(action: Callable[[], Any], clock: Callable[[], float] = perf_counter) -> float:
    """How long `action` takes."""
    begin = clock()
    action()
    return clock() - begin


def difference(found: Any, wanted: Any) -> float:
    """Largest difference relative to the largest value; of other things than tensors, 0 if they are equal."""
    if isinstance(wanted, torch.Tensor):
        return float((found - wanted).abs().max() / wanted.abs().max())
    return 0.0 if found == wanted else float("inf")


def recording_cost(hidden: int, calls: int, vocabulary: int) -> float:
    """Microseconds that a call of the tree's cell takes beyond a call that does nothing."""
    model = ChildSumTreeLSTM(hidden, vocabulary)
    fast = eb.autobatch(model, ["node_forward"], fallback="never")
    fast(random_trees(3, vocabulary))
    recorder = Recorder(fast._library, lambda: None)
    record = CellCall(recorder, fast._sites["node_forward"], model.node_forward, model)
    x, zero = torch.zeros(hidden), torch.zeros(1, hidden)
    c, h = record(x, zero, zero)
    child_c, child_h = torch.cat([c, c, c]), torch.cat([h, h, h])
    assert type(c) is LazyTensor
    assert type(child_c) is LazyTensor

    class Nothing:
        def __call__(self, *_arguments: Any, **_named: Any) -> Any:
            return c, h

    def best(call: Callable[..., Any]) -> float:
        return min(timeit.repeat(lambda: call(x, child_c, child_h), number=calls, repeat=5)) / calls * 1e6

    return best(record) - best(Nothing())


if __name__ == "__main__":
    main()

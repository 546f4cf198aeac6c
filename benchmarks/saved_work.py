"""What need not be computed in real minibatches: ``python -m benchmarks.saved_work treelstm --data FILE``.

Words are rows of a table by a hash. Equal nodes are computed once (``equal_nodes=True``), and products of embeddings
are read from tables (``product_tables=True``). Prints the shares of nodes and of multiply-adds that this saves, and
milliseconds of a minibatch with neither, either and both: processor time of minibatches that are seen for the first
time, in turns, one thread, medians of the turns, averaged over the minibatches. Results are compared: equal nodes give
the same bits.

With ``--training`` a minibatch is a step: forward and backward pass, of the sum of all outputs, and taking
over the weights, of which the rows of tables that were read have changed. Tables of products then have the rows that a
minibatch reads, and each of these is computed once a step: the share of their multiply-adds is that of a step.
"""

from __future__ import annotations

import argparse
import statistics
import zlib
from collections.abc import Sequence
from time import process_time
from typing import Any

import numpy as np
import torch

import edbatch_tvm as eb
from edbatch_tvm.flops import multiply_adds_of_graph
from edbatch_tvm.graph.equal_nodes import merge_equal_nodes
from edbatch_tvm.models import get_workload
from edbatch_tvm.models.trained import with_vocabularies
from edbatch_tvm.models.vocabulary import Vocabulary
from edbatch_tvm.training.cotangents import Cotangents
from edbatch_tvm.training.graph_rows import arenas_of

OPTIONS = {"neither": (False, False), "equal": (True, False), "tables": (False, True), "both": (True, True)}
"""Columns: whether equal nodes are merged, and whether there are tables of products."""


class HashedVocabulary(Vocabulary):
    """Every word has a row: its CRC-32 modulo the number of rows."""

    def __init__(self, rows: int) -> None:
        super().__init__(())
        self._count = rows

    def __len__(self) -> int:
        return self._count

    def row(self, word: str) -> int:
        """The row of a word."""
        return zlib.crc32(word.encode()) % self._count


def measure(
    name: str, data: str, hidden: int, batch_size: int, most: int, rows: int, repeat: int, training: bool
) -> dict[str, Any]:
    """The figures of one row."""
    plain = get_workload(name)
    assert plain.labelled is not None
    workload = with_vocabularies(plain, dict.fromkeys(plain.labelled.tables.values(), HashedVocabulary(rows)))
    weights: dict[str, Any] = workload.weights(hidden)
    if training:  # kernels read tables of torch where they lie
        weights = {weight: torch.tensor(array) for weight, array in weights.items()}
    models = {
        column: eb.compile(
            workload.cells(hidden),
            weights,
            policy="agenda",
            equal_nodes=equal,
            product_tables=(1 << 30) * tables,
            training=training,
        )
        for column, (equal, tables) in OPTIONS.items()
    }
    counts = dict.fromkeys(("nodes", "left", "multiplies", "multiplies left", "multiplies with tables"), 0)
    times: dict[str, dict[int, list[float]]] = {column: {} for column in OPTIONS}
    for turn in range(repeat + 1):
        instances = workload.read(data, models["neither"].cells)[: most * batch_size]  # fresh: nothing is kept of them
        for begin in range(0, len(instances) - batch_size + 1, batch_size):
            own = instances[begin : begin + batch_size]
            results = {}
            for column, model in models.items():
                own = [eb.InstanceGraph(**_arrays(one)) for one in own]
                for one in own:
                    one.checked = True
                start = process_time()
                results[column] = model(own)
                seconds = process_time() - start
                if training:
                    seconds += _step(model, results[column], weights)
                if turn:
                    times[column].setdefault(begin, []).append(seconds)
            if not turn:
                _compare(results)
                _count(counts, models, results)
    milliseconds = {
        column: 1e3 * sum(map(statistics.median, taken.values())) / len(taken) for column, taken in times.items()
    }
    return {"milliseconds": milliseconds, **counts}


def _arrays(graph: eb.InstanceGraph) -> dict[str, Any]:
    """What an instance is made of."""
    names = ("node_type", "operand_ptr", "operand_value", "signature", "attributes", "outputs")
    return {name: getattr(graph, name) for name in names}


def _compare(results: dict[str, Any]) -> None:
    found = {
        column: np.concatenate([result.value(v) for v in result.graph.outputs]) for column, result in results.items()
    }
    assert np.array_equal(found["neither"], found["equal"], equal_nan=True)
    assert np.array_equal(found["tables"], found["both"], equal_nan=True)
    np.testing.assert_allclose(found["tables"], found["neither"], rtol=0, atol=1e-5 * np.abs(found["neither"]).max())


def _step(model: Any, result: Any, weights: dict[str, Any]) -> float:
    """Seconds of the backward pass, and of taking over the weights."""
    graph = result.graph
    values = np.unique(graph.outputs).astype(np.int64)
    arenas = arenas_of(graph, values)
    specs = graph.signature.value_specs
    ones = {
        arena: np.ones(((arenas == arena).sum(), *specs[arena].shape), np.float32) for arena in set(arenas.tolist())
    }
    start = process_time()
    gradients = result.backward_of(Cotangents(values, ones))
    read = {weight: gradients.read_rows(weight) for weight in weights}
    model.refresh(weights, rows={weight: own[0] for weight, own in read.items() if own is not None})
    return process_time() - start


def _count(counts: dict[str, int], models: dict[str, Any], results: dict[str, Any]) -> None:
    graph = results["neither"].graph
    left = merge_equal_nodes(graph).graph
    counts["nodes"] += graph.num_nodes
    counts["left"] += left.num_nodes
    counts["multiplies"] += multiply_adds_of_graph(models["neither"].source, graph)
    counts["multiplies left"] += multiply_adds_of_graph(models["neither"].source, left)
    tables = models["tables"]
    counts["multiplies with tables"] += multiply_adds_of_graph(tables.source, results["tables"].graph)
    for name, (_, rows) in results["tables"].report.products.items():
        one = next(one for one in tables.weights.derived if one.name == name)
        counts["multiplies with tables"] += rows * (one.end - one.begin) * one.spec(tables.weights.wanted).shape[1]


def main(argv: Sequence[str] | None = None) -> None:
    """Print one row for each hidden size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload")
    parser.add_argument("--data", required=True)
    parser.add_argument("--hidden", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--minibatches", type=int, default=8)
    parser.add_argument("--rows", type=int, default=20000, help="rows of the tables of words")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--training", action="store_true")
    given = parser.parse_args(argv)
    eb.set_num_threads(1)
    print(
        "| workload | H | equal nodes | their multiply-adds | those of tables | ms, neither | equal | tables | both |"
    )
    print("|---|" + "--:|" * 8)
    for hidden in given.hidden:
        found = measure(
            given.workload,
            given.data,
            hidden,
            given.batch_size,
            given.minibatches,
            given.rows,
            given.repeat,
            given.training,
        )
        nodes = 1 - found["left"] / found["nodes"]
        equal = 1 - found["multiplies left"] / found["multiplies"]
        tables = 1 - found["multiplies with tables"] / found["multiplies"]
        shares = " | ".join(f"{100 * share:.1f} %" for share in (nodes, equal, tables))
        times = " | ".join(f"{one:.2f}" for one in found["milliseconds"].values())
        print(f"| {given.workload} | {hidden} | {shares} | {times} |", flush=True)


if __name__ == "__main__":
    main()

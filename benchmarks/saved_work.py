"""What need not be computed in real minibatches: ``python -m benchmarks.saved_work treelstm --data FILE``.

Words are rows of a table by a hash. Equal nodes are computed once (``equal_nodes=True``), and products of embeddings
are read from tables (``product_tables=True``). Prints the shares of nodes and of multiply-adds that this saves, and
milliseconds of a minibatch with neither, either and both: processor time of minibatches that are seen for the first
time, in turns, one thread, medians of the turns, averaged over the minibatches. Results are compared: equal nodes give
the same bits.
"""

from __future__ import annotations

import argparse
import statistics
import zlib
from collections.abc import Sequence
from time import process_time
from typing import Any

import numpy as np

import edbatch_tvm as eb
from edbatch_tvm.flops import multiply_adds_of_graph
from edbatch_tvm.graph.equal_nodes import merge_equal_nodes
from edbatch_tvm.models import get_workload
from edbatch_tvm.models.trained import with_vocabularies
from edbatch_tvm.models.vocabulary import Vocabulary

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


def measure(name: str, data: str, hidden: int, batch_size: int, most: int, rows: int, repeat: int) -> dict[str, Any]:
    """The figures of one row."""
    plain = get_workload(name)
    assert plain.labelled is not None
    workload = with_vocabularies(plain, dict.fromkeys(plain.labelled.tables.values(), HashedVocabulary(rows)))
    weights = workload.weights(hidden)
    models = {
        column: eb.compile(
            workload.cells(hidden), weights, policy="agenda", equal_nodes=equal, product_tables=(1 << 30) * tables
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
                if turn:
                    times[column].setdefault(begin, []).append(process_time() - start)
            if not turn:
                _compare(results)
                _count(counts, models, results["neither"].graph)
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


def _count(counts: dict[str, int], models: dict[str, Any], graph: eb.InstanceGraph) -> None:
    left = merge_equal_nodes(graph).graph
    counts["nodes"] += graph.num_nodes
    counts["left"] += left.num_nodes
    counts["multiplies"] += multiply_adds_of_graph(models["neither"].source, graph)
    counts["multiplies left"] += multiply_adds_of_graph(models["neither"].source, left)
    counts["multiplies with tables"] += multiply_adds_of_graph(models["tables"].source, graph)


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
    given = parser.parse_args(argv)
    eb.set_num_threads(1)
    print(
        "| workload | H | equal nodes | their multiply-adds | those of tables | ms, neither | equal | tables | both |"
    )
    print("|---|" + "--:|" * 8)
    for hidden in given.hidden:
        found = measure(
            given.workload, given.data, hidden, given.batch_size, given.minibatches, given.rows, given.repeat
        )
        nodes = 1 - found["left"] / found["nodes"]
        equal = 1 - found["multiplies left"] / found["multiplies"]
        tables = 1 - found["multiplies with tables"] / found["multiplies"]
        shares = " | ".join(f"{100 * share:.1f} %" for share in (nodes, equal, tables))
        times = " | ".join(f"{one:.2f}" for one in found["milliseconds"].values())
        print(f"| {given.workload} | {hidden} | {shares} | {times} |", flush=True)


if __name__ == "__main__":
    main()

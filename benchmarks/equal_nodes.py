"""Equal nodes of real minibatches: ``python -m benchmarks.equal_nodes treelstm --data FILE``.

Words are rows of a table by a hash. Prints the share of nodes and of multiply-adds that equal nodes need not compute,
and milliseconds of a minibatch with and without: processor time, in turns, medians summed over the minibatches, one
thread. Results are compared bit by bit.
"""

from __future__ import annotations

import argparse
import statistics
import zlib
from collections.abc import Sequence
from time import process_time

import numpy as np

import edbatch_tvm as eb
from edbatch_tvm.flops import multiply_adds_of_graph
from edbatch_tvm.graph.equal_nodes import merge_equal_nodes
from edbatch_tvm.models import get_workload
from edbatch_tvm.models.trained import with_vocabularies
from edbatch_tvm.models.vocabulary import Vocabulary


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


def measure(name: str, data: str, hidden: int, batch_size: int, most: int, rows: int, repeat: int) -> list[float]:
    """Shares of nodes and of multiply-adds that are saved; seconds without and with."""
    plain = get_workload(name)
    assert plain.labelled is not None
    workload = with_vocabularies(plain, dict.fromkeys(plain.labelled.tables.values(), HashedVocabulary(rows)))
    model = eb.compile(workload.cells(hidden), workload.weights(hidden), policy="agenda", equal_nodes=False)
    assert model.source is not None
    instances = workload.read(data, model.cells)[: most * batch_size]
    nodes, multiplies = np.zeros(2), np.zeros(2)
    seconds = {False: 0.0, True: 0.0}
    for begin in range(0, len(instances), batch_size):
        own = instances[begin : begin + batch_size]
        graph = model.merge(own)
        equal = merge_equal_nodes(graph)
        for place, one in enumerate((graph, equal.graph)):
            nodes[place] += one.num_nodes
            multiplies[place] += multiply_adds_of_graph(model.source, one)
        times: dict[bool, list[float]] = {False: [], True: []}
        kept = {}
        for _ in range(repeat + 1):
            for choice, taken in times.items():
                model.equal_nodes = choice
                start = process_time()
                result = model(own)
                taken.append(process_time() - start)
                kept[choice] = [np.array(one) for one in result]
        assert all(np.array_equal(*pair, equal_nan=True) for pair in zip(*kept.values(), strict=True))
        for choice, taken in times.items():
            seconds[choice] += statistics.median(taken[1:])
    saved = 1 - nodes[1] / nodes[0], 1 - multiplies[1] / multiplies[0]
    return [*saved, seconds[False], seconds[True]]


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
    print("| workload | H | nodes saved | multiply-adds saved | ms without | ms with | without / with |")
    print("|---|" + "--:|" * 6)
    for hidden in given.hidden:
        nodes, multiplies, without, merged = measure(
            given.workload, given.data, hidden, given.batch_size, given.minibatches, given.rows, given.repeat
        )
        shares = f"{100 * nodes:.1f} % | {100 * multiplies:.1f} %"
        times = f"{without * 1e3:.1f} | {merged * 1e3:.1f} | {without / merged:.2f}"
        print(f"| {given.workload} | {hidden} | {shares} | {times} |", flush=True)


if __name__ == "__main__":
    main()

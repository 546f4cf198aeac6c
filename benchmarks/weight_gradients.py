"""Products of weight gradients as a share of the multiply-add rate: ``python -m benchmarks.weight_gradients``.

For the shapes of the TreeLSTM and the LSTM, in turns with the kernel that measures the rate and with NumPy, which
copies the rows side by side and multiplies: processor time, best of all turns, one thread. Rows lie in memory in
another order than they are read. NumPy follows ``OPENBLAS_NUM_THREADS=1``, which is set outside.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from time import process_time

import numpy as np

import edbatch_tvm as eb
from edbatch_tvm.benchmarking import fma_peak
from edbatch_tvm.training.compiled_sums import product_tables
from edbatch_tvm.training.gradient_kernel import GradientKernel

SHAPES = {"treelstm": (2, 5, 1200), "lstm": (2, 4, 2000), "leaf": (1, 3, 1200)}
"""Widths of the left and of the right side, in hidden sizes, and nodes."""


def seconds(work: Callable[[], object]) -> float:
    begin = process_time()
    work()
    return process_time() - begin


def main(argv: Sequence[str] | None = None) -> None:
    """Print a row for each shape and hidden size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hidden", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--repeat", type=int, default=30)
    given = parser.parse_args(argv)
    eb.set_num_threads(1)
    peak, peak_flops, arguments = fma_peak._prepared()
    kernel = GradientKernel("float32")
    rng = np.random.default_rng(0)
    print("| shape | H | nodes | GFLOP/s | NumPy | multiply-adds | share |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for hidden in given.hidden:
        for name, (lefts, rights, nodes) in SHAPES.items():
            left, right = (
                rng.standard_normal((nodes + 1, side * hidden + 16)).astype(np.float32) for side in (lefts, rights)
            )
            rows = rng.permutation(nodes)
            tables, product = product_tables(
                kernel, left[:, : lefts * hidden], rows, right[:, : rights * hidden], np.arange(nodes)
            )

            def by_numpy(left: np.ndarray = left, right: np.ndarray = right, rows: np.ndarray = rows) -> object:
                return left[rows].T @ right[:-1].copy()

            flops = 2 * lefts * rights * hidden**2 * nodes
            best = [float("inf")] * 3
            for _ in range(given.repeat):
                turns = (partial(kernel.run, tables), by_numpy, partial(peak, *arguments))
                best = [min(one, seconds(work)) for one, work in zip(best, turns, strict=True)]
            exact = left[rows, : lefts * hidden].T.astype(np.float64) @ right[:-1, : rights * hidden]
            assert np.abs(product - exact).max() <= 1e-5 * np.abs(exact).max()
            ours, numpys, rate = flops / best[0] / 1e9, flops / best[1] / 1e9, peak_flops / best[2] / 1e9
            row = f"{ours:.0f} | {numpys:.0f} | {rate:.0f} | {ours / rate:.2f}"
            print(f"| {name} | {hidden} | {nodes} | {row} |", flush=True)


if __name__ == "__main__":
    main()

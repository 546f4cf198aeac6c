"""The table that compares policies."""

from __future__ import annotations

from pathlib import Path

import pytest

from edbatch_tvm.batching.compare_policies import compare, format_rows, plot_rows, rows_of
from tests.batching.graphs import lattice, minibatches, tree

POLICIES = ["depth", "agenda", "lookahead", "ratio", "paper", "fsm", "search-2", "search-8"]


def test_rows_and_table() -> None:
    rows = []
    for name, make in (("trees", tree), ("lattices", lattice)):
        trials = []
        for seed in (0, 1):
            test = minibatches(make, seed, 2, size=4)
            trials += compare(minibatches(make, 10 + seed, 3, size=4), test, seed, widths=(2, 8))
        assert [trial.policy for trial in trials] == POLICIES * 2
        rows += rows_of(name, trials)
    assert [row.policy for row in rows] == POLICIES * 2
    assert all(1 <= row.order_ratio <= row.ratio and 0 <= row.misses <= 1 and row.spread >= 0 for row in rows)
    by_name = {(row.workload, row.policy): row for row in rows}
    assert by_name["trees", "fsm"].ratio == by_name["trees", "search-8"].ratio == 1
    assert by_name["lattices", "search-8"].ratio <= by_name["lattices", "search-2"].ratio
    assert by_name["lattices", "fsm"].learn_seconds > 0 == by_name["lattices", "depth"].learn_seconds
    lines = format_rows(rows).splitlines()
    assert lines[0] == "batches over the lower bound"
    assert lines[2].split()[:7] == ["trees", *(f"{row.ratio:.3f}" for row in rows[:6])]
    assert len(lines) == 9


def test_plot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra `plot`)")
    graphs = minibatches(tree, 0, 3, size=2)
    plot_rows(rows_of("trees", compare(graphs, graphs, widths=(2,))), str(tmp_path / "plot.png"))
    assert (tmp_path / "plot.png").stat().st_size > 1000

"""Workloads as graphs of ops: batches against the agenda rule, measured runs, learned policies."""

from __future__ import annotations

from dataclasses import replace

import pytest

import edbatch_tvm as eb
from edbatch_tvm.benchmarking import measure as measure_module
from edbatch_tvm.benchmarking.measure import RunOptions, measure, prepare, unbatched_seconds
from edbatch_tvm.benchmarking.policy_learning import LearnOptions, expansion_table, learn
from edbatch_tvm.graph import merge
from edbatch_tvm.graph.expand import expand
from edbatch_tvm.models import WORKLOADS, get_workload


@pytest.mark.parametrize("name", WORKLOADS)
def test_never_more_batches_than_agenda(name: str) -> None:
    workload = get_workload(name)
    table = expansion_table(workload.cells(32), "op")
    assert table is not None
    graph = expand(merge(workload.generate(32, table.cells, 7)), table).graph
    agenda, lookahead = (len(eb.schedule(graph, policy)[0]) for policy in ("agenda", "lookahead"))
    # A grid has one cell: any two of its ops wait for each other, and the bound tells lookahead little.
    assert eb.lower_bound(graph) <= lookahead <= (1.1 * agenda if name == "grid-lstm" else agenda)
    if name.startswith("lattice"):
        assert lookahead < 0.6 * agenda


def test_a_measured_run_of_ops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure_module, "peak_gflops", lambda **_: 1.0)
    reports = {}
    for fused in (True, False):
        options = RunOptions("treelstm", hidden=8, batch_size=4, minibatches=1, policy="agenda", check=True)
        prepared = prepare(replace(options, granularity="op", fused=fused))
        reports[fused], comparison = measure(prepared)
        assert comparison is not None
        comparison.require()
        assert unbatched_seconds(prepared.model, prepared.minibatches[0][:1]) > 0
    one, other = reports[True], reports[False]
    assert (one.granularity, other.granularity) == ("op", "op")
    assert (one.fused, other.fused) == (True, False)
    assert (one.batches, one.nodes) == (other.batches, other.nodes)
    assert (one.bytes_gathered, other.bytes_indexed) == (0, 0)
    assert other.bytes_gathered >= one.bytes_indexed > 0


def test_a_policy_for_ops() -> None:
    workload = get_workload("treelstm")
    table = expansion_table(workload.cells(32), "op")
    assert table is not None
    assert expansion_table(workload.cells(32), "cell") is None
    learned = learn(workload, table.cells, LearnOptions(batch_size=4, minibatches=2, encoding="sort", table=table))
    assert learned.policy.type_names == table.ops.names
    assert len(eb.schedule(learned.graphs[0], learned.policy)[0]) <= len(eb.schedule(learned.graphs[0], "agenda")[0])

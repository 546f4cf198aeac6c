"""Which batch sizes matter, and how trials are shared."""

from __future__ import annotations

import numpy as np

import edbatch_tvm as eb
from edbatch_tvm.models import get_workload
from edbatch_tvm.tuning.kernels.search_result import Load
from edbatch_tvm.tuning.model.histogram import allot, batch_sizes, loads_of, shares
from relay_ext.signature import signature_of


def test_sizes_are_those_of_the_schedule() -> None:
    workload = get_workload("treelstm")
    signature = signature_of(workload.cells(16))
    graphs = [eb.merge(workload.generate(8, signature, seed)) for seed in (0, 1)]
    schedules = [eb.schedule(graph, "agenda")[0] for graph in graphs]
    sizes = batch_sizes(schedules)
    for type_id, name in enumerate(signature.names):
        nodes = sum(int((graph.node_type == type_id).sum()) for graph in graphs)
        assert sizes[name].sum() == nodes
    assert sum(map(len, sizes.values())) == sum(len(schedule) for schedule in schedules)


def test_loads() -> None:
    loads = loads_of(np.array([1, 1, 2, 3, 3, 5, 300, 500]))
    assert loads == [Load(1, 1, 1, 2, 2), Load(2, 3, 3, 3, 8), Load(4, 7, 5, 1, 5), Load(256, 0, 500, 2, 800)]
    assert [str(load) for load in loads] == ["1", "2-3", "4-7", "256+"]


def test_trials_go_where_the_time_goes() -> None:
    small, large = Load(1, 1, 1, 4, 4), Load(256, 0, 300, 10, 3000)
    share = shares({"heavy": [small, large], "light": [small]}, {"heavy": 100_000, "light": 10})
    assert abs(sum(share.values()) - 1) < 1e-12
    trials = allot(100, share, 8)
    assert list(trials) == [("heavy", large)]
    assert trials["heavy", large] == 100
    assert allot(0, {("a", small): 0.5, ("b", small): 0.5}, 8) == {("a", small): 8, ("b", small): 8}

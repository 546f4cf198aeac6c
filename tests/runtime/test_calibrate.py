"""Cost tables measured on a model."""

from __future__ import annotations

import edbatch_tvm as eb
from edbatch_tvm.batching import weigh_batches_against_time
from edbatch_tvm.models import get_workload
from edbatch_tvm.runtime.calibrate import calibrate_model


def test_every_cell_gets_a_cost() -> None:
    workload = get_workload("lattice-lstm")
    model = eb.compile(workload.cells(16), workload.weights(16))
    costs = calibrate_model(model, sizes=(1, 8), repeat=1)
    assert {name: sorted(sizes) for name, sizes in costs.as_dict().items()} == {
        name: [1, 8] for name in model.signature.names
    }
    assert all(seconds > 0 for sizes in costs.as_dict().values() for seconds in sizes.values())
    graph = model.merge(workload.generate(4, model.signature, 0))
    compared = weigh_batches_against_time([graph], costs, width=8)
    assert compared.fastest_seconds <= compared.fewest_seconds
    assert compared.fewest_batches <= compared.fastest_batches

"""A row has the same bits wherever it lies: alone, in a batch of any size, with any policy."""

from __future__ import annotations

import numpy as np
import pytest

import edbatch_tvm as eb
from edbatch_tvm.models import WORKLOADS, get_workload

QUICK = (("treegru", 16), ("treelstm", 8))
"""A GRU's state is a sum of two products, of which one can be fused with the addition."""


def outputs(result: eb.Result) -> list[np.ndarray]:
    return [np.array(value) for one in result for value in (one if isinstance(one, list) else [one])]


@pytest.mark.parametrize(
    ("name", "hidden"),
    [
        *QUICK,
        *(
            pytest.param(name, hidden, marks=pytest.mark.slow)
            for name in WORKLOADS
            for hidden in (8, 12, 16, 24, 40)
            if (name, hidden) not in QUICK
        ),
    ],
)
def test_bits_do_not_depend_on_the_batch(name: str, hidden: int) -> None:
    workload = get_workload(name)
    model = eb.compile(workload.cells(hidden), workload.weights(hidden), policy="agenda")
    instances = workload.generate(14, model.signature, seed=1)
    expected = outputs(model(instances))
    for size in (1, 2, 5):
        parts = [instances[begin : begin + size] for begin in range(0, len(instances), size)]
        found = [value for part in parts for value in outputs(model(part))]
        assert all(np.array_equal(one, other, equal_nan=True) for one, other in zip(found, expected, strict=True)), size
    model.policy = "depth"
    assert all(np.array_equal(*both, equal_nan=True) for both in zip(outputs(model(instances)), expected, strict=True))

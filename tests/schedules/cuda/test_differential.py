"""Random graphs of random cells on the emulated GPU equal the one-node-at-a-time float64 reference."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edbatch_tvm.backends.cuda_emulated import EMULATED
from edbatch_tvm.graph import InstanceGraph
from edbatch_tvm.memory import PLANS
from tests.runtime.test_differential import Case
from tests.strategies import graphs

SLOW = pytest.mark.slow


@pytest.mark.parametrize("general", [False, True], ids=["stage", "general"])
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=SLOW) for seed in range(1, 16))])
def test_random_models_equal_the_reference(seed: int, general: bool) -> None:
    one = Case(seed, general, target=EMULATED)
    instances = st.lists(graphs(one.model.signature, max_nodes=10), min_size=1, max_size=4)

    @settings(max_examples=8)
    @given(instances, st.sampled_from(PLANS))
    def check(some: list[InstanceGraph], plan: str) -> None:
        one.model.policy, one.model.plan_name = "agenda", plan
        one.check(one.model, some)

    check()

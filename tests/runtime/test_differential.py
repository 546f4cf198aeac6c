"""Every policy and plan on random graphs of random cells equals the one-node-at-a-time float64 reference."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edbatch_tvm as eb
from edbatch_tvm.batching import check_schedule, lower_bound
from edbatch_tvm.checking.comparison import TOLERANCES
from edbatch_tvm.checking.reference import run_reference
from edbatch_tvm.graph import Attribute, CellSignature, InstanceGraph, Operand, Signature, ValueSpec
from edbatch_tvm.memory import PLANS
from edbatch_tvm.runtime import Model
from relay_ext.signature import weights_of
from tests.random_cells import cells_for, reference_for
from tests.strategies import graphs

POLICIES = ("depth", "agenda", "ratio", "lookahead", "auto")

SHAPES = ((16,), (20,), (3,), (2, 9))


WORDS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64")
"""Dtypes of attributes that index a table."""


def random_signature(seed: int, dtype: str = "float32", shapes: tuple[tuple[int, ...], ...] = SHAPES) -> Signature:
    """1 to 6 cells of arity 0 to 4 over one or two shapes; a third of the cells is variadic."""
    rng = np.random.default_rng(seed)
    word = "int32" if dtype == "float32" else str(rng.choice(WORDS))
    specs = [ValueSpec(shapes[i], dtype) for i in rng.choice(len(shapes), rng.integers(1, 3), replace=False)]

    def spec() -> ValueSpec:
        return specs[rng.integers(len(specs))]

    cells = []
    for number in range(rng.integers(1, 7)):
        variadic = rng.random() < 0.35
        operands = tuple(
            Operand(f"x{i}", spec(), variadic and (i == 0 or rng.random() < 0.5)) for i in range(rng.integers(0, 5))
        )
        words = tuple(Attribute(f"a{i}", ValueSpec((), word), 4) for i in range(rng.integers(0, 2)))
        cells.append(CellSignature(f"cell{number}", operands, words, tuple(spec() for _ in range(rng.integers(1, 4)))))
    return Signature(cells)


class Case:
    """A compiled random model with its reference."""

    def __init__(self, seed: int, general: bool, target: str = "llvm", dtype: str = "float32") -> None:
        signature = random_signature(seed, dtype)
        self.tolerance = TOLERANCES[dtype]
        mod = cells_for(signature, seed, general)
        rng = np.random.default_rng(seed)
        self.weights = {
            name: (rng.uniform(-1, 1, spec.shape) / np.sqrt(spec.shape[0])).astype(dtype)
            for name, spec in weights_of(mod).items()
        }
        self.model = eb.compile(mod, self.weights, target=target)
        self.reference = reference_for(signature, seed, general, self.weights)
        assert self.model.signature == signature

    def check(self, model: Model, instances: list[InstanceGraph]) -> None:
        """Compare every value of every node."""
        result = model(instances)
        graph = result.graph
        schedule, info = model.schedule(graph)
        check_schedule(graph, schedule)
        assert info.batches == len(schedule) >= lower_bound(graph)
        expected = run_reference(graph, self.reference, {})
        largest = max((np.abs(array).max() for node in expected for array in node), default=1.0)
        for node, arrays in enumerate(expected):
            for slot, array in enumerate(arrays):
                got = result.values([node * graph.stride + slot])[0]
                np.testing.assert_allclose(got, array, rtol=0, atol=self.tolerance * largest)


@lru_cache(maxsize=4)
def case(seed: int, general: bool, dtype: str = "float32") -> Case:
    return Case(seed, general, dtype=dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("general", [False, True], ids=["stage", "general"])
@pytest.mark.parametrize("seed", [0, 1, 3])
def test_random_models_equal_the_reference(seed: int, general: bool, dtype: str) -> None:
    one = case(seed, general, dtype)
    instances = st.lists(graphs(one.model.signature, max_nodes=10), min_size=1, max_size=4)

    @settings(max_examples=12)
    @given(instances, st.sampled_from(POLICIES), st.sampled_from(PLANS))
    def check(some: list[InstanceGraph], policy: str, plan: str) -> None:
        model = one.model
        model.policy, model.plan_name = policy, plan
        one.check(model, some)

    check()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("general", [False, True], ids=["stage", "general"])
@pytest.mark.parametrize("seed", [2, 4, 5, *range(100, 140)])
def test_many_random_models_equal_the_reference(seed: int, general: bool, dtype: str) -> None:
    test_random_models_equal_the_reference(seed, general, dtype)

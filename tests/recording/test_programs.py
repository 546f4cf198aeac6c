"""Random programs, recorded and as PyTorch runs them: equal, or stopped by an error that says why."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from torch.utils import _pytree as pytree

import edbatch_tvm as eb
from tests.recording.checks import assert_equal
from tests.recording.programs import QUICK, STEPS, WRITES, H, Program, programs

pytestmark = pytest.mark.filterwarnings(
    "ignore::edbatch_tvm.errors.BreakWarning", "ignore:Converting a tensor with requires_grad"
)

LENGTHS = (2, 3, 1, 2)


class Runner:
    """Runs programs by one model, whose cells are compiled once.

    Parameters
    ----------
    gradients : bool
        Whether gradients are compared, too.
    """

    def __init__(self, gradients: bool = False) -> None:
        self.gradients = gradients
        self.compared = 0
        torch.manual_seed(0)
        self.model = Program([])
        self.fast = eb.autobatch(self.model, cells=["first", "merge", "remember"])
        self.stopped = 0
        self.count = 0

    def run(self, steps: list[Any]) -> None:
        """Compare one program with PyTorch."""
        self.count += 1
        self.model.steps = tuple(steps)
        self.model.memory, self.model.scale = None, 1.0
        elements = [torch.randn(n, H) for n in LENGTHS]
        plain = copy.deepcopy(self.model)
        with torch.set_grad_enabled(self.gradients):
            try:
                wanted = [plain(x.clone()) for x in elements]
            except RuntimeError:  # of autograd, about what is written into
                assert self.gradients
                return
            try:
                found = self.fast(elements)
            except eb.EdbatchError:
                self.stopped += 1
                return
            if self.gradients:
                self.compare_gradients(found, wanted, plain)
        assert_equal(found, wanted)
        assert self.model.scale == plain.scale
        assert_equal([self.model.memory], [plain.memory])

    def compare_gradients(self, found: list[Any], wanted: list[Any], plain: Any) -> None:
        """Compare the gradients of a weighted sum of all results."""
        numbers = torch.Generator().manual_seed(1)
        weights = [torch.randn(one.shape, generator=numbers) for one in pytree.tree_leaves(wanted)]
        of = []
        for outputs, model in ((wanted, plain), (found, self.model)):
            parts = zip(pytree.tree_leaves(outputs), weights, strict=True)
            loss = sum((one * weight).sum() for one, weight in parts)
            try:
                loss.backward()  # type: ignore[union-attr]
            except RuntimeError:  # nothing requires a gradient, or what autograd needs was written into
                assert model is plain
                return
            of.append([torch.zeros_like(one) if one.grad is None else one.grad for one in model.parameters()])
            for one in model.parameters():
                one.grad = None
        for one, other in zip(of[1], of[0], strict=True):
            assert (one - other).abs().max() <= 1e-5 * other.abs().max().clamp(min=1e-2)
        self.compared += 1


@pytest.fixture(scope="module")
def runner() -> Runner:
    return Runner()


@seed(0)
@settings(max_examples=6, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(programs(QUICK))
def test_programs_of_few_kinds_of_steps(runner: Runner, steps: list[Any]) -> None:
    runner.run(steps)


@pytest.mark.slow
def test_programs_of_all_kinds_of_steps() -> None:
    runners = [Runner()]

    @seed(1)
    @settings(max_examples=2000, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(programs())
    def run(steps: list[Any]) -> None:
        runners[-1].run(steps)

    run()
    assert runners[-1].count >= 2000
    assert runners[-1].stopped < runners[-1].count / 100


@pytest.mark.slow
def test_gradients_of_programs_of_all_kinds_of_steps() -> None:
    runner = Runner(gradients=True)

    @seed(2)
    @settings(max_examples=1400, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.one_of(programs(tuple(name for name in STEPS if name not in WRITES)), programs()))
    def run(steps: list[Any]) -> None:
        runner.run(steps)

    run()
    assert runner.compared >= 500  # PyTorch itself refuses others
    assert runner.stopped < runner.count / 100

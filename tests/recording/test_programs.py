"""Random programs, recorded and as PyTorch runs them: equal, or stopped by an error that says why."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, seed, settings

import edbatch_tvm as eb
from tests.recording.checks import assert_equal
from tests.recording.programs import QUICK, H, Program, programs

pytestmark = pytest.mark.filterwarnings("ignore::edbatch_tvm.errors.BreakWarning")

LENGTHS = (2, 3, 1, 2)


class Runner:
    """Runs programs by one model, whose cells are compiled once."""

    def __init__(self) -> None:
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
        with torch.no_grad():
            wanted = [plain(x.clone()) for x in elements]
            try:
                found = self.fast(elements)
            except eb.EdbatchError:
                self.stopped += 1
                return
        assert_equal(found, wanted)
        assert self.model.scale == plain.scale
        assert_equal([self.model.memory], [plain.memory])


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

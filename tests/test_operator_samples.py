"""PyTorch's own samples of operators through compiled cells: equal or refused in one line (docs/reliability.md)."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("expecttest")

from benchmarks.operator_samples import Summary, sweep  # noqa: E402
from benchmarks.operators.compare import Expected, difference  # noqa: E402


def expected(single: list[float], double: list[float]) -> Expected:
    return Expected(np.array(single), np.array(double), np.full(len(single), 1e-6))


@pytest.mark.parametrize(
    ("found", "single", "double", "right"),
    [
        (1.0, 1.0, 1.0, True),
        (1.1, 1.0, 1.0, False),
        (np.nan, 1.0, 1.0, False),
        (np.inf, 1.0, 1.0, False),
        (np.nan, np.nan, np.nan, True),
        (0.0, np.nan, np.nan, False),
        (np.inf, np.nan, np.nan, False),
        (np.inf, np.inf, np.inf, True),
        (-np.inf, np.inf, np.inf, False),
        (1.0, np.inf, 1.0, True),  # PyTorch overflows on the way, the cell does not
        (np.inf, np.inf, 1e300, True),
        (1e38, np.inf, 1e300, False),
    ],
)
def test_what_is_right(found: float, single: float, double: float, right: bool) -> None:
    assert (difference(np.array([found]), expected([single], [double])) == "") is right


def test_a_process_that_crashes_or_hangs_is_recorded_and_the_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.operator_samples import Worker

    class Broken:
        """A worker whose process ends at the operator `dies`."""

        def __init__(self, targets: list[str], count: int) -> None:
            self.worker = Worker(targets, count)

        @property
        def ended(self) -> bool:
            return self.worker.ended

        def check(self, name: str, limit: float) -> dict[str, object]:
            if name == "cos":
                self.worker.process.kill()
                self.worker.process.wait()
            return self.worker.check(name, limit)

        def end(self) -> None:
            self.worker.end()

    monkeypatch.setattr("benchmarks.operator_samples.Worker", Broken)
    first, second = sweep(["cos", "neg"], ["llvm"], 1, jobs=1)
    summary = Summary([first, second], ["llvm"])
    assert [summary.verdict(first, "llvm"), summary.verdict(second, "llvm")] == ["crash", "equal"]
    assert "the process ended with -9" in summary.bad[0]


@pytest.mark.slow
def test_all_operators() -> None:
    from benchmarks.operators.samples import operators

    targets = ["avx2", "llvm", "cuda-emulated"]
    summary = Summary(sweep(list(operators()), targets, 3), targets)
    assert not summary.bad

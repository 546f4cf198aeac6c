"""PyTorch's own samples of operators through compiled cells: equal or refused in one line (docs/reliability.md)."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("expecttest")

from benchmarks.operator_samples import Summary, sweep  # noqa: E402
from benchmarks.operators.compare import Expected, difference  # noqa: E402
from benchmarks.operators.sample_filter import RAISES, UNDEFINED_CAST, has_undefined_cast, outside_by_running  # noqa: E402


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


INTEGERS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]


@pytest.mark.parametrize("dtype", INTEGERS)
def test_casts_of_values_that_an_integer_does_not_have(dtype: torch.dtype) -> None:
    least, most = float(torch.iinfo(dtype).min), 2.0 ** torch.iinfo(dtype).bits / (2 if dtype.is_signed else 1)
    inside = torch.tensor([least, most * (1 - 2.0**-24), 0.9, -0.9])
    assert not has_undefined_cast(lambda: inside.to(dtype))
    for value in (most, np.inf, -np.inf, np.nan, least * 1.01 - 1):
        one = torch.tensor([1.0, value])
        casts = [
            lambda one=one: one.to(dtype),
            lambda one=one: one.double().type(dtype),
            lambda one=one: torch.zeros(2, dtype=dtype).copy_(one),
            lambda one=one: one.cumsum(0, dtype=dtype),
        ]
        assert all(has_undefined_cast(cast) for cast in casts), value
        assert not has_undefined_cast(lambda one=one: (one.double().bool(), one * 2))


def test_samples_without_a_right_value_are_named() -> None:
    one = torch.tensor([-1.0, 300.0])
    assert outside_by_running(lambda: one.byte(), [one]) == UNDEFINED_CAST
    assert outside_by_running(lambda: one.as_strided((3,), (1,)), [one]).startswith(RAISES)
    assert outside_by_running(lambda: one.exp(), [one]) == ""


@pytest.mark.slow
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
    assert [first["operator"], second["operator"]] == ["cos", "neg"]
    assert [summary.verdict(first, "llvm"), summary.verdict(second, "llvm")] == ["crash", "equal"]
    assert "the process ended with -9" in summary.bad[0]


@pytest.mark.slow
def test_all_operators() -> None:
    from benchmarks.operators.samples import operators

    targets = ["avx2", "llvm", "cuda-emulated"]
    summary = Summary(sweep(list(operators()), targets, 3), targets)
    assert not summary.bad

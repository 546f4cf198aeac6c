"""The command line with a model that costs nothing to compile."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cli.fake_model import FakeModel


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> list[FakeModel]:
    """Fake models in the order of their making; a stand-in for the measured peak too."""
    from edbatch_tvm.benchmarking import measure

    made: list[FakeModel] = []

    def compile_model(*arguments: Any, **named: Any) -> FakeModel:
        made.append(FakeModel(*arguments, **named))
        return made[-1]

    monkeypatch.setattr(measure, "compile_model", compile_model)
    peaks = iter(range(100, 200))
    monkeypatch.setattr(measure, "peak_gflops", lambda **_: float(next(peaks)))
    return made

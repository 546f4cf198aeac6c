"""Settings and fixtures of all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from tests.golden import Golden

# `repeatable` tries the same examples in every run; `explore` looks for new ones.
settings.register_profile(
    "repeatable", derandomize=True, deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("explore", deadline=None, max_examples=1000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


# Every test compiles what it looks at; tests of the kept code name a folder of their own.
os.environ["EDBATCH_MODEL_CACHE"] = "none"


@pytest.fixture(autouse=True)
def _cores_are_left_alone() -> Iterator[None]:
    """No test takes cores from this process, and so from all tests after it.

    TVM's pool binds the thread that begins it to one core, unless ``prepare_threads`` was called before.
    """
    if not hasattr(os, "sched_getaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    yield
    after = os.sched_getaffinity(0)
    os.sched_setaffinity(0, before)
    assert after == before, "call prepare_threads() before TVM's pool begins"


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--update-golden`` writes the golden files instead of comparing with them."""
    parser.addoption("--update-golden", action="store_true", help="write golden files from what the tests produce")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """Compares text with a golden file."""
    return Golden(request.config.getoption("--update-golden"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked `gpu` where there is no CUDA device."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked and not _has_cuda():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def _has_cuda() -> bool:
    try:
        import tvm
    except ImportError:
        return False
    return bool(tvm.cuda(0).exist)


@pytest.fixture(params=["native", "python"])
def builders(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which builder of instances the test uses; skips the native one where it cannot be compiled."""
    from edbatch_tvm.graph import build, instances_from_arrays

    kind: str = request.param
    if kind == "python":
        for module in (build, instances_from_arrays):
            monkeypatch.setattr(module, "native_builder", lambda: None)
    elif build.native_builder() is None:
        pytest.skip("no C compiler, or Python is asked for")
    return kind


@pytest.fixture
def rng() -> np.random.Generator:
    """A random generator that starts from the same seed in every test."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real inputs, ``../shared/data`` seen from the project; skips where it is missing."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no real inputs: the folder ../shared/data is missing beside the project")
    return folder

"""The state of PyTorch as compiled code reads it, and as Python says it is."""

from __future__ import annotations

import sys
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from edbatch_tvm.recording import driver, isolation, state_addresses
from edbatch_tvm.recording.core import core

COUNT = len(state_addresses._changes())


@pytest.fixture(params=["read", "said"])
def reading(request: pytest.FixtureRequest) -> Any:
    """Whether compiled code reads the state, or asks Python's functions."""
    if not core.in_use:
        pytest.skip("no compiled core")
    if request.param == "read":
        assert not sys.platform.startswith("linux") or core._module.torch_state() is not None
        yield
        return
    core._module.know_state((0,) * len(state_addresses._SYMBOLS), 0)
    assert core._module.torch_state() is None
    yield
    state_addresses.read_natively(core._module)


@pytest.mark.parametrize("number", range(COUNT))
def test_every_change_is_seen(reading: None, number: int) -> None:
    own = isolation.state()
    change = state_addresses._changes()[number]
    for _ in range(2):  # what was found before is compared sooner
        assert driver.is_now(own)
    with change():
        inside = isolation.state()
        assert inside != own
        assert driver.is_now(inside)
        assert driver.is_now(inside)
        assert not driver.is_now(own)
    assert driver.is_now(own)
    assert not driver.is_now(inside)


def test_every_part_of_the_state_is_changed() -> None:
    own = isolation.state()
    changed: set[str] = set()
    for change in state_addresses._changes():
        with change():
            now = isolation.state()
        changed |= {name for name, before, after in zip(own._fields, own, now, strict=True) if before != after}
    assert changed == set(own._fields)


def test_every_thread_has_its_own(reading: None) -> None:
    own = isolation.state()
    found = []

    def look() -> None:
        found.append(driver.is_now(own))
        with torch.inference_mode():
            found.append(driver.is_now(own))

    with torch.set_grad_enabled(own.grad), torch.autocast("cpu"):
        assert not driver.is_now(own)
        thread = Thread(target=look)
        thread.start()
        thread.join()
    assert found == [isolation.state().grad is True, False]


def test_what_is_read_has_to_tell_states_apart() -> None:
    known = []
    blind = SimpleNamespace(know_state=lambda *given: known.append(given), torch_state=lambda: (0,) * 11)
    assert not state_addresses.read_natively(blind)
    assert known[-1] == ((0,) * len(state_addresses._SYMBOLS), 0)


def test_other_versions_are_asked_in_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.99.1")
    known = []
    blind = SimpleNamespace(know_state=lambda *given: known.append(given))
    assert not state_addresses.read_natively(blind)
    assert known == [((0,) * len(state_addresses._SYMBOLS), 0)]

"""PyTorch's handler of warnings lies on the stack of a function that an element may wait in, and others go on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import edbatch_tvm as eb

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from edbatch_tvm.recording.warning_handlers import warning_handlers  # noqa: E402

WAITS: dict[str, Callable[[Any], Any]] = {
    "a function": lambda h: torch.logcumsumexp(h, -1),
    "a method": lambda h: h.logcumsumexp(-1),
    "a loss": lambda h: nn.functional.multilabel_margin_loss(h[None], torch.tensor([[0, 1, 2]])) + h,
    "an operator": lambda h: torch.ops.aten.logcumsumexp.default(h, -1),
    "a question": lambda h: h * (1 if h.sum() > 0 else 2),
    "a number": lambda h: h * h.sum().item(),
    "a function of numbers": lambda h: torch.bincount(h.abs().long() + 1).sum() * h,
}


class Waiting(nn.Module):
    """Elements of different lengths, each of which waits again and again."""

    def __init__(self, name: str, between: Callable[[], Any]) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.name = name
        self.between = between

    def cell(self, x: torch.Tensor) -> torch.Tensor:
        """A layer."""
        return torch.tanh(self.linear(x))

    def forward(self, given: tuple[torch.Tensor, bool]) -> torch.Tensor:
        """As many layers as the input says."""
        x, fails = given
        layers = int(x[0].abs() * 3)
        x = self.cell(x)
        for _ in range(layers):
            x = WAITS[self.name](self.cell(x.expand(3)))
            self.between()
        if fails:
            raise KeyError("this element")
        return x


def warn(depth: int = 40) -> torch.Tensor:
    """Let PyTorch warn, by the handler that it finds, with other frames on the stack than before."""
    return warn(depth - 1) if depth else torch.ops.aten.var.correction(torch.ones(1), correction=1)


def check(name: str, between: Callable[[], Any]) -> None:
    torch.manual_seed(0)
    model = Waiting(name, between)
    fast = eb.autobatch(model, ["cell"])
    given = [(torch.randn(3), False) for _ in range(7)]
    before = current()
    for _ in range(3):
        found = fast(given)
        assert current() == before
    for one, element in zip(found, given, strict=True):
        torch.testing.assert_close(one, model(element))
    for place in (0, 3, 6):
        with pytest.raises(KeyError):
            fast([(x, at == place) for at, (x, _) in enumerate(given)])
        assert current() == before
        between()


def current() -> int | None:
    handlers = warning_handlers()
    assert handlers is not None
    return handlers[0]()


@pytest.mark.parametrize("name", ["a function", "a method"])
@pytest.mark.filterwarnings("ignore:.*is not batched")
def test_elements_go_on_with_the_handler_that_they_began_with(name: str) -> None:
    before = current()

    def as_before() -> None:  # changes nothing: elements that change what they share run one by one
        assert current() == before

    check(name, as_before)


def warn_in_every_way() -> None:
    for name in WAITS:
        check(name, warn)


@pytest.mark.slow
def test_warnings_after_every_way_to_wait() -> None:
    # In a process of its own, which would end otherwise.
    code = (
        "import warnings; warnings.simplefilter('ignore'); "
        "from tests.recording.test_warning_handlers import warn_in_every_way; warn_in_every_way()"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True, timeout=500)


def test_without_handlers_nothing_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edbatch_tvm.recording.driver.warning_handlers", lambda: None)
    model = Waiting("a question", lambda: None)
    fast = eb.autobatch(model, ["cell"])
    given = [(torch.randn(3), False) for _ in range(3)]
    for one, element in zip(fast(given), given, strict=True):
        torch.testing.assert_close(one, model(element))

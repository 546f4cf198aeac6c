"""Blocks that change settings of the whole process, in which elements wait for values."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable
from typing import Any

import pytest

import edbatch_tvm as eb

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.autograd import forward_ad  # noqa: E402

from edbatch_tvm.recording.process_settings import process_settings  # noqa: E402

BLOCKS: dict[str, Callable[[], Any]] = {
    "anomaly detection": lambda: torch.autograd.set_detect_anomaly(True),
    "forward gradients": forward_ad.dual_level,
    "warnings": warnings.catch_warnings,
    "output": lambda: contextlib.redirect_stdout(io.StringIO()),
    "threads of autograd": lambda: torch.autograd.set_multithreading_enabled(False),
    "attention": lambda: nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH),
}


class Blocks(nn.Module):
    """Elements of different lengths, which wait inside blocks."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.name = name

    def cell(self, x: torch.Tensor) -> torch.Tensor:
        """A layer."""
        return torch.tanh(self.linear(x))

    def forward(self, given: tuple[torch.Tensor, int]) -> torch.Tensor:
        """As many layers as the element says."""
        x, layers = given
        x = self.cell(x)
        with BLOCKS[self.name]():
            for _ in range(layers):
                x = self.cell(x) if x.sum() > 0 else self.cell(-x)
        return self.cell(x) if x[0] > 0 else x


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@torch.enable_grad()
def test_blocks_end_in_the_order_in_which_they_began(name: str) -> None:
    torch.manual_seed(0)
    model = Blocks(name)
    fast = eb.autobatch(model, ["cell"])
    given = [(torch.randn(3), layers) for layers in (2, 0, 4, 1, 3)]
    before = process_settings()
    for _ in range(2):
        found = fast(given)
        assert process_settings() == before
    torch.stack(found).sum().backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    model.zero_grad()
    wanted = torch.stack([model(element) for element in given])
    wanted.sum().backward()
    torch.testing.assert_close(torch.stack(found), wanted)
    torch.testing.assert_close(gradients, [parameter.grad for parameter in model.parameters()])


class Changes(nn.Module):
    """The first element changes a setting for good, after the others began to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def cell(self, x: torch.Tensor) -> torch.Tensor:
        """A layer."""
        return torch.tanh(self.linear(x))

    def forward(self, given: tuple[torch.Tensor, bool]) -> torch.Tensor:
        """Two layers."""
        x, changes = given
        x = self.cell(x)
        x = self.cell(x) if x.sum() > 0 else -x
        if changes:
            torch.autograd.set_detect_anomaly(True)
        return x * (2 if torch.is_anomaly_enabled() else 1)


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
def test_elements_that_change_a_setting_for_good_run_in_order() -> None:
    torch.manual_seed(0)
    model = Changes()
    given = [(torch.randn(3), place == 1) for place in range(4)]
    try:
        wanted = [model(element) for element in given]
        torch.autograd.set_detect_anomaly(False)
        fast = eb.autobatch(model, ["cell"])
        with pytest.warns(UserWarning, match="settings of PyTorch"):
            found = fast(given)
        for _ in range(2):
            torch.testing.assert_close(torch.stack(found), torch.stack(wanted))
            torch.autograd.set_detect_anomaly(False)
            found = fast(given)
    finally:
        torch.autograd.set_detect_anomaly(False)

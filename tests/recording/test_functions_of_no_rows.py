"""Functions of no rows: values and errors are PyTorch's, in first calls and in later ones, in cells and outside."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import edbatch_tvm as eb
from tests.recording.checks import assert_equal

H = 4
pytestmark = pytest.mark.filterwarnings("ignore::edbatch_tvm.errors.BreakWarning")

FUNCTIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "max(0)": lambda h: h.max(0)[0],
    "max()": lambda h: h.max(),
    "logsumexp": lambda h: h.logsumexp(0),
}


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(H, H)

    def cell(self, rows: torch.Tensor, name: str) -> torch.Tensor:
        return FUNCTIONS[name](rows)

    def forward(self, x: torch.Tensor, count: int, name: str, in_cell: bool) -> torch.Tensor:
        rows = self.first(torch.stack([x, x, x]))[:count]
        return self.cell(rows, name) if in_cell else FUNCTIONS[name](rows)


def _returned(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except (IndexError, RuntimeError) as error:
        return type(error), str(error)


def test_values_and_errors_of_no_rows() -> None:
    model = Model()
    eager, x = copy.deepcopy(model), torch.randn(H)
    later = eb.autobatch(model, cells=["first", "cell"])
    later([(x, 3, "logsumexp", False)])
    for name in FUNCTIONS:
        first = eb.autobatch(model, cells=["first", "cell"])
        for in_cell in (False, True):
            wanted = _returned(lambda: [eager(x, 0, name, in_cell)])  # noqa: B023, called at once
            for fast in (first, later):
                assert_equal(_returned(lambda: fast([(x, 0, name, in_cell)])), wanted)  # noqa: B023

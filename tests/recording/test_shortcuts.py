"""Functions that are recorded, or run by PyTorch, without a way through its dispatcher: as there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import edbatch_tvm as eb
from edbatch_tvm.recording import lazy
from tests.recording.checks import assert_equal

pytestmark = pytest.mark.filterwarnings("ignore::edbatch_tvm.errors.BreakWarning")

H = 4
LENGTHS = (3, 1, 5, 2)


class Calls(nn.Module):
    """A cell, and what functions make of its rows."""

    def __init__(self, functions: dict[str, Callable[[torch.Tensor], Any]]) -> None:
        super().__init__()
        self.up = nn.Linear(H, H)
        self.functions = functions

    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        rows = self.up(x)
        return {
            name: [call(one) for one in (rows, rows[:1], rows.mT, self.up(x[0]).view(1, H))]
            for name, call in self.functions.items()
        }


def _written_apart(t: torch.Tensor) -> Any:
    apart, detached = t.clone(), t.clone()
    shared = detached.detach()
    shared.mul_(2)  # seen in both
    apart.detach().clone().zero_()
    return apart, detached, shared


LIKE: dict[str, Callable[[torch.Tensor], Any]] = {
    "zeros_like": torch.zeros_like,
    "as they lie": lambda t: (torch.zeros_like(t).stride(), tuple(torch.empty_like(t).shape)),
    "of another dtype": lambda t: torch.ones_like(t, dtype=torch.int64),
    "new": lambda t: (t.new_ones(3), t.new_zeros(2, 3), t.new_zeros((2, 1), dtype=torch.int64), t.new_empty(2).dim()),
    "full": lambda t: (torch.full_like(t, 2.0), t.new_full((2,), 3), t.new_full((2,), fill_value=3.0)),
    "written": lambda t: torch.zeros_like(t).add_(1),
    "detach": lambda t: (t.detach() * 2, torch.detach(t) + t),
    "detach, written": _written_apart,
    "expand_as": lambda t: (t[:, :1].expand_as(t) + 1, torch.ones(1, 1).expand_as(t), t[:1].expand_as(t)),
    "view_as": lambda t: (t.reshape(-1).view_as(torch.ones(t.shape)), torch.ones(t.numel()).view_as(t)),
}

ALONG: dict[str, Callable[[torch.Tensor], Any]] = {
    "the largest": lambda t: (t.max(0), torch.max(t, -1), t.max(1).values * 2),
    "the smallest": lambda t: (t.min(0).values, torch.min(t, 1)[0], torch.min(t, dim=1, keepdim=True).values),
    "where": lambda t: t.max(1).indices.tolist(),
    "of two": lambda t: (t.max(t * 2), torch.min(t, t + 1)),
}


def _one_hot(t: torch.Tensor) -> torch.Tensor:
    return torch.zeros(t.shape, dtype=torch.int64).scatter_(1, t.max(1)[1].unsqueeze(1), 1)


INTO_ORDINARY: dict[str, Callable[[torch.Tensor], Any]] = {
    "scatter_": _one_hot,
    "a product with that": lambda t: _one_hot(t).float() * t,
    "scatter_add_": lambda t: torch.zeros(t.shape).view(t.shape).scatter_add_(1, t.max(1, keepdim=True)[1], t[:, :1]),
    "no elements": lambda t: torch.zeros(0, t.shape[1]).copy_(t[:0]),
    "by name": lambda t: torch.zeros(t.shape, dtype=torch.int64).scatter_(dim=1, index=t.max(1, True)[1], value=7),
}


def _run(functions: dict[str, Callable[[torch.Tensor], Any]]) -> eb.AutoBatched:
    model = Calls(functions).eval()
    fast = eb.autobatch(model, ["up"])
    elements = [torch.randn(count, H) for count in LENGTHS]
    for _ in range(2):
        found, wanted = fast(elements), [model(x) for x in elements]
        assert_equal(found, wanted)
    return fast


def test_functions_of_shapes_and_views(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[Any] = []
    into = lazy.INTO_PYTORCH[0]
    monkeypatch.setattr(
        lazy, "INTO_PYTORCH", [lambda function, *rest: (called.append(function), into(function, *rest))[1]]
    )
    assert not _run(LIKE).breaks
    known = {torch.zeros_like, torch.Tensor.new_zeros, torch.Tensor.detach, torch.Tensor.expand_as}
    assert known.isdisjoint(called)


def test_extrema_along_a_dimension() -> None:
    assert not _run(ALONG).breaks


def test_writing_into_ordinary_tensors() -> None:
    fast = _run(INTO_ORDINARY)
    assert {one.operation for one in fast.breaks} == {"scatter_()", "scatter_add_()"}
    assert all("test_shortcuts.py" in one.place for one in fast.breaks)
    writes = 4 * (1 + len(INTO_ORDINARY))
    assert len(fast.reports) <= writes  # elements wait for each together


def test_gradients_pass_them() -> None:
    model = Calls({name: LIKE[name] for name in ("detach", "expand_as", "written")} | {"max": lambda t: t.max(1)[0]})
    fast = eb.autobatch(model, ["up"])
    elements = [torch.randn(count, H) for count in LENGTHS]

    def gradients(run: Callable[[list[torch.Tensor]], list[Any]]) -> list[torch.Tensor]:
        with torch.enable_grad():
            leaves = torch.utils._pytree.tree_leaves(run(elements))
            total = sum((one * one).sum() for one in leaves if one.requires_grad)
            return list(torch.autograd.grad(total, [model.up.weight, model.up.bias]))

    assert_equal(gradients(fast), gradients(lambda given: [model(x) for x in given]))

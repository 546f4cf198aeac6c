"""Hooks of backward passes of modules that are cells, or that cells call."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

import edbatch_tvm as eb
from edbatch_tvm.errors import RecordingError

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from tests.recording.checks import assert_equal  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::edbatch_tvm.errors.BreakWarning")
HOOKS: dict[str, Callable[..., Any]] = {
    "full_backward_hook": lambda module, inner, outer: (inner[0] * 2,),
    "full_backward_pre_hook": lambda module, outer: (outer[0] * 2,),
}


class Model(nn.Module):
    """A recurrent model that may put hooks on a module while it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.block = nn.Sequential(nn.Linear(3, 3), nn.Tanh())
        self.inside = ""

    def cell(self, x: torch.Tensor) -> torch.Tensor:
        """A layer."""
        return torch.tanh(self.linear(x))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """A step for each row."""
        h = self.cell(x[0])
        for row in x[1:]:
            handle = put(self, self.inside, HOOKS[self.inside]) if self.inside else None
            h = self.cell(self.block(h) + row)
            if handle is not None:
                handle.remove()
        return h


def put(model: Model, kind: str, hook: Callable[..., Any]) -> Any:
    return getattr(model.block[0], f"register_{kind}")(hook)


def elements() -> list[torch.Tensor]:
    return [torch.randn(count, 3) for count in (3, 1, 4)]


def compare(fast: Any, model: Model, other: Model) -> None:
    """Compare values and gradients of `model`, batched, and of its copy `other`."""
    given = elements()
    found, wanted = fast(given), [other(x) for x in given]
    assert_equal([one.detach() for one in found], [one.detach() for one in wanted])
    for one, results in ((model, found), (other, wanted)):
        one.zero_grad()
        sum((result * result).sum() for result in results).backward()
    assert_equal([one.grad for one in model.parameters()], [one.grad for one in other.parameters()])


@pytest.mark.parametrize("when", ["before", "between", "inside"])
@pytest.mark.parametrize("kind", HOOKS)
@torch.enable_grad()
def test_gradients_are_those_of_the_model(kind: str, when: str) -> None:
    torch.manual_seed(0)
    model = Model()
    model.inside = kind if when == "inside" else ""
    if when == "before":
        put(model, kind, HOOKS[kind])
    other = copy.deepcopy(model)
    fast = eb.autobatch(model, ["cell", "block"], target="numpy")
    for turn in range(3):
        if when == "between" and turn == 1:
            put(model, kind, HOOKS[kind])
            put(other, kind, HOOKS[kind])
        compare(fast, model, other)


@pytest.mark.parametrize("kind", HOOKS)
@torch.enable_grad()
def test_hooks_that_change_nothing_are_called(kind: str) -> None:
    model = Model()
    seen: list[int] = []
    put(model, kind, lambda *_: seen.append(1))
    fast = eb.autobatch(model, ["cell", "block"], target="numpy")
    for _ in range(3):
        seen.clear()
        given = elements()
        sum(result.sum() for result in fast(given)).backward()
        assert len(seen) == sum(len(one) - 1 for one in given)


@torch.enable_grad()
def test_hooks_that_forward_begins_to_register() -> None:
    model = Model()
    other = copy.deepcopy(model)
    fast = eb.autobatch(model, ["cell", "block"], target="numpy")
    compare(fast, model, other)
    model.inside = other.inside = "full_backward_hook"
    with pytest.raises(RecordingError, match=r"registers hooks of backward passes.* call again"):
        fast(elements())
    for _ in range(2):
        compare(fast, model, other)

"""Modules among the arguments of cells, and modules that a model has under several names."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import edbatch_tvm as eb
from tests.recording.checks import assert_equal

H = 6


def gated(x: torch.Tensor, h: torch.Tensor, gate: nn.Module, mapper: Any) -> torch.Tensor:
    """A function that is given what computes."""
    return torch.sigmoid(gate(x)) * mapper(h) + h


class Scaled(nn.Module):
    """A plain attribute, a list and a buffer say what it computes, beside its parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(H, H)
        self.scale = 2.0
        self.steps = [1.0, 2.0]
        self.register_buffer("shift", torch.ones(H))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) * self.scale + sum(self.steps) + self.shift


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(H, H), Scaled()
        self.both = nn.ModuleDict({"one": self.one, "other": nn.Linear(H, H)})
        self.table = nn.Embedding(9, H)

    def apply_all(self, x: torch.Tensor, modules: list[nn.Module], by_name: dict[str, nn.Module]) -> torch.Tensor:
        for module in [*modules, *by_name.values()]:
            x = torch.tanh(module(x))
        return x

    def forward(self, words: list[int]) -> torch.Tensor:
        h = torch.zeros(H)
        for word in words:
            x = self.table.weight[word]
            h = gated(x, h, self.one, self.two)
            h = gated(x, h, self.two, mapper=self.both["other"])
        return self.apply_all(h, [self.one, self.two], {"third": self.both["other"]})


BATCH = [[1, 2], [3], [4, 5, 6]]
CELLS: list[Any] = [gated, "apply_all"]


def made() -> tuple[Model, eb.AutoBatched]:
    model = Model().requires_grad_(False)
    return model, eb.autobatch(model, CELLS, policy="lookahead")


def assert_batched(model: Model, fast: eb.AutoBatched) -> None:
    for _ in range(2):
        assert_equal(fast(BATCH), [model(words) for words in BATCH])
        assert not fast.breaks


def test_functions_and_methods_are_given_modules() -> None:
    model, fast = made()
    assert_batched(model, fast)
    assert {cell.name for cell in fast._library.cells} == {"gated", "gated_2", "apply_all"}
    assert fast.batches == 7  # two a word, and the last


def test_a_later_minibatch_makes_no_cell() -> None:
    model, fast = made()
    fast(BATCH)
    known = len(fast._library.cells)
    assert_batched(model, fast)
    assert len(fast._library.cells) == known


@pytest.mark.parametrize(
    "change",
    [
        lambda model: setattr(model.two, "scale", -1.0),
        lambda model: model.two.steps.append(5.0),
        lambda model: model.two.shift.mul_(3.0),
        lambda model: model.two.linear.weight.data.mul_(2.0),
        lambda model: model.one.bias.detach().numpy().fill(0.5),
        lambda model: setattr(model, "one", nn.Linear(H, H).requires_grad_(False)),
        lambda model: setattr(model.two, "linear", nn.Sequential(nn.Linear(H, H), nn.ReLU()).requires_grad_(False)),
        lambda model: model.two.register_forward_hook(lambda module, given, result: result * 2),
    ],
    ids=["attribute", "list", "buffer", "weight", "by NumPy", "another module", "another inside", "hook"],
)
def test_a_module_that_has_changed_is_seen(change: Any) -> None:
    model, fast = made()
    assert_batched(model, fast)
    change(model)
    assert_batched(model, fast)


class Changing(Model):
    """``forward`` sets an attribute of a module that it passes on."""

    def forward(self, words: list[int]) -> torch.Tensor:
        h = torch.zeros(H)
        for word in words:
            self.two.scale = float(word)
            h = gated(self.table.weight[word], h, self.one, self.two)
        return h


@pytest.mark.filterwarnings("ignore::edbatch_tvm.errors.BreakWarning")
def test_attributes_that_forward_sets_are_seen() -> None:
    model = Changing().requires_grad_(False)
    fast = eb.autobatch(model, [gated])
    for _ in range(3):
        assert_equal(fast(BATCH), [model(words) for words in BATCH])


def test_gradients_pass_modules_among_arguments() -> None:
    model = Model()
    model.two.steps, model.two.scale = [0.1], 0.5  # tanh is not flat there
    model.two.shift.zero_()
    fast = eb.autobatch(model, CELLS)
    with torch.enable_grad():
        torch.stack([model(words) for words in BATCH]).square().sum().backward()
        wanted = [one.grad.clone() for one in model.parameters() if one.grad is not None]
        for _ in range(2):
            model.zero_grad()
            torch.stack(fast(BATCH)).square().sum().backward()
            found = [one.grad for one in model.parameters() if one.grad is not None]
            assert len(found) == len(wanted)
            for one, other in zip(found, wanted, strict=True):
                assert (one - other).abs().max() <= 1e-5 * other.abs().max()


class Shared(nn.Module):
    """One module under two names, used by methods."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(H, H)
        self.second = self.first
        self.inner = nn.ModuleList([self.first, nn.Linear(H, H)])
        self.count = 1

    def step(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.first(x) * self.second(x) + self.inner[0](x) + self.inner[1](x)) * self.count

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.step(self.step(x))


def test_a_module_under_two_names() -> None:
    model = Shared().requires_grad_(False)
    fast = eb.autobatch(model, ["step"])
    elements = [torch.randn(H) for _ in range(3)]
    for _ in range(2):
        assert_equal(fast(elements), [model(x) for x in elements])
        assert not fast.breaks
    model.count = 3
    assert_equal(fast(elements), [model(x) for x in elements])

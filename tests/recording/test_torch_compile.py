"""Models of which ``torch.compile`` has compiled something: batched as the Python that they were made of."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

import edbatch_tvm as eb

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

COMPILED = partial(torch.compile, backend="eager")
TREES = [((1, 2), (3, 4)), (1, (2, 3)), 5, (4, 4), ((1, 2), 3)]


class Part(nn.Module):
    """A part that sets an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def cell(self, x: torch.Tensor) -> torch.Tensor:
        """What may be listed inside of it."""
        return torch.relu(self.linear(x))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The part."""
        self.last = x
        return self.cell(x)


class Trees(nn.Module):
    """Recursion over pairs, with an attribute that counts."""

    def __init__(self) -> None:
        super().__init__()
        self.word, self.part, self.out = nn.Embedding(10, 8), Part(), nn.Sequential(nn.Linear(8, 8), nn.Tanh())
        self.parts = nn.ModuleList([Part(), Part()])
        self.joined: Any = None
        self.calls = 0

    def join(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """A method of several parts."""
        return self.parts[0](a) + self.parts[1](b)

    def forward(self, tree: Any) -> torch.Tensor:
        """One tree."""
        self.calls += 1
        if isinstance(tree, int):
            return self.word(torch.tensor(tree))
        a, b = self.forward(tree[0]), self.forward(tree[1])
        return self.out(self.part(a) * b + (self.joined or self.join)(a, b))


def compiled_inside(name: str) -> Callable[[Trees], Trees]:
    def change(model: Trees) -> Trees:
        setattr(model, name, COMPILED(getattr(model, name)))
        return model

    return change


def in_place(name: str) -> Callable[[Trees], Trees]:
    def change(model: Trees) -> Trees:
        model.get_submodule(name).compile(backend="eager")
        return model

    return change


def listed(model: Trees) -> Trees:
    model.parts = nn.ModuleList([COMPILED(one) for one in model.parts])
    return model


def kept(model: Trees) -> Trees:
    model.joined = COMPILED(model.join)
    return model


WAYS: dict[str, Callable[[Trees], Any]] = {
    "the model": COMPILED,
    "the model in place": in_place(""),
    "its forward": compiled_inside("forward"),
    "a method": compiled_inside("join"),
    "a method kept": kept,
    "a part": compiled_inside("part"),
    "a part in place": in_place("part"),
    "a part of a part in place": in_place("part.linear"),
    "a sequence": compiled_inside("out"),
    "parts in a list": listed,
}
CELLS = [["part", "out"], ["part.cell", "parts.0", "out.0"], ["part.linear", "join"], None]


def model_of(change: Callable[[Trees], Any] | None = None) -> Any:
    torch.manual_seed(3)
    model = Trees()
    return model if change is None else change(model)


def check(way: str, cells: list[str] | None) -> None:
    changed, plain = model_of(WAYS[way]), model_of()
    fast = eb.autobatch(changed, cells)
    for _ in range(2):
        found = fast(TREES)
    wanted = [plain(tree) for _ in range(2) for tree in TREES][len(TREES) :]
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert fast.batches
    assert not fast.breaks
    assert fast.model.calls == plain.calls
    for one, other in zip((fast.part, *fast.parts), (plain.part, *plain.parts), strict=True):
        torch.testing.assert_close(one.last, other.last, rtol=1e-5, atol=1e-6)
    assert not any("_orig_mod" in name for name in fast.cells)
    if torch.is_grad_enabled():
        for results in (found, wanted):
            torch.stack(results).sum().backward()
        for one, other in zip(fast.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("way", WAYS)
def test_results_and_attributes(way: str) -> None:
    check(way, CELLS[list(WAYS).index(way) % len(CELLS)])


@pytest.mark.slow
@pytest.mark.parametrize("cells", CELLS, ids=str)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("training", [False, True])
def test_every_way_with_all_cells(way: str, cells: list[str] | None, training: bool) -> None:
    with torch.set_grad_enabled(training):
        check(way, cells)


def test_a_batched_model_in_compiled_code() -> None:
    plain = model_of()
    fast = eb.autobatch(plain, ["part", "out"])
    wanted = torch.stack([plain(tree) for tree in TREES])
    step = COMPILED(lambda trees: torch.stack(fast(trees)) * 2)
    torch.testing.assert_close(step(TREES), wanted * 2, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(torch.stack(COMPILED(fast)(TREES)), wanted, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(torch.stack(copy.deepcopy(fast)(TREES)), wanted, rtol=1e-5, atol=1e-6)
    seen = []

    def backend(graph: Any, _inputs: Any) -> Any:
        seen.append(graph)
        return graph.forward

    torch.compile(lambda x: x.sin() + 1, backend=backend)(torch.ones(3))
    assert seen  # what is compiled elsewhere still is

"""Cells that nobody listed."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import nn

import edbatch_tvm as eb
from edbatch_tvm.errors import CellWarning
from edbatch_tvm.recording.choosing import Observer
from tests.recording import models
from tests.recording.checks import assert_equal


def chosen(model: nn.Module, elements: list[Any]) -> list[str]:
    observer = Observer(model.eval(), "forward")
    for element in elements:
        with observer.watching():
            model(element)
    return observer.cells()


WORDS = [[1, 2, 3, 4, 5], [3, 4], [5, 6, 7, 8]]


@pytest.mark.parametrize(
    ("model", "elements", "cells"),
    [
        (models.ChildSumTreeLSTM(4), models.random_trees(4), ["node_forward", "output"]),
        (models.ModularTreeLSTM(4), models.random_trees(4), ["word", "cell", "classify"]),
        (models.ShiftReduceParser(4), WORDS, ["shift", "score", "reduce"]),
        (models.GreedyDecoder(4), WORDS, ["encode", "step"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_cells_of_known_models(model: nn.Module, elements: list[Any], cells: list[str]) -> None:
    assert chosen(model, elements) == cells


class Parts(nn.Module):
    """Methods of which each has one reason not to be a cell; all call ``self.part`` or ``self.other``."""

    def __init__(self) -> None:
        super().__init__()
        self.part, self.other = nn.Linear(4, 4), nn.Linear(4, 4)
        self.relu = nn.ReLU()
        self.seen: list[torch.Tensor] = []
        self.what = "fine"

    def fine(self, h: torch.Tensor) -> torch.Tensor:
        return self.relu(self.part(h))

    def branch(self, h: torch.Tensor) -> torch.Tensor:
        return self.part(h) if h.sum() > 0 else -self.part(h)

    def loop(self, h: torch.Tensor) -> torch.Tensor:
        for row in range(len(h)):
            h = h + self.part(h[row])
        return h

    def draws(self, h: torch.Tensor) -> torch.Tensor:
        return self.part(h + torch.rand(4))

    def changes(self, h: torch.Tensor) -> torch.Tensor:
        self.seen.append(self.part(h))
        return self.seen[-1]

    def in_place(self, h: torch.Tensor) -> torch.Tensor:
        h += self.part(h)
        return h

    def data(self, tree: dict[str, Any]) -> torch.Tensor:
        return self.part(tree["value"]) if len(tree["tags"]) > 1 else self.part(-tree["value"])

    def recursion(self, h: torch.Tensor, depth: int) -> torch.Tensor:
        return self.part(self.recursion(h, depth - 1)) if depth else h

    def number(self, h: torch.Tensor) -> int:
        return len(self.part(h))

    def forward(self, x: torch.Tensor) -> Any:
        for h in (self.other(x), self.other(-x)):
            if self.what == "data":
                self.data({"value": h, "tags": {"a"}})
            elif self.what == "recursion":
                self.recursion(h, 2)
            else:
                getattr(self, self.what)(h)
        return x


@pytest.mark.parametrize("what", ["branch", "loop", "draws", "changes", "in_place", "data", "recursion", "number"])
def test_what_is_no_cell(what: str) -> None:
    model = Parts()
    elements = [torch.randn(rows, 4) for rows in (3, 5, 2)]
    assert chosen(model, elements) == ["other", "fine"]
    model.what = what
    assert chosen(model, elements) == ["other", "part"]


def test_cells_are_chosen_and_printed(capsys: pytest.CaptureFixture[str]) -> None:
    model = models.ModularTreeLSTM(4).eval()
    trees = models.random_trees(7)
    fast = eb.autobatch(model)
    assert fast.cells == []
    assert_equal(fast(trees), [model(tree) for tree in trees])
    assert fast.cells == ["word", "cell", "classify"]
    assert capsys.readouterr().err == (
        "autobatch: cells=['word', 'cell', 'classify'], chosen by what 4 elements of ModularTreeLSTM called\n"
    )
    assert_equal(fast(trees), [model(tree) for tree in trees])
    assert not capsys.readouterr().err
    assert fast.batches > 0
    with pytest.raises(KeyError, match="word") as caught:
        eb.autobatch(Failing())([1, 2, 0])
    assert getattr(caught.value, "__notes__", ["in element 2 of the minibatch"]) == ["in element 2 of the minibatch"]


class Failing(nn.Module):
    """Has no cells."""

    def forward(self, word: int) -> int:
        if not word:
            raise KeyError("no word")
        return word


class Uncalled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused, self.spare = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x: Any) -> Any:
        return x if isinstance(x, int) else self.used(x)


def test_cells_that_are_not_called_are_told_once() -> None:
    elements = [torch.ones(2)] * 2
    fast = eb.autobatch(Uncalled(), cells=["used", "unused", "spare"])
    with pytest.warns(CellWarning, match="cells 'unused', 'spare' of Uncalled not called") as told:
        fast(elements)
    assert [one.filename for one in told] == [__file__]
    warnings.simplefilter("error")
    fast(elements)
    warnings.simplefilter("ignore")
    fast = eb.autobatch(Uncalled(), cells=["used"])
    with pytest.warns(CellWarning, match=r"nothing of Uncalled was recorded, .*: it has not called 'used'"):
        fast([1, 2])

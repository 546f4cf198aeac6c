"""Parameters that ``forward`` touches between cells: tensors as ever, and what was changed counts."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import edbatch_tvm as eb
from tests.recording.checks import assert_equal

H = 4


class Model(nn.Module):
    """A cell, and whatever `use` does with a table of weights that lies in a submodule."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(6, H)
        self.tied = nn.ModuleList([self.table])
        self.cell = nn.Tanh()
        self.use: Callable[[Any, int], Any] = lambda model, word: model.cell(model.table.weight[word])

    def forward(self, word: int) -> Any:
        return self.use(self, word)


@pytest.fixture(scope="module")
def made() -> tuple[Model, eb.AutoBatched]:
    """A model, and the same with its cells compiled."""
    model = Model()
    fast = eb.autobatch(model, ["cell"])
    with torch.no_grad():
        fast([1, 2])
    return model, fast


def check(made: tuple[Model, eb.AutoBatched], use: Callable[[Any, int], Any]) -> None:
    """Run `use` for some words as batches, and compare with PyTorch."""
    model, fast = made
    model.use = use
    words = [0, 3, 3, 5, 0, 1]
    assert_equal(fast(words), [model(word) for word in words])


def test_rows_are_those_of_the_parameter(made: tuple[Model, eb.AutoBatched]) -> None:
    def use(model: Any, word: int) -> Any:
        w = model.table.weight
        assert isinstance(w, nn.Parameter)
        assert isinstance(w, torch.Tensor)
        assert w.shape == (6, H)
        assert len(w) == 6
        assert w is model.tied[0].weight
        assert w.data_ptr() == made[0].table.weight.data_ptr()
        first, second = w[word], w[word]
        assert first is not second
        assert first.data_ptr() == second.data_ptr()
        with pytest.raises(IndexError, match="index 6 is out of bounds for dimension 0 with size 6"):
            w[6]
        return [
            model.cell(first),
            model.cell(w[-word]),
            w[1:3],
            list(w[True].shape),
            w[word, 2],
            w[[0, word]].sum(),
            w * 2,
        ]

    check(made, use)


def test_rows_that_nobody_holds_are_new_again(made: tuple[Model, eb.AutoBatched]) -> None:
    model, fast = made

    def use(view: Any, word: int) -> Any:
        view.table.weight[word].unsqueeze_(0)
        assert view.table.weight[word].shape == (H,)
        return view.cell(view.table.weight[word])

    model.use = use
    assert_equal(fast([4]), [model(4)])


def test_zeros_are_tensors_of_their_own(made: tuple[Model, eb.AutoBatched]) -> None:
    def use(model: Any, word: int) -> Any:
        first, second = model.table.weight.new_zeros(H), torch.zeros(H)
        part = model.table.weight.new_zeros(2, H)[1]
        first += word
        part.numpy()[1] = word
        return [model.cell(first), model.cell(second), model.cell(part), model.cell(-second)]

    check(made, use)


def test_a_parameter_between_cells(made: tuple[Model, eb.AutoBatched]) -> None:
    def use(model: Any, word: int) -> Any:
        x = model.cell(model.table.weight[word])
        every = [parameter.sum() for parameter in model.parameters()]
        return [x, every, model.table(torch.tensor(word)), torch.stack([*model.table.weight]).sum(0)]

    check(made, use)
    model, fast = made
    model.use = lambda view, word: [view.table.weight, view.cell(view.table.weight[word])]
    returned = fast([1])[0][0]
    assert returned is model.table.weight
    model.use = lambda view, word: pickle.loads(pickle.dumps(copy.deepcopy(view.table.weight)))
    assert type(fast([1])[0]) is nn.Parameter


@pytest.mark.slow
def test_a_parameter_as_an_argument_and_in_arithmetic() -> None:
    model = Model()
    model.use = lambda view, word: [
        view.cell(view.table.weight),
        view.cell(view.table.weight[word]) @ view.table.weight.t(),
        view.cell(view.table.weight[word]) + view.table.weight[0],
    ]
    fast = eb.autobatch(model, ["cell"])
    for _ in range(2):
        assert_equal(fast([1, 2, 4]), [model(word) for word in (1, 2, 4)])


def test_changes_are_seen_or_an_error(made: tuple[Model, eb.AutoBatched]) -> None:
    model, fast = made
    with torch.no_grad():
        model.table.weight[3] += 1
    check(made, lambda view, word: view.cell(view.table.weight[word]))

    def write(view: Any, word: int) -> Any:
        x = view.cell(view.table.weight[word])
        view.table.weight[word] *= 2
        return x

    model.use = write
    before = model.table.weight.clone()
    wanted = torch.tanh(before[2])
    assert_equal(fast([2]), [wanted])  # what was passed is what it was then
    assert torch.equal(model.table.weight[2], 2 * before[2])

    def replace(view: Any, word: int) -> Any:
        view.table.weight.data = before
        return view.cell(view.table.weight[word])

    check(made, replace)
    assert model.table.weight.data_ptr() == before.data_ptr()
    check(made, lambda view, word: view.cell(view.table.weight[word]))


def test_in_inference_mode(made: tuple[Model, eb.AutoBatched]) -> None:
    with torch.inference_mode():
        check(made, lambda view, word: view.cell(view.table.weight[word] + torch.zeros(H)))

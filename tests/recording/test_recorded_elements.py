"""Elements that are recorded once."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

import edbatch_tvm as eb
from edbatch_tvm.errors import CellError, RecordingError
from edbatch_tvm.recording import api, compiled_cells, records_alone
from tests.recording.checks import assert_equal
from tests.recording.models import ChildSumTreeLSTM, ShiftReduceParser, random_trees

WORDS = 20


class Chain(nn.Module):
    """Reads more than the weights of its cell: other parameters, a buffer, attributes, its mode."""

    scale = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(WORDS, 8))
        self.start = nn.Parameter(torch.randn(8))
        self.register_buffer("shift", torch.randn(8))
        self.join, self.out = nn.Linear(16, 8), nn.Linear(8, 3)
        self.temperature, self.order = 1.0, [0, 1]
        self.options = {"twice": False}

    def step(self, state: torch.Tensor, word: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.join(torch.cat([state, word])))

    def forward(self, words: list[int]) -> dict[str, Any]:
        state = self.start * self.scale
        for word in words:
            state = self.step(state, self.table[word])
            if self.options["twice"]:
                state = self.step(state, self.table[word])
        scores = self.out(state) / self.temperature
        if self.training:
            scores = scores * 2
        return {"scores": [scores[n] for n in self.order], "state": state + self.shift, "words": words}


@pytest.fixture(scope="module")
def chain() -> tuple[Chain, Any]:
    torch.manual_seed(0)
    model = Chain().eval().requires_grad_(False)
    fast = eb.autobatch(model, ["step"])
    fast([[1, 2], [3]])
    return model, fast


def test_records_stand_for_elements(chain: tuple[Chain, Any]) -> None:
    model, fast = chain
    elements = [[1], [2, 3, 4], [5, 6], [1]]
    records = [fast.record(element) for element in elements]
    expected = [model(element) for element in elements]
    for chosen in ([0, 1, 2, 3], [0, 2], []):
        given = [records[n] if n in chosen else element for n, element in enumerate(elements)]
        assert_equal(fast(given), expected)
        assert len(fast.reports) == 1
    assert_equal(fast(records[1]), expected[1])
    assert_equal(fast([records[1]] * 2), [expected[1]] * 2)


def _numpy(tensor: torch.Tensor) -> None:
    tensor.detach().numpy()[...] += 0.5


def _data(tensor: torch.Tensor) -> None:
    tensor.data = tensor.data * 0.5


CHANGES: dict[str, Callable[[Chain], Any]] = {
    "weight of a cell": lambda model: model.join.weight.mul_(0.5),
    "weight of a cell, NumPy": lambda model: _numpy(model.join.bias),
    "weight of an operator": lambda model: _data(model.out.weight),
    "parameter, in place": lambda model: model.table.mul_(0.5),
    "parameter, NumPy": lambda model: _numpy(model.table),
    "parameter, data": lambda model: _data(model.table),
    "vector": lambda model: _numpy(model.start),
    "new parameter": lambda model: setattr(model, "start", nn.Parameter(torch.ones(8), requires_grad=False)),
    "buffer": lambda model: _numpy(model.shift),
    "attribute": lambda model: setattr(model, "temperature", 2.0),
    "list": lambda model: model.order.append(2),
    "dict": lambda model: model.options.update(twice=True),
    "class": lambda _model: setattr(Chain, "scale", 3.0),
    "mode": lambda model: model.train(),
}


@pytest.mark.parametrize("name", CHANGES)
def test_records_know_what_forward_read(chain: tuple[Chain, Any], name: str) -> None:
    model, fast = chain
    elements = [[1, 2], [3]]
    records = [fast.record(element) for element in elements]
    before = [model(element) for element in elements]
    try:
        CHANGES[name](model)
        expected = [model(element) for element in elements]
        with pytest.raises(AssertionError):
            assert_equal(before, expected)
        assert_equal(fast([records[0], elements[1]]), expected)
        assert_equal(fast(records), expected)
    finally:
        Chain.scale, model.temperature, model.order, model.options = 1.0, 1.0, [0, 1], {"twice": False}
        model.eval()
    assert_equal(fast(records), [model(element) for element in elements])


def test_records_of_trees_with_new_cells() -> None:
    model = ChildSumTreeLSTM(8).requires_grad_(False)
    fast = eb.autobatch(model, ["node_forward"])
    trees = random_trees(6)
    records = [fast.record(tree) for tree in trees[:3]]
    assert_equal(fast([*records, *trees[3:]]), [model(tree) for tree in trees])
    assert_equal(fast(records), [model(tree) for tree in trees[:3]])


def test_what_cannot_be_recorded_is_an_error() -> None:
    parser = eb.autobatch(ShiftReduceParser(8, WORDS).requires_grad_(False), ["shift", "reduce", "score"])
    with pytest.raises(RecordingError, match=r"reads a value \(.*models.py:\d+\)"):
        parser.record([1, 2, 3, 4])

    class Sets(Chain):
        def forward(self, words: list[int]) -> Any:
            self.last = self.step(self.start, self.table[words[0]])
            return self.last

    class Draws(Chain):
        def forward(self, words: list[int]) -> Any:
            return self.step(self.start, torch.randn(8))

    for kind, message in ((Sets, "sets last"), (Draws, "random numbers")):
        fast = eb.autobatch(kind().requires_grad_(False), ["step"])
        with pytest.raises(RecordingError, match=message):
            fast.record([1])


def test_a_record_belongs_to_its_model(chain: tuple[Chain, Any]) -> None:
    _, fast = chain
    other = eb.autobatch(Chain().requires_grad_(False), ["step"])
    with pytest.raises(RecordingError, match="another model"):
        other([fast.record([1])])


class Reading(nn.Module):
    """Tables of rows, a vector and a layer, of which `use` makes what it likes, around a cell."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.start = nn.Embedding(WORDS, 8), nn.Parameter(torch.randn(8))
        self.join = nn.Linear(16, 8)
        self.use: Callable[[Any, int], Any] = lambda model, word: model.step(model.start, model.table.weight[word])

    def step(self, state: torch.Tensor, word: torch.Tensor, scale: torch.Tensor | None = None) -> torch.Tensor:
        made = torch.tanh(self.join(torch.cat([state.reshape(8), word.reshape(8)])))
        return made if scale is None else made * scale.sum()

    def forward(self, word: int) -> Any:
        return self.use(self, word)


def _branch(model: Any, word: int) -> Any:
    row = model.table.weight[word]
    return model.step(model.start, row) if row.sum() > 0 else model.step(row, model.start)


def _numbers_of(read: Callable[[torch.Tensor], Any]) -> Callable[[Any, int], Any]:
    """A branch on what `read` makes of the numbers of a row."""

    def use(model: Any, word: int) -> Any:
        row = model.table.weight[word]
        with torch.no_grad():
            first = float(read(row))
        return model.step(model.start, row) if first > 0 else model.step(row, model.start)

    return use


def _sum(row: torch.Tensor) -> torch.Tensor:
    return row.sum()


with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    _SCRIPT: Any = torch.jit.script(_sum)


FOLLOWED: dict[str, Callable[[Any, int], Any]] = {
    "row": lambda model, word: model.step(model.start, model.table.weight[word]),
    "rows of two sizes": lambda model, word: model.step(model.start, model.table.weight[word], model.scales[word]),
    "row from the end": lambda model, word: model.step(model.start, model.table.weight[word - WORDS]),
    "row by NumPy's integer": lambda model, word: model.step(model.start, model.table.weight[np.int64(word)]),
    "row as a slice": lambda model, word: model.step(model.start, model.table.weight[word : word + 1]),
    "row in other shapes": lambda model, word: model.step(
        model.start.unsqueeze(0), model.table.weight[word][None].view(2, 4).flatten()
    ),
    "the same row twice": lambda model, word: model.step(
        model.step(model.start, model.table.weight[word]), model.table.weight[word]
    ),
    "zeros like a parameter": lambda model, word: model.step(
        model.table.weight.new_zeros(model.start.shape), model.table.weight[word]
    ),
    "the first of all": lambda model, word: model.step(
        torch.zeros(8, dtype=next(iter(model.parameters())).dtype), model.table.weight[word]
    ),
    "layers between cells": lambda model, word: model.out(model.step(model.start, model.table.weight[word])),
    "rows between cells": lambda model, word: model.step(model.start, model.start) * model.table.weight[word],
    "joined between cells": lambda model, word: torch.cat(
        [model.step(model.start, model.start), model.table.weight[word]]
    ),
    "rows and parameters as results": lambda model, word: [
        model.step(model.start, model.start),
        model.table.weight[word][None],
        model.start[None],
    ],
}
"""What goes on as it is when weights change."""

TOUCHED: dict[str, Callable[[Any, int], Any]] = {
    "branch": _branch,
    **{
        name: _numbers_of(read)
        for name, read in {
            "item": lambda row: row[0].item(),
            "list": lambda row: row.tolist()[0],
            "NumPy": lambda row: row.detach().numpy()[0],
            "array": lambda row: np.asarray(row.data)[0],
            "iteration": lambda row: next(iter(row)),
            "sort": lambda row: torch.sort(row).values[3],
            "reshaped": lambda row: row.view(2, 4)[1, 1],
            "whole": lambda row: row.max(),
            "text": lambda row: torch.tensor(row.tolist()).sum(),
            "script": _SCRIPT,
            "dlpack": lambda row: torch.from_dlpack(row.detach()).sum(),
            "copy": lambda row: copy.deepcopy(row.detach()).sum(),
        }.items()
    },
}
"""What reads numbers, and does something else when they change."""


def reading(name: str) -> Reading:
    """A model that does what one of these does, without parameters that no element looks up: these are compared."""
    model = Reading()
    model.use = (FOLLOWED | TOUCHED)[name]
    if "layers" in name:
        model.out = nn.Linear(8, 3)
    if "sizes" in name:
        model.scales = nn.Parameter(torch.randn(WORDS, 2))
    return model


@pytest.mark.parametrize("trains", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("name", [*FOLLOWED, *TOUCHED])
def test_records_read_parameters_again(name: str, trains: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results and gradients after changes of all parameters, with no new recording unless numbers were read."""
    torch.manual_seed(1)
    model = reading(name)
    plain = copy.deepcopy(model)
    words, counted = [3, 4, 3, 5], []
    with torch.set_grad_enabled(trains):
        fast = eb.autobatch(model, ["step"])
        fast(words)
        records = [fast.record(word) for word in words]
        original = api.record_content
        monkeypatch.setattr(api, "record_content", lambda *given: counted.append(1) or original(*given))
        for turn in range(4):
            found, wanted = fast(records), [plain(word) for word in words]
            assert_equal(found, wanted)
            if trains:
                for outputs in (found, wanted):
                    leaves = [one for one in pytree.tree_leaves(outputs) if isinstance(one, torch.Tensor)]
                    sum((one * (place + 1)).sum() for place, one in enumerate(leaves)).backward()  # type: ignore
                for one, other in zip(model.parameters(), plain.parameters(), strict=True):
                    assert (one.grad is None) == (other.grad is None)
                    if one.grad is not None and other.grad is not None:
                        assert (one.grad - other.grad).abs().max() <= 1e-5 * other.grad.abs().max()
                    one.grad = other.grad = None
            for one, other in zip(model.parameters(), plain.parameters(), strict=True):
                with torch.no_grad():
                    change = (-0.9 - 0.01 * turn) * other + 0.1
                    one.copy_(change)
                    other.copy_(change)
    assert bool(counted) == (name in TOUCHED)


def gradients(model: nn.Module, results: list[Any]) -> list[torch.Tensor | None]:
    """Those of the parameters by all results but the first, which gets none."""
    sum(one.square().sum() * (place + 1) for place, one in enumerate(results[1:])).backward()  # type: ignore
    found = [one.grad for one in model.parameters()]
    model.zero_grad()
    return found


@torch.enable_grad()
@pytest.mark.parametrize("name", ["row", "rows of two sizes", "rows between cells"])
def test_records_by_themselves_have_the_gradients_of_records_among_others(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(2)
    model = reading(name).double()
    fast = eb.autobatch(model, ["step"])
    words = [3, 4, 3, 5, 0]
    fast(words)
    records = [fast.record(word) for word in words]
    alone: list[bool] = []
    original = api.run_records

    def watched(*given: Any) -> Any:
        found = original(*given)
        alone.append(found is not None)
        return found

    monkeypatch.setattr(api, "run_records", watched)
    wanted = gradients(model, [model(word) for word in words])
    every = [gradients(model, fast(records)), gradients(model, fast([*records[:3], *words[3:]]))]
    with monkeypatch.context() as patched:
        patched.setattr(records_alone, "merger", lambda: None)
        every.append(gradients(model, fast(records)))
    assert alone == [True, False]
    for found in every:
        for one, other in zip(found, wanted, strict=True):
            assert (one is None) == (other is None)
            if one is not None and other is not None:
                torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@torch.enable_grad()
def test_parameters_that_are_frozen_and_released_have_the_gradients_of_now() -> None:
    model = Reading()
    fast = eb.autobatch(model, ["step"])
    model.table.requires_grad_(False)
    records = [fast.record(word) for word in (1, 2, 1)]
    for wanted in (False, True, False):
        model.table.requires_grad_(wanted)
        found = gradients(model, fast(records))
        for one, other in zip(found, gradients(model, [model(word) for word in (1, 2, 1)]), strict=True):
            assert (one is None) == (other is None)
            if one is not None and other is not None:
                torch.testing.assert_close(one, other)


def test_a_forward_that_writes_into_parameters_is_no_record() -> None:
    def add(model: Any, word: int) -> Any:
        model.table.weight[word].add_(1)
        return model.step(model.start, model.table.weight[word])

    def put(model: Any, word: int) -> Any:
        model.table.weight[word] = 0
        return model.step(model.start, model.table.weight[word])

    for use in (add, put):
        model = Reading().requires_grad_(False)
        fast = eb.autobatch(model, ["step"])
        fast([1])
        model.use = use
        with pytest.raises(RecordingError, match="writes into a parameter"):
            fast.record(2)


def test_results_that_would_lose_their_gradient_are_an_error() -> None:
    with torch.enable_grad():
        model = Reading()
        fast = eb.autobatch(model, ["step"])
        fast([1])
        model.use = lambda own, word: [own.step(own.start, own.start), own.table.weight[word] * 2]
        with pytest.raises(RecordingError, match="outside of cells"):
            fast.record(2)


@pytest.mark.parametrize("beside", [[], [(4, 0)]], ids=["alone", "beside another element"])
def test_rows_that_were_zeros_are_read_again(beside: list[tuple[int, ...]]) -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.step = nn.Parameter(torch.zeros(5, 3)), nn.Linear(3, 3)

        def forward(self, words: tuple[int, ...]) -> torch.Tensor:
            return torch.stack([self.step(self.table[word]) for word in words]).sum(0)

    model = Words()
    fast = eb.autobatch(model, cells=["step"])
    words = [(1, 2), (3,)]
    with torch.no_grad():
        records = [fast.record(one) for one in words]
        for _ in range(3):
            assert_equal(fast([*records, *beside]), [model(one) for one in [*words, *beside]])
            model.table.normal_()


class TwoLayers(nn.Module):
    """Calls the second layer for longer elements only."""

    def __init__(self) -> None:
        super().__init__()
        self.word, self.first, self.second = nn.Embedding(WORDS, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, words: list[int]) -> torch.Tensor:
        state = self.first(self.word(torch.tensor(words[0])))
        return self.second(torch.tanh(state)) if len(words) > 1 else state


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.filterwarnings("ignore::edbatch_tvm.errors.BreakWarning")
def test_cells_that_cannot_be_compiled(gradients: bool, beside: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    check = compiled_cells.check_compiled

    def refused(cell: Any, model: Any) -> None:
        if cell.name == "second":
            raise CellError("a cell that is refused", "another one")
        check(cell, model)

    monkeypatch.setattr(compiled_cells, "check_compiled", refused)
    model = TwoLayers()
    fast = eb.autobatch(model, cells=["word", "first", "second"])
    elements = [[1], [3, 4], [2]]
    with torch.set_grad_enabled(gradients):
        fast([[1], [2]])
        given = [one if beside and len(one) > 1 else fast.record(one) for one in elements]
        for _ in range(2):
            assert_equal(fast(given), [model(one) for one in elements])

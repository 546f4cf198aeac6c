"""Models of float64: cells, masks, rounds and gradients in float64, as PyTorch computes them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree

import edbatch_tvm as eb
from tests.recording.models import ChildSumTreeLSTM, GreedyDecoder, ModularTreeLSTM, ShiftReduceParser, random_trees
from tests.recording.test_gradients import CELLS, FORWARD, MINIBATCH, Net, gradients, of_losses

pytestmark = pytest.mark.filterwarnings("ignore::edbatch_tvm.errors.BreakWarning", "ignore:Converting a tensor")

CLOSE = 1e-12
"""Largest difference, relative to the largest value."""


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    """Tensors that models make are of float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def assert_close(found: Any, wanted: Any) -> None:
    leaves, structure = pytree.tree_flatten(found)
    others, expected = pytree.tree_flatten(wanted)
    assert structure == expected
    for one, other in zip(leaves, others, strict=True):
        if not isinstance(other, torch.Tensor):
            assert one == other
            continue
        assert one.dtype is other.dtype
        assert one.shape == other.shape
        if other.numel():
            assert (one - other).abs().max() <= CLOSE * other.abs().max().clamp(min=1e-3)


def sentences(words: int, count: int = 8) -> list[list[int]]:
    return [torch.randint(1, words, (length,)).tolist() for length in range(2, count + 2)]


MODELS: dict[str, tuple[Any, list[str], Any]] = {
    "child-sum": (lambda: ChildSumTreeLSTM(10), ["node_forward"], lambda: random_trees(8)),
    "modular": (lambda: ModularTreeLSTM(10), ["word", "cell", "classify"], lambda: random_trees(8)),
    "parser": (lambda: ShiftReduceParser(11), ["shift", "reduce", "score"], lambda: sentences(50)),
    "decoder": (lambda: GreedyDecoder(12), ["encode", "step"], lambda: sentences(20)),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "child-sum" else pytest.mark.slow) for name in MODELS]
)
def test_models_compute_in_float64(name: str) -> None:
    make, cells, elements = MODELS[name]
    model, minibatch = make(), elements()
    fast = eb.autobatch(model, cells)
    for _ in range(2):
        assert_close(fast(minibatch), [model(one) for one in minibatch])
        for parameter in model.parameters():
            parameter.mul_(1.1)
    assert not fast.breaks
    assert {spec.dtype for spec in fast.compiled.signature.value_specs} == {"float64"}


@pytest.fixture(scope="module")
def nets() -> Any:
    torch.manual_seed(0)
    model = Net().double()
    return model, eb.autobatch(model, CELLS)


QUICK = ("chain", "rows of a parameter", "reads values", "detached", "losses")


@pytest.mark.parametrize(
    "what", [one if one in QUICK else pytest.param(one, marks=pytest.mark.slow) for one in FORWARD if one != "double"]
)
def test_gradients(nets: Any, what: str) -> None:
    model, fast = nets
    elements = [(what, words) for words in MINIBATCH]
    with torch.enable_grad():
        for _ in range(2):
            outputs, expected = fast(elements), [model(*one) for one in elements]
            assert_close(outputs, expected)
            assert_close(of_losses(model, outputs), of_losses(model, expected))


class Small(nn.Module):
    """A recursive network that branches on values, drops nothing, and has a mask and a table."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(3, 3)
        self.join = nn.Linear(6, 3)
        self.score = nn.Linear(3, 1)

    def node(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.join(torch.cat([left, right])))

    def forward(self, x: torch.Tensor, words: tuple[int, ...]) -> torch.Tensor:
        h = torch.where(x > 0, x, x * 0.1)
        for word in words:
            h = self.node(h, self.table(torch.tensor(word)))
            if h.sum() > 0:
                h = self.node(h, x)
        return self.score(h)


def test_gradcheck() -> None:
    """Of inputs and of all parameters, with differences of results that run through batches, too."""
    torch.manual_seed(1)
    model = Small()
    fast = eb.autobatch(model, ["node", "table", "score"])
    words = [(0,), (1, 2), (2, 0, 1)]
    with torch.enable_grad():
        x = torch.randn(3, 3, requires_grad=True)

        def run(x: torch.Tensor, *_parameters: torch.Tensor) -> torch.Tensor:
            return torch.stack(fast(list(zip(x, words, strict=True))))

        run(x)
        assert torch.autograd.gradcheck(run, (x, *model.parameters()))
    assert not fast.breaks


class Loops(nn.Module):
    """Layers that are taken apart into steps, dropout, and tensors that rows are written into."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LSTM(5, 4, bidirectional=True, batch_first=True)
        self.drop = nn.Dropout(0.3)
        self.last = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Dropout(0.2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states = self.drop(self.layer(x[None])[0][0])
        rows = torch.zeros(len(x), 6)
        for place in range(len(x)):
            rows[place] = self.last(states[place])
        return rows.sum(0) * (rows > 0).any(0)


@pytest.mark.slow
def test_layers_dropout_and_written_rows() -> None:
    torch.manual_seed(2)
    model = Loops()
    fast = eb.autobatch(model, ["last"])
    elements = [torch.randn(length, 5) for length in (3, 1, 4)]
    with torch.enable_grad():
        for seed in range(2):
            torch.manual_seed(seed)
            outputs = fast(elements)
            torch.manual_seed(seed)
            expected = [model(x) for x in elements]
            assert_close(outputs, expected)
            assert_close(of_losses(model, outputs), of_losses(model, expected))


@pytest.mark.slow
def test_records() -> None:
    model = ChildSumTreeLSTM(7)
    fast = eb.autobatch(model, ["node_forward"])
    trees = random_trees(6)
    assert_close(fast([fast.record(tree) for tree in trees]), [model(tree) for tree in trees])
    with torch.enable_grad():
        records = [fast.record(tree) for tree in trees]
        found, wanted = fast(records), [model(tree) for tree in trees]
        assert_close(of_losses(model, found), of_losses(model, wanted))


@pytest.mark.slow
def test_a_model_changes_its_dtype() -> None:
    """Back to what it was compiled for first, too."""
    model = ChildSumTreeLSTM(6).float()
    fast = eb.autobatch(model, ["node_forward"])
    trees = random_trees(5)
    for dtype in (torch.float32, torch.float64, torch.float32):
        fast.to(dtype)
        wanted = [copy.deepcopy(model).double()(tree) for tree in trees]
        close = CLOSE if dtype is torch.float64 else 1e-5
        for _ in range(2):
            for one, other in zip(fast(trees), wanted, strict=True):
                assert one.dtype is dtype
                assert (one - other).abs().max() <= close * other.abs().max()


def test_numbers_of_another_dtype_are_left_to_pytorch() -> None:
    """They are promoted as PyTorch does; nothing is rounded to the model's dtype."""

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            h = self.cell(x)
            return self.cell(h + x.float() / 3), torch.cat([h, torch.full((2,), 0.1, dtype=torch.float32)]).float()

    model = Mixed()
    fast = eb.autobatch(model, ["cell"])
    elements = [torch.randn(4) for _ in range(3)]
    for _ in range(2):
        assert_close(fast(elements), [model(x) for x in elements])


@pytest.mark.slow
def test_two_hundred_steps_follow_those_of_pytorch() -> None:
    torch.manual_seed(0)
    model = ChildSumTreeLSTM(8, 20)
    plain = copy.deepcopy(model)
    fast = eb.autobatch(model, ["node_forward"])
    optimizers = [torch.optim.Adam(one.parameters(), 1e-2) for one in (model, plain)]
    trees = random_trees(12, 20)
    with torch.enable_grad():
        for number in range(200):
            some = [trees[(number * 2 + place) % 12] for place in range(2)]
            losses = []
            for run, optimizer in zip((fast, lambda trees: [plain(one) for one in trees]), optimizers, strict=True):
                loss = F.nll_loss(torch.cat(run(some)), torch.tensor([number % 5, 1]))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
            assert abs(losses[0] - losses[1]) <= 1e-9 * abs(losses[1])
    assert gradients(model).keys() == gradients(plain).keys()

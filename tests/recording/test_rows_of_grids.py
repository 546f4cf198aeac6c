"""Rows at indices, views by name, questions and joins: as PyTorch has them, by compiled code and by Python."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

import edbatch_tvm as eb

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from edbatch_tvm.recording.core import core  # noqa: E402
from tests.recording.checks import assert_equal  # noqa: E402

H = 4
Body = Callable[["Model", torch.Tensor], torch.Tensor]


class Model(nn.Module):
    """A cell whose outputs functions take apart and write."""

    def __init__(self, *bodies: Body) -> None:
        super().__init__()
        self.cell = nn.Linear(H, H)
        self.empty = nn.Parameter(torch.randn(1, H))
        self.bodies = bodies

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [body(self, x) for body in self.bodies]


def stack_machine(self: Model, x: torch.Tensor) -> torch.Tensor:
    """A grid of states, written and read at vectors of indices, as parsers that are batched by hand do."""
    n = len(x)
    grid = torch.zeros(1, n + 2, H)
    first = torch.zeros(1, dtype=torch.long)
    for t in range(1, n + 1):
        grid[:, t] = grid[:, t - 1]
        here, before = torch.tensor([t]), torch.tensor([t - 2])
        grid[first, here] = self.cell(x[t - 1 : t] + grid[first, before])
        left, right = grid[first, here].chunk(2, dim=-1)
        grid[0, t] = torch.cat([right, left], dim=1)[0]
    return grid.narrow(dim=1, start=0, length=n + 1) * 2


def repeated_and_backward(self: Model, x: torch.Tensor) -> torch.Tensor:
    """Indices that repeat, count from the end, and overwrite what they have just written."""
    states = torch.stack([self.cell(one) for one in x])
    kept = states.clone()
    states[torch.tensor([0, -1, 0])] = states[torch.tensor([-1, 0, 0])]
    states[0:1] = kept[-1:]
    return torch.cat([states, kept[torch.tensor([-1, -1])]], 0)


def shared_memory(self: Model, x: torch.Tensor) -> torch.Tensor:
    """What is written through one view is seen in another; what was read before stays."""
    states = torch.stack([self.cell(one) for one in x])
    view = states[:, :]
    before = states[torch.tensor([0])]
    view[torch.tensor([0])] = torch.stack([self.cell(x[0] + 1)])
    return torch.cat([states, before, view], 0)


def questions(self: Model, x: torch.Tensor) -> torch.Tensor:
    """Questions about many numbers, and about one."""
    h = self.cell(x[:1])
    total = h * torch.isnan(h) + (h > 0).to(h.dtype) + h.lt(0.1).to(h.dtype) * 2
    if not torch.isnan(h).any() and torch.isfinite(h).all():
        total = total + self.cell(h)
    if (h.sum() > 0).any():
        total = total - 1
    return total + (h == h).all() + (h[0, 0] != 3).all()


def selected(self: Model, x: torch.Tensor) -> torch.Tensor:
    """Columns of a value, elements of a vector, and rows of a list."""
    h = self.cell(x[:1]).cpu()
    columns = torch.index_select(h, 1, torch.tensor([2, 0]))
    elements = h[0][torch.tensor([3, 1, -1])]
    rows = torch.stack([self.cell(one) for one in x]).index_select(0, torch.zeros(2, dtype=torch.long))
    return columns.sum() + elements.exp().sum() + rows.cumsum(0)


def joined(self: Model, x: torch.Tensor) -> torch.Tensor:
    """Ordinary tensors and parameters before and after recorded ones, and a list of one row."""
    h = self.cell(x[:1])
    row = torch.stack([self.cell(x[0])])
    one = torch.cat([self.empty, h, row, x[:1]], 1)
    return torch.cat((x[:1], one), axis=1).tanh()


BODIES = [stack_machine, repeated_and_backward, shared_memory, questions, selected, joined]


@pytest.fixture(params=[True, False], ids=["compiled", "python"])
def _way(request: pytest.FixtureRequest) -> Iterator[None]:
    if not core.in_use:
        pytest.skip(core.reason)
    core.use(request.param)
    yield
    core.use(True)


def loss(results: list[list[torch.Tensor]]) -> torch.Tensor:
    return torch.stack([one.pow(2).sum() for result in results for one in result]).sum()


@pytest.mark.usefixtures("_way")
def test_values_and_gradients_are_those_of_pytorch() -> None:
    elements = [torch.randn(n, H, dtype=torch.double) for n in (3, 1, 2, 5, 3)]
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.double)
    try:
        model = Model(*BODIES)
        wanted = [model(one) for one in elements]
        fast = eb.autobatch(model, cells=["cell"])
        for _ in range(2):  # the second call meets what the first has made known
            assert_equal(fast(elements), wanted)
        assert not fast.breaks
        with torch.enable_grad():
            loss(fast(elements)).backward()
            found = [parameter.grad.clone() for parameter in model.parameters()]
            model.zero_grad()
            loss([model(one) for one in elements]).backward()
        for one, parameter in zip(found, model.parameters(), strict=True):
            torch.testing.assert_close(one, parameter.grad, rtol=1e-10, atol=1e-10)
    finally:
        torch.set_default_dtype(default)


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize("index", [torch.tensor([5]), torch.tensor([0, -4])], ids=["beyond", "before"])
def test_places_that_are_not_there_are_pytorchs_error(index: torch.Tensor) -> None:
    def beyond(self: Model, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([self.cell(one) for one in x])[index]

    fast = eb.autobatch(Model(beyond), cells=["cell"])
    with pytest.raises(IndexError, match="out of bounds"):
        fast([torch.randn(3, H)])


class Messages(nn.Module):
    """Nodes that read several others each: rows that are lists, of a number that varies from step to step."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.update = nn.Embedding(9, H), nn.Linear(2 * H, H)

    def step(self, x: torch.Tensor, others: torch.Tensor, shared: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.update(torch.cat([x, (others * x.unsqueeze(1)).sum(1)], 1)) + shared)

    def forward(self, words: list[int], width: int) -> torch.Tensor:
        padding = torch.zeros(H)
        shared = self.words(torch.tensor(words[:1]))
        states = [self.words.weight[0]]
        for count in range(1, len(words)):
            read = [(states[-n::-1] + [padding] * width)[:width] for n in range(1, count + 1)]
            others = torch.cat([one for row in read for one in row]).view(-1, width, H)
            states += list(self.step(self.words(torch.tensor(words[:count])), others, shared))
        return torch.stack(states)


def test_rows_that_are_lists_are_calls_of_one_cell() -> None:
    torch.manual_seed(0)
    model = Messages()
    fast = eb.autobatch(model, cells=["step", "words"])
    elements = [([1, 2, 3], 4), ([4, 5, 6, 7, 8], 4), ([1], 4), ([3, 4], 4), ([2, 2, 2, 1], 4), ([5, 6, 7], 3)]
    for _ in range(2):
        assert_equal(fast(elements), [model(*one) for one in elements])
    assert not fast.breaks
    assert len({name for name in fast.compiled.signature.names if name.startswith("step")}) <= 4

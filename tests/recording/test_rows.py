"""Cells on rows: one cell called once a row where rows are treated alike, another for each number of rows elsewhere."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import nn

import edbatch_tvm as eb
from edbatch_tvm.errors import BreakWarning, CellError
from edbatch_tvm.recording.row_wise import treats_rows_alike
from relay_ext.from_torch import export_program, rows_dimension
from tests.recording.checks import assert_equal

H = 6
COUNTS = (0, 1, 2, 7)

Rows = Callable[[torch.Tensor, int], torch.Tensor]


class OnRows(nn.Module):
    """Cells on rows that `choose` takes out of recorded states."""

    def __init__(self, cells: dict[str, nn.Module]) -> None:
        super().__init__()
        self.first, self.on = nn.Linear(H, H), nn.ModuleDict(cells)

    def forward(self, x: torch.Tensor, kind: str, choose: Rows, count: int) -> Any:
        states = torch.stack([self.first(row) for row in x])
        rows = choose(states, count)
        return self.on[kind](*[rows] * (2 if kind == "gru" else 1))


def _indices(count: int) -> torch.Tensor:
    return torch.tensor([(3 * number + 1) % 9 for number in range(count)], dtype=torch.int64)


def _mask(count: int) -> torch.Tensor:
    return torch.arange(9) % 9 >= 9 - count


CHOICES: dict[str, Rows] = {
    "slice from the start": lambda states, count: states[:count],
    "slice from the end": lambda states, count: states[9 - count :],
    "slice with a step": lambda states, count: torch.cat([states, states])[: 2 * count : 2],
    "slice and ellipsis": lambda states, count: states[1 : 1 + count, ...],
    "narrow": lambda states, count: states.narrow(0, 2, count),
    "split": lambda states, count: states.split([count, 9 - count])[0],
    "tensor": lambda states, count: states[_indices(count)],
    "tensor of int32": lambda states, count: states[_indices(count).int()],
    "list": lambda states, count: states[_indices(count).tolist()],
    "tensor and slice": lambda states, count: states[_indices(count), :],
    "mask": lambda states, count: states[_mask(count)],
    "index_select": lambda states, count: states.index_select(0, _indices(count)),
    "gather": lambda states, count: states.gather(0, _indices(count)[:, None].expand(-1, H)),
    "take_along_dim": lambda states, count: states.take_along_dim(_indices(count)[:, None], 0),
    "embedding": lambda states, count: nn.functional.embedding(_indices(count), states),
    "flip": lambda states, count: states[:count].flip(0),
    "roll": lambda states, count: states[:count].roll(1, 0),
    "repeat": lambda states, count: states[:1].repeat(count, 1),
    "expand": lambda states, count: states[:1].expand(count, H),
    "cat": lambda states, count: torch.cat([states[:0], *(states[i : i + 1] for i in range(count))]),
    "rows of a tensor of rank 3": lambda states, count: states.view(3, 3, H).transpose(0, 1).reshape(9, H)[:count],
    "written": lambda states, count: torch.zeros(count, H).copy_(states[:count]),
}

ALIKE: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: nn.Sequential(nn.Linear(H, 2 * H), nn.ReLU(), nn.Dropout(0.5), nn.Linear(2 * H, 3)),
    "norm": lambda: nn.LayerNorm(H),
    "gru": lambda: nn.GRUCell(H, H),
}


def check(cells: dict[str, nn.Module], choices: Mapping[str, Rows]) -> dict[str, int]:
    """Compare every cell on every choice of every number of rows with PyTorch; how many cells each became."""
    model = OnRows(cells).eval()
    fast = eb.autobatch(model, cells=["first", *(f"on.{kind}" for kind in cells)])
    cases = [(kind, name, count) for kind in cells for name in choices for count in COUNTS]
    elements = [(torch.randn(9, H), kind, choices[name], count) for kind, name, count in cases]
    for case, one, other in zip(cases, fast(elements), [model(*element) for element in elements], strict=True):
        assert_equal({case: one}, {case: other})  # the case is in the message
    assert not fast.breaks
    names = [cell.name for cell in fast._library.cells]
    assert not any(name.startswith(("embedding", "gather", "index", "pick")) for name in names)
    return {kind: sum(name.startswith(f"on_{kind}") for name in names) for kind in cells}


def test_rows_treated_alike_are_one_cell() -> None:
    cells = {kind: make() for kind, make in ALIKE.items()}
    assert check(cells, CHOICES) == dict.fromkeys(ALIKE, 1)


class Coupled(nn.Module):
    """Rows that depend on each other."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.scale, self.function = nn.Linear(H, H), function

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.function(self.scale(rows))


COUPLED: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "softmax": lambda rows: torch.softmax(rows, 0),
    "attending": lambda rows: torch.softmax(rows @ rows.T, 1) @ rows,
}


@pytest.mark.slow
def test_rows_that_depend_on_each_other_are_a_cell_for_each_number() -> None:
    cells: dict[str, nn.Module] = {kind: Coupled(function) for kind, function in COUPLED.items()}
    choices = {name: CHOICES[name] for name in ("tensor", "mask")}
    assert check(cells, choices) == dict.fromkeys(COUPLED, len(COUNTS) - 1)  # no cell without elements


def test_tensors_without_elements_are_constants() -> None:
    uses: list[Callable[[torch.Tensor], Any]] = [
        lambda rows: rows[:, :0].sum(1) + rows[:, 0],
        lambda rows: rows[:0].sum() + rows,
        lambda rows: rows[:0].T.clone().sum(1) + rows,
        lambda rows: torch.cat([rows[:, :0], rows], 1) * 2,
        lambda rows: (rows[:, :0] @ torch.zeros(0, 3)) + rows[:, :3],
        lambda rows: rows[:0] @ rows.T,
        lambda rows: (
            rows[:0].new_zeros(0, 3).sum(0) + rows[0, :3],
            rows.view(0, *rows.shape) if 0 in rows.shape else 1,
        ),
        lambda rows: torch.tanh(rows[3:3]) + torch.zeros(H),
        lambda rows: rows[:, 2:2].relu().reshape(-1),
        lambda rows: nn.functional.linear(rows[:0], torch.ones(2, H)),
    ]

    class Uses(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(H, H)

        def forward(self, x: torch.Tensor, use: Callable[[torch.Tensor], Any]) -> Any:
            return use(torch.stack([self.first(row) for row in x]))

    model = Uses()
    elements = [(torch.randn(4, H), use) for use in uses for _ in range(2)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BreakWarning)
        assert_equal(eb.autobatch(model, cells=["first"])(elements), [model(*element) for element in elements])


LAYOUTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "[1, n, H]": lambda rows: rows.unsqueeze(0),
    "[n, 1, H]": lambda rows: rows[:, None],
    "stacked": lambda rows: torch.stack([row[None] for row in rows], 1) if len(rows) else rows.view(1, 0, H),
    "joined": lambda rows: torch.cat([rows[None, :1], rows[None, 1:]], 1),
    "joined with zeros": lambda rows: torch.cat([rows[None], torch.zeros(1, 1, H)], 1),
    "part": lambda rows: torch.cat([rows, rows])[None, len(rows) :],
    "index": lambda rows: rows[None][:, torch.arange(len(rows) - 1, -1, -1)],
    "written": lambda rows: _written(rows),
    "given": lambda rows: torch.linspace(-1, 1, (len(rows) + 1) * H).view(1, -1, H),
}


def _written(rows: torch.Tensor) -> torch.Tensor:
    if not len(rows):
        return rows[None]
    states = torch.zeros(1, len(rows), H)
    for number in range(0, len(rows), 2):
        states[:, number] = rows[number]
    odd = torch.arange(len(rows))[1::2]
    states[torch.zeros_like(odd), odd] = rows[odd]
    return states


class OnLayouts(nn.Module):
    """Cells and operators on rows along any dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.pair = nn.Linear(H, H), nn.LSTMCell(H, H)
        self.gate = nn.Sequential(nn.Linear(H, H), nn.LayerNorm(H), nn.Sigmoid())
        self.total = Coupled(lambda rows: torch.tanh(rows.sum(1)))

    def forward(self, x: torch.Tensor, layout: str, count: int) -> Any:
        rows = LAYOUTS[layout](torch.stack([self.first(row) for row in x])[:count])
        gate = self.gate(rows)
        both = torch.cat([gate * rows, torch.softmax(gate, -1)], dim=-1)
        flat = rows.reshape(-1, H)
        states = self.pair(flat, (flat, gate.reshape(-1, H))) if len(flat) else ()
        return gate, both, both.sum(1), self.total(rows), states


def test_rows_along_any_dimension() -> None:
    model = OnLayouts().eval()
    fast = eb.autobatch(model, cells=["first", "gate", "pair", "total"])
    elements = [(torch.randn(7, H), layout, count) for layout in LAYOUTS for count in COUNTS]
    for element, one, other in zip(elements, fast(elements), [model(*element) for element in elements], strict=True):
        assert_equal({element[1:]: one}, {element[1:]: other})
    assert not fast.breaks
    names = [cell.name for cell in fast._library.cells]
    assert [sum(name.startswith(cell) for name in names) for cell in ("gate", "pair", "softmax", "cat")] == [1, 1, 1, 1]
    assert not any(name.startswith(("joined", "pick", "index", "stack")) for name in names)


UNLIKE: dict[str, Callable[[torch.Tensor, int], torch.Tensor]] = {
    "sum": lambda rows, at: rows - rows.sum(at, keepdim=True),
    "softmax": lambda rows, at: torch.softmax(rows, at),
    "cumsum": lambda rows, at: rows.cumsum(at),
    "flip": lambda rows, at: rows.flip(at),
    "sort": lambda rows, at: rows.sort(at)[0],
    "norm of all": lambda rows, at: rows / rows.norm(),
    "product with rows": lambda rows, at: torch.softmax(rows @ rows.mT, -1) @ rows,
    "count": lambda rows, at: rows * rows.shape[at],
    "full of the count": lambda rows, at: rows + torch.full((H,), rows.shape[at]),
    "as many copies": lambda rows, at: rows.unsqueeze(0).expand(rows.shape[at], *rows.shape).sum(0),
    "place": lambda rows, at: rows + torch.arange(rows.shape[at])[:, None],
    "parts of several rows": lambda rows, at: (
        rows.unsqueeze(-2)
        .expand(*rows.shape[:-1], 2, H)
        .transpose(at, at + 1)
        .reshape(-1, H)
        .matmul(torch.ones(H, 2))
        .reshape(*rows.shape[:at], rows.shape[at], 2, 2)
    ),
    "mixed": lambda rows, at: rows.reshape(*rows.shape[:at], H, rows.shape[at]).mT,
}
LIKE: dict[str, Callable[[torch.Tensor, int], torch.Tensor]] = {
    "softmax": lambda rows, at: torch.softmax(rows, -1),
    "norm": lambda rows, at: nn.functional.layer_norm(rows, (H,)),
    "product": lambda rows, at: rows @ torch.ones(H, 3),
    "batched product": lambda rows, at: torch.bmm(rows, torch.ones(1, H, 2)) if at == 1 else rows,
    "product of parts": lambda rows, at: rows.unsqueeze(-2).expand(*rows.shape[:-1], 2, H) @ torch.ones(H, 3),
    "sum of the row": lambda rows, at: rows.sum(-1, keepdim=True) * rows,
    "moved": lambda rows, at: torch.cat([rows.mT, rows.mT], -2).mT if at else rows,
    "zeros of the count": lambda rows, at: torch.cat([rows, torch.zeros(*rows.shape[:-1], 2)], -1),
}


class Function(nn.Module):
    """A function of rows."""

    def __init__(self, function: Callable[[torch.Tensor, int], torch.Tensor], at: int) -> None:
        super().__init__()
        self.function, self.at = function, at

    def forward(self, rows: torch.Tensor) -> tuple[torch.Tensor]:
        return (self.function(rows, self.at),)


def _is_proved(function: Function, rows: torch.Tensor) -> bool:
    try:
        program = export_program("function", function, (rows,), ({function.at: rows_dimension()},))
    except CellError:  # not for any number of rows
        return False
    return treats_rows_alike(program)


@pytest.mark.parametrize("at", range(3))
def test_what_treats_rows_alike(at: int) -> None:
    rows = torch.randn(*[1] * at, 3, H)
    for wanted, functions in ((False, UNLIKE), (True, LIKE)):
        for name, function in functions.items():
            assert _is_proved(Function(function, at), rows) is wanted, name


class OnWords(nn.Module):
    """Words of any shape, and what is made of them."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.step = nn.Embedding(20, H), nn.Linear(H, H)
        self.inner = nn.ModuleList([nn.Embedding(20, H), nn.Linear(H, H)])

    def both(self, words: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.inner[0](words) + self.inner[1](h))

    def forward(self, words: torch.Tensor) -> Any:
        x = self.words(words)
        h = self.step(x)
        return x, h, self.both(words, h)


def test_words_of_any_shape() -> None:
    model = OnWords()
    fast = eb.autobatch(model, cells=["words", "step", "both"])
    shapes = [(1,), (4,), (7,), (0,), (1, 5), (1, 3), (3, 2), (2, 1), (5, 3), (1, 1, 2)]
    elements = [torch.randint(0, 20, shape) for shape in shapes]
    assert_equal(fast(elements), [model(one) for one in elements])
    assert not fast.breaks
    names = [cell.name for cell in fast._library.cells]
    assert sorted(name.partition("_")[0] for name in names) == ["both"] * 3 + ["step"] * 3 + ["words"] * 3  # one a rank


class OnGrids(nn.Module):
    """Messages of neighbours: vectors joined to [n, 5, H], in which cells and operators treat neighbours alike."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.update = nn.Linear(H, H), nn.Linear(H, H)

    def forward(self, x: torch.Tensor, neighbours: list[list[int]]) -> Any:
        states = [self.first(row) for row in x]
        given = [states[one] if one >= 0 else torch.zeros(H) for five in neighbours for one in five]
        near = torch.cat(given, 0).view(-1, 5, H)
        total = near.sum(1)
        gate = torch.sigmoid(self.update(total).view(-1, 1, H) + self.update(near))
        both = torch.cat([near, gate * near], -1)
        return total, both, both.amax(1), torch.softmax(near, 1), near.sum(0), near.transpose(0, 1).contiguous()


@pytest.mark.slow
def test_rows_of_rows() -> None:
    model = OnGrids()
    fast = eb.autobatch(model, cells=["first", "update"])
    rng = torch.Generator().manual_seed(0)
    elements = [
        (torch.randn(6, H), torch.randint(-1, 6, (count, 5), generator=rng).tolist()) for count in (1, 2, 3, 4, 6, 9)
    ]
    assert_equal(fast(elements), [model(*element) for element in elements])
    assert not fast.breaks
    names = [cell.name for cell in fast._library.cells]
    alike = ("first", "update", "sigmoid", "amax", "softmax")
    assert {name: sum(one.startswith(name) for one in names) for name in alike} == {
        "first": 1,
        "update": 2,  # of rows [1, H] and [1, 1, H]
        "sigmoid": 1,
        "amax": 1,
        "softmax": 1,
    }


class Lists(nn.Module):
    """Gates rows, each of which is a list of states, and takes halves of lists."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.gate, self.both = nn.Linear(H, H), nn.Linear(H, H), nn.Linear(H, 2 * H)

    def gated(self, x: torch.Tensor, rows: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        gates = torch.sigmoid(self.gate(x).view(-1, 1, H) + self.gate(rows))
        return torch.tanh((gates * rows).sum(1) * scale) + x

    def forward(self, x: torch.Tensor, width: int) -> Any:
        states = torch.stack([self.first(row) for row in x])
        padding = torch.zeros(H)
        rows = torch.cat([*states, *[padding] * (-len(x) % width)]).view(-1, width, H)
        gated = self.gated(states[: rows.shape[0]], rows, torch.ones(1, H))
        left, right = torch.tanh(self.both(states[None])).chunk(2, -1)
        return gated, left[0] * right[0]


def test_rows_that_are_lists_and_parts_of_rows() -> None:
    torch.manual_seed(0)
    model = Lists()
    fast = eb.autobatch(model, cells=["first", "gated", "both"])
    elements = [(torch.randn(count, H), width) for count in range(5, 45) for width in (1, 2, 4)]
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error", BreakWarning)
        for _ in range(2):
            assert_equal(fast(elements), [model(*one) for one in elements])
    assert len(fast.reports) == 1
    # One cell for each width of a list, and none for each length of another.
    assert len(fast.compiled.cells) <= 20  # type: ignore[union-attr]

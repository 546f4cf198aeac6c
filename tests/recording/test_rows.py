"""Cells on rows: one cell called once a row where rows are treated alike, another for each number of rows elsewhere."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import nn

import edbatch_tvm as eb
from edbatch_tvm.errors import BreakWarning
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

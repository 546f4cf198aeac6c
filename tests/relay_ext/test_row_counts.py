"""The number of variadic rows as a number in arithmetic."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import edbatch_tvm as eb
from edbatch_tvm.errors import CellError

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

H = 4
FORMS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "mean": lambda rows: rows.sum(0) / len(rows),
    "of each row": lambda rows: torch.tanh(rows / rows.shape[0]).sum(0),
    "root": lambda rows: rows.sum(0) / len(rows) ** 0.5,
    "python arithmetic": lambda rows: rows.sum(0) * (3 - (len(rows) * 2 + 1) / 4),
    "ratio": lambda rows: (rows * -(1 / (len(rows) + 1))).sum(0),
    "all numbers": lambda rows: rows.sum(0) / (rows.numel() + 1),
    "number first": lambda rows: (len(rows) - rows).sum(0) + (len(rows) / (rows * rows + 1)).sum(0),
    "variance": lambda rows: ((rows - rows.mean(0)) ** 2).sum(0) / (len(rows) + 1),
    "power": lambda rows: (rows.sum(0).abs() + 0.5) ** len(rows),
    "choice": lambda rows: torch.where(rows + 1 > len(rows), rows, len(rows)).sum(0),
    "clamped": lambda rows: (rows * 3).clamp(min=1, max=len(rows)).sum(0) + rows.clamp(max=len(rows)).sum(0),
    "filled": lambda rows: rows.sum(0) * torch.full((H,), len(rows)) + rows.new_full((H,), len(rows)),
}


class Rows(nn.Module):
    """A function of rows."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """The function."""
        return self.function(rows)


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.float64, marks=pytest.mark.slow)], ids=str)
def test_every_form_for_any_number_of_rows(dtype: torch.dtype) -> None:
    modules = {f"cell{place}": Rows(function) for place, function in enumerate(FORMS.values())}
    example = (torch.randn(3, H, dtype=dtype),)
    cells = eb.cells_from_torch(modules, dict.fromkeys(modules, example), {name: ["rows"] for name in modules})
    model = eb.compile(*cells)
    assert set(model.paths.values()) == {"stage"}
    given = [torch.randn(count, H, dtype=dtype) for count in (2, 1, 0, 5, 3)]
    graphs = []
    for rows in given:
        builder = model.builder()
        graphs.append(builder.finish([builder.call(name, list(rows.numpy())) for name in modules]))
    tolerance = 1e-5 if dtype is torch.float32 else 1e-13
    for rows, found in zip(given, model(graphs), strict=True):
        for name, one, module in zip(FORMS, found, modules.values(), strict=True):
            np.testing.assert_allclose(one, module(rows.double()), tolerance, tolerance, err_msg=f"{name} {len(rows)}")


class Averages(nn.Module):
    """Averages of averages."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(H, H)

    def cell(self, rows: torch.Tensor) -> torch.Tensor:
        """An average, and one by the root."""
        return torch.tanh(self.linear(rows).sum(0) / len(rows) + rows.sum(0) / len(rows) ** 0.5)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Two levels."""
        return self.cell(torch.stack([self.cell(rows[at:]) for at in range(len(rows))]))


@torch.enable_grad()
def test_gradients() -> None:
    model = Averages()
    fast = eb.autobatch(model, ["cell"])
    given = [torch.randn(count, H) for count in (3, 1, 4)]
    fast(given)
    torch.stack(fast(given)).square().sum().backward()
    found = [parameter.grad for parameter in model.parameters()]
    assert not fast.breaks
    model.zero_grad()
    torch.stack([model(rows) for rows in given]).square().sum().backward()
    torch.testing.assert_close(found, [parameter.grad for parameter in model.parameters()])


def test_what_stays_an_error() -> None:
    with pytest.raises(CellError, match="cannot be imported"):
        eb.cells_from_torch(
            {"cell": Rows(lambda rows: rows.sum(0) / (len(rows) // 2))},
            {"cell": (torch.randn(3, H),)},
            {"cell": ["rows"]},
        )


@pytest.mark.parametrize("place", [0, -1])
def test_a_row_by_its_number(place: int) -> None:
    with pytest.raises(CellError, match=f"reads row {place} of variadic rows; .* as an operand of its own"):
        eb.cells_from_torch(
            {"cell": Rows(lambda rows: rows[place] + rows.sum(0))}, {"cell": (torch.randn(3, H),)}, {"cell": ["rows"]}
        )

"""What ``forward`` does with tensors between cells: recorded, seen with another shape, or read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import edbatch_tvm as eb
from edbatch_tvm.recording.functions import _TWINS
from tests.recording.checks import assert_equal

H = 4


class Glue(nn.Module):
    """A cell, and whatever `between` computes from two of its values."""

    def __init__(self, between: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.cell = nn.Linear(H, H)
        self.other = nn.Linear(H, 2)
        self.between = between

    def forward(self, x: torch.Tensor) -> Any:
        return self.between(self.cell(x), self.cell(x + 1))


def check(between: Callable[[Any, Any], Any], shape: tuple[int, ...] = (H,)) -> eb.AutoBatched:
    """Run `between` on recorded tensors, eagerly and as batches, and compare both with PyTorch."""
    model = Glue(between)
    fast = eb.autobatch(model, cells=["cell"])
    elements = [torch.randn(shape) for _ in range(6)]
    expected = [model(x) for x in elements]
    assert_equal(fast(elements), expected)
    assert_equal(fast(elements), expected)
    return fast


@pytest.mark.slow
def test_arithmetic_and_activations() -> None:
    def between(a: Any, b: Any) -> Any:
        total = a + b - a * b / 2 + (1 - a) + 3 * b + (-a)
        return [
            torch.tanh(total).relu(),
            torch.sigmoid(total) + a.sigmoid(),
            F.relu(total, inplace=False),
            torch.add(a, b, alpha=2),
            torch.maximum(a, b).exp(),
            2 / (a * a + 1),
            (a**2).softmax(-1),
            F.log_softmax(b, dim=0),
            torch.clamp(a, min=0.1, max=0.2),
        ]

    fast = check(between)
    # tanh(x) and x.tanh() are one type.
    assert len([name for name in fast.compiled.signature.names if name.startswith("sigmoid")]) == 1


@pytest.mark.slow
def test_joining_and_taking_apart() -> None:
    def between(a: Any, b: Any) -> Any:
        both = torch.cat([a, b, torch.ones(1)])
        left, right = both[:-1].chunk(2)
        first, *rest = a.split([1, 3])
        one, two, three, four = b
        return [both, left, right, first, rest, one + two, three - four, b[1:3], a[..., 0], torch.cat([a, a], dim=-1)]

    check(between)


def test_stacked_states() -> None:
    def between(a: Any, b: Any) -> Any:
        rows = torch.stack([a, b, a, torch.zeros(H)])
        assert rows.shape == (4, H)
        assert len(rows) == 4
        first, *_ = rows
        joined = torch.cat([a[None], b[None]], dim=0)
        return [
            rows.sum(0),
            torch.sum(rows, dim=0),
            rows.mean(dim=0),
            rows,
            rows[1] + first,
            rows[1:].sum(dim=0, keepdim=True),
            joined.amax(0),
            torch.stack([a, b], dim=1),
            torch.cat([rows, joined]).sum(0),
        ]

    check(between)


def _columns(a: Any, b: Any) -> Any:
    """What is computed of one column of rows, and of rows of one element, and written into them."""
    found = []
    for write in (lambda c: c.mul_(2), lambda c: c.add_(c), lambda c: c.copy_(b[..., 1]), lambda c: c.fill_(3)):
        rows = torch.sigmoid(a)
        found += [write(rows[..., 0]), rows.sum(0), write(rows.mT[2]), rows]
    narrow = torch.tanh(a[..., :1])
    narrow[1:, 0] += 1
    column = a[..., 1] * 2
    column[1:] = b[..., 0][:-1]
    return [*found, narrow, narrow.reshape(-1), column, column.sum(), column @ b, column.softmax(0), column.flip(0)]


def test_a_column_that_is_written() -> None:
    assert not check(lambda a, b: (a[:, 0].mul_(2), a), (3, H)).breaks


@pytest.mark.slow
@pytest.mark.parametrize("rows", [1, 2, 5])
def test_columns_of_rows(rows: int) -> None:
    assert not check(_columns, (rows, H)).breaks


def test_views_record_nothing() -> None:
    def between(a: Any, b: Any) -> Any:
        row = a.unsqueeze(0).view(1, 2, 2).flatten(1).squeeze()
        assert isinstance(row, torch.Tensor)
        return [row, b[None, :], a.reshape(2, -1).detach().clone().contiguous(), b.to(torch.float32)[None].t()]

    fast = check(between)
    assert fast.compiled.signature.names == ("cell",)


@pytest.mark.parametrize("place", [((2, 2), (1, 12)), ((1, H), (H, 1), 1), ((2 * H,), (1,)), ((2,), (H,))])
def test_no_view_reaches_beyond_the_memory(place: Any) -> None:
    fast = eb.autobatch(Glue(lambda a, b: a.as_strided(*place)), cells=["cell"])
    with pytest.raises(RuntimeError, match="as_strided"):
        fast([torch.randn(H)])


def test_values_that_are_read() -> None:
    def between(a: Any, b: Any) -> Any:
        scores = a if float(a.sum()) > 0 else -a
        best = int(scores.argmax())
        if a[0] > b[0]:
            best += 10
        values, order = torch.sort(b)
        return [best, scores.tolist(), (a > b).sum().item(), b.max(0), values, order, a.numpy().sum().item()]

    model = Glue(between)
    fast = eb.autobatch(model, cells=["cell"])
    elements = [torch.randn(H) for _ in range(6)]
    for _ in range(2):
        for found, wanted in zip(fast(elements), map(model, elements), strict=True):
            assert found[0] == wanted[0]
            assert found[1] == pytest.approx(wanted[1], rel=1e-5)
            assert_equal(tuple(found[3]), tuple(wanted[3]))
            assert_equal(found[4:6], wanted[4:6])
    # The sum, then the sign of some (recorded for those that need it); all six elements at once.
    assert len(fast.reports) <= 3


def _writes(names: Iterable[str]) -> Callable[[Any, Any], Any]:
    """Functions that write into their first argument, seen through a view of it."""

    def between(a: Any, b: Any) -> Any:
        found = []
        for name in names:
            target = torch.sigmoid(a) + 1
            view = target[1:]
            given = (b,) if name in ("add_", "sub_", "mul_", "div_") or name.startswith("__") else ()
            named = {"min": 1.5} if name == "clamp_" else {}
            assert getattr(target, name)(*given, **named) is target
            found += [target, view, target * 2]
        return found

    return between


@pytest.mark.parametrize(
    "names", [("add_", "__imul__"), pytest.param([one.__name__ for one in _TWINS], marks=pytest.mark.slow)]
)
def test_what_is_written_into_a_recorded_tensor_is_recorded_at_once(names: Sequence[str]) -> None:
    assert not check(_writes(names)).breaks


def test_dropout_at_evaluation_is_the_tensor_itself() -> None:
    def between(a: Any, b: Any) -> Any:
        assert F.dropout(a, 0.5, False) is nn.Dropout(0.3).eval()(a) is a
        return F.dropout(a, training=False).add_(b), a

    assert not check(between).breaks


def test_a_row_of_a_list_is_its_value() -> None:
    def between(a: Any, b: Any) -> Any:
        rows = torch.stack([a, b, a - b])
        joined = torch.cat([row for row in rows for _ in range(2)])
        rows[1] = a
        return [*rows, rows[2].view(2, 2), rows[1:], rows[1].view(1, 1, H), joined, rows[:, 1:], torch.tanh(rows[2])]

    assert not check(between).breaks


def test_losses_of_numbers() -> None:
    def between(a: Any, b: Any) -> Any:
        return [
            F.mse_loss(a, b),
            nn.MSELoss(reduction="sum")(a, b),
            F.l1_loss(a, torch.ones(H), reduction="none"),
            F.smooth_l1_loss(a, b, beta=0.5),
        ]

    assert not check(between).breaks


def test_operations_in_place() -> None:
    def between(a: Any, b: Any) -> Any:
        alias = a
        a += b
        a.mul_(2)
        total = torch.zeros(H)
        for part in (a, b):
            total += part
        return [alias, total]

    check(between)
    check(lambda a, b: [a.view(2, 2), a.add_(b)])


def test_a_submodule_that_is_no_cell_is_recorded_operator_by_operator() -> None:
    model = Glue(lambda a, b: model.other(a + b))
    fast = eb.autobatch(model, cells=["cell"])
    elements = [torch.randn(H) for _ in range(6)]
    for _ in range(2):
        assert_equal(fast(elements), [model(x) for x in elements])
    assert fast.compiled.paths["linear"] == "stage"


def test_results_share_no_memory_with_the_arenas() -> None:
    model = Glue(lambda a, b: a)
    fast = eb.autobatch(model, cells=["cell"])
    elements = [torch.randn(H) for _ in range(6)]
    fast(elements)
    results = fast(elements)
    kept = [result.clone() for result in results]
    fast([x + 1 for x in elements])
    assert_equal(results, kept)

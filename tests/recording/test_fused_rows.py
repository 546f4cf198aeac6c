"""Operators on rows that are recorded together: what they compute, and when they are recorded."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import edbatch_tvm as eb
from edbatch_tvm.errors import CellError
from edbatch_tvm.recording.core import core
from edbatch_tvm.recording.library import Library
from tests.recording.checks import assert_equal

H = 6

pytestmark = pytest.mark.skipif(bool(core.reason), reason=core.reason)


class Model(nn.Module):
    """Calls `code` on the rows of a cell, on a number for each row and on one row."""

    def __init__(self, code: Callable[..., Any]) -> None:
        super().__init__()
        self.cell = nn.Linear(H, H)
        self.code = code
        self.kept: list[Any] = []

    def forward(self, x: torch.Tensor, mask: torch.Tensor, row: torch.Tensor) -> Any:
        return self.code(self.cell(x), mask, row, self.kept)


def elements_of(counts: list[int], dtype: torch.dtype = torch.float32) -> list[tuple[torch.Tensor, ...]]:
    return [
        (torch.randn(n, H, dtype=dtype), (torch.rand(n, 1) > 0.3).to(dtype), torch.randn(H, dtype=dtype))
        for n in counts
    ]


def compared(
    code: Callable[..., Any], counts: tuple[int, ...] = (2, 5, 3), dtype: torch.dtype = torch.float32
) -> eb.AutoBatched:
    """The batched model, whose results and kept tensors are those of the model itself in every call."""
    torch.manual_seed(0)
    model = Model(code).to(dtype)
    elements = elements_of([*counts], dtype)
    with torch.no_grad():
        wanted = [model(*(part.clone() for part in element)) for element in elements]
        kept = [one.clone() for one in model.kept]
        fast = eb.autobatch(model, cells=["cell"], fallback="never")
        for _ in range(3):
            model.kept = []
            assert_equal(fast.map([tuple(part.clone() for part in element) for element in elements]), wanted)
            assert_equal([one + 0 for one in model.kept], [one + 0 for one in kept])
    return fast


def fused_of(fast: eb.AutoBatched) -> int:
    return sum(type(made) is tuple for made in fast._library.fused.values())


def nodes_of(fast: eb.AutoBatched, counts: tuple[int, ...] = (2, 5, 3)) -> float:
    """Nodes of a call for each row, without those of the cell."""
    with torch.no_grad():
        fast.map(elements_of([*counts]))
    return sum(report.calls for report in fast.reports) / sum(counts) - 1


def _merged(h: Any, mask: Any, row: Any, kept: list[Any]) -> Any:
    return (mask * h + (1 - mask) * torch.tanh(h) - row) * 0.5


def test_a_chain_is_one_node_a_row() -> None:
    fast = compared(_merged)
    assert fused_of(fast) == 1
    assert nodes_of(fast) == 1


@pytest.mark.slow
def test_a_long_chain_is_cut() -> None:
    def code(h: Any, mask: Any, row: Any, kept: list[Any]) -> Any:
        for _ in range(20):
            h = h * mask + row
        return h

    fast = compared(code)
    assert fused_of(fast) >= 1
    assert nodes_of(fast) <= 6  # 40 operators


def test_what_is_read_elsewhere_is_computed_once_and_what_nobody_reads_is_not() -> None:
    def code(h: Any, mask: Any, row: Any, kept: list[Any]) -> Any:
        unused = h * mask + row
        del unused
        twice = torch.tanh(h * mask)
        return twice * row + 1, twice - row, twice

    fast = compared(code)
    assert nodes_of(fast) == 3  # tanh of a product; a product and a sum; a difference


def _written_before_it_is_recorded(h: Any, mask: Any, row: Any, kept: list[Any]) -> Any:
    later = h * mask + row
    h[0] = 7.0
    h[:, 1:3] = row[1:3]
    return later * 2, h


def _results_written(h: Any, mask: Any, row: Any, kept: list[Any]) -> Any:
    first = h * mask
    second = first + row
    first[1] = row
    first.mul_(2)
    return second * mask, first, second + first


def _given_tensors_written(h: Any, mask: Any, row: Any, kept: list[Any]) -> Any:
    later = h * mask + row
    mask.zero_()
    row.fill_(3)
    return later * mask, later + row


def _views(h: Any, mask: Any, row: Any, kept: list[Any]) -> Any:
    product = h * mask
    part = product[1:]
    product[-1] = row
    return part * 2 + 1, product[0] * 2, (product + 1)[:, 2:4], product.unbind()[0]


def _kept_for_later(h: Any, mask: Any, row: Any, kept: list[Any]) -> Any:
    kept.append(h * mask + row)
    kept.append(kept[0] - 1)
    return h - row


def _read_in_between(h: Any, mask: Any, row: Any, kept: list[Any]) -> Any:
    first = h * mask + row
    second = first * 2 if float(first[0, 0]) > 0 else first - 2
    return second * row if bool(second.sum() > 0) else second + row


def _of_another_element(h: Any, mask: Any, row: Any, kept: list[Any]) -> Any:
    result = h * mask + (kept[-1][0] if kept else row)
    kept.append(h * 2 + row)
    return result


def _into_cells_and_joins(h: Any, mask: Any, row: Any, kept: list[Any]) -> Any:
    product = h * mask + row
    return torch.stack(list(product * 2)), torch.cat([product, h * 3]), product.sum(0), (product * row).sum(-1)


def _special_values(h: Any, mask: Any, row: Any, kept: list[Any]) -> Any:
    none = h * 0 / 0
    much = torch.where(mask > 0, h, row) * float("inf")
    return none * mask, much - much + row, torch.maximum(none, h) * 2, torch.relu(much) * mask, -(h * 0.0) * mask


def _everything(h: Any, mask: Any, row: Any, kept: list[Any]) -> Any:
    codes = (_written_before_it_is_recorded, _results_written, _given_tensors_written, _views, _kept_for_later)
    more = (_into_cells_and_joins, _special_values, _of_another_element)
    return [code(h.clone(), mask.clone(), row.clone(), kept) for code in (*codes, *more)]


@pytest.mark.parametrize("code", [_everything, _read_in_between])
def test_as_pytorch_computes_it(code: Callable[..., Any]) -> None:
    compared(code)


@pytest.mark.slow
def test_constants_make_other_cells() -> None:
    def code(h: Any, mask: Any, row: Any, kept: list[Any]) -> Any:
        return [h * mask + one for one in (1, 1.0, True, -0.0, 0.0, 2)]

    assert fused_of(compared(code)) >= 3  # at least the numbers that differ


@pytest.mark.slow
def test_a_cell_that_cannot_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Library.as_one_node

    def refusing(self: Library, recorder: Any, site: Any, *rest: Any) -> Any:
        if hasattr(site.target, "args"):
            raise CellError("operators together")
        return own(self, recorder, site, *rest)

    monkeypatch.setattr(Library, "as_one_node", refusing)
    fast = compared(_merged)
    assert not fused_of(fast)
    assert nodes_of(fast) > 1


@pytest.mark.slow
@torch.enable_grad()
def test_gradients_are_recorded_one_by_one() -> None:
    torch.manual_seed(0)
    model = Model(_merged)
    fast = eb.autobatch(model, cells=["cell"])
    elements = elements_of([2, 4, 3])
    for _ in range(3):
        loss = sum(result.square().sum() for result in fast.map(elements))
        wanted = sum(model(*element).square().sum() for element in elements)
        gradients = [torch.autograd.grad(one, [*model.parameters()]) for one in (loss, wanted)]
        assert_equal(gradients[0], gradients[1])
    assert not fused_of(fast)


@pytest.mark.slow
def test_records() -> None:
    torch.manual_seed(0)
    model, elements = Model(_merged), elements_of([2, 4, 3])
    with torch.no_grad():
        fast = eb.autobatch(model, cells=["cell"])
        fast.map(elements)
        records = [fast.record(element) for element in elements]
        wanted = [model(*element) for element in elements]
        assert_equal(fast.map(records), wanted)
        assert_equal(fast.map([records[1], elements[0], records[2]]), [wanted[1], wanted[0], wanted[2]])


# Random programs ----------------------------------------------------------------------------------------------------

_OF_ONE: list[Callable[[Any], Any]] = [
    torch.neg,
    torch.tanh,
    lambda a: a * 0.5,
    lambda a: 1 - a,
    lambda a: a + 1,
    lambda a: torch.clamp(a, -1, 1),
    lambda a: a * float("inf"),
    lambda a: a**2,
]
_OF_TWO: list[Callable[[Any, Any], Any]] = [
    torch.add,
    torch.mul,
    torch.sub,
    torch.maximum,
    lambda a, b: torch.lerp(a, b, 0.3),
    lambda a, b: torch.addcmul(a, b, b, value=0.5),
]
_STEPS: dict[str, Callable[..., Any]] = {
    "mask": lambda a, b, n, mask, row: a * mask,
    "the rest": lambda a, b, n, mask, row: a * (1 - mask),
    "row": lambda a, b, n, mask, row: a + row,
    "row of another": lambda a, b, n, mask, row: a + b[n % len(b)],
    "turned": lambda a, b, n, mask, row: torch.stack(a.unbind(0)[::-1]),
    "shifted": lambda a, b, n, mask, row: torch.cat([a[1:], a[:1]]),
    "written": lambda a, b, n, mask, row: a.clone().index_put_((torch.tensor(n % len(a)),), b[0]),
    "sum": lambda a, b, n, mask, row: a + b.sum(0),
    "read": lambda a, b, n, mask, row: b * (2.0 if float(a[n % len(a), 0]) > 0 else 0.5),
}


def _program(seed: int) -> Callable[..., Any]:
    """Random steps over the values so far, some of which are let go or written into."""
    draw = random.Random(seed)
    length = draw.randrange(8, 24)
    kinds = draw.choices(["one", "two", "step", "let go", "write", "in place"], [6, 7, 6, 5, 1, 1], k=length)
    numbers = [[draw.randrange(100) for _ in range(4)] for _ in kinds]

    def code(h: Any, mask: Any, row: Any, kept: list[Any]) -> Any:
        values = [h, torch.tanh(h)]
        for kind, (first, second, third, choice) in zip(kinds, numbers, strict=True):
            a = values[-1 - first % min(3, len(values))]
            b = values[second % len(values)]
            if kind == "one":
                values.append(_OF_ONE[choice % len(_OF_ONE)](a))
            elif kind == "two":
                values.append(_OF_TWO[choice % len(_OF_TWO)](a, b))
            elif kind == "step":
                values.append([*_STEPS.values()][choice % len(_STEPS)](a, b, third, mask, row))
            elif kind == "let go" and len(values) > 2:
                del values[second % len(values)]
            elif kind == "write":
                b[third % len(b)] = choice / 10
            elif kind == "in place":
                b.mul_(0.5)
            del a, b
        return values[-1], values[len(values) // 2], (values[-1] * values[0]).sum(-1)

    return code


@pytest.mark.parametrize("seed", [*range(2), *(pytest.param(one, marks=pytest.mark.slow) for one in range(2, 60))])
def test_random_programs(seed: int) -> None:
    compared(_program(seed), (2, 7, 3, 4), torch.float64)  # differences of what is nearly equal cost digits

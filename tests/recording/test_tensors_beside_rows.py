"""Operators on rows beside ordinary tensors of any memory, or one for all rows; and single rows that are joined."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

import edbatch_tvm as eb
from edbatch_tvm.recording.core import core
from tests.recording.checks import assert_equal

H = 4


@pytest.fixture(params=[True, False], ids=["compiled", "Python"])
def _either_core(request: pytest.FixtureRequest) -> Iterator[None]:
    before = core.in_use
    if request.param and not before:
        pytest.skip("no compiled core")
    core.use(request.param)
    yield
    core.use(before)


def _numbers(count: int) -> torch.Tensor:
    return torch.linspace(-1, 1, count)


BESIDE: dict[str, Callable[[int], torch.Tensor]] = {
    "whole rows": lambda n: _numbers(n * H).view(1, n, H),
    "numbers": lambda n: _numbers(n).view(1, n, 1),
    "numbers, expanded": lambda n: _numbers(n).view(1, n, 1).expand(1, n, H),
    "zeros and ones, expanded": lambda n: (torch.arange(n) % 2).float().view(1, n, 1).expand(1, n, H),
    "zeros of both signs, expanded": lambda n: (-1.0) ** torch.arange(n).view(1, n, 1).expand(1, n, H) * 0.0,
    "columns, transposed": lambda n: _numbers(n * H).view(1, H, n).transpose(1, 2),
    "part of wider rows": lambda n: _numbers(3 * n * H).view(1, n, 3 * H)[..., 1 : 1 + H],
    "every other row": lambda n: _numbers(2 * n * H).view(1, 2 * n, H)[:, ::2],
    "negated view": lambda n: torch.complex(_numbers(n * H), _numbers(n * H)).conj().imag.view(1, n, H),
    "a parameter": lambda n: nn.Parameter(_numbers(n * H).view(1, n, H), requires_grad=False),
    "many bytes": lambda n: torch.ones(1, n, 1).expand(1, n, H) * 2,
    "one number for all": lambda n: _numbers(2 * n)[n].view(1, 1, 1),
    "one row for all": lambda n: _numbers(H + n)[n:].view(1, 1, H),
}


class Beside(nn.Module):
    """Multiplies rows by a tensor, twice: the second time, calls of the kind are known."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(H, H)

    def forward(self, x: torch.Tensor, kinds: list[str]) -> Any:
        rows = self.up(x)
        made = []
        for kind in kinds:
            for _ in range(2):
                beside = BESIDE[kind](x.shape[1])
                made += [rows[:, :] * beside, beside * rows[:, -1:] if beside.shape[1] == 1 else rows * beside]
                if not isinstance(beside, nn.Parameter) and not beside.is_neg() and "expanded" not in kind:
                    beside.mul_(3)  # what was read is what it was
        largest = rows.amax(1, keepdim=True)
        made += [rows - largest, (rows - largest).exp() / rows.sum(1, keepdim=True)]
        return made


@pytest.mark.usefixtures("_either_core")
def test_tensors_beside_rows() -> None:
    model = Beside().eval()
    fast = eb.autobatch(model, ["up"])
    elements = [(torch.randn(1, count, H), list(BESIDE)) for count in (3, 1, 5, 400, 2)]
    for some in (elements[:3], elements, elements[::-1]):
        assert_equal(fast(some), [model(*one) for one in some])
    assert not fast.breaks


def test_tensors_beside_rows_have_gradients() -> None:
    model = Beside()
    weights = {name: nn.Parameter(BESIDE[name](3).clone()) for name in ("whole rows", "numbers", "one number for all")}

    class Weighted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = model.up

        def forward(self, x: torch.Tensor, beside: list[torch.Tensor]) -> torch.Tensor:
            rows, made = self.up(x), x.new_zeros(())
            for one in beside:
                for _ in range(2):
                    made = made + (rows * one.expand(1, 3, H)).tanh().sum() + (rows * one).sum()
                    made = made + (rows * (one * 2)).sum() + (rows * (one * 2).detach()).sum()
            return made

    plain = Weighted()
    x = torch.randn(1, 3, H)

    def gradients(run: Any) -> list[torch.Tensor]:
        with torch.enable_grad():
            total = sum(run([(x, [*weights.values()]), (2 * x, [*weights.values()])]))
            return list(torch.autograd.grad(total, [plain.up.weight, *weights.values()]))

    assert_equal(gradients(eb.autobatch(plain, ["up"])), gradients(lambda given: [plain(*one) for one in given]))


class Joins(nn.Module):
    """Joins single rows along each dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(H, H)

    def forward(self, x: torch.Tensor) -> Any:
        rows = self.up(x)
        single = [rows[:, place] for place in range(x.shape[1])]  # of [1, H]
        calls = [self.up(one) for one in single]
        mixed = [torch.ones(1, H), *calls, single[0], torch.zeros(1, H), calls[-1][:, 0:1].expand(1, H)]
        made = []
        for parts in (single, calls, mixed):
            for dim in (0, 1, -2):
                joined = torch.stack(parts, dim)
                made += [joined, joined * 2]
            made += [torch.cat(parts), torch.cat([one.unsqueeze(1) for one in parts], 1), torch.cat(parts, 1)]
        joined = torch.stack(calls, 1)
        joined[:, 0] = 7  # and not the rows that were joined
        return made, joined, calls, torch.stack([rows, rows + 1], 1), torch.stack([one[0, :2] for one in calls], 0)


@pytest.mark.usefixtures("_either_core")
def test_single_rows_joined_along_any_dimension() -> None:
    model = Joins().eval()
    fast = eb.autobatch(model, ["up"])
    elements = [torch.randn(1, count, H) for count in (3, 1, 6)]
    for _ in range(2):
        assert_equal(fast(elements), [model(one) for one in elements])

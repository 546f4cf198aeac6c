"""Random programs on tensors, as models write them: cells, lists, views, operations in place, attributes, branches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from hypothesis import strategies as st
from torch import nn

H = 4


class Program(nn.Module):
    """Runs steps on a list of tensors of shape [1, H], which begins with the rows of the element."""

    def __init__(self, steps: list[tuple[str, int, int, float]]) -> None:
        super().__init__()
        self.first = nn.Linear(H, H)
        self.second = nn.Linear(2 * H, H)
        self.steps = tuple(steps)
        self.memory: Any = None
        self.scale = 1.0

    def merge(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.second(torch.cat([left, right], 1)))

    def remember(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.first(x)) * self.scale + (0 if self.memory is None else self.memory)

    def forward(self, x: torch.Tensor) -> Any:
        values = [row[None].clone() for row in x]
        for name, one, other, number in self.steps:
            left, right = values[one % len(values)], values[other % len(values)]
            result = STEPS[name](self, left, right, number, values)
            if result is not None:
                values.append(result)
        return values


def _set_scale(model: Any, left: Any, right: Any, number: float, values: list[Any]) -> None:
    model.scale = round(number, 1)


def _set_memory(model: Any, left: Any, right: Any, number: float, values: list[Any]) -> None:
    model.memory = left


def _buffer(model: Any, left: Any, right: Any, number: float, values: list[Any]) -> Any:
    states = torch.zeros(3, H)
    view = states[1]
    states[0] = left
    states[2:3] = right * number
    view += 1
    return states.sum(0, keepdim=True)


def _fresh_buffer(model: Any, left: Any, right: Any, number: float, values: list[Any]) -> Any:
    states = torch.zeros(len(values), H)
    for place, value in enumerate(values):
        states[place] = value
    states[0, 1] = number
    return states.mean(0, keepdim=True)


def _branch(model: Any, left: Any, right: Any, number: float, values: list[Any]) -> Any:
    # The same numbers in another order may have another sum by rounding.
    return left if left.sum() > right.sum() + 0.01 else model.first(right)


def _done(step: Callable[..., Any]) -> Callable[..., None]:
    def run(*arguments: Any) -> None:
        step(*arguments)

    return run


def _some(rows: torch.Tensor) -> torch.Tensor:
    """A mask that is an ordinary tensor: some of the rows."""
    return torch.arange(rows.shape[0]) % 3 != 1


def _masked(model: Any, left: Any, right: Any, number: float, values: list[Any]) -> Any:
    rows = torch.cat(values)
    rows = torch.where(_some(rows)[:, None], rows, left)
    return rows.masked_fill(~_some(rows)[:, None], number).sum(0, keepdim=True)


def _weighted(model: Any, left: Any, right: Any, number: float, values: list[Any]) -> Any:
    rows = torch.cat(values)
    weights = ((rows * left).sum(1)[None] + number) * _some(rows)
    return (weights[0, :, None] * rows).sum(0, keepdim=True)


STEPS: dict[str, Callable[..., Any]] = {
    "first": lambda s, a, b, n, v: s.first(a),
    "merge": lambda s, a, b, n, v: s.merge(a, b),
    "remember": lambda s, a, b, n, v: s.remember(a),
    "set memory": _set_memory,
    "set scale": _set_scale,
    "add": lambda s, a, b, n, v: a + b,
    "scaled": lambda s, a, b, n, v: a * 0.5 - b,
    "tanh": lambda s, a, b, n, v: torch.tanh(a),
    "add_": _done(lambda s, a, b, n, v: a.add_(b)),
    "view add_": _done(lambda s, a, b, n, v: a[:, 1:3].add_(b[:, :2].clone()).mul_(0.5)),
    "row mul_": _done(lambda s, a, b, n, v: a[0].mul_(0.5)),
    "masked": _masked,
    "weighted": _weighted,
    "write": _done(lambda s, a, b, n, v: a.__setitem__((0, 1), b[0, 2])),
    "fill": _done(lambda s, a, b, n, v: a[:, 0].fill_(n)),
    "view": lambda s, a, b, n, v: a.view(2, 2).t().reshape(1, H),
    "alias": lambda s, a, b, n, v: a.detach()[:, :],
    "same": lambda s, a, b, n, v: a.contiguous(),
    "clone": lambda s, a, b, n, v: a.clone(),
    "stack": lambda s, a, b, n, v: torch.stack([x[0] for x in v]).mean(0)[None],
    "rows": lambda s, a, b, n, v: torch.tanh(torch.cat(v, 0)).sum(0, keepdim=True),
    "rows cell": lambda s, a, b, n, v: s.first(torch.cat([a, b, a], 0))[1:2],
    "softmax": lambda s, a, b, n, v: torch.softmax(torch.cat(v) @ a.t(), 0).t() @ torch.cat(v),
    "copy_": lambda s, a, b, n, v: torch.zeros(1, H).copy_(a),
    "total": lambda s, a, b, n, v: torch.zeros(1, H).add_(a).add_(b),
    "buffer": _buffer,
    "fresh buffer": _fresh_buffer,
    "branch": _branch,
    "number": lambda s, a, b, n, v: a * round((float(a.sum()) + 0.01) % 3),
    "where": lambda s, a, b, n, v: torch.where(a > 0, a, b),
    "chunk": lambda s, a, b, n, v: torch.cat(a.chunk(2, 1)[::-1], 1),
    "sort": lambda s, a, b, n, v: a.sort(dim=1).values,
    "pop": _done(lambda s, a, b, n, v: v.pop() if len(v) > 2 else None),
}

WRITES = ("add_", "view add_", "row mul_", "write", "fill", "alias", "buffer", "fresh buffer", "copy_", "total")
"""Steps that write into tensors, which autograd may need as they were."""

QUICK = (
    "first",
    "merge",
    "remember",
    "set memory",
    "add",
    "add_",
    "view add_",
    "row mul_",
    "alias",
    "buffer",
    "branch",
)
"""Steps of the programs of the quick test: few of them make cells of their own."""


def programs(names: tuple[str, ...] = tuple(STEPS)) -> st.SearchStrategy[list[tuple[str, int, int, float]]]:
    """Lists of steps: name, two operands, a number."""
    number = st.sampled_from([-1.5, 0.0, 0.5, 2.0])
    step = st.tuples(st.sampled_from(names), st.integers(0, 9), st.integers(0, 9), number)
    return st.lists(step, min_size=1, max_size=8)

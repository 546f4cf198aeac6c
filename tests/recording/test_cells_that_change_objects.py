"""Cells, hooks and models that change objects outside of the model leave them as the model's own code does."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import edbatch_tvm as eb  # noqa: E402
from tests.recording.checks import assert_equal  # noqa: E402


class Collector:
    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.count = 0

    def note(self, value: Any) -> None:
        self.seen.append(value)
        self.count += 1


CALLS: list[Any] = []
BY_NAME: dict[str, list[Any]] = {"step": []}
ARRAY = np.zeros(2)
TENSOR = torch.zeros(2)
COLLECTOR = Collector()
NUMBER = 0


def state() -> Any:
    return copy.deepcopy([CALLS, BY_NAME, ARRAY.tolist(), TENSOR, COLLECTOR.seen, COLLECTOR.count, NUMBER])


def reset() -> None:
    global NUMBER
    CALLS.clear()
    BY_NAME["step"].clear()
    COLLECTOR.seen.clear()
    ARRAY[:] = COLLECTOR.count = NUMBER = 0
    TENSOR.zero_()


def _number(_value: torch.Tensor) -> None:
    global NUMBER
    NUMBER += 1


def _array(_value: torch.Tensor) -> None:
    ARRAY[1] += 1


def _tensor(value: torch.Tensor) -> None:
    TENSOR[0] = value.detach()[0, 0]


def _noted(into: Any, _module: nn.Module, _given: Any, result: torch.Tensor) -> None:
    if isinstance(into, Collector):
        into.note(result.detach())
    else:
        into.append(result.detach())


CHANGES: dict[str, Callable[[torch.Tensor], None]] = {
    "list": lambda value: CALLS.append(value.detach()),
    "list in a dict": lambda value: BY_NAME["step"].append(1),
    "object": lambda value: COLLECTOR.note(2),
    "variable": _number,
    "array": _array,
    "tensor": _tensor,
}


class Model(nn.Module):
    def __init__(self, change: str, place: str) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.change, self.place = change, place
        if place == "hook":
            self.linear.register_forward_hook(lambda module, given, result: CHANGES[change](result))
        if place == "argument of a hook":
            self.linear.register_forward_hook(partial(_noted, CALLS if change == "list" else COLLECTOR))

    def step(self, x: torch.Tensor) -> torch.Tensor:
        result = torch.tanh(self.linear(x))
        if self.place == "cell":
            CHANGES[self.change](result)
        return result

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        made: list[torch.Tensor] = []  # what the code makes itself, it may change

        def keep(value: torch.Tensor) -> torch.Tensor:
            made.append(value)
            return value

        value = rows[:1]
        for row in rows.split(1):
            value = keep(self.step(value + row))
            if self.place == "forward" and float(value.detach().sum()) < 100:
                CHANGES[self.change](value)
        return made[-1]


QUICK = {("list", "cell"), ("object", "hook"), ("tensor", "forward")}


@pytest.mark.parametrize(
    ("change", "place", "gradients"),
    [
        pytest.param(change, place, gradients, marks=[pytest.mark.slow] * ((change, place) not in QUICK or gradients))
        for change in CHANGES
        for place in ("cell", "hook", "forward", *["argument of a hook"] * (change in ("list", "object")))
        for gradients in (False, True)
    ],
)
@pytest.mark.filterwarnings("ignore::edbatch_tvm.errors.BreakWarning", "ignore::edbatch_tvm.errors.CellWarning")
def test_objects_are_what_the_model_makes_of_them(change: str, place: str, gradients: bool) -> None:
    torch.manual_seed(0)
    model = Model(change, place).eval()
    elements = [torch.randn(rows, 4) for rows in (3, 1, 2)]
    fast = eb.autobatch(model, cells=["linear"] if "hook" in place else ["step"])
    found = []
    with torch.set_grad_enabled(gradients):
        for run in (lambda: [model(one) for one in elements], lambda: fast(elements), lambda: fast(elements)):
            reset()
            found.append([run(), state()])
    assert_equal(found[1], found[0])
    assert_equal(found[2], found[0])


class Pure(nn.Module):
    """Changes only what it has made, in functions of its own too."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def step(self, x: torch.Tensor) -> torch.Tensor:
        parts: list[torch.Tensor] = []
        collector = Collector()

        def keep(value: torch.Tensor) -> None:
            parts.append(value)
            collector.note(value)

        keep(self.linear(x))
        keep(torch.tanh(parts[-1]))
        parts[-1].mul_(2)
        return torch.stack(collector.seen).sum(0)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.step(self.step(rows[:1]) + rows[-1:])


def test_what_code_makes_it_may_change() -> None:
    model, elements = Pure().eval(), [torch.randn(rows, 4) for rows in (3, 1, 2)]
    fast = eb.autobatch(model, cells=["step"])
    with torch.no_grad():
        for _ in range(2):
            assert_equal(fast(elements), [model(one) for one in elements])
    assert not fast.breaks
    assert 0 < fast.batches <= 4

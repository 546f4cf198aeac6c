"""Gradients of inputs pass models none of whose parameters require one."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import edbatch_tvm as eb  # noqa: E402
from edbatch_tvm.errors import RecordingError  # noqa: E402
from tests.recording.checks import assert_equal  # noqa: E402


@pytest.fixture(autouse=True)
def _gradients_are_recorded() -> Iterator[None]:
    with torch.enable_grad():
        yield


class Chain(nn.Module):
    """Runs a cell over rows, which an element has in one of several forms."""

    def __init__(self) -> None:
        super().__init__()
        self.step = nn.Linear(6, 6)

    def forward(self, element: Any, scale: Any = 1.0) -> torch.Tensor:
        rows = element
        if isinstance(element, dict):
            rows = element["rows"]
        elif isinstance(element, tuple):
            rows = torch.cat(element[1])
        elif isinstance(element, SimpleNamespace):
            rows = element.rows
        state = rows[:1] * scale
        for row in rows.split(1):
            state = torch.tanh(self.step(state + row))
        return state


FORMS = {
    "tensor": lambda rows: rows,
    "list in a tuple": lambda rows: ("name", list(rows.split(1))),
    "dict": lambda rows: {"rows": rows, "name": 3},
}


def leaves(count: int, gradients: bool) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    return [torch.randn(length, 6, generator=generator).requires_grad_(gradients) for length in range(1, count + 1)]


def test_inputs_get_gradients() -> None:
    model = Chain().eval().requires_grad_(False)
    fast = eb.autobatch(model, cells=["step"])
    assert not any(one.requires_grad for one in fast(leaves(3, False)))
    for form in FORMS.values():
        found = []
        for run in (fast, lambda elements: [model(one) for one in elements]):
            rows = leaves(3, True)
            outputs = run([form(one) for one in rows])
            sum(one.square().sum() for one in outputs).backward()
            found.append((outputs, [one.grad for one in rows]))
        assert_equal(*found)
    scale = torch.tensor([2.0], requires_grad=True)
    for run in (lambda rows: fast(rows, scale=scale), lambda rows: [model(one, scale) for one in rows]):
        sum(one.sum() for one in run(leaves(2, False))).backward()
        found.append(scale.grad.clone())
        scale.grad = None
    assert_equal(*found[-2:])
    with torch.no_grad():
        assert not any(one.requires_grad for one in fast(leaves(3, True)))
    assert not any(one.requires_grad for one in fast(leaves(3, False)))


def test_other_tensors_that_require_gradients_are_an_error() -> None:
    model = Chain().eval().requires_grad_(False)
    fast = eb.autobatch(model, cells=["step"])
    with pytest.raises(RecordingError, match=r"not among the arguments of an element; .*hint: with torch.no_grad"):
        fast([SimpleNamespace(rows=one) for one in leaves(2, True)])
    model.step.bias.requires_grad_(True)
    elements = [SimpleNamespace(rows=one) for one in leaves(2, True)]
    assert_equal(fast(elements), [model(one) for one in elements])

"""An element that raises an error: which error it is and what the model has afterwards are as in PyTorch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import edbatch_tvm as eb
from edbatch_tvm.recording.lazy import LazyTensor

H = 4
BAD = 9.0


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.Linear(H, H)
        self.use: Callable[[Any, Any], Any] = lambda model, x: model.cell(x)
        self.count, self.state = 0, torch.zeros(H)
        self.register_buffer("memory", torch.zeros(2, H))

    def forward(self, x: torch.Tensor) -> Any:
        return self.use(self, x)

    def check(self, x: torch.Tensor) -> None:
        if x[0] == BAD:
            raise ValueError(f"element {x[1]:g}")


def _without_waiting(m: Any, x: Any) -> Any:
    m.count, m.state = m.count + 1, m.cell(x)
    m.check(x)
    m.last = m.cell(m.state)
    return m.last


def _after_a_read(m: Any, x: Any) -> Any:
    m.state = m.cell(x)
    m.positive = bool(m.state.sum() > 0)
    m.later = m.cell(m.state)
    m.check(x)
    m.last = m.later * 2
    return m.last


def _after_reads_of_varying_number(m: Any, x: Any) -> Any:
    m.state = h = m.cell(x)
    for step in range(int(x[2].abs() * 3) + 1):
        h = m.cell(h * (1 if h.sum() > 0 else -1))
        m.step = step
    m.check(x)
    m.last = h
    return h


def _into_a_buffer(m: Any, x: Any) -> Any:
    m.memory[1] = m.cell(x)
    m.check(x)
    m.memory[0] = m.memory[1] * 2
    return m.memory.sum()


USES = [_without_waiting, _after_a_read, _after_reads_of_varying_number, _into_a_buffer]


def _held(model: Any) -> dict[str, Any]:
    names = "count", "state", "last", "later", "positive", "step", "memory"
    return {name: getattr(model, name) for name in names if hasattr(model, name)}


@pytest.mark.parametrize("bad", [(0,), (3,), (5, 2), (1, 4)])
@pytest.mark.parametrize("use", USES)
def test_the_error_and_what_the_model_has_are_as_in_pytorch(
    use: Callable[[Any, Any], Any], bad: tuple[int, ...]
) -> None:
    model = Model()
    model.use = use
    fast, eager = eb.autobatch(model, cells=["cell"]), copy.deepcopy(model)
    xs = torch.randn(6, H)
    good, xs[:, 1] = xs.clone(), torch.arange(6)
    assert torch.allclose(torch.stack(fast(list(good))), torch.stack([eager(x) for x in good]), atol=1e-6)
    for place in bad:
        xs[place, 0] = BAD
    errors = []
    for run in (lambda: fast(list(xs)), lambda: [eager(x) for x in xs]):
        with pytest.raises(ValueError, match="element") as caught:
            run()
        errors.append(str(caught.value))
    assert errors[0] == errors[1] == f"element {min(bad)}"
    found, wanted = _held(fast), _held(eager)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert not isinstance(found[name], LazyTensor)
        assert torch.allclose(torch.as_tensor(found[name]), torch.as_tensor(value), atol=1e-6), name
    assert torch.allclose(torch.stack(fast(list(good))), torch.stack([eager(x) for x in good]), atol=1e-6)

"""Buffers, attributes and parameters that cells read and ``forward`` changes in the same call, in every way."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import edbatch_tvm as eb
from edbatch_tvm.errors import BreakWarning, RecordingError

H = 4
TIMES = "before", "between", "after a read", "afterwards"


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.weight = nn.Linear(H, H), nn.Parameter(torch.ones(H))
        self.register_buffer("buffer", torch.ones(H))
        self.register_buffer("factor", torch.tensor(2.0), persistent=False)
        self.part = nn.Module()
        self.part.register_buffer("buffer", torch.ones(H))
        self.plain, self.items, self.number = torch.ones(H), [1.0], 1.0
        self.view = self.buffer[:2]
        self.change: Callable[[Any, Any], Any] = lambda model, h: None
        self.when = ""

    def cell(self, x: torch.Tensor) -> torch.Tensor:
        h = self.linear(x) * self.buffer + self.plain * self.number + self.factor * self.part.buffer
        return torch.sin(h + self.weight * self.items[0])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.when == "before":
            self.change(self, x)
        h = self.cell(x)
        if self.when == "between":
            self.change(self, h)
        h = self.cell(h)
        if self.when == "after a read":
            if h.sum() > -100:
                self.change(self, h)
            h = self.cell(h)
        if self.when == "afterwards":
            self.change(self, h)
        return h


def _parameter(m: Any, h: Any) -> None:
    with torch.no_grad():
        m.weight.add_(1)


def _swap(m: Any, h: Any) -> None:
    m.buffer, m.plain = m.plain, m.buffer


def _numpy(m: Any, h: Any) -> None:
    m.buffer.numpy()[0] += 1


def _augmented(m: Any, h: Any) -> None:
    m.buffer += 1


def _augmented_part(m: Any, h: Any) -> None:
    m.part.buffer *= 1.5


CHANGES: dict[str, Callable[[Any, Any], Any]] = {
    "+=": _augmented,
    "+= of a part": _augmented_part,
    "add_": lambda m, h: m.buffer.add_(1),
    "copy_": lambda m, h: m.buffer.copy_(m.buffer * 1.1),
    "copy_ of what is recorded": lambda m, h: m.buffer.copy_(h.detach()),
    "lerp_": lambda m, h: m.buffer.lerp_(h.detach(), 0.5),
    "fill_": lambda m, h: m.buffer.fill_(float(m.buffer.sum()) / 4 + 0.1),
    "data =": lambda m, h: setattr(m.buffer, "data", m.buffer.data * 1.1),
    "data.add_": lambda m, h: m.buffer.data.add_(1),
    "data[0] =": lambda m, h: m.buffer.data.__setitem__(0, float(m.buffer.sum())),
    "[0] =": lambda m, h: m.buffer.__setitem__(0, h[0].detach()),
    "numpy": _numpy,
    "detach().add_": lambda m, h: m.buffer.detach().add_(1),
    "a view": lambda m, h: m.buffer[:2].add_(1),
    "a view that the model has": lambda m, h: m.view.add_(1),
    "set": lambda m, h: setattr(m, "buffer", m.buffer + 1),
    "set to what is recorded": lambda m, h: setattr(m, "buffer", h.detach()),
    "register_buffer": lambda m, h: m.register_buffer("buffer", m.buffer + 1),
    "_buffers": lambda m, h: m._buffers.update(buffer=m.buffer + 1),
    "out=": lambda m, h: torch.mul(m.buffer, 1.1, out=m.buffer),
    "set_": lambda m, h: m.buffer.set_(m.buffer * 1.1),
    "_foreach_add_": lambda m, h: torch._foreach_add_([m.buffer, m.part.buffer], 1.0),
    "load_state_dict": lambda m, h: m.load_state_dict({**m.state_dict(), "buffer": m.buffer * 1.5}),
    "a scalar": lambda m, h: m.factor.mul_(1.1),
    "attribute": lambda m, h: m.plain.add_(1),
    "attribute, set": lambda m, h: setattr(m, "plain", m.plain * 1.1),
    "a number": lambda m, h: setattr(m, "number", m.number + 1),
    "a list": lambda m, h: m.items.__setitem__(0, m.items[0] + 1),
    "a buffer and an attribute": _swap,
    "a parameter": _parameter,
    "a parameter's data": lambda m, h: m.weight.data.add_(1),
    "a parameter's data =": lambda m, h: setattr(m.weight, "data", m.weight.data + 1),
    "a weight's data": lambda m, h: m.linear.weight.data.mul_(1.1),
    "a weight's memory": lambda m, h: np.multiply(m.linear.weight.detach(), 1.1, out=m.linear.weight.detach().numpy()),
}
QUICK = [("+=", "before"), ("data.add_", "between"), ("numpy", "after a read"), ("set", "between")]
QUICK += [("_buffers", "between"), ("a view that the model has", "afterwards"), ("a weight's data", "between")]


def _held(model: Any) -> list[torch.Tensor]:
    others = model.plain, torch.tensor(model.number), torch.tensor(model.items[0])
    return [one.detach().clone() for one in (*model.parameters(), *model.buffers(), *others)]


def _close(found: Any, wanted: Any) -> bool:
    return all(torch.allclose(one, other, atol=1e-5) for one, other in zip(found, wanted, strict=True))


def _check(change: str, when: str) -> None:
    torch.manual_seed(0)
    eager = Model()
    eager.change, eager.when = CHANGES[change], when
    model = copy.deepcopy(eager)
    model.view = model.buffer[:2]
    fast = eb.autobatch(model, cells=["cell"])
    for _ in range(3):
        xs = [torch.randn(H) for _ in range(4)]
        assert _close(fast(xs), [eager(x) for x in xs])
        assert _close(_held(model), _held(eager))


@pytest.mark.parametrize(("change", "when"), QUICK)
@pytest.mark.filterwarnings("ignore::edbatch_tvm.errors.BreakWarning")
def test_cells_read_what_is_there_when_they_are_called(change: str, when: str) -> None:
    _check(change, when)


@pytest.mark.slow
@pytest.mark.parametrize("when", TIMES)
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.filterwarnings("ignore::edbatch_tvm.errors.BreakWarning")
def test_cells_read_what_is_there_in_every_way_it_changes(change: str, when: str) -> None:
    _check(change, when)


def test_a_buffer_that_is_changed_by_a_later_call_is_an_error_once() -> None:
    model = Model()
    fast = eb.autobatch(model, cells=["cell"])
    xs = [torch.randn(H) for _ in range(4)]
    fast(xs)
    eager = copy.deepcopy(model)
    for one in (model, eager):
        one.change, one.when = CHANGES["data.add_"], "between"
    with pytest.raises(RecordingError, match="forward changes the buffer buffer, which cells have read as a constant"):
        fast(xs)
    eager.load_state_dict(model.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("error", BreakWarning)
        for _ in range(2):
            assert _close(fast(xs), [eager(x) for x in xs])


def test_a_counter_that_no_cell_reads_costs_no_new_cells() -> None:
    class Counts(Model):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.steps += 1
            return self.cell(x)

    model = Counts()
    fast = eb.autobatch(model, cells=["cell"])
    xs = [torch.randn(H) for _ in range(4)]
    fast(xs), fast(xs)
    library = fast._library
    fast(xs)
    assert fast._library is library
    assert model.steps == 12

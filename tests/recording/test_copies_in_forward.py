"""Modules that ``forward`` copies or pickles."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import edbatch_tvm as eb

pytestmark = pytest.mark.filterwarnings("ignore::edbatch_tvm.errors.BreakWarning")
ELEMENTS = [torch.linspace(-1, 1, 4 * rows).reshape(rows, 4) for rows in (2, 3, 1)]


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin, self.rnn = nn.Linear(4, 4), nn.GRU(4, 4)
        self.seq = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
        self.listed = [self.lin]
        self.use: Callable[[Any, torch.Tensor], Any] = lambda m, x: x

    def step(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.lin(x))

    def forward(self, x: torch.Tensor) -> Any:
        return self.use(self, x)


def _saved(module: nn.Module) -> Any:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def _with_a_state(model: Any, x: torch.Tensor) -> Any:
    model.state = model.lin(x).detach()
    return copy.deepcopy(model).state * 2


USES: dict[str, Callable[[Any, torch.Tensor], Any]] = {
    "a deep copy": lambda m, x: copy.deepcopy(m.lin)(m.lin(x)),
    "a copy": lambda m, x: copy.copy(m.lin)(m.lin(x)),
    "a deep copy of the model": lambda m, x: copy.deepcopy(m).step(x) + m.step(x),
    "a copy of the model": lambda m, x: copy.copy(m).step(x) + m.step(x),
    "a part without cells": lambda m, x: copy.deepcopy(m.seq)(m.lin(x)),
    "a recurrent layer": lambda m, x: copy.deepcopy(m.rnn)(m.lin(x))[0],
    "a module in a list": lambda m, x: copy.deepcopy(m.listed)[0](x),
    "its class": lambda m, x: m.lin(x) * (type(copy.deepcopy(m.lin)) is nn.Linear),
    "a pickled module": lambda m, x: pickle.loads(pickle.dumps(m.lin))(x),
    "a saved module": lambda m, x: _saved(m.seq)(m.lin(x)),
    "a state": _with_a_state,
}


@pytest.mark.parametrize("name", USES)
def test_modules_are_copied_as_in_pytorch(name: str) -> None:
    model, own = Model(), Model()
    own.load_state_dict(model.state_dict())
    model.use = own.use = USES[name]
    fast = eb.autobatch(model, cells=["lin", "step"], target="numpy")
    for _ in range(2):
        torch.testing.assert_close(fast(ELEMENTS), [own(x) for x in ELEMENTS], rtol=1e-5, atol=1e-5)


def test_copies_of_tensors_with_a_history_are_errors_as_in_pytorch() -> None:
    with torch.enable_grad():
        model = Model()
        model.use = lambda m, x: copy.deepcopy(m.lin(x))
        for run in (model, eb.autobatch(model, cells=["lin"])):
            with pytest.raises(RuntimeError, match="graph leaves"):
                run(ELEMENTS[0])


_exported: Callable[[torch.Tensor], Any] = torch.utils.dlpack.to_dlpack  # not what takes its place meanwhile


def test_memory_of_recorded_tensors_is_exported_once_computed() -> None:
    model = Model()
    model.use = lambda m, x: torch.from_dlpack(torch.utils.dlpack.to_dlpack(m.lin(x))) * 2
    fast = eb.autobatch(model, cells=["lin"])
    for _ in range(2):
        torch.testing.assert_close(fast(ELEMENTS), [model(x) for x in ELEMENTS], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("code", [_exported, torch._C._to_dlpack_versioned])
def test_code_that_takes_memory_unasked_is_an_error(code: Callable[[torch.Tensor], Any]) -> None:
    model = Model()
    model.use = lambda m, x: code(m.lin(x)) and x
    with pytest.raises(RuntimeError, match="data pointer"):
        eb.autobatch(model, cells=["lin"])(ELEMENTS)

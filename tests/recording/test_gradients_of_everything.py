"""Gradients where PyTorch's own code writes, where gradients are off meanwhile, and where functions are the user's."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

import edbatch_tvm as eb
from tests.recording.checks import assert_equal

H = 4
pytestmark = pytest.mark.filterwarnings("ignore::edbatch_tvm.errors.BreakWarning")


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.out = nn.Linear(H, H), nn.Linear(H, H)
        self.use: Callable[[Any, Any], Any] = lambda model, h: model.out(h)
        self.register_buffer("memory", torch.zeros(3, H))

    def forward(self, x: torch.Tensor) -> Any:
        return self.use(self, self.cell(x))


def _reads_without_gradients(m: Any, h: Any) -> Any:
    with torch.no_grad():
        positive = h.sum().item() > 0
    return m.out(h) if positive else h * 2


def _keeps_a_copy(m: Any, h: Any) -> Any:
    with torch.no_grad():
        m.memory[1] = h[0]
    return m.out(h + m.memory[1])


def _writes_rows(m: Any, h: Any) -> Any:
    made = torch.zeros(3, H, dtype=h.dtype)
    with torch.no_grad():
        made[torch.tensor([0, 2])] = torch.stack([h[0], h[0] * 2])
    made[1] = h[0]
    return made


def _writes_one_more_row(m: Any, h: Any) -> Any:
    made = torch.zeros(3, H, dtype=h.dtype)
    made[1] = h[0]
    with torch.no_grad():
        made[0] = h[0] * 2
    made[2] = h[-1]
    return made


def _packs(m: Any, h: Any) -> Any:
    padded = pad_sequence([h, h[:1]])
    packed = pack_padded_sequence(padded, [len(h), 1])
    return pad_packed_sequence(packed._replace(data=packed.data * 2))[0]


def _sums(m: Any, h: Any) -> Any:
    """Some of it is recorded, some computed by PyTorch."""
    return torch.logcumsumexp(torch.tanh(m.out(h * m.cell.bias)), -1)


def _checkpoints_twice(m: Any, h: Any) -> Any:
    return checkpoint(lambda q: checkpoint(partial(_sums, m), q, use_reentrant=False) * q, h, use_reentrant=False)


def _checkpoints_some(m: Any, h: Any) -> Any:
    contexts = partial(create_selective_checkpoint_contexts, [torch.ops.aten.mul.Tensor])
    return checkpoint(partial(_sums, m), h, use_reentrant=False, context_fn=contexts)


def _packs_what_is_saved(m: Any, h: Any) -> Any:
    with torch.autograd.graph.saved_tensors_hooks(lambda saved: saved * 2, lambda packed: packed / 2):
        return _sums(m, h)


USES: dict[str, Callable[[Any, Any], Any]] = {
    "value read under no_grad": _reads_without_gradients,
    "written under no_grad": _keeps_a_copy,
    "rows written under no_grad": _writes_rows,
    "one of several rows written under no_grad": _writes_one_more_row,
    "pad_sequence": lambda m, h: pad_sequence([h, h[:1]], batch_first=True),
    "packed sequences": _packs,
    "block_diag": lambda m, h: torch.block_diag(h, h[:1]),
    "checkpoint": lambda m, h: checkpoint(m.out, h, use_reentrant=False),
    "checkpoint of more than is recorded": lambda m, h: checkpoint(partial(_sums, m), h, use_reentrant=False),
    "checkpoint in a checkpoint": _checkpoints_twice,
    "checkpoint of some operators": _checkpoints_some,
    "hooks of saved tensors": _packs_what_is_saved,
    "reentrant checkpoint": lambda m, h: checkpoint(m.out, h, use_reentrant=True),
    "vmap": lambda m, h: torch.vmap(lambda x: x * 2 + h[0])(torch.ones(3, H, dtype=h.dtype)),
}


@pytest.fixture(scope="module")
def made() -> tuple[Model, Model]:
    torch.manual_seed(0)
    model = Model().double()
    return model, copy.deepcopy(model)


@pytest.mark.parametrize("name", USES)
def test_gradients_are_those_of_the_model(made: tuple[Model, Model], name: str) -> None:
    model, other = made
    model.use = other.use = USES[name]
    fast = eb.autobatch(other, ["cell", "out"], target="numpy")
    with torch.enable_grad():
        for lengths in ((2,), (3, 1, 2)):  # by the model's own code, then in batches
            elements = [torch.randn(n, H, dtype=torch.float64) for n in lengths]
            wanted, found = [model(x) for x in elements], fast(elements)
            assert_equal([one.detach() for one in found], [one.detach() for one in wanted])
            for one, results in ((model, wanted), (other, found)):
                one.zero_grad()
                sum((result * result + result).sum() for result in results).backward()
            assert_equal([one.grad for one in other.parameters()], [one.grad for one in model.parameters()])


@pytest.mark.parametrize("count", [3, 8])
def test_weights_of_cells_that_forward_writes_into(count: int) -> None:
    def use(m: Any, h: Any) -> Any:
        with torch.no_grad():
            m.out.weight.mul_(0.5)
        return m.out(h)

    model = Model()
    model.use = use
    other = copy.deepcopy(model)
    fast = eb.autobatch(other, ["cell", "out"])
    elements = [torch.randn(1 + n % 3, H) for n in range(count)]
    for _ in range(2):
        assert_equal(fast(elements), [model(x) for x in elements])
        assert_equal(dict(other.state_dict()), dict(model.state_dict()))

"""Operators that write into a tensor are recorded as those that make one; complex numbers are PyTorch's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import edbatch_tvm as eb
from edbatch_tvm.recording.dispatch import _functional

pytestmark = pytest.mark.filterwarnings("ignore::edbatch_tvm.errors.BreakWarning")

ELEMENTS = [torch.linspace(-1, 1, 4 * rows).reshape(rows, 4) for rows in (2, 3, 1)]


class Model(nn.Module):
    def __init__(self, use: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.lin, self.out = nn.Linear(4, 4), nn.Linear(4, 4)
        self.use = use

    def forward(self, x: torch.Tensor) -> Any:
        return self.out(self.use(self.lin(x), x))


def _rotated(h: Any, x: torch.Tensor) -> Any:
    turn = torch.polar(torch.ones(len(h), 2), torch.arange(len(h))[:, None] * torch.tensor([1.0, 0.5]))
    return torch.view_as_real(torch.view_as_complex(h.reshape(-1, 2, 2)) * turn).flatten(1)


def _power(h: Any, x: torch.Tensor) -> Any:
    h **= 2
    return h


def _power_of_tensor(h: Any, x: torch.Tensor) -> Any:
    h = h.abs() + 1
    h **= x
    return h


USES: dict[str, Callable[[Any, Any], Any]] = {
    "rotary positions": _rotated,
    "parts": lambda h, x: torch.cat([getattr(torch.view_as_complex(h.view(-1, 2, 2)), one) for one in _PARTS], 1),
    "conjugates": lambda h, x: torch.view_as_real(
        torch.view_as_complex(h.view(-1, 2, 2)).conj().resolve_conj()
    ).flatten(1),
    "a power": _power,
    "a power of a tensor": _power_of_tensor,
    "a method": lambda h, x: h.pow_(3).float_power(2).float(),
}
_PARTS = "real", "imag"


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("name", USES)
def test_complex_numbers_and_powers(name: str, gradients: bool) -> None:
    with torch.set_grad_enabled(gradients):
        model = Model(USES[name])
        fast = eb.autobatch(model, cells=["lin", "out"], target="numpy")
        for _ in range(2):
            wanted, found = [model(x) for x in ELEMENTS], fast(ELEMENTS)
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
            if gradients:
                own, given = (
                    torch.autograd.grad(sum(one.square().sum() for one in results), list(model.parameters()))
                    for results in (wanted, found)
                )
                torch.testing.assert_close(given, own, rtol=1e-4, atol=1e-4)


def test_operators_that_write_are_recorded_as_ones_of_the_same_arguments() -> None:
    count = 0
    for schema in torch._C._jit_get_all_schemas():
        space, _, name = schema.name.partition("::")
        if space != "aten" or not name.endswith("_") or name.startswith("_") or not hasattr(torch.ops.aten, name):
            continue
        operator = getattr(getattr(torch.ops.aten, name), schema.overload_name or "default", None)
        functional = None if operator is None else _functional(operator, name)
        if functional is not None:
            assert [str(one.type) for one in functional._schema.arguments] == [
                str(one.type) for one in schema.arguments
            ]
            count += 1
    assert count > 100

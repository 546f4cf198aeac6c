"""Every rule against central differences of the function itself, in float64: nothing of PyTorch's autograd is used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tvm import relax
from tvm.relax import op as R

import relay_ext.gradients.reverse  # noqa: F401  (its imports register the rules)
from relay_ext.gradients.adjoint_cells import adjoint_cells
from relay_ext.gradients.rules import RULES
from relay_ext.signature import cell_functions
from tests.relay_ext.relax_in_torch import evaluate
from tests.relay_ext.test_adjoint_cells import ALONG, REDUCTIONS, UNARY, VIEWS, WITHIN, _gradients, _module

STEP = 1e-6

Case = tuple[Callable[..., Any], list[Any], tuple[float, float]]

ANY = (-2.0, 2.0)
APART = (0.3, 2.0)


def _split(x: Any) -> Any:
    builder = relax.BlockBuilder.current()
    parts = builder.emit(R.split(x, [1, 2], axis=1))
    return R.tanh(relax.TupleGetItem(parts, 2)) * R.exp(relax.TupleGetItem(parts, 0))


CASES: dict[str, Case] = {
    **{name if name in RULES else f"nn.{name}": (function, [(2, 5)], ANY) for name, function in UNARY.items()},
    **{name: (getattr(R, name), [(2, 5)], bounds) for name, bounds in WITHIN.items()},
    **{
        name: (getattr(R, name), [(3, 4), (4,)], APART)
        for name in ("add", "subtract", "multiply", "divide", "maximum", "minimum", "power", "mod", "floor_mod")
    },
    **{
        name: (lambda x, name=name: R.tanh(VIEWS[name](x)), [(2, 3, 4)], ANY)
        for name in VIEWS
        if name in RULES
    },
    "split": (_split, [(2, 3)], ANY),
    "take": (lambda x: R.tanh(R.take(x, relax.const([2, 0, 2], "int64"), axis=1)), [(2, 3)], ANY),
    "where": (lambda x, y: R.where(R.greater(x, y), x * y, R.exp(y)), [(3, 4), (3, 4)], ANY),
    "clip": (lambda x: R.clip(x, -0.5, 0.75), [(3, 4)], ANY),
    "matmul": (R.matmul, [(5, 2, 3), (3, 4)], ANY),
    **{
        name: (lambda x, name=name: REDUCTIONS[name](R.tanh(x), axis=[0, 2]), [(2, 3, 4)], APART) for name in REDUCTIONS
    },
    **{
        name if name in RULES else f"nn.{name}": (function, [(3, 4), (4,)], APART) for name, function in ALONG.items()
    },
}  # fmt: skip


def test_every_rule_has_a_case() -> None:
    differentiable = {name for name, rule in RULES.items() if rule.__name__ != "_none"}
    # Gradients of TIR functions are the user's: tests/training/test_tir_gradients.py.
    assert differentiable - {"call_tir"} == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_rule(name: str) -> None:
    """The slope of a random direction in each argument, of the outputs times random cotangents."""
    build, shapes, (low, high) = CASES[name]
    mod = _module(build, shapes)
    adjoints = adjoint_cells(mod)
    (function,) = cell_functions(mod).values()
    generator = torch.Generator().manual_seed(len(name))

    def drawn(shape: Any) -> torch.Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    arguments = {f"x{place}": low + (high - low) * drawn(shape) for place, shape in enumerate(shapes)}
    cotangents = [drawn(out.shape) - 0.5 for out in evaluate(function, arguments)]

    def loss(given: dict[str, torch.Tensor]) -> torch.Tensor:
        outputs = evaluate(function, given)
        return torch.stack([(out * own).sum() for out, own in zip(outputs, cotangents, strict=True)]).sum()

    found, _ = _gradients(adjoints, "cell", function, dict(arguments), cotangents)
    for param, value in arguments.items():
        direction = drawn(value.shape) - 0.5
        above, below = (loss(arguments | {param: value + sign * STEP * direction}) for sign in (1, -1))
        slope = float(above - below) / (2 * STEP)
        own = found[param]
        mine = 0.0 if own is None else float((own.broadcast_to(value.shape) * direction).sum())
        assert mine == pytest.approx(slope, rel=2e-7, abs=2e-8), param

"""Losses as cells: values and gradients are PyTorch's, at extreme logits too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tvm import IRModule
from tvm.script import ir as I
from tvm.script import relax as R

import edbatch_tvm as eb
from edbatch_tvm import losses
from edbatch_tvm.errors import CellError, GraphError

WIDTH = 5


def made(dtype: str) -> dict[str, Any]:
    """All losses, of a vector and of a scalar."""
    return {
        "entropy": losses.cross_entropy(WIDTH, dtype),
        "squares": losses.squared_error(WIDTH, dtype),
        "square": losses.squared_error((), dtype),
        "answers": losses.logistic(WIDTH, dtype),
        "answer": losses.logistic((), dtype),
    }


TORCH: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "entropy": lambda x, label: F.cross_entropy(x, label),
    "squares": lambda x, target: F.mse_loss(x, target.double(), reduction="sum"),
    "square": lambda x, target: F.mse_loss(x, target.double(), reduction="sum"),
    "answers": lambda x, label: F.binary_cross_entropy_with_logits(x, label.double(), reduction="sum"),
    "answer": lambda x, label: F.binary_cross_entropy_with_logits(x, label.double(), reduction="sum"),
}

LOGITS = [
    [0.0, 0.0, 0.0, 0.0, 0.0],
    [1.0, -2.0, 0.5, 3.0, -0.25],
    [39.0, -39.0, 41.0, -41.0, 0.0],
    [80.0, -80.0, 88.0, -88.0, 1.0],
    [745.0, -745.0, 710.0, -710.0, 0.0],
    [1e4, -1e4, 1e30, -1e30, 1e-30],
    [-np.inf, 2.0, 1.0, 0.0, 0.5],
    [np.nan, 2.0, 1.0, 0.0, 0.5],
]
LABELS = [[0, 1, 0, 1, 1], [1, 0, 1, 0, 0]]


def calls(builder: Any, dtype: str, name: str) -> tuple[list[Any], list[torch.Tensor], list[torch.Tensor]]:
    """An instance for each row of logits and each label; what the loss is given in each."""
    scalar = name in ("square", "answer")
    key = "target" if name.startswith("square") else "label"
    graphs, given, labels = [], [], []
    for row in LOGITS:
        if name.startswith("answer") and np.isinf(row).any():
            continue  # PyTorch gives NaN
        for label in LABELS:
            x = np.array(row[0] if scalar else row, dtype)
            y: Any = label[1] if scalar else label
            if name == "entropy":
                y = 1 + label[0] * 2
            if key == "target":
                y = np.array(y, dtype) / 4
            graphs.append(builder.finish(builder.call(name, x, **{key: y})))
            given.append(torch.tensor(x).double().requires_grad_())
            labels.append(torch.tensor(np.array(y)))
    return graphs, given, labels


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_values_and_gradients_are_those_of_pytorch(dtype: str) -> None:
    model = eb.compile(losses.with_losses(IRModule({}), **made(dtype)), training=True)
    tolerance = 1e-12 if dtype == "float64" else 1e-5
    for name, function in TORCH.items():
        graphs, given, labels = calls(model.builder(), dtype, name)
        result = model(graphs)
        expected = [function(x, y) for x, y in zip(given, labels, strict=True)]
        slopes = torch.autograd.grad(torch.stack(expected).sum(), given)
        gradients = result.backward()
        arena = next(place for place, rows in enumerate(gradients.external) if len(rows))
        for number, (value, slope) in enumerate(zip(expected, slopes, strict=True)):
            scale = max(1.0, float(np.nan_to_num(np.abs(given[number].detach().numpy()), posinf=1, nan=1).max()))
            what = f"{name} of {given[number].tolist()}, {labels[number].tolist()}"
            close = {"rtol": tolerance, "atol": tolerance * min(scale, 1e4), "err_msg": what}
            with np.errstate(over="ignore"):
                wanted = value.detach().numpy().astype(dtype)
                slope_wanted = slope.numpy().astype(dtype)
            np.testing.assert_allclose(result[number], wanted, **close)
            np.testing.assert_allclose(gradients.external[arena][number], slope_wanted, **close)


def test_logistic_of_an_infinite_logit_is_the_limit() -> None:
    model = eb.compile(losses.with_losses(IRModule({}), answer=losses.logistic()), training=True)
    b = model.builder()
    cases = [(np.inf, 1, 0.0, 0.0), (np.inf, 0, np.inf, 1.0), (-np.inf, 0, 0.0, 0.0), (-np.inf, 1, np.inf, -1.0)]
    result = model([b.finish(b.call("answer", np.array(x, np.float32), label=label)) for x, label, _, _ in cases])
    (slopes,) = (rows for rows in result.backward().external if len(rows))
    assert [float(one) for one in result] == [value for _, _, value, _ in cases]
    assert slopes.tolist() == [slope for _, _, _, slope in cases]


@I.ir_module
class Cells:
    @R.function
    def step(h: R.Tensor((4,), "float32"), W: R.Tensor((4, 4), "float32")):
        R.func_attr({"num_input": 1})
        with R.dataflow():
            y = R.tanh(R.matmul(h, W))
            R.output(y)
        return y


WEIGHTS = {"W": np.linspace(-1, 1, 16, dtype=np.float32).reshape(4, 4)}


def instance(builder: Any, number: int) -> Any:
    h = builder.call("step", np.full(4, 0.1 * number, np.float32))
    h = builder.call("step", h)
    label, target = number % 4, np.linspace(0, number, 4)
    return builder.finish(builder.call("kind", h, label=label), builder.call("distance", h, target=target))


@pytest.mark.parametrize(
    "options", [{}, {"granularity": "op"}, {"granularity": "group"}, {"target": "cuda-emulated"}, {"target": "numpy"}]
)
def test_losses_beside_other_cells(options: dict[str, str]) -> None:
    cells = losses.with_losses(Cells, kind=losses.cross_entropy(4), distance=losses.squared_error(4))
    assert [variable.name_hint for variable in Cells.functions] == ["step"]
    model = eb.compile(cells, WEIGHTS, **options)  # type: ignore[arg-type]
    instances = [instance(model.builder(), number) for number in range(1, 6)]
    result = model(instances)
    W = torch.tensor(WEIGHTS["W"]).double()
    for number in range(1, 6):
        h = torch.tanh(torch.tanh(torch.full((4,), 0.1 * number, dtype=torch.float64) @ W) @ W)
        expected = (
            F.cross_entropy(h, torch.tensor(number % 4)),
            F.mse_loss(h, torch.linspace(0, number, 4).double(), reduction="sum"),
        )
        found = [np.asarray(one) for one in result[number - 1]]
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_weighted_sum_of_losses_is_their_cotangents() -> None:
    cells = losses.with_losses(Cells, kind=losses.cross_entropy(4), distance=losses.squared_error(4))
    model = eb.compile(cells, WEIGHTS, training=True)
    result = model([instance(model.builder(), number) for number in range(1, 6)])
    gradients = result.backward([[np.float32(1), np.float32(0.5)]] * 5)
    W = torch.tensor(WEIGHTS["W"]).double().requires_grad_()
    total = torch.zeros((), dtype=torch.float64)
    for number in range(1, 6):
        h = torch.tanh(torch.tanh(torch.full((4,), 0.1 * number, dtype=torch.float64) @ W) @ W)
        total = total + F.cross_entropy(h, torch.tensor(number % 4))
        total = total + 0.5 * F.mse_loss(h, torch.linspace(0, number, 4).double(), reduction="sum")
    (expected,) = torch.autograd.grad(total, [W])
    np.testing.assert_allclose(gradients["W"], expected, rtol=1e-5, atol=1e-5)


def test_bad_arguments() -> None:
    with pytest.raises(CellError, match="a loss of shape 0; expected a number of elements"):
        losses.logistic(0)
    with pytest.raises(CellError, match="a loss of shape 'five'"):
        losses.squared_error("five")
    with pytest.raises(CellError, match=r"\(2, 3\) classes; expected a number"):
        losses.cross_entropy((2, 3))  # type: ignore[arg-type]
    with pytest.raises(CellError, match="a loss of dtype 'int32'; expected one of float32, float64"):
        losses.cross_entropy(5, "int32")
    with pytest.raises(CellError, match="a loss called 'step', as a cell is; expected another name than step"):
        losses.with_losses(Cells, step=losses.cross_entropy(4))
    with pytest.raises(CellError, match=r"loss 'kind' is a int; expected a cell"):
        losses.with_losses(Cells, kind=5)  # type: ignore[arg-type]
    cells = losses.with_losses(Cells, kind=losses.cross_entropy(4), distance=losses.squared_error(4))
    model = eb.compile(cells, WEIGHTS, target="numpy")
    builder = model.builder()
    h = builder.call("step", builder.zero)
    builder.call("kind", h, label=4)
    with pytest.raises(GraphError, match=r"label.* is 4.*expected"):
        builder.finish(h)
    h = builder.call("step", builder.zero)
    builder.call("distance", h, target=[1.0, 2.0])
    with pytest.raises(GraphError, match=r"attribute 'target' of 'distance' has shape \(2,\)"):
        builder.finish(h)


def test_an_attribute_that_is_no_input() -> None:
    @I.ir_module
    class Wrong:
        @R.function
        def loss(x: R.Tensor((4,), "float32")):
            R.func_attr({"num_input": 1, "attributes": ["y"]})
            with R.dataflow():
                y = R.sum(x)
                R.output(y)
            return y

    with pytest.raises(CellError, match="attribute 'y' of cell 'loss', which has no such input; expected one of x"):
        eb.compile(Wrong, {})

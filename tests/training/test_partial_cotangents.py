"""Outputs that nothing uses have no part in gradients, even where their derivatives are infinite or undefined."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tvm.script import ir as I
from tvm.script import relax as R

import edbatch_tvm as eb

H = 3


@I.ir_module
class Cells:
    @R.function
    def word(word: R.Tensor((), "int32"), table: R.Tensor((5, 3), "float32")):
        R.func_attr({"num_input": 1})
        x = R.take(table, word, axis=0)
        return x

    @R.function
    def both(x: R.Tensor((3,), "float32"), scale: R.Tensor((3,), "float32")):
        R.func_attr({"num_input": 1})
        z = R.multiply(x, scale)
        a = R.exp(z)
        b = R.log(z)
        return (a, b)

    @R.function
    def root(x: R.Tensor((3,), "float32")):
        R.func_attr({"num_input": 1})
        y = R.sqrt(x)
        return y

    @R.function
    def join(x: R.Tensor((3,), "float32"), y: R.Tensor((3,), "float32"), W: R.Tensor((3, 3), "float32")):
        R.func_attr({"num_input": 2})
        a = R.matmul(x, W)
        b = R.multiply(x, y)
        return (a, b)

    @R.function
    def rows(xs: R.Tensor(("k", 3), "float32")):
        R.func_attr({"num_input": 1})
        a = R.sum(xs, axis=0)
        b = R.sum(R.sqrt(xs), axis=0)
        return (a, b)


def reference(weights: dict[str, torch.Tensor]) -> dict[str, Any]:
    def both(x: torch.Tensor) -> Any:
        return torch.exp(x * weights["scale"]), torch.log(x * weights["scale"])

    return {
        "word": lambda word: weights["table"][word],
        "both": both,
        "root": torch.sqrt,
        "join": lambda x, y: (x @ weights["W"], x * y),
        "rows": lambda xs: (torch.stack(xs).sum(0), torch.stack(xs).sqrt().sum(0)),
    }


def instance(builder: Any, cells: dict[str, Any], rng: np.random.Generator) -> tuple[list[Any], list[Any]]:
    """The values of some calls, and what they are in PyTorch."""
    made: list[tuple[Any, Any]] = []
    for number in range(8):
        if number < 3:
            word = int(rng.integers(5))
            made.append((builder.call("word", word=word), cells["word"](word)))
            continue
        name = str(rng.choice(["both", "root", "join", "rows"]))
        count = {"join": 2, "rows": 2}.get(name, 1)
        read = [made[place] for place in rng.integers(len(made), size=count)]
        given, wanted = [one for one, _ in read], [one for _, one in read]
        arguments = ([given], [wanted]) if name == "rows" else (given, wanted)
        found, expected = builder.call(name, *arguments[0]), cells[name](*arguments[1])
        made += zip(found, expected, strict=True) if isinstance(found, tuple) else [(found, expected)]
    chosen = [made[place] for place in rng.permutation(len(made))[:2]]
    return [one for one, _ in chosen], [one for _, one in chosen]


@pytest.mark.parametrize(
    "options",
    [
        {},
        *(
            pytest.param(options, marks=pytest.mark.slow)
            for options in (
                {"granularity": "op"},
                {"dtype": "float64"},
                {"memory": "recompute", "plan": "pq"},
                {"equal_nodes": True},
                {"target": "cuda-emulated"},
                {"target": "numpy"},
            )
        ),
    ],
    ids=str,
)
def test_gradients_are_those_of_pytorch(options: dict[str, Any]) -> None:
    rng = np.random.default_rng(1)
    table = rng.uniform(0.1, 1, (5, H)) * [[1], [0], [1], [-1], [1]]  # a row of zeros, and a negative one
    given = {"table": table, "scale": rng.uniform(0.5, 1, H), "W": rng.normal(size=(H, H))}
    given = {name: array.astype("float32") for name, array in given.items()}
    model = eb.compile(Cells, given, training=True, **options)
    again = 0
    for _ in range(6):
        weights = {name: torch.tensor(array, dtype=torch.float64, requires_grad=True) for name, array in given.items()}
        builder, cells = model.builder(), reference(weights)
        instances, ends, cotangents = [], [], []
        for _ in range(3):
            values, expected = instance(builder, cells, rng)
            instances.append(builder.finish(values))
            cotangents.append([rng.normal(size=H).astype("float32") if rng.random() < 0.8 else None for _ in expected])
            ends += [pair for pair in zip(expected, cotangents[-1], strict=True) if pair[1] is not None]
        gradients = model(instances).backward(cotangents)
        for out, one in ends:
            out.backward(torch.tensor(one, dtype=torch.float64), retain_graph=True)
        for name, weight in weights.items():
            wanted = np.zeros(weight.shape) if weight.grad is None else weight.grad.numpy()
            np.testing.assert_allclose(gradients[name], wanted, rtol=1e-4, atol=1e-5, err_msg=name)
        again += model._partial._backward is not None
    assert again or options.get("granularity") == "op"


def test_a_cotangent_of_zero_is_one() -> None:
    given = {"table": np.zeros((5, H), "float32"), "scale": np.ones(H, "float32"), "W": np.eye(H, dtype="float32")}
    model = eb.compile(Cells, given, training=True)
    for cotangent, expected in ((None, 1.0), (np.zeros(H, "float32"), np.nan)):
        builder = model.builder()
        both = builder.call("both", builder.call("word", word=2))
        gradients = model([builder.finish(list(both))]).backward([[np.ones(H, "float32"), cotangent]])
        np.testing.assert_array_equal(gradients["table"][2], np.full(H, expected))


def test_weights_that_change_and_patterns_that_are_new() -> None:
    given = {"table": np.zeros((5, H), "float32"), "scale": np.ones(H, "float32"), "W": np.eye(H, dtype="float32")}
    model = eb.compile(Cells, given, training=True)
    for step in (1, 2, 3):
        model.refresh(given | {"scale": np.full(H, step, "float32")})
        for used in ((0,), (1,), (0, 1)) if step == 2 else ((0,),):
            builder = model.builder()
            both = builder.call("both", builder.call("word", word=0))
            ends = [builder.call("root", both[place]) for place in used]
            gradients = model([builder.finish(ends)]).backward([[np.ones(H, "float32")] * len(used)])
            expected = step / 2 if used == (0,) else np.nan  # of sqrt(exp(step * 0)); of the root of log(0)
            np.testing.assert_array_equal(gradients["table"][0], np.full(H, expected), err_msg=f"{step} {used}")


class TwoOutputs(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(H))

    def cell(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return (x * self.scale).exp(), (x * self.scale).log()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.cell(x)[0].sum()


def test_of_a_pytorch_model() -> None:
    model = TwoOutputs()
    fast = eb.autobatch(model, cells=["cell"])
    elements = [torch.tensor([0.0, -1.0, 2.0]), torch.tensor([1.0, 0.0, 3.0])]
    for _ in range(2):  # the first call compiles
        model.zero_grad()
        sum(fast(elements)).backward()
    found = model.scale.grad
    assert found is not None
    expected = sum(one * one.exp() for one in elements)
    torch.testing.assert_close(found, expected)

"""Soft-max, normalisation and dot products in stages: equal to PyTorch in float64 for every form, width and batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tvm import relax
from tvm.relax import op as R

import edbatch_tvm as eb
from tests.relay_ext.relax_in_torch import evaluate

D = 7
"""Columns of the input; the stages have other widths."""

BATCHES = (1, 2, 3, 5, 21)

Form = Callable[[Any, Callable[..., Any], int], Any]


def _softmax_of_linear(x: Any, weight: Callable[..., Any], n: int) -> Any:
    return R.nn.log_softmax(R.add(R.matmul(x, weight(D, n)), weight(n)), axis=-1)


def _norm(x: Any, weight: Callable[..., Any], n: int) -> Any:
    return R.nn.layer_norm(R.tanh(R.matmul(x, weight(D, n))), weight(n), weight(n), axes=[-1])


def _split_norm(x: Any, weight: Callable[..., Any], n: int) -> Any:
    """The gates of an LSTM with one layer norm over all of them."""
    gates = R.nn.layer_norm(R.matmul(x, weight(D, 2 * n)), weight(2 * n), weight(2 * n), axes=[-1])
    return R.multiply(
        R.sigmoid(R.strided_slice(gates, [0], [0], [n])), R.tanh(R.strided_slice(gates, [0], [n], [2 * n]))
    )


def _scalars(x: Any, weight: Callable[..., Any], n: int) -> Any:
    h = R.sigmoid(R.matmul(x, weight(D, n)))
    score = R.sum(R.multiply(h, weight(n)), axis=[-1], keepdims=True)
    return relax.Tuple([score, R.max(h, axis=[-1]), R.min(h, axis=[-1]), R.mean(R.multiply(h, h), axis=[-1]), h])


def _weighted(x: Any, weight: Callable[..., Any], n: int) -> Any:
    """A reduction over one width times a vector of another."""
    wide = R.sum(R.exp(R.matmul(x, weight(D, n))), axis=[-1], keepdims=True)
    return R.multiply(R.tanh(x), R.divide(R.max(x, axis=[-1], keepdims=True), wide))


def _twice(x: Any, weight: Callable[..., Any], n: int) -> Any:
    """A product that reads a soft-max, and a soft-max of that."""
    return R.nn.softmax(R.matmul(R.nn.softmax(R.matmul(x, weight(D, n)), axis=-1), weight(n, n)), axis=-1)


def _heads(x: Any, weight: Callable[..., Any], n: int) -> Any:
    h = R.reshape(R.matmul(x, weight(D, 3 * n)), (3, n))
    return relax.Tuple([R.nn.softmax(h, axis=-1), R.mean(h, axis=[-1])])


def _slices(x: Any, weight: Callable[..., Any], n: int) -> Any:
    """Soft-max of a part that does not begin at a multiple of the lanes, as in matrices."""
    h = R.matmul(x, weight(D, n + 3))
    return relax.Tuple([R.nn.softmax(R.strided_slice(h, [0], [3], [n + 3]), axis=-1), R.max(R.abs(h), axis=[-1])])


FORMS: dict[str, Form] = {
    "softmax_of_linear": _softmax_of_linear,
    "norm": _norm,
    "split_norm": _split_norm,
    "scalars": _scalars,
    "weighted": _weighted,
    "twice": _twice,
    "heads": _heads,
    "slices": _slices,
}


def _cells(widths: tuple[int, ...], dtype: str) -> tuple[Any, dict[str, np.ndarray]]:
    """A cell for each form and width, and its weights."""
    builder, rng, weights = relax.BlockBuilder(), np.random.default_rng(0), {}
    for name, form in FORMS.items():
        for n in widths:
            params = [relax.Var("x", relax.TensorType((D,), dtype))]

            def weight(*shape: int, name: str = f"{name}{n}", params: list[Any] = params) -> Any:
                param = relax.Var(f"{name}_{len(params)}", relax.TensorType(shape, dtype))
                params.append(param)
                weights[param.name] = rng.normal(size=shape).astype(dtype)
                return param

            # The weights are known when the body has been written: once to collect them, once in the function.
            form(params[0], weight, n)
            names = iter(params[1:])
            with builder.function(f"{name}{n}", params, attrs={"num_input": 1}):
                with builder.dataflow():
                    result = form(params[0], lambda *shape, names=names: next(names), n)
                    fields = result.fields if isinstance(result, relax.Tuple) else [result]
                    outputs = [builder.emit_output(builder.normalize(one)) for one in fields]
                builder.emit_func_output(relax.Tuple(outputs) if len(outputs) > 1 else outputs[0])
    return builder.finalize(), weights


@pytest.mark.parametrize(
    ("widths", "dtype"),
    [
        ((70,), "float32"),
        ((5,), "float64"),
        pytest.param((1, 5, 16, 33, 300), "float32", marks=pytest.mark.slow),
        pytest.param((1, 16, 70, 300), "float64", marks=pytest.mark.slow),
    ],
)
def test_every_form_is_a_stage_and_right(widths: tuple[int, ...], dtype: str) -> None:
    mod, weights = _cells(widths, dtype)
    model = eb.compile(mod, weights, dtype=dtype)
    assert set(model.paths.values()) == {"stage"}
    rng = np.random.default_rng(1)
    for name in model.signature.names:
        function = mod[name]
        given = {n: torch.from_numpy(w).double() for n, w in weights.items() if n.startswith(f"{name}_")}
        for batch in BATCHES:
            rows = rng.normal(size=(batch, D)).astype(dtype)
            results = model([_instance(model, name, row) for row in rows])
            for row, result in zip(rows, results, strict=True):
                expected = evaluate(function, {"x": torch.from_numpy(row).double(), **given})
                for one, other in zip(result if len(expected) > 1 else [result], expected, strict=True):
                    size = max(1.0, float(other.abs().max()))
                    error = float(np.abs(np.asarray(one).reshape(other.shape) - other.numpy()).max()) / size
                    assert error < (3e-6 if dtype == "float32" else 1e-13), (name, batch, error)


def _instance(model: eb.Model, name: str, row: np.ndarray) -> eb.InstanceGraph:
    builder = model.builder()
    values = builder.call(name, row)
    return builder.finish(*(values if isinstance(values, tuple) else (values,)))


@pytest.mark.parametrize("target", ["llvm", {"kind": "llvm", "mcpu": "haswell"}], ids=["host", "haswell"])
def test_special_values_are_those_of_pytorch(target: Any) -> None:
    n = 85  # with 16 lanes as with 8: chunks in groups, one beside them, and a part of one
    builder = relax.BlockBuilder()
    functions: dict[str, Any] = {
        "softmax": lambda x: R.nn.softmax(x, axis=-1),
        "log_softmax": lambda x: R.nn.log_softmax(x, axis=-1),
        "max": lambda x: R.max(x, axis=[-1]),
        "min": lambda x: R.min(x, axis=[-1]),
        "sum": lambda x: R.sum(R.multiply(x, x), axis=[-1]),
        "mean": lambda x: R.mean(x, axis=[-1]),
        "quotient": lambda x: R.divide(x, R.max(x, axis=[-1], keepdims=True)),
    }
    for name, function in functions.items():
        x = relax.Var("x", relax.TensorType((n,), "float32"))
        with builder.function(name, [x], attrs={"num_input": 1}):
            with builder.dataflow():
                y = builder.emit_output(function(x))
            builder.emit_func_output(y)
    mod = builder.finalize()
    model = eb.compile(mod, target=target)
    assert set(model.paths.values()) == {"stage"}
    rng = np.random.default_rng(2)
    special = (np.nan, np.inf, -np.inf, 3e38, 0.0, -0.0, 1e-41)
    rows = [rng.normal(size=n).astype("float32") for _ in range(30)]
    for row in rows[1:]:
        row[rng.integers(0, n, 2)] = rng.choice(special, 2)
    rows += [np.full(n, value, "float32") for value in special]
    rows += [(rng.uniform(-1, 1, n) * scale).astype("float32") for scale in (1e-41, 1e-30, 1e30, 2e38)]
    rows += [np.where(np.arange(n) == at, np.nan, np.arange(n)).astype("float32") for at in (0, 70, 79, 80, 84)]
    for name in functions:
        results = model([_instance(model, name, row) for row in rows])
        for row, result in zip(rows, results, strict=True):
            with np.errstate(over="ignore"):
                expected = evaluate(mod[name], {"x": torch.from_numpy(row)})[0].numpy()
            np.testing.assert_allclose(np.asarray(result), expected, rtol=1e-5, atol=1e-6, err_msg=f"{name} of {row}")

"""Accuracy of elementary functions: the largest relative error over the float32 numbers, and special values.

    python -m benchmarks.numerics [--target avx2 llvm cuda-emulated] [--libm] [--only NAME ...] [--markdown FILE]

Arguments are every exponent of normal float32 numbers with 4,096 mantissas each and both signs: 2,080,768 numbers. The
reference is PyTorch in float64 on the same numbers. Results below the smallest normal number may be flushed to 0: they
count as right if they are off by no more than that number. Special values are compared with PyTorch in float32. The
exit code is 1 if a function misses ``LIMIT`` or a special value differs.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tvm
from tvm import relax
from tvm.relax import op as R

import edbatch_tvm as eb
from edbatch_tvm.tvm_compat import TensorType

LIMIT = 5e-7
MANTISSAS = 4096
SMALLEST, LARGEST = float(np.finfo("float32").tiny), float(np.finfo("float32").max)
TARGETS: dict[str, Any] = {
    "avx2": {"kind": "llvm", "mcpu": "haswell"},
    "llvm": "llvm",
    "cuda-emulated": "cuda-emulated",
}

Function = tuple[Callable[[Any], Any], Callable[[torch.Tensor], torch.Tensor]]


def const(value: float) -> Any:
    """A float32 scalar."""
    return relax.const(value, "float32")


FUNCTIONS: dict[str, Function] = {
    "exp": (R.exp, torch.exp),
    "sigmoid": (R.sigmoid, torch.sigmoid),
    "tanh": (R.tanh, torch.tanh),
    "log": (R.log, torch.log),
    "sqrt": (R.sqrt, torch.sqrt),
    "rsqrt": (R.rsqrt, torch.rsqrt),
    "erf": (R.erf, torch.erf),
    "sin": (R.sin, torch.sin),
    "cos": (R.cos, torch.cos),
    "tan": (R.tan, torch.tan),
    "asin": (R.asin, torch.asin),
    "acos": (R.acos, torch.acos),
    "atan": (R.atan, torch.atan),
    "sinh": (R.sinh, torch.sinh),
    "cosh": (R.cosh, torch.cosh),
    "asinh": (R.asinh, torch.asinh),
    "acosh": (R.acosh, torch.acosh),
    "atanh": (R.atanh, torch.atanh),
    "softplus": (R.nn.softplus, torch.nn.functional.softplus),
    "pow(x, 1.5)": (lambda x: R.power(x, const(1.5)), lambda x: torch.pow(x, 1.5)),
    "pow(x, -2.5)": (lambda x: R.power(x, const(-2.5)), lambda x: torch.pow(x, -2.5)),
    "pow(1.5, x)": (lambda x: R.power(const(1.5), x), lambda x: torch.pow(1.5, x)),
    "1 / x": (lambda x: R.divide(const(1.0), x), lambda x: 1 / x),
    "square": (R.square, torch.square),
    "relu": (R.nn.relu, torch.relu),
    "leaky_relu": (
        lambda x: R.nn.leakyrelu(x, 0.01),
        lambda x: torch.nn.functional.leaky_relu(x, float(np.float32(0.01))),
    ),
    "clip": (lambda x: R.clip(x, -1.0, 1.0), lambda x: torch.clamp(x, -1.0, 1.0)),
    "maximum(x, 1)": (lambda x: R.maximum(x, const(1.0)), lambda x: torch.clamp(x, min=1.0)),
    "abs": (R.abs, torch.abs),
    "negative": (R.negative, torch.neg),
    "x - x": (lambda x: R.subtract(x, x), lambda x: x - x),
    "x * 0": (lambda x: R.multiply(x, const(0.0)), lambda x: x * 0.0),
    "0 / x": (lambda x: R.divide(const(0.0), x), lambda x: 0.0 / x),
    "x / x": (lambda x: R.divide(x, x), lambda x: x / x),
    "x + 0": (lambda x: R.add(x, const(0.0)), lambda x: x + 0.0),
    "floor": (R.floor, torch.floor),
    "ceil": (R.ceil, torch.ceil),
    "trunc": (R.trunc, torch.trunc),
    "round": (R.round, torch.round),
    "sign": (R.sign, torch.sign),
    "where(x == x)": (lambda x: R.where(R.equal(x, x), x, const(7.0)), lambda x: torch.where(x == x, x, 7.0)),
    "where(not x < 1)": (
        lambda x: R.where(R.logical_not(R.less(x, const(1.0))), x, const(7.0)),
        lambda x: torch.where(torch.logical_not(x < 1), x, 7.0),
    ),
}

COMPOSED: dict[str, Function] = {
    "silu": (R.nn.silu, torch.nn.functional.silu),
    "gelu": (R.nn.gelu, torch.nn.functional.gelu),
    "gelu_tanh": (R.nn.gelu_tanh, lambda x: torch.nn.functional.gelu(x, approximate="tanh")),
    "softmax": (lambda x: R.nn.softmax(x, axis=-1), lambda x: x.softmax(-1)),
    "log_softmax": (lambda x: R.nn.log_softmax(x, axis=-1), lambda x: x.log_softmax(-1)),
    "layer_norm": (
        lambda x: R.nn.layer_norm(x, _ones(x), _zeros(x), axes=[-1]),
        lambda x: torch.nn.functional.layer_norm(x, x.shape[-1:]),
    ),
    "variance": (lambda x: R.variance(x, axis=0, keepdims=True), lambda x: x.var(-1, correction=0, keepdim=True)),
    "sum": (lambda x: R.sum(x, axis=0, keepdims=True), lambda x: x.sum(-1, keepdim=True)),
    "mean": (lambda x: R.mean(x, axis=0, keepdims=True), lambda x: x.mean(-1, keepdim=True)),
}
"""Functions of whole rows or of several elementary ones: they may have twice PyTorch's own float32 error."""


REDUCTIONS = ("sum", "mean", "variance")
"""These may have an error of 1e-6; that of sums and means is relative to the sum and the mean of ``|x|``."""


def _ones(x: Any) -> Any:
    return relax.const(np.ones(x.ty.shape.values[-1].value, "float32"))


def _zeros(x: Any) -> Any:
    return relax.const(np.zeros(x.ty.shape.values[-1].value, "float32"))


SPECIAL = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, LARGEST, -LARGEST, SMALLEST, -SMALLEST], "float32")


def arguments() -> np.ndarray:
    """Every exponent, :data:`MANTISSAS` mantissas each, both signs: ``float32[2 * 254, MANTISSAS]``."""
    exponents = np.arange(1, 255, dtype=np.uint32)[:, None] << 23
    mantissas = (np.arange(MANTISSAS, dtype=np.uint32) * (2**23 // MANTISSAS))[None]
    # The last bits are not all zero: they vary with the exponent.
    positive = (exponents + mantissas + (exponents >> 23) % 1999).view(np.float32)
    return np.concatenate([positive, -positive])


def cells(names: list[str], width: int) -> tvm.IRModule:
    """A cell for each function, on vectors of `width`."""
    builder = relax.BlockBuilder()
    for number, name in enumerate(names):
        x = relax.Var("x", TensorType((width,), "float32"))
        with builder.function(f"f{number}", [x], attrs={"num_input": 1}):
            with builder.dataflow():
                y = builder.emit_output((FUNCTIONS | COMPOSED)[name][0](builder.normalize(x)))
            builder.emit_func_output(y)
    return builder.finalize()


def evaluate(names: list[str], rows: np.ndarray, target: Any, **options: Any) -> dict[str, np.ndarray]:
    """Each function on each row of ``float32[n, width]``, by a model."""
    model = eb.compile(cells(names, rows.shape[1]), target=target, **options)
    results = {}
    for number, name in enumerate(names):
        b = model.builder()
        results[name] = np.stack([np.asarray(y) for y in model([b.finish(b.call(f"f{number}", row)) for row in rows])])
    return results


def largest_error(result: np.ndarray, exact: np.ndarray) -> float:
    """The largest relative error against ``float64`` `exact`; infinity where NaN, infinities or signs are wrong."""
    result = result.astype(np.float64)
    with np.errstate(over="ignore"):
        infinite = np.isinf(exact.astype(np.float32))
    wrong = np.isnan(result) != np.isnan(exact)
    # Where rounding decides whether a result is finite, the largest number and infinity are both right.
    edge = (
        infinite
        & np.isfinite(exact)
        & (np.abs(exact) < LARGEST * (1 + LIMIT))
        & (np.abs(result) > LARGEST * (1 - LIMIT))
    )
    wrong |= infinite & ~edge & (result != np.where(exact > 0, np.inf, -np.inf))
    normal = np.isfinite(exact) & ~infinite
    tiny = normal & (np.abs(exact) < SMALLEST)
    with np.errstate(invalid="ignore", divide="ignore"):
        wrong |= tiny & ~(np.abs(result - exact) <= SMALLEST)
        error = np.abs(result - exact) / np.abs(exact)
    return float("inf") if wrong.any() else float(error[normal & ~tiny].max(initial=0.0))


def different_specials(result: np.ndarray, wanted: np.ndarray) -> list[str]:
    """The special values for which results differ in NaN, infinity, sign of zero or by more than :data:`LIMIT`."""
    same = np.isclose(result, wanted, rtol=LIMIT, atol=SMALLEST, equal_nan=True)
    same &= np.isnan(wanted) | (wanted != 0) | (np.signbit(result) == np.signbit(wanted))
    return [f"{x:g}: {y:g}, PyTorch {z:g}" for x, y, z, s in zip(SPECIAL, result, wanted, same, strict=True) if not s]


def composed_rows(width: int = 256) -> np.ndarray:
    """Rows of numbers of several sizes, some far from 0: ``float32[400, width]``."""
    rng = np.random.default_rng(0)
    scale = 10.0 ** rng.uniform(-3, 2, (400, 1))
    return (rng.normal(size=(400, width)) * scale + rng.choice([0, 1, 100], (400, 1)) * scale).astype("float32")


def error_over_pytorch(name: str, result: np.ndarray, rows: np.ndarray) -> tuple[float, float]:
    """The largest error of ours and of PyTorch in float32; sums and means relative to the sum and mean of ``|x|``."""
    reference, given = COMPOSED[name][1], torch.from_numpy(rows)
    exact, single = reference(given.double()).numpy(), reference(given).numpy()
    size = np.abs(exact).max(1, keepdims=True)
    if name in REDUCTIONS[:2]:
        size = reference(given.double().abs()).numpy()
    return tuple(float((np.abs(y.astype(np.float64) - exact) / size).max()) for y in (result, single))  # type: ignore[return-value]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", nargs="+", default=list(TARGETS), choices=list(TARGETS))
    parser.add_argument("--only", nargs="+", default=list(FUNCTIONS), choices=list(FUNCTIONS))
    parser.add_argument("--libm", action="store_true", help="compile with fast_math=False")
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    rows, named = arguments(), {} if not options.libm else {"fast_math": False}
    table: dict[str, dict[str, float]] = {name: {} for name in options.only}
    bad = []
    exact = {name: FUNCTIONS[name][1](torch.from_numpy(rows).double()).numpy() for name in options.only}
    for target in options.target:
        on_special = evaluate(options.only, SPECIAL[None], TARGETS[target], **named)
        for name, result in evaluate(options.only, rows, TARGETS[target], **named).items():
            table[name][target] = error = largest_error(result, exact[name])
            if error > LIMIT:
                bad.append(f"{name} on {target}: relative error {error:.2e}")
            wanted = FUNCTIONS[name][1](torch.from_numpy(SPECIAL)).numpy()
            bad += [f"{name} on {target} at {text}" for text in different_specials(on_special[name][0], wanted)]
    rows_of = composed_rows()
    beside: dict[str, list[str]] = {name: [] for name in COMPOSED}
    for target in options.target:
        for name, result in evaluate(list(COMPOSED), rows_of, TARGETS[target], **named).items():
            ours, theirs = error_over_pytorch(name, result, rows_of)
            beside[name] += [f"{ours:.1e}"] if target != options.target[-1] else [f"{ours:.1e}", f"{theirs:.1e}"]
            if ours > max(2 * theirs, 1e-7) and not (name in REDUCTIONS and ours < 1e-6):
                bad.append(f"{name} on {target}: error {ours:.2e}, PyTorch {theirs:.2e}")
    lines = [f"| function | {' | '.join(options.target)} |", f"|---|{'--:|' * len(options.target)}"]
    lines += [
        f"| {name} | " + " | ".join(f"{row[target]:.1e}" for target in options.target) + " |"
        for name, row in table.items()
    ]
    lines += [
        "",
        f"| composed | {' | '.join(options.target)} | PyTorch |",
        f"|---|{'--:|' * (len(options.target) + 1)}",
    ]
    lines += [f"| {name} | " + " | ".join(row) + " |" for name, row in beside.items()]
    print("\n".join(lines))
    if options.markdown:
        options.markdown.write_text("\n".join(lines) + "\n")
    print("\n".join(bad) or f"special values: {SPECIAL.tolist()}: all as PyTorch gives them")
    raise SystemExit(bool(bad))


if __name__ == "__main__":
    main()

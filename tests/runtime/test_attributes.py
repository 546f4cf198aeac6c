"""Attributes as whatever a cell can use them for, at every granularity: indices, masks, numbers, conditions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from tvm import IRModule, relax
from tvm.relax import op as R

import edbatch_tvm as eb
from edbatch_tvm.errors import GraphError

H = 5
RNG = np.random.default_rng(0)
M, W = (RNG.normal(size=(H, H)).astype("float32") for _ in range(2))
X = RNG.normal(size=H).astype("float32")
MASK = np.array([True, False, True, False, True])
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
SPECS = {"M": (H, H), "W": (H, H), "x": (H,)}
VALUES = {"M": M, "W": W, "x": X}
ODD = 2**24 + 1
"""An integer that no float32 is equal to."""

WAYS = [("llvm", "cell"), ("llvm", "op"), ("llvm", "group"), ("llvm", "group-declared"), ("cuda-emulated", "cell")]


@dataclass(frozen=True)
class Case:
    """A cell of the operands and weights that `body` names, and of attributes given as arrays."""

    body: Callable[..., Any]
    attributes: dict[str, np.ndarray]
    expected: Any


def number(value: Any, dtype: str = "int32") -> np.ndarray:
    return np.array(value, dtype)


def const(value: Any, dtype: str = "float32") -> Any:
    return relax.const(value, dtype)


CASES = {
    "vector": Case(lambda M, i: R.take(M, i, axis=0, mode="clip"), {"i": number([1, 4])}, M[[1, 4]]),
    "columns": Case(lambda M, i: R.take(M, i, axis=1), {"i": number([1, 4])}, M[:, [1, 4]]),
    "matrix": Case(lambda M, i: R.take(M, i, axis=0), {"i": number([[1, 4], [0, 2]], "int64")}, M[[[1, 4], [0, 2]]]),
    "element": Case(lambda x, i: R.take(x, i), {"i": number(2, "int64")}, X[2]),
    "sum_of_indices": Case(
        lambda M, i: R.take(M, R.add(i, const(1, "int32")), axis=0, mode="clip"), {"i": number(2)}, M[3]
    ),
    "computed": Case(lambda x, i, W: R.take(R.matmul(x, W), i, axis=0, mode="clip"), {"i": number(2)}, (X @ W)[2]),
    "mask": Case(lambda M, i: R.where(i, M, R.multiply(M, const(0.5))), {"i": MASK}, np.where(MASK, M, M / 2)),
    "flag": Case(lambda M, i: R.where(i, M, R.negative(M)), {"i": number(False, "bool")}, -M),
    "cast_mask": Case(lambda x, i: R.multiply(x, R.astype(i, "float32")), {"i": MASK}, X * MASK),
    "only": Case(lambda i: R.astype(i, "float32"), {"i": number(7)}, 7.0),
    "several": Case(
        lambda M, i, j, m: R.where(m, R.take(M, i, axis=0), R.take(M, j, axis=0)),
        {"i": number(1), "j": number(2, "int64"), "m": MASK},
        np.where(MASK, M[1], M[2]),
    ),
    "twice": Case(
        lambda M, i, W: R.add(R.take(M, i, axis=0), R.multiply(R.take(W, i, axis=0), R.astype(i, "float32"))),
        {"i": number(2)},
        M[2] + W[2] * 2,
    ),
    # In the epilogue of a product: attributes are integers there, too, not floats.
    "stage_parity": Case(
        lambda x, i, W: R.where(
            R.equal(R.floor_mod(i, const(2, "int32")), const(1, "int32")), R.matmul(x, W), R.negative(x)
        ),
        {"i": number(ODD)},
        X @ W,
    ),
    "stage_equal": Case(
        lambda x, i, W: R.where(R.equal(i, const(ODD - 1, "int64")), R.matmul(x, W), x), {"i": number(ODD, "int64")}, X
    ),
    "stage_quotient": Case(
        lambda x, i, W: R.multiply(R.matmul(x, W), R.astype(R.floor_divide(i, const(2, "int32")), "float32")),
        {"i": number(7)},
        X @ W * 3,
    ),
    "stage_mask": Case(lambda x, i, W: R.where(i, R.matmul(x, W), x), {"i": MASK}, np.where(MASK, X @ W, X)),
    "stage_flags": Case(
        lambda x, i, j, W: R.where(R.logical_and(i, R.logical_not(j)), R.matmul(x, W), x),
        {"i": number(True, "bool"), "j": number(False, "bool")},
        X @ W,
    ),
    "stage_vector": Case(
        lambda x, i, W: R.multiply(R.matmul(x, W), R.astype(i, "float32")),
        {"i": number(range(H))},
        X @ W * np.arange(H),
    ),
}
for dtype in INTEGERS:
    three = {"i": number(3, dtype)}
    for mode in ("fast", "clip", "wrap", "nan"):
        CASES[f"{mode}_{dtype}"] = Case(lambda M, i, mode=mode: R.take(M, i, axis=0, mode=mode), three, M[3])
        CASES[f"table_{mode}_{dtype}"] = Case(
            lambda x, i, W, mode=mode: R.add(x, R.take(W, i, axis=0, mode=mode)), three, X + W[3]
        )
    CASES[f"number_{dtype}"] = Case(lambda M, i: R.multiply(M, R.astype(i, "float32")), three, M * 3)
    CASES[f"stage_number_{dtype}"] = Case(
        lambda x, i, W: R.multiply(R.matmul(x, W), R.astype(i, "float32")), three, X @ W * 3
    )
for given in (-9, -1, 5, 7):
    for mode, row in (("clip", min(max(given, 0), H - 1)), ("wrap", given % H)):
        name, index = f"{mode}_at_{given}".replace("-", "minus"), {"i": number(given)}
        CASES[name] = Case(lambda M, i, mode=mode: R.take(M, i, axis=0, mode=mode), index, M[row])
        CASES[f"table_{name}"] = Case(
            lambda x, i, W, mode=mode: R.add(x, R.take(W, i, axis=0, mode=mode)), index, X + W[row]
        )


def module(cases: dict[str, Case]) -> IRModule:
    """A cell for each case: operands and attributes in the order of the body's parameters, weights last."""
    builder = relax.BlockBuilder()
    for name, case in cases.items():
        names = case.body.__code__.co_varnames[: case.body.__code__.co_argcount]
        variables = {}
        for one in (one for one in names if one != "mode"):
            given = case.attributes.get(one)
            shape, dtype = (SPECS[one], "float32") if given is None else (given.shape, str(given.dtype))
            variables[one] = relax.Var(one, relax.TensorType(list(shape), dtype))
        inputs = sum(one != "W" for one in variables)
        with builder.function(name, list(variables.values()), attrs={"num_input": inputs}):
            with builder.dataflow():
                out = builder.emit_output(builder.normalize(case.body(*variables.values())))
            builder.emit_func_output(out)
    return builder.get()


def weights(cases: dict[str, Case]) -> dict[str, np.ndarray]:
    return {"W": W} if any("W" in case.body.__code__.co_varnames for case in cases.values()) else {}


QUICK = ("vector", "flag", "computed", "twice", "stage_parity", "stage_flags", "table_nan_uint8", "clip_uint64")


@pytest.mark.parametrize(
    ("target", "granularity", "names"),
    [("llvm", "op", QUICK), ("cuda-emulated", "cell", QUICK)]
    + [pytest.param(*way, tuple(CASES), marks=pytest.mark.slow) for way in WAYS],
    ids=lambda part: part if isinstance(part, str) else str(len(part)),
)
def test_attributes_as_anything(target: str, granularity: str, names: tuple[str, ...]) -> None:
    cases = {name: CASES[name] for name in names}
    model = eb.compile(module(cases), weights(cases), target=target, granularity=granularity)
    b = model.builder()
    declared = []
    for name, case in cases.items():
        operands = {operand.name: VALUES[operand.name] for operand in model.cells[name].operands}
        declared += [b.call(name, **operands, **case.attributes) for _ in range(2)]
    got = model([b.finish(declared)])[0]
    for position, (name, case) in enumerate(cases.items()):
        for value in got[2 * position : 2 * position + 2]:
            assert value.shape == np.shape(case.expected), name
            np.testing.assert_allclose(value, case.expected, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("granularity", ["cell", "op", "group"])
def test_an_index_out_of_range_is_an_error_unless_it_is_clipped_or_wrapped(granularity: str) -> None:
    cases = {
        f"{kind}_{mode}": Case(body, {"i": number(0)}, None)
        for mode in ("fast", "nan")
        for kind, body in (
            ("operand", lambda M, i, mode=mode: R.take(M, i, axis=0, mode=mode)),
            ("table", lambda x, i, W, mode=mode: R.add(x, R.take(W, i, axis=0, mode=mode))),
        )
    }
    model = eb.compile(module(cases), weights(cases), granularity=granularity)
    for cell in model.cells:
        for given in (-9, -1, 5, 7):
            b = model.builder()
            value = b.call(cell.name, VALUES[cell.operands[0].name], i=given)
            with pytest.raises(GraphError, match=rf"'i' of node 0 \({cell.name}\) is {given}; expected 0 to 4"):
                b.finish(value)

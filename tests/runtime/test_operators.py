"""Operators that cells of this field use, each in a cell of its own, against NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tvm import IRModule, relax
from tvm.relax import op as R
from tvm.script import ir as I
from tvm.script import relax as RS
from tvm.script import tirx as T

import edbatch_tvm as eb
from edbatch_tvm.errors import CellError

H, ROWS, WORDS = 16, 4, 6

VECTOR, MATRIX, MANY, WORD, PAIR = "vector", "matrix", "many", "word", "pair"
"""Kinds of inputs: one row, a matrix, a variadic operand, an index, two indices."""


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def layer_norm(x: np.ndarray, g: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (x - x.mean()) / np.sqrt(x.var() + 1e-5) * g + b


def erf(x: np.ndarray) -> np.ndarray:
    import math

    return np.vectorize(math.erf)(x)


Case = tuple[list[str], list[tuple[int, ...]], Callable[..., Any], Callable[..., Any]]

CASES: dict[str, Case] = {
    "relu": ([VECTOR], [], lambda x: R.nn.relu(x), lambda x: np.maximum(x, 0)),
    "gelu": ([VECTOR], [], lambda x: R.nn.gelu(x), lambda x: 0.5 * x * (1 + erf(x / np.sqrt(2)))),
    "silu": ([VECTOR], [], lambda x: R.nn.silu(x), lambda x: x * sigmoid(x)),
    "exp_log": ([VECTOR], [], lambda x: R.log(R.exp(x)), lambda x: x),
    "softmax": ([VECTOR], [], lambda x: R.nn.softmax(x, -1), softmax),
    "layer_norm": (
        [VECTOR],
        [(H,), (H,)],
        lambda x, g, b: R.nn.layer_norm(x, g, b, axes=[-1], epsilon=1e-5),
        layer_norm,
    ),
    "dot": ([VECTOR, VECTOR], [], lambda x, y: R.sum(R.multiply(x, y)), lambda x, y: np.dot(x, y)),
    "max_of_two": ([VECTOR, VECTOR], [], lambda x, y: R.maximum(x, y), np.maximum),
    "where": (
        [VECTOR, VECTOR],
        [],
        lambda x, y: R.where(R.greater(x, y), x, R.multiply(y, relax.const(2.0))),
        lambda x, y: np.where(x > y, x, 2 * y),
    ),
    "slice": ([VECTOR], [], lambda x: R.strided_slice(x, [0], [3], [11]), lambda x: x[3:11]),
    "half_concat": (
        [VECTOR, VECTOR],
        [],
        lambda x, y: R.concat([R.strided_slice(x, [0], [0], [5]), y], axis=0),
        lambda x, y: np.concatenate([x[:5], y]),
    ),
    "row_vector": (
        [VECTOR],
        [(H, H)],
        lambda x, w: R.reshape(R.matmul(R.reshape(x, (1, H)), w), (H,)),
        lambda x, w: x @ w,
    ),
    "linear": ([VECTOR], [(8, H), (8,)], lambda x, w, b: R.linear(x, w, b), lambda x, w, b: w @ x + b),
    "bilinear": (
        [VECTOR, VECTOR],
        [(H, H)],
        lambda x, y, w: R.sum(R.multiply(R.matmul(x, w), y)),
        lambda x, y, w: x @ w @ y,
    ),
    "matrix_vector": ([MATRIX, VECTOR], [], lambda m, x: R.matmul(m, x), lambda m, x: m @ x),
    "matrix_matrix": ([MATRIX, MATRIX], [], lambda a, b: R.matmul(a, R.permute_dims(b)), lambda a, b: a @ b.T),
    "outer": (
        [VECTOR, VECTOR],
        [],
        lambda x, y: R.multiply(R.expand_dims(x, 1), R.expand_dims(y, 0)),
        np.outer,
    ),
    "stacked_matrix": (
        [MATRIX, MATRIX],
        [(H, 2 * H)],
        lambda a, b, w: R.matmul(w, R.concat([a, b], axis=0)),
        lambda a, b, w: w @ np.concatenate([a, b]),
    ),
    "mean_rows": ([MATRIX], [], lambda m: R.mean(m, axis=0), lambda m: m.mean(0)),
    "lookup": ([WORD], [(WORDS, H)], lambda i, t: R.take(t, i, axis=0), lambda i, t: t[i]),
    "lookup_column": ([WORD], [(H, WORDS)], lambda i, t: R.take(t, i, axis=1), lambda i, t: t[:, i]),
    "lookup_pair": ([PAIR], [(WORDS, H)], lambda i, t: R.sum(R.take(t, i, axis=0), axis=0), lambda i, t: t[i].sum(0)),
    "lookup_matrix": ([WORD], [(WORDS, 3, H)], lambda i, t: R.take(t, i, axis=0), lambda i, t: t[i]),
    "number": (
        [WORD, VECTOR],
        [],
        lambda i, x: R.multiply(R.astype(i, "float32"), x),
        lambda i, x: i * x,
    ),
    "sum_many": ([MANY], [], lambda x: R.sum(x, axis=0), lambda x: x.sum(0)),
    "mean_many": ([MANY], [], lambda x: R.mean(x, axis=0), lambda x: x.mean(0) if len(x) else np.full(H, np.nan)),
    "max_many": ([MANY], [], lambda x: R.max(x, axis=0), lambda x: x.max(0) if len(x) else np.full(H, -np.inf)),
    "gated_many": (
        [MANY, MANY, VECTOR],
        [(H, H)],
        lambda h, c, x, u: R.sum(R.multiply(R.sigmoid(R.add(R.matmul(h, u), x)), c), axis=0),
        lambda h, c, x, u: (sigmoid(h @ u + x) * c).sum(0),
    ),
    "attention": (
        [MANY, VECTOR],
        [],
        lambda k, q: R.matmul(R.nn.softmax(R.matmul(k, q), -1), k),
        lambda k, q: softmax(k @ q) @ k if len(k) else np.zeros(H),
    ),
    "matrix_layer": (
        [MATRIX, MATRIX],
        [(H, 20), (20,)],
        lambda a, b, w, v: R.tanh(R.add(R.matmul(R.add(a, b), w), v)),
        lambda a, b, w, v: np.tanh((a + b) @ w + v),
    ),
    "matrix_stacked_both_ways": (
        [MATRIX, MATRIX],
        [(5, 2 * H), (5, H)],
        lambda a, b, w, v: R.add(R.matmul(w, R.concat([a, b], axis=0)), v),
        lambda a, b, w, v: w @ np.concatenate([a, b]) + v,
    ),
    "matrix_rows_joined": (
        [MATRIX, MATRIX],
        [(H, 6)],
        lambda a, b, w: R.matmul(R.concat([a, b], axis=0), w),
        lambda a, b, w: np.concatenate([a, b]) @ w,
    ),
    "matrix_product": ([MATRIX, MATRIX], [], lambda a, b: R.matmul(R.tanh(a), b), lambda a, b: np.tanh(a) @ b),
    "vector_matrix": ([MATRIX, VECTOR], [], lambda m, x: R.matmul(x, m), lambda m, x: x @ m),
    "matrix_weight": ([MATRIX], [(H,)], lambda m, w: R.matmul(m, w), lambda m, w: m @ w),
    "weight_matrix": ([MATRIX], [(H,)], lambda m, w: R.matmul(w, m), lambda m, w: w @ m),
    "rows_of_matrix_scaled": (
        [MATRIX, MATRIX, VECTOR],
        [],
        lambda a, b, x: R.multiply(R.matmul(a, b), R.expand_dims(x, 1)),
        lambda a, b, x: (a @ b) * x[:, None],
    ),
    "child_sum": (
        [MANY, MANY, VECTOR],
        [(H, H), (H, H), (H, H)],
        lambda h, c, x, u, v, w: R.add(
            R.sum(R.multiply(R.sigmoid(R.add(R.matmul(h, u), R.matmul(x, v))), c), axis=0),
            R.tanh(R.matmul(R.sum(h, axis=0), w)),
        ),
        lambda h, c, x, u, v, w: (sigmoid(h @ u + x @ v) * c).sum(0) + np.tanh(h.sum(0) @ w),
    ),
    "two_layers_many": (
        [MANY, WORD],
        [(H, 24), (24, H), (WORDS, 24)],
        lambda h, i, u, v, t: R.max(
            R.tanh(R.matmul(R.sigmoid(R.add(R.matmul(h, u), R.take(t, i, axis=0))), v)), axis=0
        ),
        lambda h, i, u, v, t: np.tanh(sigmoid(h @ u + t[i]) @ v).max(0) if len(h) else np.full(H, -np.inf),
    ),
    "concat_many": (
        [MANY, MANY],
        [(2 * H, H)],
        lambda a, b, u: R.sum(R.tanh(R.matmul(R.concat([a, b], axis=1), u)), axis=0),
        lambda a, b, u: np.tanh(np.concatenate([a, b], 1) @ u).sum(0),
    ),
    "centred_many": (
        [MANY],
        [(H, H)],
        lambda h, u: R.sum(R.tanh(R.matmul(R.subtract(h, R.sum(h, axis=0)), u)), axis=0),
        lambda h, u: np.tanh((h - h.sum(0)) @ u).sum(0),
    ),
    "gated_sum_many": (
        [MANY, VECTOR],
        [(H, H)],
        lambda h, x, u: R.sum(R.multiply(h, R.sigmoid(R.matmul(x, u))), axis=0),
        lambda h, x, u: (h * sigmoid(x @ u)).sum(0),
    ),
    "gate_of_a_value_many": (
        [MANY, VECTOR],
        [],
        lambda h, x: R.sum(R.multiply(h, R.sigmoid(R.add(x, x))), axis=0),
        lambda h, x: (h * sigmoid(x + x)).sum(0),
    ),
    "min_many": ([MANY], [], lambda x: R.min(x, axis=0), lambda x: x.min(0) if len(x) else np.full(H, np.inf)),
    "matrices_of_rows": (
        [MANY, VECTOR],
        [(H, 3 * H)],
        lambda h, x, u: R.sum(R.matmul(R.reshape(R.matmul(h, u), (h.ty.shape.values[0], 3, H)), x), axis=0),
        lambda h, x, u: ((h @ u).reshape(len(h), 3, H) @ x).sum(0),
    ),
    "two_results": (
        [VECTOR],
        [(H, 5)],
        lambda x, w: [R.tanh(x), R.matmul(x, w)],
        lambda x, w: (np.tanh(x), x @ w),
    ),
    "unused": ([VECTOR, VECTOR], [(H,), (H,)], lambda x, y, v, w: R.add(x, v), lambda x, y, v, w: x + v),
}


@pytest.fixture(scope="module")
def weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    return {
        f"{name}_w{i}": rng.uniform(-1, 1, shape).astype(np.float32)
        for name, (_, shapes, _, _) in CASES.items()
        for i, shape in enumerate(shapes)
    }


@pytest.fixture(scope="module", params=["llvm", "cuda-emulated"])
def model(weights: dict[str, np.ndarray], request: pytest.FixtureRequest) -> eb.Model:
    builder = relax.BlockBuilder()
    for name, (kinds, shapes, body, _) in CASES.items():
        k = T.int64()
        types = {
            VECTOR: ((H,), "float32"),
            MATRIX: ((H, H), "float32"),
            MANY: ((k, H), "float32"),
            WORD: ((), "int32"),
            PAIR: ((2,), "int64"),
        }
        inputs = [relax.Var(f"x{i}", relax.TensorType(*types[kind])) for i, kind in enumerate(kinds)]
        params = [relax.Var(f"{name}_w{i}", relax.TensorType(shape, "float32")) for i, shape in enumerate(shapes)]
        with builder.function(name, [*inputs, *params], attrs={"num_input": len(inputs)}):
            with builder.dataflow():
                result = body(*inputs, *params)
                many = isinstance(result, list)
                outputs = [builder.emit_output(builder.normalize(one)) for one in (result if many else [result])]
            builder.emit_func_output(relax.Tuple(outputs) if many else outputs[0])
    return eb.compile(builder.finalize(), weights, target=request.param)


@pytest.mark.parametrize("name", CASES)
def test_operator(name: str, model: eb.Model, weights: dict[str, np.ndarray]) -> None:
    kinds, shapes, _, reference = CASES[name]
    rng = np.random.default_rng(4)
    params = [weights[f"{name}_w{i}"].astype(np.float64) for i in range(len(shapes))]
    instances, expected = [], []
    for count in (0, 1, 3, 2, 5, 0, 7):
        arguments: dict[str, Any] = {}
        for i, kind in enumerate(kinds):
            if kind == WORD:
                arguments[f"x{i}"] = int(rng.integers(WORDS))
            elif kind == PAIR:
                arguments[f"x{i}"] = rng.integers(0, WORDS, 2)
            elif kind == MANY:
                arguments[f"x{i}"] = list(rng.uniform(-1, 1, (count, H)).astype(np.float32))
            else:
                arguments[f"x{i}"] = rng.uniform(-1, 1, (H,) if kind == VECTOR else (H, H)).astype(np.float32)
        if name == "mean_many" and not count:
            continue  # a mean over nothing is 0 / 0
        b = model.builder()
        values = b.call(name, **arguments)
        instances.append(b.finish(list(values) if isinstance(values, tuple) else [values]))
        plain = [
            np.array(a, np.float64).reshape(-1, H) if kind == MANY else np.asarray(a)
            for kind, a in zip(kinds, arguments.values(), strict=True)
        ]
        plain = [a.astype(np.float64) if a.dtype.kind == "f" else a for a in plain]
        wanted = reference(*plain, *params)
        expected.append(wanted if isinstance(wanted, tuple) else (wanted,))
    result = model(instances)
    assert len(result.schedule) == 1
    for got, wanted in zip(result, expected, strict=True):
        for a, b in zip(got, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-5)


GENERAL = {
    "half_concat": "an expression depends on T.int64(5) <= j",
    "lookup_column": "a table is indexed by j, not by an attribute",
    "matrix_rows_joined": "an expression depends on T.int64(16) <= i",
}
"""Cells outside the stage form, with the reason; all others have to be made of stages."""

GENERAL_ON_GPUS = {
    "attention": "stage 'attention_stage0' has more gates than shared memory holds, or matrices in rows",
    "matrices_of_rows": "stage 'matrices_of_rows_stage1' has more gates than shared memory holds, or matrices in rows",
    "softmax": "'T_softmax_maxelem' is a maximum over elements of a value",
}
"""Cells that are made of stages, but of some that GPUs have no tiles for; they have none for column reductions."""


def test_paths(model: eb.Model) -> None:
    general = {name: path for name, path in model.paths.items() if path != "stage"}
    expected = GENERAL | (GENERAL_ON_GPUS if model.target != "llvm" else {})
    assert general == {name: f"general ({reason})" for name, reason in expected.items()}


def refused(mod: IRModule, params: dict[str, np.ndarray] | None = None) -> str:
    with pytest.raises(CellError) as caught:
        eb.compile(mod, params)
    return str(caught.value)


def test_what_cannot_be_a_cell() -> None:
    @I.ir_module
    class Branch:
        @RS.function
        def cell(x: RS.Tensor((4,), "float32"), c: RS.Tensor((), "bool")) -> RS.Tensor((4,), "float32"):
            if c:  # noqa: SIM108  (TVMScript has no conditional expression)
                y = RS.tanh(x)
            else:
                y = RS.sigmoid(x)
            return y

    @I.ir_module
    class Calls:
        @RS.function
        def inner(x: RS.Tensor((4,), "float32")):
            return RS.tanh(x)

        @RS.function
        def outer(x: RS.Tensor((4,), "float32")):
            cls = Calls
            y: RS.Tensor((4,), "float32") = cls.inner(x)
            return y

    @I.ir_module
    class Packed:
        @RS.function
        def cell(x: RS.Tensor((4,), "float32")):
            y = RS.call_dps_packed("my.library", (x,), out_ty=RS.Tensor((4,), dtype="float32"))
            return y

    @I.ir_module
    class Open:
        @RS.function
        def cell(x: RS.Tensor(("k", 4), "float32")):
            return RS.tanh(x)

    @I.ir_module
    class TwoSizes:
        @RS.function
        def cell(x: RS.Tensor(("k", 4), "float32"), y: RS.Tensor(("m", 4), "float32")):
            with RS.dataflow():
                z = RS.add(RS.sum(x, axis=0), RS.sum(y, axis=0))
                RS.output(z)
            return z

    @I.ir_module
    class Integer:
        @RS.function
        def cell(x: RS.Tensor((4,), "float32")):
            return RS.argmax(x)

    @I.ir_module
    class Clash:
        @RS.function
        def a(x: RS.Tensor((4,), "float32"), W: RS.Tensor((4,), "float32")):
            RS.func_attr({"num_input": 1})
            return RS.add(x, W)

        @RS.function
        def b(x: RS.Tensor((2,), "float32"), W: RS.Tensor((2,), "float32")):
            RS.func_attr({"num_input": 1})
            return RS.add(x, W)

    assert "cell 'cell' has an If" in refused(Branch)
    assert "cell 'outer' calls the function 'inner'" in refused(Calls)
    assert "operator 'relax.call_dps_packed' in cell 'cell' cannot be batched" in refused(Packed)
    assert "output 0 of cell 'cell' has shape" in refused(Open)
    assert "cell 'cell' has several variadic sizes (k, m)" in refused(TwoSizes)
    assert "output 0 of cell 'cell' has dtype int64; expected a float dtype" in refused(Integer)
    assert "weight 'W' is float32[2] in 'b' and float32[4] in 'a'" in refused(Clash)
    assert "an IRModule without R.function" in refused(IRModule())

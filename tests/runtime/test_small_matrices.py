"""Products of small matrices that are values, with each other, with vectors, and over an inner axis, against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tvm.script import ir as I
from tvm.script import relax as R

import edbatch_tvm as eb


def products(S: int, K: int, D: str) -> Any:
    """Cells of matrices P and Q of K rows, values x of S rows of K elements, their transposes t, and vectors v."""

    @I.ir_module
    class Products:
        @R.function
        def rows_by_transposed(
            x: R.Tensor((S, K), D), y: R.Tensor((S, K), D), P: R.Tensor((K, K), D), Q: R.Tensor((K, K), D)
        ):
            R.func_attr({"num_input": 4})
            with R.dataflow():
                z = R.multiply(R.matmul(x, R.permute_dims(P)), R.matmul(y, R.permute_dims(Q)))
                R.output(z)
            return z

        @R.function
        def by_columns(t: R.Tensor((K, S), D), u: R.Tensor((K, S), D), P: R.Tensor((K, K), D), Q: R.Tensor((K, K), D)):
            R.func_attr({"num_input": 4})
            with R.dataflow():
                z = R.multiply(R.matmul(P, t), R.matmul(Q, u))
                R.output(z)
            return z

        @R.function
        def scaled(x: R.Tensor((S, K), D), P: R.Tensor((K, K), D), Q: R.Tensor((K, K), D)):
            R.func_attr({"num_input": 3})
            with R.dataflow():
                z = R.multiply(R.matmul(x, R.permute_dims(P)), R.matmul(x, Q))
                largest = R.max(z, axis=-1, keepdims=True)
                normal = R.divide(z, largest)
                R.output(normal, largest)
            return normal, largest

        @R.function
        def pairs(P: R.Tensor((K, K), D), Q: R.Tensor((K, K), D)):
            R.func_attr({"num_input": 2})
            with R.dataflow():
                z = R.add(R.matmul(P, Q), R.matmul(Q, R.permute_dims(P)))
                R.output(z)
            return z

        @R.function
        def vectors(P: R.Tensor((K, K), D), v: R.Tensor((K,), D)):
            R.func_attr({"num_input": 2})
            with R.dataflow():
                z = R.add(R.matmul(P, v), R.matmul(v, P))
                R.output(z)
            return z

        @R.function
        def looked_up(x: R.Tensor((S, K), D), branch: R.Tensor((), "int32"), table: R.Tensor((3, K, K), D)):
            R.func_attr({"num_input": 2})
            with R.dataflow():
                z = R.matmul(x, R.permute_dims(R.take(table, branch, axis=0)))
                R.output(z)
            return z

    return Products


def expected(cell: str, given: dict[str, Any], table: np.ndarray) -> list[np.ndarray]:
    """The same in float64."""
    wide = {name: np.asarray(value, np.float64) for name, value in given.items() if name != "branch"}
    x, y, t, u, P, Q, v = (wide.get(name) for name in ("x", "y", "t", "u", "P", "Q", "v"))
    match cell:
        case "rows_by_transposed":
            return [(x @ P.T) * (y @ Q.T)]
        case "by_columns":
            return [(P @ t) * (Q @ u)]
        case "scaled":
            z = (x @ P.T) * (x @ Q)
            return [z / z.max(-1, keepdims=True), z.max(-1, keepdims=True)]
        case "pairs":
            return [P @ Q + Q @ P.T]
        case "vectors":
            return [P @ v + v @ P]
        case _:
            return [x @ table[given["branch"]].astype(np.float64).T]


HASWELL = {"kind": "llvm", "mcpu": "haswell"}

CASES = [
    (70, 4, "float64", "llvm"),
    (301, 3, "float64", HASWELL),
    (5, 2, "float32", "llvm"),
    pytest.param(1, 16, "float32", HASWELL, marks=pytest.mark.slow),
    pytest.param(33, 16, "float32", "llvm", marks=pytest.mark.slow),
    pytest.param(2000, 4, "float64", HASWELL, marks=pytest.mark.slow),
    pytest.param(40, 13, "float64", "llvm", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("sites", "size", "dtype", "target"), CASES)
def test_small_products_equal_numpy(sites: int, size: int, dtype: str, target: Any) -> None:
    rng = np.random.default_rng(0)
    table = rng.uniform(0.1, 1, (3, size, size)).astype(dtype)
    model = eb.compile(products(sites, size, dtype), {"table": table}, target=target)
    assert set(model.paths.values()) == {"stage"}
    shapes = dict.fromkeys("xy", (sites, size)) | dict.fromkeys("tu", (size, sites))
    shapes |= dict.fromkeys("PQ", (size, size)) | {"v": (size,)}
    for count in (1, 3):
        b, wanted, outputs = model.builder(), [], []
        for cell in model.cells:
            for number in range(count):
                given: dict[str, Any] = {
                    one.name: rng.uniform(0.1, 1, shapes[one.name]).astype(dtype) for one in cell.operands
                }
                given |= {one.name: number % 3 for one in cell.attributes}
                found = b.call(cell.name, **given)
                outputs += found if isinstance(found, tuple) else [found]
                wanted += expected(cell.name, given, table)
        computed = model([b.finish(outputs)])[0]
        for one, other in zip(computed, wanted, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-13 if dtype == "float64" else 3e-6)

"""Equal cells share kernels for GPUs, each with weights, tables and attributes of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tvm
from tvm.script import ir as I
from tvm.script import relax as R

import edbatch_tvm as eb
from relay_ext.renaming import module_of, renamed

COPIES = 3
rng = np.random.default_rng(0)


@I.ir_module
class Once:
    @R.function
    def word(i: R.Tensor((), "int32"), table: R.Tensor((5, 16), "float32")):
        R.func_attr({"num_input": 1})
        h = R.take(table, i, axis=0)
        return h

    @R.function
    def node(
        children: R.Tensor(("k", 16), "float32"),
        i: R.Tensor((), "int32"),
        bias: R.Tensor((7, 16), "float32"),
        W: R.Tensor((16, 16), "float32"),
    ):
        R.func_attr({"num_input": 2})
        h = R.tanh(R.add(R.matmul(R.sum(children, axis=0), W), R.take(bias, i, axis=0)))
        return h

    @R.function
    def general(h: R.Tensor((16,), "float32"), scale: R.Tensor((16,), "float32")):
        R.func_attr({"num_input": 1})
        y = R.multiply(R.nn.softmax(h, axis=-1), scale)
        return y

    @R.function
    def last(h: R.Tensor((16,), "float32"), W_last: R.Tensor((16, 16), "float32")):
        R.func_attr({"num_input": 1})
        y = R.matmul(h, W_last)
        return y


def cells() -> tvm.IRModule:
    """Each of the cells but the last, under several names and with as many weights, in turn."""
    functions: dict[str, Any] = {"last": Once["last"]}
    for copy in range(COPIES):
        for name, weights in (("word", ["table"]), ("node", ["bias", "W"]), ("general", ["scale"])):
            functions[f"{name}{copy}"] = renamed(Once[name], {weight: f"{weight}{copy}" for weight in weights})
    return module_of(functions)


def weights() -> dict[str, np.ndarray]:
    shapes = {"table": (5, 16), "bias": (7, 16), "W": (16, 16), "scale": (16,)}
    every = {f"{name}{copy}": shape for copy in range(COPIES) for name, shape in shapes.items()}
    return {name: rng.normal(size=shape).astype("float32") for name, shape in {**every, "W_last": (16, 16)}.items()}


def wanted(given: dict[str, np.ndarray], copy: int, words: list[int], number: int) -> np.ndarray:
    total = np.sum([given[f"table{(copy + at) % COPIES}"][word] for at, word in enumerate(words)], axis=0)
    h = np.tanh(total @ given[f"W{copy}"] + given[f"bias{copy}"][number])
    exponents = np.exp(h - h.max())
    return (exponents / exponents.sum() * given[f"scale{copy}"]) @ given["W_last"]


def check(model: Any, given: dict[str, np.ndarray]) -> None:
    b = model.builder()
    cases = [
        (copy, words, number) for copy in range(COPIES) for number, words in ((copy, [1, 4]), (6, [2, 0, 3]), (2, [4]))
    ]
    instances = []
    for copy, words, number in cases:
        leaves = [b.call(f"word{(copy + at) % COPIES}", i=word) for at, word in enumerate(words)]
        node = b.call(f"node{copy}", leaves, i=number)
        instances.append(b.finish(b.call("last", b.call(f"general{copy}", node))))
    result = model(instances)
    for at, case in enumerate(cases):
        np.testing.assert_allclose(np.asarray(result[at]), wanted(given, *case), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("launch", ["schedule", "batch"])
def test_equal_cells_share_kernels(launch: Any) -> None:
    given = weights()
    model = eb.compile(cells(), given, target="cuda-emulated", launch=launch)
    kernels = {name for names in model.kernel_names.values() for name in names}
    assert {name.partition("_")[0] for name in kernels} == {"word0", "node0", "general0", "last"}
    assert model.kernel_names["node2"] == model.kernel_names["node0"]
    assert model.paths["general2"].startswith("general")
    check(model, given)
    given = weights()
    model.refresh(given)
    check(model, given)


def test_more_equal_cells_are_no_more_kernels() -> None:
    many = {f"last{copy}": renamed(Once["last"], {"W_last": f"W{copy}"}) for copy in range(40)}
    given = {f"W{copy}": rng.normal(size=(16, 16)).astype("float32") for copy in range(40)}
    model = eb.compile(module_of(many), given, target="cuda-emulated")
    assert len(model.executor.program.parts) == 1
    b = model.builder()
    instance = b.finish(b.call("last39", b.call("last0", np.ones(16, np.float32))))
    found = np.asarray(model([instance])[0])
    np.testing.assert_allclose(found, np.ones(16) @ given["W0"] @ given["W39"], rtol=1e-4)

"""Names of cells and inputs that something else has, too: in generated code, in the C library, in other cells."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import IRModule, relax

import edbatch_tvm as eb
from edbatch_tvm.errors import CellError

CELLS = ["take", "claim", "program", "program_", "run_steps", "main", "memcpy", "tanhf"]
CELLS += ["edbatch_take", "edbatch_schedule", "edbatch_f", "f_0", "f_stage", "größe"]
INPUTS = ["board", "launches", "steps", "task", "arena0"]


def cells(names: list[str], operand: str = "x", weight: str = "W") -> IRModule:
    """A cell for each name: a product (a stage) and one more (a general cell), which differ from cell to cell."""
    builder = relax.BlockBuilder()
    for number, name in enumerate(names):
        vector = relax.TensorType((4,), "float32")
        x, w = relax.Var(operand, vector), relax.Var(weight, relax.TensorType((4, 4), "float32"))
        with builder.function(name, [x, w], attrs={"num_input": 1}):
            y = relax.op.multiply(relax.op.matmul(x, w), relax.const(number + 1.0, "float32"))
            z = relax.op.flip(x, axis=0) if number % 2 else relax.op.negative(x)
            with builder.dataflow():
                out = builder.emit_output(relax.Tuple([builder.emit(y), builder.emit(z)]))
            builder.emit_func_output(out)
    return builder.get()


def check(names: list[str], operand: str, weight: str, target: str, granularity: str = "cell") -> None:
    w = np.random.default_rng(0).normal(size=(4, 4)).astype("float32")
    model = eb.compile(cells(names, operand, weight), {weight: w}, target=target, granularity=granularity)
    b = model.builder()
    x = np.arange(4, dtype="float32")
    got = model([b.finish([value for name in names for value in b.call(name, **{operand: x})])])[0]
    for number, (y, z) in enumerate(zip(got[::2], got[1::2], strict=True)):
        np.testing.assert_allclose(y, (x @ w) * (number + 1), rtol=1e-5)
        np.testing.assert_allclose(z, x[::-1] if number % 2 else -x)


@pytest.mark.parametrize(
    ("target", "granularity"),
    [
        ("llvm", "cell"),
        *(pytest.param(*way, marks=pytest.mark.slow) for way in [("llvm", "op"), ("cuda-emulated", "cell")]),
    ],
    ids=str,
)
def test_cells_of_any_name(target: str, granularity: str) -> None:
    check(["f", *CELLS], "x", "W", target, granularity)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["llvm", "cuda-emulated"])
def test_inputs_of_any_name(target: str) -> None:
    for operand, weight in zip(INPUTS, INPUTS[1:] + INPUTS[:1], strict=True):
        check(["f", "take"], operand, weight, target)


@pytest.mark.parametrize("name", ["f_pack", "f_loop0", "f_stage0", "f_stage12_pack", "f_stage0_loop3"])
def test_a_cell_with_the_name_of_a_kernel_of_another(name: str) -> None:
    with pytest.raises(CellError, match=f"cell '{name}' has the name of a kernel of cell 'f'; expected another name"):
        check(["f", name], "x", "W", "llvm")


def test_ops_are_not_called_like_kernels() -> None:
    """`matmul_W_stage0` would be the op of the second weight and the kernel of the first."""
    builder = relax.BlockBuilder()
    matrix = relax.TensorType((4, 4), "float32")
    x, *weights = (
        relax.Var("x", relax.TensorType((4,), "float32")),
        relax.Var("W", matrix),
        relax.Var("W_stage0", matrix),
    )
    with builder.function("f", [x, *weights], attrs={"num_input": 1}):
        with builder.dataflow():
            products = [builder.emit(relax.op.matmul(x, weight)) for weight in weights]
            out = builder.emit_output(relax.Tuple(products))
        builder.emit_func_output(out)
    rng = np.random.default_rng(0)
    given = {weight.name: rng.normal(size=(4, 4)).astype("float32") for weight in weights}
    model = eb.compile(builder.get(), given, granularity="op")
    b = model.builder()
    got = model([b.finish(*b.call("f", np.ones(4, "float32")))])[0]
    for one, weight in zip(got, given.values(), strict=True):
        np.testing.assert_allclose(one, weight.sum(0), rtol=1e-5)

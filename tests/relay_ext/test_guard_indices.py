"""No kernel reads or writes outside its buffers: computed indices, calls that take addresses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tvm import relax, te
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

import edbatch_tvm as eb
from edbatch_tvm.errors import CellError
from relay_ext.guard_indices import OUTSIDE

TARGETS = ["llvm", "cuda-emulated"]
WORDS = np.float32([0, 6, 7, -1, 1e9, -1e9, np.nan, np.inf, -np.inf])


def run(cells: Any, values: np.ndarray, target: str) -> np.ndarray:
    """The cell ``cell`` on rows of one number, one each for `values`."""
    model = eb.compile(cells, target=target)
    instances = []
    for value in values:
        builder = model.builder()
        instances.append(builder.finish(builder.call("cell", np.float32([value]))))
    return np.concatenate([np.asarray(one) for one in model(instances)])


def reading(table: relax.Expr, finish: Callable[[Any], Any] = lambda read: read) -> Any:
    """A cell that reads row x of a table."""
    builder = relax.BlockBuilder()
    x = relax.Var("x", R.Tensor((1,), "float32"))
    with builder.function("cell", [x], attrs={"num_input": 1}):
        with builder.dataflow():
            word = builder.emit(relax.op.astype(x, "int64"))
            read = builder.emit(relax.op.take(table, word, axis=0, mode="fast"))
            result = builder.emit_output(finish(read))
        builder.emit_func_output(result)
    return builder.finalize()


@pytest.mark.parametrize("target", TARGETS)
def test_a_computed_index_outside_the_table_gives_nan(target: str) -> None:
    found = run(reading(relax.const(np.arange(7, dtype="float32") + 10)), WORDS, target)
    np.testing.assert_array_equal(found, [10, 16, *[np.nan] * 7])


@pytest.mark.parametrize("target", TARGETS)
def test_a_table_of_integers_says_so_too(target: str) -> None:
    table = relax.const(np.arange(7, dtype="int64") + 10)
    found = run(reading(table, lambda read: relax.op.astype(read, "float32")), WORDS, target)
    np.testing.assert_array_equal(found, [10, 16, *[OUTSIDE] * 7])


def test_a_table_that_has_no_value_for_it_is_refused() -> None:
    table = relax.const(np.arange(7, dtype="uint8"))
    with pytest.raises(CellError, match=r"cell 'cell' indexes .* whose range is not known"):
        eb.compile(reading(table, lambda read: relax.op.astype(read, "float32")))


@I.ir_module
class Store:
    @T.prim_func(private=True, s_tir=True)
    def place(x: T.Buffer((1,), "float32"), y: T.Buffer((7,), "float32")) -> None:
        for i in range(7):
            with T.sblock("zero"):
                at = T.axis.spatial(7, i)
                y[at] = T.float32(0)
        with T.sblock("place"):
            y[T.Cast("int32", x[0])] = T.float32(1)

    @R.function
    def cell(x: R.Tensor((1,), "float32")):
        R.func_attr({"num_input": 1})
        y = R.call_tir(Store.place, (x,), out_ty=R.Tensor((7,), "float32"))
        return y


def test_a_store_at_a_computed_index_is_refused() -> None:
    with pytest.raises(CellError, match=r"cell 'cell' indexes 'y.*' with .* whose range is not known"):
        eb.compile(Store)


def test_an_attribute_that_was_copied_is_bounded() -> None:
    builder = relax.BlockBuilder()
    word, table = relax.Var("word", R.Tensor((), "int64")), relax.const(np.arange(7, dtype="float32") + 10)
    with builder.function("cell", [word], attrs={"num_input": 1}):
        with builder.dataflow():
            two = builder.emit(relax.op.broadcast_to(word, (2,)))
            result = builder.emit_output(relax.op.take(table, two, axis=0, mode="fast"))
        builder.emit_func_output(result)
    model = eb.compile(builder.finalize())
    assert model.signature["cell"].attributes[0].bound == 7
    given = model.builder()
    (found,) = model([given.finish(given.call("cell", word=6))])
    np.testing.assert_array_equal(found, [16, 16])


@pytest.mark.parametrize("target", TARGETS)
def test_a_call_that_takes_an_address_is_refused(target: str) -> None:
    """TVM's own sort, for one: it would sort whatever lies at the begin of the arena."""
    from tvm import topi

    builder = relax.BlockBuilder()
    x = relax.Var("x", R.Tensor((3,), "float32"))

    def sort(given: te.Tensor) -> te.Tensor:
        return topi.sort(given)

    with builder.function("cell", [x], attrs={"num_input": 1}):
        with builder.dataflow():
            result = builder.emit_output(builder.call_te(sort, x))
        builder.emit_func_output(result)
    with pytest.raises(CellError, match=r"cell 'cell' calls 'tvm\.contrib\.sort.*' with the addresses"):
        eb.compile(builder.finalize(), target=target)


@I.ir_module
class Foreign:
    @T.prim_func(private=True, s_tir=True)
    def foreign(x: T.Buffer((1,), "float32"), y: T.Buffer((1,), "float32")) -> None:
        with T.sblock("foreign"):
            y[0] = T.call_pure_extern("float32", "no_such_function", x[0])

    @R.function
    def cell(x: R.Tensor((1,), "float32")):
        R.func_attr({"num_input": 1})
        y = R.call_tir(Foreign.foreign, (x,), out_ty=R.Tensor((1,), "float32"))
        return y


@pytest.mark.parametrize("target", TARGETS)
def test_a_function_that_does_not_exist_is_refused(target: str) -> None:
    """The process would end when it is called first."""
    with pytest.raises(CellError, match=r"cell 'cell' calls .no_such_function., which no library of this process has"):
        eb.compile(Foreign, target=target)

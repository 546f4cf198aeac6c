"""A value of a builder is no number: whatever a user might compute with one is an error."""

from __future__ import annotations

import copy
import operator
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edbatch_tvm.errors import GraphError
from edbatch_tvm.graph import Builder, Value
from edbatch_tvm.graph.spec import CellSignature, Operand, Signature, ValueSpec

VECTOR, SCALAR = ValueSpec((3,)), ValueSpec(())
CELLS = Signature(
    [
        CellSignature("start", (), (), (VECTOR,)),
        CellSignature("both", (Operand("a", VECTOR), Operand("s", SCALAR)), (), (VECTOR, SCALAR)),
    ]
)

pytestmark = pytest.mark.usefixtures("builders")

REFUSED = r"of a value of a builder|does not support ufuncs|unsupported"

BINARY = (
    *("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and_", "or_", "xor", "lshift", "rshift"),
    *("lt", "le", "gt", "ge"),
)
ALONE: list[Callable[[Any], Any]] = [
    *(operator.neg, operator.pos, operator.abs, operator.invert, float, complex, round, np.trunc, np.tanh),
    lambda value: sum([value, value]),
    lambda value: max(value, value),
    lambda value: divmod(value, 2),
    lambda value: np.ones(3, np.float32) * value,
    lambda value: value + np.ones(3, np.float32),
    lambda value: np.maximum(value, 0),
]


def value() -> Any:
    return Builder(CELLS).call("start")


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("other", [1, 0.5, np.float32(2), np.ones(3, np.float32), "itself"], ids=repr)
def test_no_arithmetic(name: str, other: Any) -> None:
    one = value()
    other = one if isinstance(other, str) else other
    # A float on the left computes before the value is asked, as with every class derived from int.
    for left, right in ((one, other), (other, one))[: 1 if isinstance(other, float) else 2]:
        with pytest.raises((GraphError, TypeError), match=REFUSED):
            getattr(operator, name)(left, right)


@pytest.mark.parametrize("number", range(len(ALONE)))
def test_no_function(number: int) -> None:
    with pytest.raises((GraphError, TypeError), match=REFUSED):
        ALONE[number](value())


def test_no_function_of_torch() -> None:
    torch = pytest.importorskip("torch")
    for compute in (
        lambda one: one + torch.ones(3),
        lambda one: torch.ones(3) * one,
        lambda one: torch.add(torch.ones(3), one),
        lambda one: torch.tanh(one),
    ):
        with pytest.raises((GraphError, TypeError)):
            compute(value())


def test_what_a_value_is() -> None:
    builder = Builder(CELLS)
    start = builder.call("start")
    pair = builder.call("both", start, 0.5)
    assert {type(one) for one in (start, *pair, Builder.zero)} == {Value}
    assert pair[0] == pair[0] != pair[1]
    assert len({start, *pair}) == 3
    assert pickle.loads(pickle.dumps(pair)) == copy.deepcopy(pair) == pair
    graph = builder.finish(*pair)
    assert graph.outputs.tolist() == [2, 3]
    assert graph.operand_value.tolist() == [0, -2]


def test_an_array_of_values_is_a_list_of_values() -> None:
    builder = Builder(CELLS)
    values = np.array([builder.call("start"), builder.call("start")])
    assert values.dtype == np.int64
    assert builder.finish(values).outputs.tolist() == [0, 2]

"""Arrays with masked elements are refused wherever an array is taken; what lies under a mask is never computed with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import edbatch_tvm as eb
from edbatch_tvm.errors import EdbatchError
from edbatch_tvm.graph.spec import Attribute, CellSignature, Operand, Signature, ValueSpec
from edbatch_tvm.models import get_workload

VECTOR, WORDS = ValueSpec((3,)), Attribute("words", ValueSpec((3,), "int32"))
CELLS = Signature(
    [
        CellSignature("start", (), (WORDS,), (VECTOR,)),
        CellSignature("step", (Operand("x", VECTOR),), (), (VECTOR,)),
        CellSignature("join", (Operand("xs", VECTOR, variadic=True),), (), (VECTOR,)),
    ]
)


def masked(dtype: str, *shape: int) -> Any:
    mask = np.zeros(shape, bool)
    mask.flat[1] = True
    return np.ma.masked_array(np.zeros(shape, dtype), mask)


def built(call: Callable[[Any], Any]) -> None:
    builder = eb.Builder(CELLS)
    builder.finish(call(builder))


def weights() -> None:
    workload = get_workload("treelstm")
    own = workload.weights(8)
    name = next(iter(own))
    eb.compile(workload.cells(8), {**own, name: masked("float32", *own[name].shape)})


ENTRIES: dict[str, Callable[[], Any]] = {
    "operand": lambda: built(lambda b: b.call("step", masked("float32", 3))),
    "variadic operand": lambda: built(lambda b: b.call("join", [np.zeros(3, np.float32), masked("float32", 3)])),
    "rows of a variadic operand": lambda: built(lambda b: b.call("join", masked("float32", 2, 3))),
    "attribute": lambda: built(lambda b: b.call("start", words=masked("int32", 3))),
    "node types": lambda: eb.InstanceGraph.from_arrays(masked("int32", 2), [0, 0, 0], []),
    "pointer": lambda: eb.InstanceGraph.from_arrays([0], masked("int32", 2), []),
    "operands": lambda: eb.InstanceGraph.from_arrays([0, 1, 2], [0, 0, 1, 3], masked("int32", 3)),
    "weights": weights,
}


@pytest.mark.parametrize("entry", ENTRIES)
def test_masked_elements_are_refused(entry: str) -> None:
    with pytest.raises(EdbatchError, match=r"masked elements; expected an array without a mask \(hint: array.filled"):
        ENTRIES[entry]()


def test_a_mask_that_covers_nothing() -> None:
    builder = eb.Builder(CELLS)
    graph = builder.finish(builder.call("step", np.ma.masked_array(np.ones(3, np.float32))))
    assert graph.external_data[0].tolist() == [[1.0, 1.0, 1.0]]

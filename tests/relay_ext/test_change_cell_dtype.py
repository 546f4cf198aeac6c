"""Cells in another dtype: every float in them, and nothing else, is converted."""

from __future__ import annotations

from typing import Any

import pytest
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

from edbatch_tvm.errors import CellError
from edbatch_tvm.graph.spec import ValueSpec
from edbatch_tvm.models import WORKLOADS, get_workload
from edbatch_tvm.tvm_compat import Call, GenericConst
from relay_ext.change_cell_dtype import ChangeCellDtype
from relay_ext.signature import signature_of


@I.ir_module
class Forms:
    @R.function
    def forms(
        x: R.Tensor(("k", 8), "float32"),
        flags: R.Tensor((8,), "bool"),
        word: R.Tensor((), "int64"),
        table: R.Tensor((5, 8), "float32"),
    ):
        R.func_attr({"num_input": 3})
        with R.dataflow():
            s = R.add(R.sum(x, axis=0), R.const(2.5, "float32"))
            ones = R.full((8,), R.const(1, "float32"), "float32")
            w = R.where(flags, R.add(R.astype(flags, "float32"), ones), R.take(table, word, axis=0))
            halves = R.split(R.maximum(s, R.zeros((8,), "float32")), 2)
            both = R.concat((halves[1], halves[0]), axis=0)
            y = R.nn.softmax(R.multiply(both, w))
            R.output(y, s)
        return y, s


@I.ir_module
class OwnTir:
    @T.prim_func(private=True, s_tir=True)
    def double(x: T.Buffer((8,), "float32"), y: T.Buffer((8,), "float32")):
        for i in range(8):
            with T.sblock("double"):
                at = T.axis.spatial(8, i)
                y[at] = x[at] * T.float32(2)

    @R.function
    def node(x: R.Tensor((8,), "float32")):
        cls = OwnTir
        with R.dataflow():
            y = R.call_tir(cls.double, (x,), out_ty=R.Tensor((8,), "float32"))
            R.output(y)
        return y


def test_every_float_is_converted() -> None:
    text = ChangeCellDtype("float64")(Forms).script(show_meta=True)
    assert "float32" not in text
    assert "int64" in text
    assert "bool" in text


@pytest.mark.parametrize("name", WORKLOADS)
def test_workloads_in_float64_are_well_formed(name: str) -> None:
    mod = get_workload(name).cells(16)
    converted = ChangeCellDtype("float64")(mod)
    relax.analysis.well_formed(converted)  # raises if it is not
    assert "float32" not in converted.script(show_meta=True)
    wide = [spec for cell in signature_of(mod) for spec in (*cell.outputs, *(one.spec for one in cell.operands))]
    found = [spec for cell in signature_of(converted) for spec in (*cell.outputs, *(one.spec for one in cell.operands))]
    assert found == [ValueSpec(spec.shape, "float64") for spec in wide]


def nodes(kind: type) -> list[Any]:
    """The expressions of `kind` in the converted cell."""
    found: list[Any] = []
    body = ChangeCellDtype("float64")(Forms)["forms"].body
    relax.analysis.post_order_visit(body, lambda node: found.append(node) if isinstance(node, kind) else None)
    assert found
    return found


def test_types_of_calls_follow() -> None:
    """The type of every expression is of the new dtype: later passes read it off calls, not only off variables."""
    assert not any("float32" in str(node.ty) for node in nodes(Call) + nodes(GenericConst))


def test_tir_of_a_cell_is_refused() -> None:
    with pytest.raises(CellError, match="'node', which calls TIR of its own"):
        ChangeCellDtype("float64")(OwnTir)


def test_constants_keep_their_values() -> None:
    constants = [node.value.numpy() for node in nodes(GenericConst)]
    assert {float(one) for one in constants} == {2.5, 1.0}
    assert {str(one.dtype) for one in constants} == {"float64"}

"""Where a cell is cut into stages, as golden text, and why a cell is not made of stages."""

from __future__ import annotations

from typing import Any

import pytest
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

from edbatch_tvm.models import WORKLOADS, get_workload
from relay_ext.block_reader import NotReadable
from relay_ext.signature import signature_of
from relay_ext.stage_cells import stages_of
from tests.golden import Golden
from tests.relay_ext.conftest import lower_to

H = 8


def stages(mod: Any, cell: str) -> list[Any]:
    return stages_of(lower_to(mod, "FuseCells")[cell], signature_of(mod))


def stages_or_reason(mod: Any, cell: str) -> list[str]:
    try:
        return [str(stage) for stage in stages(mod, cell)]
    except NotReadable as error:
        return [f"{cell}: general ({error})"]


@pytest.mark.parametrize("workload", sorted(WORKLOADS))
def test_shipped_cells(workload: str, golden: Golden) -> None:
    mod = get_workload(workload).cells(H)
    text = "\n".join(line for cell in signature_of(mod).names for line in stages_or_reason(mod, cell))
    golden(f"stages/{workload}.txt", text)


def test_a_gru_has_two_stages_and_an_lstm_one() -> None:
    @I.ir_module
    class Gru:
        @R.function
        def cell(
            x: R.Tensor((H,), "float32"),
            h: R.Tensor((H,), "float32"),
            W: R.Tensor((2 * H, 2 * H), "float32"),
            W_c: R.Tensor((2 * H, H), "float32"),
        ):
            R.func_attr({"num_input": 2})
            with R.dataflow():
                gates = R.split(R.sigmoid(R.matmul(R.concat([x, h], axis=0), W)), 2, axis=-1)
                c = R.tanh(R.matmul(R.concat([x, R.multiply(gates[0], h)], axis=0), W_c))
                out = R.add(R.multiply(gates[1], h), R.multiply(R.subtract(R.const(1.0), gates[1]), c))
                R.output(out)
            return out

    first, second = stages(Gru, "cell")
    assert [output.scratch for output in first.outputs] == ["cell.0"]
    assert len(first.gates) == 1  # r; z is computed where it is used
    assert len(second.gates) == 2
    assert {one.length for gate in second.gates for one in gate.passes} == {H}
    mod = get_workload("bilstm-tagger").cells(H)
    assert len(stages(mod, "forward_layer1")) == 1
    assert len(stages(mod, "tag")) == 2


def test_weights_on_either_side_and_transposed() -> None:
    @I.ir_module
    class Products:
        @R.function
        def cell(x: R.Tensor((H,), "float32"), W: R.Tensor((4, H), "float32")):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                left = R.matmul(W, x)
                right = R.matmul(x, R.permute_dims(W))
                y = R.add(left, right)
                R.output(y)
            return y

    (stage,) = stages(Products, "cell")
    weights = [str(one.weight) for gate in stage.gates for one in gate.passes]
    assert weights == ["W[j, k]", "W[j, k]"]


def reason(mod: Any) -> str:
    with pytest.raises(NotReadable) as caught:
        stages(mod, "cell")
    return str(caught.value)


def test_reasons() -> None:
    @I.ir_module
    class Softmax:
        @R.function
        def cell(x: R.Tensor((9, 3), "float32")):
            with R.dataflow():
                y = R.nn.softmax(x, axis=0)
                R.output(y)
            return y

    @I.ir_module
    class SumOfProducts:
        @R.function
        def cell(M: R.Tensor((9, H), "float32"), N: R.Tensor((9, H), "float32")):
            with R.dataflow():
                y = R.sum(R.multiply(M, N), axis=0)
                R.output(y)
            return y

    @I.ir_module
    class Joined:
        @R.function
        def cell(M: R.Tensor((H, H), "float32"), N: R.Tensor((H, H), "float32")):
            with R.dataflow():
                y = R.concat((M, N), axis=0)
                R.output(y)
            return y

    assert reason(Softmax) == "elements are read at j * T.int64(3) + i"
    assert reason(SumOfProducts) == "elements are read at j * T.int64(8) + i"
    assert reason(Joined) == "an expression depends on T.int64(8) <= i"


def test_reductions_over_a_few_rows_are_lines_of_a_stage(golden: Golden) -> None:
    @I.ir_module
    class Cells:
        @R.function
        def sums(M: R.Tensor((3, H), "float32"), N: R.Tensor((3, H), "float32")):
            with R.dataflow():
                y = R.sum(R.multiply(M, N), axis=0)
                R.output(y)
            return y

        @R.function
        def largest(M: R.Tensor((3, H), "float32"), N: R.Tensor((2, H), "float32")):
            with R.dataflow():
                y = R.max(R.concat((M, R.tanh(N)), axis=0), axis=0)
                R.output(y)
            return y

    golden(
        "stages/few_rows.txt", "\n".join(line for cell in ("sums", "largest") for line in stages_or_reason(Cells, cell))
    )


def test_products_over_variadic_rows_and_of_matrices(golden: Golden) -> None:
    @I.ir_module
    class Cells:
        @R.function
        def child_sum(
            hs: R.Tensor(("k", H), "float32"),
            x: R.Tensor((H,), "float32"),
            U: R.Tensor((H, H), "float32"),
            W: R.Tensor((H, H), "float32"),
        ):
            R.func_attr({"num_input": 2})
            with R.dataflow():
                y = R.mean(R.sigmoid(R.matmul(hs, U) + R.matmul(x, W)) * hs, axis=0)
                R.output(y)
            return y

        @R.function
        def attention(keys: R.Tensor(("k", H), "float32"), query: R.Tensor((H,), "float32")):
            with R.dataflow():
                y = R.matmul(R.nn.softmax(R.matmul(keys, query), axis=-1), keys)
                R.output(y)
            return y

        @R.function
        def matrices(
            M: R.Tensor((3, H), "float32"),
            N: R.Tensor((H, 5), "float32"),
            V: R.Tensor((H, 5), "float32"),
            b: R.Tensor((5,), "float32"),
        ):
            R.func_attr({"num_input": 2})
            with R.dataflow():
                y = R.matmul(M, N) + R.tanh(R.matmul(M, V) + b)
                R.output(y)
            return y

        @R.function
        def transposed(M: R.Tensor((3, H), "float32"), v: R.Tensor((H,), "float32"), u: R.Tensor((3,), "float32")):
            with R.dataflow():
                y = R.matmul(u, M)
                z = R.matmul(M, v)
                R.output(y, z)
            return y, z

    names = ("child_sum", "attention", "matrices", "transposed")
    text = "\n".join(line for cell in names for line in stages_or_reason(Cells, cell))
    golden("stages/forms.txt", text)


def test_user_written_tir_is_read_like_any_other() -> None:
    @I.ir_module
    class Written:
        @T.prim_func(s_tir=True, private=True)
        def double(x: T.Buffer((T.int64(H),), "float32"), y: T.Buffer((T.int64(H),), "float32")):
            for i in range(T.int64(H)):
                with T.sblock("double"):
                    v = T.axis.spatial(T.int64(H), i)
                    y[v] = x[v] * T.float32(2)

        @R.function
        def cell(x: R.Tensor((H,), "float32")):
            cls = Written
            with R.dataflow():
                y = R.call_tir(cls.double, (x,), out_ty=R.Tensor((H,), dtype="float32"))
                R.output(y)
            return y

    (stage,) = stages(Written, "cell")
    assert str(stage.body[0].expression) == "x0 * T.float32(2.0)"

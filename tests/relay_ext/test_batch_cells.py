"""The batch axis of cells outside the stage form."""

from __future__ import annotations

import pytest
from tvm.script import ir as I
from tvm.script import relax as R

from edbatch_tvm.errors import CellError
from relay_ext.index_bounds import with_index_bounds
from relay_ext.pipeline import kernel_passes, run_passes
from relay_ext.signature import signature_of
from schedules import abi
from schedules.cpu.machine import AVX512
from tests.golden import Golden
from tests.relay_ext.conftest import lower_to

H = 16


@I.ir_module
class Attention:
    @R.function
    def attend(
        word: R.Tensor((), "int32"),
        rows: R.Tensor(("k", H), "float32"),
        query: R.Tensor((H,), "float32"),
        table: R.Tensor((9, H), "float32"),
    ):
        R.func_attr({"num_input": 3})
        with R.dataflow():
            q = R.add(query, R.take(table, word, axis=0))
            by_two = R.nn.softmax(R.reshape(q, (H // 2, 2)), axis=0)
            weighted = R.multiply(rows, R.reshape(by_two, (H,)))
            y = R.sum(weighted, axis=0)
            R.output(y)
        return y


def test_general_kernel(golden: Golden) -> None:
    mod = lower_to(Attention, "FuseCells")
    signature = with_index_bounds(signature_of(Attention), mod)
    module = run_passes(mod, kernel_passes(signature, AVX512))
    kernel = module["attend"]
    assert [str(text) for text in kernel.attrs[abi.ARGUMENTS]] == ["arena:0", "attribute:0", "weight:table"]
    assert str(kernel.attrs["edbatch.path"]) == "general"
    golden("general/attention.txt", kernel.script())


def test_bounds_of_index_attributes() -> None:
    mod = lower_to(Attention, "FuseCells")
    assert with_index_bounds(signature_of(Attention), mod)["attend"].attributes[0].bound == 9


def test_an_index_of_unknown_range_is_refused() -> None:
    @I.ir_module
    class Shifted:
        @R.function
        def cell(word: R.Tensor((), "int32"), table: R.Tensor((9, H), "float32")):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                y = R.take(table, R.add(word, R.const(1, "int32")), axis=0)
                R.output(y)
            return y

    @I.ir_module
    class Clipped:
        @R.function
        def cell(word: R.Tensor((), "int32"), table: R.Tensor((9, H), "float32")):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                y = R.take(table, word, axis=0, mode="clip")
                R.output(y)
            return y

    with pytest.raises(CellError, match=r"cell 'cell' indexes 'table' with .*, whose range is not known"):
        with_index_bounds(signature_of(Shifted), lower_to(Shifted, "FuseCells"))
    assert with_index_bounds(signature_of(Clipped), lower_to(Clipped, "FuseCells"))["cell"].attributes[0].bound is None

"""Golden text of the kernel of a cell outside the stage form: its loop over the instances of a batch."""

from __future__ import annotations

from tvm.script import ir as I
from tvm.script import relax as R

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

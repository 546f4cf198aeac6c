"""Child-sum TreeLSTM cells for trees of any arity (Tai, Socher and Manning, ACL 2015)."""

# TVMScript annotates parameters with calls and indexes modules, which no type checker follows.
# mypy: disable-error-code="valid-type,no-untyped-def,misc"

from __future__ import annotations

from typing import Any

from tvm.script import ir as I
from tvm.script import relax as R

from edbatch_tvm.models import treelstm
from edbatch_tvm.models.renaming import module_of


def cells(hidden: int) -> Any:
    """Module of the cells ``leaf``, ``internal`` and ``readout``.

    ======== ==============================================================================================
    leaf     that of :func:`edbatch_tvm.models.treelstm.cells.cells`
    internal of any number of children k: s = sum_k h_k, i, o = sigmoid(U s + b), u = tanh(U s + b),
             f_k = sigmoid(U_f h_k + b_f), c = i * u + sum_k f_k * c_k, h = o * tanh(c)
    readout  that of :func:`edbatch_tvm.models.treelstm.cells.cells`
    ======== ==============================================================================================
    """
    H = hidden

    @I.ir_module
    class ChildSum:
        @R.function
        def internal(
            hs: R.Tensor(("k", H), "float32"),
            cs: R.Tensor(("k", H), "float32"),
            U_iou: R.Tensor((H, 3 * H), "float32"),
            b_iou: R.Tensor((3 * H,), "float32"),
            U_f: R.Tensor((H, H), "float32"),
            b_f: R.Tensor((H,), "float32"),
        ):
            R.func_attr({"num_input": 2})
            with R.dataflow():
                iou = R.split(R.matmul(R.sum(hs, axis=0), U_iou) + b_iou, 3)
                f = R.sigmoid(R.matmul(hs, U_f) + b_f)
                c = R.sigmoid(iou[0]) * R.tanh(iou[2]) + R.sum(f * cs, axis=0)
                h = R.sigmoid(iou[1]) * R.tanh(c)
                R.output(h, c)
            return h, c

    tree = treelstm.WORKLOAD.cells(hidden)
    return module_of({"leaf": tree["leaf"], "internal": ChildSum["internal"], "readout": tree["readout"]})

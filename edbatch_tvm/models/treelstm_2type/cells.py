"""Cells of the TreeLSTM with two types of internal nodes."""

from __future__ import annotations

from typing import Any

from edbatch_tvm.models import treelstm
from edbatch_tvm.models.renaming import module_of, renamed, suffixed

INTERNAL_WEIGHTS = ("U_iou", "b_iou", "U_f1", "U_f2", "b_f")


def cells(hidden: int) -> Any:
    """Module of the cells ``leaf``, ``internal_a``, ``internal_b`` and ``readout``.

    They are those of :func:`edbatch_tvm.models.treelstm.cells.cells`; the two internal cells differ in their weights.
    """
    tree = treelstm.WORKLOAD.cells(hidden)
    return module_of(
        {
            "leaf": tree["leaf"],
            "internal_a": renamed(tree["internal"], suffixed("a", *INTERNAL_WEIGHTS)),
            "internal_b": renamed(tree["internal"], suffixed("b", *INTERNAL_WEIGHTS)),
            "readout": tree["readout"],
        }
    )

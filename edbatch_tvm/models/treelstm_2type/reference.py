"""The cells of the two-type TreeLSTM in NumPy, one node at a time."""

from __future__ import annotations

from edbatch_tvm.checking.reference import Function
from edbatch_tvm.models.renaming import renamed_reference, suffixed
from edbatch_tvm.models.treelstm.reference import internal, leaf, readout
from edbatch_tvm.models.treelstm_2type.cells import INTERNAL_WEIGHTS

REFERENCE: dict[str, Function] = {
    "leaf": leaf,
    "internal_a": renamed_reference(internal, suffixed("a", *INTERNAL_WEIGHTS)),
    "internal_b": renamed_reference(internal, suffixed("b", *INTERNAL_WEIGHTS)),
    "readout": readout,
}

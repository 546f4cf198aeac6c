"""TreeLSTM sentiment over binary parse trees."""

from __future__ import annotations

from edbatch_tvm.models.treelstm.cells import cells
from edbatch_tvm.models.treelstm.generator import generate
from edbatch_tvm.models.treelstm.reader import read
from edbatch_tvm.models.treelstm.reference import REFERENCE
from edbatch_tvm.models.workload import Workload

WORKLOAD = Workload("treelstm", cells, read, generate, REFERENCE)

__all__ = ["WORKLOAD"]

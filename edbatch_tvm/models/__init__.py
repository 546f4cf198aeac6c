"""The workloads: cells, data readers and generators, references; and what measures and checks a run of them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from edbatch_tvm.errors import EdbatchError

if TYPE_CHECKING:
    from edbatch_tvm.models.workload import Workload

WORKLOADS = (
    "treelstm",
    "bilstm-tagger",
    "lattice-lstm",
    "treelstm-2type",
    "treegru",
    "mvrnn",
    "bilstm-tagger-char",
    "lstm-nmt",
    "lattice-gru",
    "childsum-tree",
    "grid-lstm",
    "random-dag",
)
"""Names of the workloads; each is a package here, with ``_`` for ``-``."""


def get_workload(name: str) -> Workload:
    """The workload called `name`. Imports TVM.

    Raises
    ------
    EdbatchError
        If there is none.
    """
    if name not in WORKLOADS:
        raise EdbatchError(f"unknown workload {name!r}", f"one of {', '.join(WORKLOADS)}")
    module = importlib.import_module(f"edbatch_tvm.models.{name.replace('-', '_')}")
    found: Workload = module.WORKLOAD
    return found


__all__ = ["WORKLOADS", "get_workload"]

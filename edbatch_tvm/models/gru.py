"""The GRU equations on Relax expressions; like those of :mod:`edbatch_tvm.models.lstm`."""

from __future__ import annotations

from typing import Any

from tvm.script import relax as R


def mixed(z: Any, h: Any, c: Any) -> Any:
    """Next hidden state: ``z * h + (1 - z) * c``, with `c` the candidate."""
    return z * h + (R.const(1.0) - z) * c

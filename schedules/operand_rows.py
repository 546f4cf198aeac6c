"""The row an operand lies in, as every kernel finds it."""

from __future__ import annotations

from typing import Any

from edbatch_tvm.tvm_compat import tirx


def operand_row(base: Any, stride: Any, position: Any, index: Any) -> Any:
    """Row number `position` of an operand with this base and stride; see :mod:`edbatch_tvm.memory.steps_table`."""
    return tirx.if_then_else(stride < 0, index[base + position], base + position * stride)

"""The state of a node: all outputs of a cell, however many."""

from __future__ import annotations

from typing import Any

from edbatch_tvm.graph import Value


def as_tuple(outputs: Any) -> tuple[Value, ...]:
    """What :meth:`edbatch_tvm.graph.Builder.call` returns, as a tuple also where the cell has one output."""
    return outputs if isinstance(outputs, tuple) else (outputs,)

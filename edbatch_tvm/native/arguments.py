"""NumPy arrays as the native kernels take them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from edbatch_tvm.graph import InstanceGraph
    from edbatch_tvm.memory import Plan


def as_argument(array: np.ndarray, dtype: type[np.signedinteger[Any]] = np.int32) -> np.ndarray:
    """`array` as kernels read it; a copy if it has other integers, gaps, or is read-only (TVM refuses that)."""
    if array.dtype == dtype and array.flags.carray:
        return array
    result = np.ascontiguousarray(array, dtype)
    return result if result.flags.writeable else result.copy()


def never_empty(array: np.ndarray) -> np.ndarray:
    """The same, with one -1 in place of nothing: TVM refuses the null pointer that an empty array may have."""
    return as_argument(array) if len(array) else np.full(1, -1, np.int32)


def forward_arguments(graph: InstanceGraph, plan: Plan) -> tuple[np.ndarray, ...]:
    """What kernels read of a graph, its schedule and plan: types, operands, order, batches and rows of values."""
    return (
        as_argument(graph.node_type, np.int16),
        as_argument(graph.operand_ptr),
        never_empty(graph.operand_value),
        as_argument(plan.schedule.order),
        as_argument(plan.schedule.batch_ptr),
        as_argument(plan.value_row),
    )

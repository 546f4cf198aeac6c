"""An independent checker of schedules: it shares no code with the policies."""

from __future__ import annotations

import numpy as np

from edbatch_tvm.argument_checks import require_type
from edbatch_tvm.batching.schedule import Schedule
from edbatch_tvm.errors import GraphError, PolicyError
from edbatch_tvm.graph import InstanceGraph


def check_schedule(graph: InstanceGraph, schedule: Schedule) -> None:
    """Check that `schedule` runs each node of `graph` once, after its operands, and one type per batch.

    Parameters
    ----------
    graph : InstanceGraph
    schedule : Schedule

    Raises
    ------
    PolicyError
        Naming the first batch and node at fault.
    """
    require_type(schedule, Schedule, "a Schedule", PolicyError)
    require_type(graph, InstanceGraph, "an InstanceGraph", GraphError)
    order, pointer = schedule.order, schedule.batch_ptr
    for name, array in (("order", order), ("batch_ptr", pointer), ("batch_type", schedule.batch_type)):
        if not isinstance(array, np.ndarray) or array.ndim != 1 or array.dtype.kind not in "iu":
            raise PolicyError(f"{name} of the schedule is {array!r:.60}", "a one-dimensional array of integers")
    count = graph.num_nodes
    sizes: np.ndarray = np.diff(pointer.astype(np.int64))
    if len(pointer) != len(schedule) + 1 or pointer[0] != 0 or pointer[-1] != len(order) or (sizes < 1).any():
        raise PolicyError("batch_ptr is not a list of offsets", f"0 first, always rising, {len(order)} last")
    if len(order) and (order.min() < 0 or order.max() >= count):
        stranger = int(order[(order < 0) | (order >= count)][0])
        raise PolicyError(f"the schedule runs node {stranger}", f"nodes 0 to {count - 1}")
    times = np.bincount(order, minlength=count)
    if (times != 1).any():
        node = int(np.argmax(times != 1))
        raise PolicyError(f"node {node} runs {times[node]} times", "once")
    batch_of = np.empty(count, np.int64)
    batch_of[order] = np.repeat(np.arange(len(schedule)), sizes)
    odd = graph.node_type != schedule.batch_type[batch_of]
    if odd.any():
        node = int(np.argmax(odd))
        raise PolicyError(
            f"batch {batch_of[node]} of type {schedule.batch_type[batch_of[node]]} runs node {node} of type "
            f"{graph.node_type[node]}",
            "one type per batch",
        )
    user = np.repeat(np.arange(count), np.diff(graph.operand_ptr))
    known = graph.operand_node >= 0
    producer, user = graph.operand_node[known], user[known]
    early = batch_of[producer] >= batch_of[user]
    if early.any():
        edge = int(np.argmax(early))
        raise PolicyError(
            f"node {user[edge]} runs in batch {batch_of[user[edge]]}, its operand, node {producer[edge]}, in batch "
            f"{batch_of[producer[edge]]}",
            "operands before their users",
        )
    falling = (np.diff(order) <= 0) & (np.diff(np.repeat(np.arange(len(schedule)), sizes)) == 0)
    if falling.any():
        raise PolicyError(
            f"node {order[int(np.argmax(falling)) + 1]} is out of order", "the nodes of a batch ascending"
        )

"""The library's functions with NumPy arrays: allocation, padding and results."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from edbatch_tvm.batching.encoding import TIGHT
from edbatch_tvm.batching.integer_costs import UNLIMITED
from edbatch_tvm.batching.native_kernels import Arrays
from edbatch_tvm.cached_property import cached_property
from edbatch_tvm.errors import GraphError
from edbatch_tvm.graph import require_checked
from edbatch_tvm.native.arguments import as_argument, never_empty
from edbatch_tvm.native.build import load_library
from edbatch_tvm.native.constants import (
    AGENDA,
    ALPHA,
    BATCHES,
    DROPPED,
    EPSILON,
    FAILED,
    FSM,
    GIVEN,
    IO_SLOTS,
    LANES,
    LEARN,
    LOOKAHEAD,
    MISSES,
    NSTEP,
    RANDOM,
    RATE,
    RATIO,
    REPLAY,
    STATES,
)

if TYPE_CHECKING:
    from edbatch_tvm.batching.integer_costs import IntegerCosts
    from edbatch_tvm.batching.state_table import StateTable, ValueTable
    from edbatch_tvm.graph import InstanceGraph

RULES = {"agenda": AGENDA, "ratio": RATIO, "lookahead": LOOKAHEAD}
SCRATCH_BYTES = 1 << 26
"""Larger buffers are not kept."""

MOST_ENTRIES = np.iinfo(np.int32).max // 2
"""Of a table."""

_NO_KEY = np.zeros(1, np.uint64)
_NO_ACTION = np.zeros(1, np.int32)


class NativeKernels:
    """The fast backend; see :class:`edbatch_tvm.batching.native_kernels.Kernels`.

    Raises
    ------
    ImportError
        If TVM is missing.
    """

    def __init__(self) -> None:
        self._schedule = load_library("schedule")["schedule"]

    @cached_property
    def _levels(self) -> Any:
        """Built when depths or heights are first asked for."""
        return load_library("levels")

    @cached_property
    def _heights(self) -> Any:
        return self._levels["heights"]

    @cached_property
    def _depth_schedule(self) -> Any:
        return self._levels["depth_schedule"]

    @cached_property
    def _postorder_schedule(self) -> Any:
        """Built when a schedule of this policy is first asked for."""
        return load_library("postorder")["postorder_schedule"]

    @cached_property
    def _episode(self) -> Any:
        """Built when something is first learned."""
        return load_library("learn")["episode"]

    @cached_property
    def _search(self) -> Any:
        """Built when something is first searched for."""
        return load_library("search")["search"]

    def heights(self, graph: InstanceGraph) -> np.ndarray:
        """Typewise heights, int32[nodes, types]."""
        _check_size(graph)
        height = np.empty((graph.num_nodes, _padded(graph.num_types)), np.int32)
        if graph.num_nodes:
            node_type, ptr, user, _ = _structure(graph)
            self._heights(node_type, ptr, user, height)
        return height[:, : graph.num_types]

    def depth_schedule(self, graph: InstanceGraph) -> Arrays:
        """Schedule by (depth, type)."""
        count = graph.num_nodes
        if not count:
            return _empty()
        work = np.empty((3, count), np.int32)
        order, batch_ptr, batch_type = _outputs(count)
        io = np.zeros(IO_SLOTS, np.int64)
        per_type = np.empty(graph.num_types, np.int32)
        node_type, ptr, user, _ = _structure(graph)
        self._depth_schedule(node_type, ptr, user, *work, per_type, order, batch_ptr, batch_type, io)
        return _trim(order, batch_ptr, batch_type, int(io[BATCHES]))

    def postorder_schedule(self, graph: InstanceGraph) -> Arrays:
        """Schedule of nodes depth first."""
        count, edges = graph.num_nodes, len(graph.operand_value)
        if not count:
            return _empty()
        require_checked(graph)
        order, batch_ptr, batch_type = _outputs(count)
        io = np.zeros(IO_SLOTS, np.int64)
        self._postorder_schedule(
            graph.stride,
            as_argument(graph.node_type, np.int16),
            as_argument(graph.operand_ptr),
            never_empty(graph.operand_value),
            np.empty(count, np.int64),
            np.empty((4, count), np.int32),
            np.empty(2 * count + edges, np.int32),
            order,
            batch_ptr,
            batch_type,
            io,
        )
        return _trim(order, batch_ptr, batch_type, int(io[BATCHES]))

    def run(self, graph: InstanceGraph, rule: str) -> Arrays:
        """Schedule by a rule."""
        return self._run(graph, RULES[rule], 0, _NO_KEY, _NO_ACTION)[0]

    def run_fsm(self, graph: InstanceGraph, encoding: int, table: StateTable) -> tuple[Arrays, int]:
        """Schedule by a state machine, and the number of misses."""
        return self._run(graph, FSM, encoding, table.key, table.action)

    def learn_episode(self, graph: InstanceGraph, encoding: int, table: ValueTable, epsilon: int) -> int:
        """One learning episode; changes `table` and returns the number of batches."""
        table.make_room(graph.num_nodes)
        io = np.zeros(IO_SLOTS + graph.num_types, np.int64)
        io[STATES], io[EPSILON], io[ALPHA] = table.states, epsilon, table.alpha
        io[RATE], io[NSTEP], io[RANDOM] = table.rate, table.steps, table.random_state[0]
        self._call(graph, LEARN, encoding, table.key, _NO_ACTION, table.rows, io)
        table.states = int(io[STATES])
        table.random_state[0] = io[RANDOM]
        return int(io[BATCHES])

    def replay(self, graph: InstanceGraph, encoding: int, table: ValueTable, batch_type: np.ndarray) -> None:
        """Count in `table` the states and actions of a schedule that runs whole frontiers."""
        table.make_room(len(batch_type))
        io = np.zeros(IO_SLOTS + graph.num_types, np.int64)
        io[STATES] = table.states
        self._call(graph, REPLAY, encoding, table.key, _NO_ACTION, table.rows, io, batch_type)
        table.states = int(io[STATES])

    def search(
        self, graph: InstanceGraph, width: int, limit: int, integer_costs: IntegerCosts
    ) -> tuple[np.ndarray | None, bool]:
        """The best schedule within a limit that a beam finds, and whether it never had to drop a child."""
        nodes, types, columns = graph.num_nodes, graph.num_types, _padded(graph.num_types)
        if not nodes:
            return np.empty(0, np.int16), True
        node_type, *uses = _structure(graph)
        batch_type = np.empty(nodes, np.int16)
        io = np.zeros(IO_SLOTS, np.int64)
        self._search(
            width,
            types,
            limit,
            node_type,
            *uses,
            np.empty((nodes, columns), np.int32),
            np.empty((2 * width, nodes), np.int32),
            np.empty((2 * width, nodes), np.int32),
            np.empty((2 * width * (types + 1), columns), np.int32),
            np.empty((2 * width, types + 1), np.uint64),
            np.empty((2 * width, 3 * types + 1), np.int32),
            np.empty((2 * width, 2), np.int64),
            integer_costs.by_size,
            integer_costs.least,
            np.empty((width, 4), np.int64),
            np.empty(1 << (2 * width * types).bit_length(), np.uint64),
            np.empty((nodes, width), np.int32),
            batch_type,
            io,
        )
        exhaustive = not io[DROPPED]
        if io[FAILED]:
            if limit == UNLIMITED:
                _check(io)
            return None, exhaustive
        return batch_type[: int(io[BATCHES])].copy(), exhaustive

    def given(self, graph: InstanceGraph, batch_type: np.ndarray) -> Arrays:
        """Schedule that runs whole frontiers of these types."""
        return self._run(graph, GIVEN, 0, _NO_KEY, _NO_ACTION, batch_type)[0]

    def _run(
        self,
        graph: InstanceGraph,
        rule: int,
        encoding: int,
        key: np.ndarray,
        action: np.ndarray,
        batch_type: np.ndarray | None = None,
    ) -> tuple[Arrays, int]:
        if not graph.num_nodes:
            return _empty(), 0
        io = np.zeros(IO_SLOTS + graph.num_types, np.int64)
        learning = np.empty((1, 3 * graph.num_types + 2), np.int64)
        arrays = self._call(graph, rule, encoding, key, action, learning, io, batch_type)
        return _trim(*arrays, int(io[BATCHES])), int(io[MISSES])

    def _call(
        self,
        graph: InstanceGraph,
        rule: int,
        encoding: int,
        key: np.ndarray,
        action: np.ndarray,
        learning: np.ndarray,
        io: np.ndarray,
        batch_type: np.ndarray | None = None,
    ) -> Arrays:
        _check_size(graph)
        nodes, types, width = graph.num_nodes, graph.num_types, _padded(graph.num_types)
        tables = (rule in (LOOKAHEAD, FSM) or encoding == TIGHT) + (rule in (RATIO, LEARN))
        size = (types + 1) * width + (8 if rule == LEARN else 6) * nodes + 6 * types + 6 + tables * nodes * width
        work = _SCRATCH.get("work", size)
        outputs = np.empty(nodes, np.int32), _SCRATCH.get("batch_ptr", nodes + 1), np.empty(nodes, np.int16)
        if batch_type is not None:
            outputs[2][: len(batch_type)] = batch_type
        kernel = self._episode if rule in (LEARN, REPLAY) else self._schedule
        kernel(
            rule,
            encoding,
            types,
            *_structure(graph),
            as_argument(graph.type_count, np.int64),
            key,
            action,
            learning,
            work,
            *outputs,
            io,
        )
        _check(io)
        return outputs


class _Scratch(threading.local):
    """Buffers that a thread's next call uses again: fresh memory costs more to touch than a small graph to schedule."""

    def __init__(self) -> None:
        self._buffers: dict[str, np.ndarray] = {}

    def get(self, name: str, size: int) -> np.ndarray:
        """An int32 array of any contents."""
        buffer = self._buffers.get(name)
        if buffer is None or len(buffer) < size:
            buffer = np.empty(size, np.int32)
            if buffer.nbytes <= SCRATCH_BYTES:
                self._buffers[name] = buffer
        return buffer[:size]


_SCRATCH = _Scratch()


def _check_size(graph: InstanceGraph) -> None:
    """Refuse what the kernels cannot index with int32."""
    entries = (graph.num_nodes + 1) * (2 * _padded(graph.num_types) + 8)
    if max(entries, len(graph.operand_value)) > MOST_ENTRIES:
        raise GraphError(
            f"a graph of {graph.num_nodes} nodes of {graph.num_types} types", "one whose tables int32 can index"
        )


def _check(io: np.ndarray) -> None:
    if io[FAILED]:
        raise GraphError("nodes that wait for each other", "a DAG")


def load() -> NativeKernels:
    """The kernels, built if this machine has none yet.

    Raises
    ------
    ImportError
        If TVM is missing.
    """
    return NativeKernels()


def _structure(graph: InstanceGraph) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    require_checked(graph)
    ptr, user, waits = graph.uses
    return as_argument(graph.node_type, np.int16), as_argument(ptr), never_empty(user), as_argument(waits)


def _outputs(nodes: int) -> Arrays:
    return np.empty(nodes, np.int32), np.empty(nodes + 1, np.int32), np.empty(nodes, np.int16)


def _trim(order: np.ndarray, batch_ptr: np.ndarray, batch_type: np.ndarray, batches: int) -> Arrays:
    return order, batch_ptr[: batches + 1].copy(), batch_type[:batches].copy()


def _empty() -> Arrays:
    return np.empty(0, np.int32), np.zeros(1, np.int32), np.empty(0, np.int16)


def _padded(types: int) -> int:
    return -(-types // LANES) * LANES

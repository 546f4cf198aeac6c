"""The kernel of backward graphs with NumPy arrays."""

from __future__ import annotations

import numpy as np

from edbatch_tvm.graph import InstanceGraph
from edbatch_tvm.memory import Plan
from edbatch_tvm.memory.layout import signature_of
from edbatch_tvm.native.arguments import as_argument, never_empty
from edbatch_tvm.native.backward_tables import (
    BATCHES,
    EVERY_ROW,
    EXTERNAL_USES,
    EXTERNALS,
    FIRST_READ,
    KIND,
    LAST_READ,
    NODES,
    NUMBER,
    OPERAND,
    PER_ROW,
    PLACES,
    ROWS,
    TYPE,
    BackwardArrays,
    TypeTables,
)
from edbatch_tvm.native.build import load_library
from edbatch_tvm.native.cell_tables import VARIADIC, CellTables, cell_tables


class NativeBackwardGraphs:
    """The fast way to a backward graph. Its forward graphs have nodes.

    Raises
    ------
    ImportError
        If TVM is missing.
    """

    def __init__(self) -> None:
        self._backward = load_library("backward")["backward"]

    def arrays(
        self,
        graph: InstanceGraph,
        plan: Plan,
        given: np.ndarray,
        detached: np.ndarray | None,
        types: TypeTables,
        stride: int,
    ) -> BackwardArrays:
        """The backward graph of a minibatch.

        Parameters
        ----------
        graph : InstanceGraph
        plan : Plan
        given : int array
            The values whose cotangents are given, each once.
        detached : bool array of shape [nodes] or None
            Nodes that have no cotangents, whoever uses them.
        types : TypeTables
        stride : int
            Of the backward signature.
        """
        cells = cell_tables(signature_of(graph))
        arenas = types.arenas.copy()
        arenas[:, ROWS] = plan.arena_rows
        schedule, n, values = plan.schedule, graph.num_nodes, graph.num_nodes * graph.stride
        entries, givens, most = len(graph.operand_value), len(given), types.sections.shape[1]
        places, operands, externals = _bounds(graph, types, cells)
        places += entries + givens
        made = BackwardArrays(
            np.empty(places + 1, np.int16),
            np.empty(places + 1, np.int32),
            np.empty(operands + entries + givens + 1, np.int32),
            np.empty(externals + givens + 1, np.int16),
            np.empty(externals + givens + 1, np.int32),
            np.empty(places + 1, np.int32),
            np.empty(values, np.int32),
            np.empty((n, most), np.int32),
            np.empty(n, np.int32),
            np.empty(n, np.int32),
            np.empty(entries + 1, np.int32),
            np.empty(entries + 1, np.int32),
        )
        batches = len(schedule) * (len(arenas) + most + 1)
        work = 3 * n + 3 * values + batches + max(len(cells.cells), len(arenas)) + 2 * (entries + 1)
        io = np.zeros(5, np.int64)
        self._backward(
            stride,
            len(schedule),
            givens,
            int(detached is not None),
            as_argument(graph.node_type, np.int16),
            as_argument(graph.operand_ptr),
            never_empty(graph.operand_value),
            as_argument(schedule.order),
            as_argument(schedule.batch_ptr),
            as_argument(plan.value_row),
            cells.output_arena,
            cells.cells,
            cells.operands,
            as_argument(graph.external_spec, np.int16) if len(graph.external_spec) else np.zeros(1, np.int16),
            never_empty(graph.external_row),
            np.zeros(1, np.int8) if detached is None else as_argument(detached, np.int8),
            never_empty(given),
            types.sections,
            types.slots,
            types.reads,
            arenas,
            np.empty(work, np.int32),
            *made,
            io,
        )
        found = io.tolist()
        made_nodes, outside, uses = found[PLACES], found[EXTERNALS], found[EXTERNAL_USES]
        return made._replace(
            node_type=made.node_type[:made_nodes],
            operand_ptr=made.operand_ptr[: made_nodes + 1],
            operand_value=made.operand_value[: made.operand_ptr[made_nodes]],
            external_spec=made.external_spec[:outside],
            external_row=made.external_row[:outside],
            batch_ptr=made.batch_ptr[: found[BATCHES] + 1],
            node_order=made.node_order[: found[NODES]],
            external_use=made.external_use[:uses],
            external_of=made.external_of[:uses],
        )


def _bounds(graph: InstanceGraph, types: TypeTables, cells: CellTables) -> tuple[int, int, int]:
    """The most nodes of sections, operands of these, and external rows, that there can be."""
    signature = signature_of(graph)
    places = operands = externals = 0
    for type_id, nodes in enumerate(graph.type_count.tolist()):
        cell = signature[type_id]
        rows = squares = 0
        if nodes and cell.variadic_count:
            own = np.flatnonzero(graph.node_type == type_id)
            each = (graph.operand_ptr[own + 1] - graph.operand_ptr[own] - cell.fixed_arity) // cell.variadic_count
            each = each.astype(np.int64)
            rows, squares = int(each.sum()), int((each * each).sum())
        for section in types.sections[type_id]:
            if not nodes or section[TYPE] < 0:
                continue
            reads = types.reads[section[FIRST_READ] : section[LAST_READ]]
            every = int(reads[:, EVERY_ROW].sum())
            one = len(reads) - every
            per_row = section[PER_ROW] == 1
            places += rows if per_row else nodes
            operands += one * rows + every * squares if per_row else one * nodes + every * rows
            of_operands = reads[reads[:, KIND] == OPERAND, NUMBER]
            variadic = int(cells.operands[type_id, of_operands, VARIADIC].sum())
            externals += variadic * rows + (len(reads) - variadic) * nodes
    return places, operands, externals


def load() -> NativeBackwardGraphs:
    """The kernel, built if this machine has none yet.

    Raises
    ------
    ImportError
        If TVM is missing.
    """
    return NativeBackwardGraphs()

"""The kernel of backward graphs with NumPy arrays."""

from __future__ import annotations

import numpy as np

from edbatch_tvm.graph import InstanceGraph
from edbatch_tvm.memory import Plan
from edbatch_tvm.memory.layout import signature_of
from edbatch_tvm.native.arguments import as_argument, forward_arguments, never_empty
from edbatch_tvm.native.backward_tables import (
    BACKWARD_ARENA,
    BATCHES,
    EXTERNAL_USES,
    OF_EACH_ROW,
    PER_NODE,
    PER_SQUARE,
    PLACES,
    ROWS,
    BackwardArrays,
    TypeTables,
)
from edbatch_tvm.native.build import load_library
from edbatch_tvm.native.cell_tables import REPEATED, CellTables, cell_tables


class NativeBackwardGraphs:
    """The fast way to a backward graph. Its forward graphs have nodes.

    Raises
    ------
    ImportError
        If TVM is missing.
    """

    def __init__(self) -> None:
        library = load_library("backward")
        self._backward = library["backward"]
        self._term_addresses = library["term_addresses"]

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
        arenas[:, ROWS] = np.array(plan.arena_rows) - 1
        schedule, n, outputs = plan.schedule, graph.num_nodes, types.cotangents.shape[1]
        entries, givens, most = len(graph.operand_value), len(given), types.sections.shape[1]
        places, operands = most_places(graph, types, cells)
        places += entries + givens
        externals = int(arenas[arenas[:, BACKWARD_ARENA] >= 0, ROWS].sum()) + givens
        made = BackwardArrays(
            np.empty(places + 1, np.int16),
            np.empty(places + 1, np.int32),
            np.empty(operands + entries + givens + 1, np.int32),
            np.empty(max(1, externals), np.int16),
            np.empty(max(1, externals), np.int32),
            np.empty(places + 1, np.int32),
            np.empty((n, outputs, 2), np.int32),
            np.empty((n, most), np.int32),
            np.empty(n, np.int32),
            np.empty(n, np.int32),
            np.empty(len(cells.cells) + 1, np.int32),
            np.empty(len(cells.cells), np.int32),
            np.empty(entries + 1, np.int32),
            np.empty(entries + 1, np.int32),
        )
        batches = len(schedule) * (len(arenas) + most + 1)
        work = 3 * n * (1 + outputs) + batches + max(len(cells.cells), len(arenas)) + types.specs + 3 * (entries + 1)
        work += 2 * givens
        io = np.zeros(3, np.int64)
        self._backward(
            stride,
            len(schedule),
            givens,
            int(detached is not None),
            types.specs,
            *forward_arguments(graph, plan),
            cells.output_arena,
            cells.cells,
            cells.operands,
            never_empty(graph.external_row),
            np.zeros(1, np.int8) if detached is None else as_argument(detached, np.int8),
            never_empty(given),
            types.sections,
            types.slots,
            types.reads,
            arenas,
            types.cotangents,
            np.empty(work, np.int32),
            *made,
            io,
        )
        found = io.tolist()
        made_nodes, uses = found[PLACES], found[EXTERNAL_USES]
        return made._replace(
            node_type=made.node_type[:made_nodes],
            operand_ptr=made.operand_ptr[: made_nodes + 1],
            operand_value=made.operand_value[: made.operand_ptr[made_nodes]],
            external_spec=made.external_spec[:externals],
            external_row=made.external_row[:externals],
            batch_ptr=made.batch_ptr[: found[BATCHES] + 1],
            node_order=made.node_order[: made.group_ptr[-1]],
            external_use=made.external_use[:uses],
            external_of=made.external_of[:uses],
        )

    def addresses(
        self,
        graph: InstanceGraph,
        plan: Plan,
        arrays: BackwardArrays,
        backward: Plan,
        terms: np.ndarray,
        starts: np.ndarray,
    ) -> np.ndarray:
        """The addresses of rows of the nodes that have cotangents, those of each type in the order of its nodes.

        Parameters
        ----------
        graph : InstanceGraph
            The forward graph.
        plan : Plan
            Its plan.
        arrays : BackwardArrays
        backward : Plan
            That of the backward graph.
        terms : int64 array of shape [k, TERM_COLUMNS]
            Which rows; see :mod:`edbatch_tvm.native.backward_tables`.
        starts : int64 array of shape [k + 1]
            Where those of each begin among the results, and how many these are.

        Returns
        -------
        int64 array
        """
        cells = cell_tables(signature_of(graph))
        addresses = np.empty(int(starts[-1]), np.int64)
        if len(addresses):
            self._term_addresses(
                graph.stride,
                backward.graph.stride,
                as_argument(graph.operand_ptr),
                never_empty(graph.operand_value),
                as_argument(plan.value_row),
                never_empty(graph.external_row),
                cells.cells,
                cells.operands,
                arrays.node_order,
                arrays.group_ptr,
                arrays.node_rank,
                arrays.place_of,
                arrays.cotangent,
                never_empty(backward.value_row),
                never_empty(arrays.external_row),
                terms,
                starts,
                addresses,
            )
        return addresses


def most_places(graph: InstanceGraph, types: TypeTables, cells: CellTables) -> tuple[int, int]:
    """The most nodes of sections, and operands of these, that there can be."""
    signature = signature_of(graph)
    amounts = np.zeros((len(signature), 3), np.int64)
    amounts[:, PER_NODE] = graph.type_count
    for type_id in np.flatnonzero((amounts[:, PER_NODE] > 0) & (cells.cells[:, REPEATED] > 0)).tolist():
        cell = signature[type_id]
        own = np.flatnonzero(graph.node_type == type_id)
        rows = (graph.operand_ptr[own + 1] - graph.operand_ptr[own] - cell.fixed_arity) // cell.variadic_count
        rows = rows.astype(np.int64)
        amounts[type_id, OF_EACH_ROW], amounts[type_id, PER_SQUARE] = rows.sum(), (rows * rows).sum()
    places, operands = (amounts.ravel() @ types.bounds.reshape(-1, 2)).tolist()
    return places, operands


def load() -> NativeBackwardGraphs:
    """The kernel, built if this machine has none yet.

    Raises
    ------
    ImportError
        If TVM is missing.
    """
    return NativeBackwardGraphs()

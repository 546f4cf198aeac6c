"""The kernels that plan backward passes without their graphs, with NumPy arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edbatch_tvm.graph import InstanceGraph, Signature
from edbatch_tvm.memory import Plan
from edbatch_tvm.memory.layout import signature_of
from edbatch_tvm.native.arguments import as_argument, forward_arguments, never_empty
from edbatch_tvm.native.backward_graphs import most_places
from edbatch_tvm.native.backward_tables import (
    NEW_BATCHES,
    NEW_IO_SLOTS,
    NEW_USES,
    ROWS,
    BackwardSteps,
    FoundSums,
    SumTables,
    TypeTables,
)
from edbatch_tvm.native.build import load_library
from edbatch_tvm.native.cell_tables import FILLED, cell_tables

_NO_FLAGS = np.zeros(1, np.int8)


class NativeBackwardSteps:
    """The fast way to a planned backward pass. Its forward graphs have nodes, its forward plans are ``batch``.

    Raises
    ------
    ImportError
        If TVM is missing.
    """

    def __init__(self) -> None:
        library = load_library("backward_steps")
        self._steps = library["backward_steps"]
        self._sums = library["gradient_tables"]

    def steps(
        self,
        graph: InstanceGraph,
        plan: Plan,
        given: np.ndarray,
        detached: np.ndarray | None,
        types: TypeTables,
        backward: Signature,
    ) -> BackwardSteps:
        """The tables of the backward pass of a minibatch.

        Parameters
        ----------
        graph : InstanceGraph
            The forward graph.
        plan : Plan
            Its plan, ``batch``.
        given : int array
            Rising values whose cotangents are given, each once.
        detached : bool array of shape [nodes] or None
            Nodes that have no cotangents, whoever uses them.
        types : TypeTables
        backward : Signature
        """
        cells, new = cell_tables(signature_of(graph)), cell_tables(backward)
        arenas = types.arenas.copy()
        arenas[:, ROWS] = plan.arena_rows
        arenas[:, ROWS] -= 1
        n, outputs, most = graph.num_nodes, types.cotangents.shape[1], types.sections.shape[1]
        entries, givens, batches = len(graph.operand_value), len(given), len(plan.steps)
        places, operands = most_places(graph, types, cells)
        width, kinds, new_types = len(arenas) + most, len(cells.cells), len(new.cells)
        columns = batches * width
        made = (
            np.empty((min(columns, places + entries + givens + 1), new.columns), np.int32),
            np.empty(2 * n * outputs + operands + 2 * (entries + givens) + places + new_types + 1, np.int32),
            np.empty(types.specs, np.int32),
            np.empty(new_types, np.int64),
            np.empty(n, np.int32),
            np.empty(kinds + 1, np.int32),
            np.empty(kinds, np.int32),
            np.empty(n, np.int32),
            np.empty((batches, width), np.int32),
            np.empty(entries + 1, np.int32),
            np.empty(entries + 1, np.int32),
        )
        work = (
            (6 + 2 * outputs) * n
            + entries
            + 1
            + columns
            + (6 + cells.operands.shape[1]) * batches
            + max(kinds, len(arenas))
            + len(arenas)
        )
        work += new_types * (4 + new.operands.shape[1])
        io = np.zeros(NEW_IO_SLOTS, np.int64)
        self._steps(
            batches,
            givens,
            int(detached is not None),
            types.specs,
            *forward_arguments(graph, plan),
            as_argument(plan.steps),
            as_argument(plan.index),
            cells.output_arena,
            cells.cells,
            cells.operands,
            never_empty(graph.external_row),
            _NO_FLAGS if detached is None else as_argument(detached, np.int8),
            never_empty(given),
            types.sections,
            types.slots,
            types.reads,
            arenas,
            types.cotangents,
            new.cells,
            new.operands,
            new.output_arena,
            np.empty(work, np.int32),
            *made,
            io,
        )
        counts = io.tolist()
        steps, rows, arena_rows, count, order, group_ptr, group_rows, rank, at, use, of = made
        cotangent, index = rows[: 2 * n * outputs], rows[2 * n * outputs :]
        if not counts[FILLED]:
            index[0] = 0
        uses = counts[NEW_USES]
        return BackwardSteps(
            steps[: counts[NEW_BATCHES]],
            index[: max(1, counts[FILLED])],
            arena_rows,
            count,
            cotangent,
            order,
            group_ptr,
            group_rows,
            rank,
            at,
            use[:uses],
            of[:uses],
            counts,
        )

    def sums(
        self,
        graph: InstanceGraph,
        plan: Plan,
        made: BackwardSteps,
        tables: SumTables,
        memory: np.ndarray,
        gradients: np.ndarray,
        room: int,
        segments: int,
        reads: Sequence[int],
    ) -> FoundSums:
        """The tables of the weight gradients of a minibatch.

        Parameters
        ----------
        graph : InstanceGraph
            The forward graph.
        plan : Plan
            Its plan.
        made : BackwardSteps
        tables : SumTables
        memory : int64 array of shape [memories, 2]
            Addresses, and bytes from row to row, of what is read.
        gradients : int64 array
            Addresses of gradients; the first is none.
        room : int
            How many addresses there are.
        segments : int
            How many there are at most.
        reads : sequence of int
            For each table how many rows are read.
        """
        cells = cell_tables(signature_of(graph))
        addresses, found = np.empty(max(1, room), np.int64), np.empty(max(1, segments), np.int64)
        starts, index = np.empty(len(tables.ends), np.int64), np.empty(max(1, sum(reads)), np.int64)
        steps = np.empty((len(tables.products), 5), np.int64)
        vectors = np.empty((len(tables.vectors), 8), np.int64)
        io = np.zeros(1 + len(tables.tables), np.int64)
        self._sums(
            graph.stride,
            len(made.cotangent_row) // (2 * graph.num_nodes),
            len(signature_of(graph).value_specs),
            *forward_arguments(graph, plan),
            never_empty(graph.external_row),
            cells.cells,
            cells.operands,
            made.steps,
            made.node_order,
            made.group_ptr,
            made.group_rows,
            made.node_rank,
            made.batch_at,
            made.cotangent_row,
            *tables,
            memory,
            gradients,
            np.empty((5, max(256, *reads, 0)), np.int64),
            starts,
            addresses,
            steps,
            vectors,
            found,
            index,
            io,
        )
        multiplies, *distinct = io.tolist()
        return FoundSums(starts, addresses, steps, vectors, found, index, distinct[: len(reads)], multiplies)


def load() -> NativeBackwardSteps:
    """The kernels, built if this machine has none yet.

    Raises
    ------
    ImportError
        If TVM is missing.
    """
    return NativeBackwardSteps()

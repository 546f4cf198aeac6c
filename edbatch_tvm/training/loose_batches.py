"""Batches of nodes that no edge joins, without their graph: of cells that take one row, or the number of one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edbatch_tvm.memory.steps_table import COUNT, TYPE, CellLayout
from edbatch_tvm.runtime.cpu_executor import CpuExecutor
from edbatch_tvm.runtime.model import Model
from edbatch_tvm.runtime.run_tables import RunTables


class LooseBatches:
    """Runs cells of a model for a CPU that have one output, and one operand or one attribute of int32.

    Attributes
    ----------
    model : Model
    """

    def __init__(self, model: Model) -> None:
        assert isinstance(model.executor, CpuExecutor)
        self.model = model
        self._executor = model.executor
        self._layouts = [CellLayout(1, len(cell.operands)) for cell in model.signature]

    def table(self, weight: str) -> np.ndarray:
        """A weight as kernels look rows up in it: rows may be padded."""
        kernels = self._executor.kernels
        return kernels.rooms(kernels.loaded, weight)[0]

    def run(self, batches: Sequence[tuple[str, np.ndarray]]) -> list[np.ndarray]:
        """The results of batches of different cells, which last as long as the arrays do.

        Parameters
        ----------
        batches : sequence of (str, array)
            The name of a cell, and its operand or attribute for each node.
        """
        if not batches:
            return []
        cells = self.model.signature
        specs = cells.value_specs
        steps = np.zeros((len(batches), max(layout.width for layout in self._layouts)), np.int32)
        external: list[list[np.ndarray]] = [[] for _ in specs]
        ends = [1] * len(specs)  # row 0 is the zero state; operands come before results
        rows_of: dict[int, np.ndarray] = {}
        counts = np.zeros(len(cells), np.int64)
        for step, (name, rows) in zip(steps, batches, strict=True):
            type_id = cells.type_id(name)
            step[TYPE], step[COUNT], counts[type_id] = type_id, len(rows), len(rows)
            if cells[type_id].operands:
                arena, layout = specs.index(cells[type_id].operands[0].spec), self._layouts[type_id]
                step[layout.base(0)], step[layout.stride(0)] = ends[arena], 1
                ends[arena] += len(rows)
                external[arena].append(rows)
            else:
                rows_of[type_id] = np.ascontiguousarray(rows, np.int32)
        places = []
        for step in steps:
            cell, layout = cells[int(step[TYPE])], self._layouts[step[TYPE]]
            arena = specs.index(cell.outputs[0])
            places.append((arena, ends[arena], ends[arena] + int(step[COUNT]), cell.outputs[0].size))
            step[layout.output(0)] = ends[arena]
            ends[arena] += int(step[COUNT])
        tables = RunTables(
            steps,
            np.zeros(1, np.int32),
            tuple(ends),
            int(counts.max()),
            0,
            counts,
            lambda type_id, _: rows_of[type_id],
        )
        given = [_joined(rows) for rows in external]
        views, _ = self._executor.run_tables(tables, given)
        return [views[arena][begin:end, :size] for arena, begin, end, size in places]


def _joined(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Rows as one array."""
    if not rows:
        return np.empty(0, np.float32)
    return rows[0] if len(rows) == 1 else np.concatenate(rows)

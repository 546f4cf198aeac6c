"""A signature as integer tables, for the planning kernels."""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import numpy as np

from edbatch_tvm.graph.spec import Signature
from edbatch_tvm.memory.layout import row_bytes
from edbatch_tvm.memory.plan_tables import step_columns
from edbatch_tvm.memory.steps_table import CellLayout

WIDTH, OPERANDS, FIXED, REPEATED, BOUND = range(5)
"""Columns of ``cells``: numbers of outputs and operands, fixed arity, number of variadic operands, and of attributes
that are rows of tables."""

FIXED_BEFORE, REPEATED_BEFORE, VARIADIC, ROW_BYTES = range(4)
"""Columns of ``operands``: fixed and variadic operands before this one, whether it is variadic, bytes of its rows."""

COUNTS, BYTES, FILLED, LOOKUPS, LARGEST, MOST_ROWS, IO_SLOTS = 0, 3, 4, 5, 6, 7, 8
"""Slots of the results of ``fill``: three counts of operands, bytes indexed, the length of the index, attributes that
are rows of tables (one of a batch counts once), nodes of the largest batch, variadic rows of that which has most."""

WEIGHTS = 64
"""Requests are ranked by the number of bits of their size."""


@dataclass(frozen=True, eq=False)
class CellTables:
    """The tables of one signature.

    Attributes
    ----------
    cells : int32 array of shape [types, 5]
    operands : int32 array of shape [types, most operands of a cell, 4]
    output_arena : int32 array of shape [types, stride]
    columns : int
        Columns of the steps table.
    """

    cells: np.ndarray
    operands: np.ndarray
    output_arena: np.ndarray
    columns: int


_TABLES: dict[int, tuple[weakref.ref[Signature], CellTables]] = {}


def cell_tables(signature: Signature) -> CellTables:
    """The tables of `signature`; made once for each object, since hashing one takes longer than planning."""
    found = _TABLES.get(id(signature))
    if found is not None and found[0]() is signature:
        return found[1]
    tables = _make(signature)
    key = id(signature)
    _TABLES[key] = weakref.ref(signature, lambda _: _TABLES.pop(key, None)), tables
    return tables


def _make(signature: Signature) -> CellTables:
    most = max(1, *(len(cell.operands) for cell in signature))
    cells = np.zeros((len(signature), 5), np.int32)
    operands = np.zeros((len(signature), most, 4), np.int32)
    for type_id, cell in enumerate(signature):
        bound = sum(attribute.bound is not None for attribute in cell.attributes)
        cells[type_id] = len(cell.outputs), len(cell.operands), cell.fixed_arity, cell.variadic_count, bound
        before = [0, 0]
        for number, operand in enumerate(cell.operands):
            operands[type_id, number] = *before, operand.variadic, row_bytes(operand.spec)
            before[operand.variadic] += 1
    layouts = [CellLayout(len(cell.outputs), len(cell.operands)) for cell in signature]
    return CellTables(cells, operands, np.ascontiguousarray(signature.output_arena), step_columns(layouts))

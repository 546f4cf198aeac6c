"""The steps table: one int32 row per batch, from which kernels and the executor read where everything lies.

========================= ==========================================================================================
column                    content
========================= ==========================================================================================
``TYPE``                  type id of the batch
``COUNT``                 n, its number of nodes
``FIRST``                 position of its first node among the nodes of the type, in schedule order: where its
                          attribute rows begin
``POINTER``               where its n + 1 offsets of variadic operands begin in `index`; 0 for a cell without
``CellLayout.output(s)``  first row of output s in its arena; the n results lie in consecutive rows
``CellLayout.base(o)``    operand o: with ``CellLayout.stride(o)`` = 1, its rows are base, base + 1, ... (contiguous);
                          with 0, always base (broadcast); with -1, ``index[base]``, ``index[base + 1]``, ... (indexed)
========================= ==========================================================================================

For a variadic operand, instance i of the batch has rows number ``index[POINTER + i]`` to ``index[POINTER + i + 1]``
(counted over all nodes of the type), and row number p is ``base + p``, ``base`` or ``index[base + p]``.
"""

from __future__ import annotations

from dataclasses import dataclass

TYPE, COUNT, FIRST, POINTER, OUTPUTS = range(5)

CONTIGUOUS, BROADCAST, INDEXED = 1, 0, -1
"""Strides of operands."""


@dataclass(frozen=True)
class CellLayout:
    """Columns of the steps table for a cell with these numbers of outputs and operands."""

    outputs: int
    operands: int

    def output(self, slot: int) -> int:
        """Column of the first row of output `slot`."""
        return OUTPUTS + slot

    def base(self, operand: int) -> int:
        """Column of the base of an operand."""
        return OUTPUTS + self.outputs + 2 * operand

    def stride(self, operand: int) -> int:
        """Column of the stride of an operand."""
        return self.base(operand) + 1

    @property
    def width(self) -> int:
        """Number of columns used."""
        return self.base(self.operands)

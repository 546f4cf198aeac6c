"""How a kernel is called: its arguments, and the columns of the steps table it reads.

Every kernel has the signature ``kernel(step, steps, index, ...)``. Row `step` of the int32 matrix `steps` describes
one batch; `index` is one int32 vector that holds the rows of all indexed operands of the schedule. So the arguments
of a kernel are the same for every batch of a schedule but for `step`, and a schedule is uploaded once.

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

The further arguments of a kernel are listed, in order, in its attribute :data:`ARGUMENTS`, each by a kind and a name.
"""

from __future__ import annotations

from dataclasses import dataclass

TYPE, COUNT, FIRST, POINTER, _OUTPUTS = range(5)

ARGUMENTS = "edbatch.arguments"
"""Attribute of a kernel: its arguments after (step, steps, index) as texts ``kind:name``, where kind is

* ``arena``: the arena of that number, ``[rows, padded_width(spec)]``;
* ``attribute``: attribute of that number of the cell, in schedule order, ``[nodes of the type, elements]``;
* ``table``: that weight with rows padded to :data:`LANES` elements;
* ``weight``: that weight as it is;
* ``packed``: the packed weights that the kernel ``<name>`` writes;
* ``scratch``: workspace of that name, ``[largest batch, padded width]``.
"""

LANES = 16
"""Rows of arenas are padded to this many elements (64 bytes of float32)."""

ALIGNMENT = 64
"""Bytes that buffers are aligned to; generated code assumes it and nobody checks."""


@dataclass(frozen=True)
class CellLayout:
    """Columns of the steps table for a cell with so many outputs and operands."""

    outputs: int
    operands: int

    def output(self, slot: int) -> int:
        """Column of the first row of output `slot`."""
        return _OUTPUTS + slot

    def base(self, operand: int) -> int:
        """Column of the base of an operand."""
        return _OUTPUTS + self.outputs + 2 * operand

    def stride(self, operand: int) -> int:
        """Column of the stride of an operand."""
        return self.base(operand) + 1

    @property
    def width(self) -> int:
        """Number of columns used."""
        return self.base(self.operands)


def padded(size: int, lanes: int = LANES) -> int:
    """`size` rounded up to a multiple of `lanes`."""
    return -(-size // lanes) * lanes


@dataclass(frozen=True)
class CellBinding:
    """Where a cell's values live: what a kernel has to know beyond its own formulas.

    Attributes
    ----------
    type_id : int
    output_arena, operand_arena : tuple of int
        Arena of each output and operand.
    arena_width, arena_dtype : tuple
        Padded row width and dtype of every arena of the model.
    attribute_size, attribute_dtype : tuple
        Elements of one attribute row, and dtype.
    """

    type_id: int
    output_arena: tuple[int, ...]
    operand_arena: tuple[int, ...]
    arena_width: tuple[int, ...]
    arena_dtype: tuple[str, ...]
    attribute_size: tuple[int, ...]
    attribute_dtype: tuple[str, ...]

    @property
    def layout(self) -> CellLayout:
        """The cell's columns of the steps table."""
        return CellLayout(len(self.output_arena), len(self.operand_arena))

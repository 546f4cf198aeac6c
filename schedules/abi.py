"""How a kernel is called.

Every kernel has the signature ``kernel(step, steps, index, ...)``. Row `step` of the int32 matrix `steps` describes
one batch (see :mod:`edbatch_tvm.memory.steps_table`); `index` is one int32 vector that holds the rows of all indexed
operands of the schedule. So the arguments of a kernel are the same for every batch of a schedule but for `step`, and
a schedule is uploaded once. The further arguments of a kernel are listed in its attribute :data:`ARGUMENTS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from edbatch_tvm.memory.steps_table import COUNT, FIRST, POINTER, TYPE, CellLayout

ARGUMENTS = "edbatch.arguments"
"""Attribute of a kernel: its arguments after (step, steps, index) as texts ``kind:name``, where kind is

* ``arena``: the arena of that number, ``[rows, padded_width(spec)]``;
* ``attribute``: attribute of that number of the cell, in schedule order, ``[nodes of the type, elements]``;
* ``table``: that weight as :func:`table_shape` rows, padded to :data:`LANES` elements;
* ``weight``: that weight as it is;
* ``packed``: the packed weights that the kernel ``<name>`` writes;
* ``scratch``: workspace of that name, ``[largest batch, padded width]``, or with a row for each variadic row of the
  batch that has most.
"""

LANES = 16
"""Rows of arenas are padded to this many elements (64 bytes of float32)."""

ALIGNMENT = 64
"""Bytes that buffers are aligned to; generated code assumes it without a check."""


def padded(size: int, lanes: int = LANES) -> int:
    """`size` rounded up to a multiple of `lanes`."""
    return -(-size // lanes) * lanes


def table_shape(extents: Sequence[int]) -> tuple[int, int]:
    """Rows, and elements of a padded row, of a table with these extents."""
    return extents[0], padded(prod(extents[1:]))


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


__all__ = [
    "ALIGNMENT",
    "ARGUMENTS",
    "COUNT",
    "FIRST",
    "LANES",
    "POINTER",
    "TYPE",
    "CellBinding",
    "CellLayout",
    "padded",
    "table_shape",
]

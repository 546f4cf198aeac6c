"""Stage IR: what one stage kernel computes, independent of target and tiling.

A stage is a set of contractions over rows that are ready when it starts, followed by element-wise code (the
*epilogue*) on their results. For one instance, and for every column ``j`` of ``columns``::

    accumulator[g] = sum over passes of gate g, sum over k:  source[k + offset] * weight(k, j)
    row_sum[s]     = sum over the rows p of the variadic operands:  expression(p, j)
    let_0 = expression(j); let_1 = ...                      # in order
    output[o][j]   = expression(j)

Expressions are TIR scalars over *leaves*: variables that stand for one element each, see :data:`Leaf`.
``relay_ext.find_stages`` finds the stages of a cell; ``schedules.cpu`` and ``schedules.cuda`` turn them into kernels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

COLUMN = "j"
"""Name of the variable that stands for the column."""


@dataclass(frozen=True)
class Operand:
    """Rows that another cell call produced, read through the batch's operand `index`."""

    index: int


@dataclass(frozen=True)
class Variadic:
    """Rows of the variadic operand `index`; ``p`` runs over the rows of one instance."""

    index: int


@dataclass(frozen=True)
class Lookup:
    """Rows of the weight table `weight`, chosen by element `position` of attribute `attribute`."""

    weight: str
    attribute: int
    position: int = 0


@dataclass(frozen=True)
class Scratch:
    """Rows that an earlier stage of the same cell call wrote."""

    name: str


Source = Operand | Variadic | Lookup | Scratch
"""Where a row comes from."""


@dataclass(frozen=True)
class Element:
    """Element of a row: column ``offset + j`` if `moving`, else column `offset`."""

    source: Source
    offset: int
    moving: bool


@dataclass(frozen=True)
class Vector:
    """Element j of vector `index` of the stage: an expression of weights alone, such as a bias."""

    index: int


@dataclass(frozen=True)
class Accumulator:
    """Result of the contractions of gate `gate` at column j."""

    gate: int


@dataclass(frozen=True)
class RowSum:
    """Result of reduction `index` over the rows of the variadic operands at column j."""

    index: int


@dataclass(frozen=True)
class RowCount:
    """Number of rows of the variadic operands of this instance (``k``)."""


@dataclass(frozen=True)
class AttributeValue:
    """Element `position` of attribute `attribute`, as a number."""

    attribute: int
    position: int


Leaf = Element | Vector | Accumulator | RowSum | RowCount | AttributeValue
"""What a leaf variable of an expression stands for."""


@dataclass(frozen=True)
class Pass:
    """One sweep over the elements of a row: ``sum over k < length of source[offset + k] * weight(k, j)``.

    ``weight`` is a TIR expression of the weight buffers in the variables `k` and the stage's column variable.
    """

    source: Source
    offset: int
    length: int
    k: Any
    weight: Any


@dataclass(frozen=True)
class Gate:
    """A contraction: the sum of its passes."""

    passes: tuple[Pass, ...]


@dataclass(frozen=True)
class Output:
    """A result of the stage: output `slot` of the cell, or scratch rows called `scratch`."""

    expression: Any
    slot: int = -1
    scratch: str = ""


@dataclass(frozen=True)
class Stage:
    """One stage of a cell; see the module's docstring.

    Attributes
    ----------
    cell : str
        Name of the cell.
    name : str
        Name of the kernel.
    columns : int
        Number of columns of every output.
    column : tirx.Var
        The variable of the column in expressions.
    vectors : tuple of expressions
        Weights-only expressions of the column.
    row_sums, lets : tuple of (variable, expression)
    leaves : dict from variable to Leaf
    """

    cell: str
    name: str
    columns: int
    column: Any
    gates: tuple[Gate, ...]
    vectors: tuple[Any, ...]
    row_sums: tuple[Any, ...]
    lets: tuple[tuple[Any, Any], ...]
    outputs: tuple[Output, ...]
    leaves: dict[Any, Leaf] = field(hash=False)

    @property
    def sources(self) -> tuple[Source, ...]:
        """Every source the stage reads, in order of first use."""
        found: dict[Source, None] = {}
        for gate in self.gates:
            for sweep in gate.passes:
                found.setdefault(sweep.source)
        for leaf in self.leaves.values():
            if isinstance(leaf, Element):
                found.setdefault(leaf.source)
        return tuple(found)

    def __str__(self) -> str:
        lines = [f"stage {self.name}: {self.columns} columns"]
        for number, gate in enumerate(self.gates):
            lines.extend(
                f"  accumulator {number} += {_source(s.source)}[{s.offset}:{s.offset + s.length}] * ({s.weight})"
                for s in gate.passes
            )
        for number, vector in enumerate(self.vectors):
            lines.append(f"  vector {number} = {vector}")
        names = {variable: f"{variable.name}" for variable in self.leaves}
        for variable, leaf in self.leaves.items():
            if isinstance(leaf, Element):
                at = f"{leaf.offset} + j" if leaf.moving and leaf.offset else "j" if leaf.moving else f"{leaf.offset}"
                lines.append(f"  {names[variable]} = {_source(leaf.source)}[{at}]")
            else:
                lines.append(f"  {names[variable]} = {leaf}")
        lines.extend(f"  {_name(variable)} = sum over p: {expression}" for variable, expression in self.row_sums)
        lines.extend(f"  {_name(variable)} = {expression}" for variable, expression in self.lets)
        for output in self.outputs:
            target = output.scratch or f"output {output.slot}"
            lines.append(f"  {target} = {output.expression}")
        return "\n".join(lines)


def _name(variable: Any) -> str:
    return str(variable.name)


def _source(source: Source) -> str:
    match source:
        case Operand(index):
            return f"operand{index}"
        case Variadic(index):
            return f"operand{index}[p]"
        case Lookup(weight, attribute, position):
            return f"{weight}[attribute{attribute}{f'.{position}' if position else ''}]"
        case Scratch(name):
            return f"scratch {name!r}"

"""Stage IR: what one stage kernel computes, independent of target and tiling.

A stage is a set of contractions over rows that are ready when it starts, followed by element-wise code (the
*epilogue*) on their results. It runs once for every element of its *domain*:

* ``instances``: the n instances of the batch;
* ``rows``: the rows p of the variadic operands of all instances of the batch, one after another. Values of an instance
  are read at the instance that owns the row: the last one whose offset in ``index`` is not greater than p's.

For one element of the domain, for every row ``i`` of ``rows`` (1 for vectors; a stage of matrices has more) and every
column ``j`` of ``columns``::

    accumulator[g] = sum over the passes of gate g, sum over k:  left(i, k, j) * right(i, k, j)
    for each line of the body, in order:
        let:               y = expression(i, j)
        reduction:         s = sum (or max, min) over the rows p of this instance:  expression(p, i, j)
        column reduction:  s = sum (or max, min) over the columns j:  expression(i, j), one value for all columns
        row value:         s[p] = expression(p, i), or its sum (max, min) over columns, for the rows p of this instance
    output[o][i, j] = expression(i, j)

A stage of the domain ``rows`` has no reductions; what it writes are scratch rows, one for each variadic row, which a
later stage of the domain ``instances`` reduces. So the forget gates of a child-sum TreeLSTM, one for each child, are a
stage over rows, and the sum over children belongs to the next.

Column reductions make soft-max, normalisation and dot products part of a stage: a tile of it computes whole rows, which
stay in the first-level cache (or registers) between the reductions.

Row values are what attention needs: the scores of an instance's rows, their exponentials, the weights. Each is one
number for a row, so that the whole of ``softmax(scores) @ rows`` is one stage over instances.

Expressions are TIR scalars over *leaves*: variables that stand for one element each, see :data:`Leaf`.
``relay_ext.find_stages`` finds the stages of a cell; ``schedules.cpu`` and ``schedules.cuda`` turn them into kernels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

COLUMN, ROW = "j", "i"
"""Names of the variables that stand for the column and for the row of a matrix."""

Domain = Literal["instances", "rows"]
Combine = Literal["sum", "max", "min", "prod"]


@dataclass(frozen=True)
class StageOperand:
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
    """Rows that an earlier stage of the same cell call wrote: one per instance, or one per variadic row."""

    name: str
    domain: Domain = "instances"
    dtype: str = "float32"


Source = StageOperand | Variadic | Lookup | Scratch
"""Where a row comes from."""


@dataclass(frozen=True)
class Element:
    """Element of a row: column ``offset + row * i + j`` if `moving`, else column ``offset + row * i``."""

    source: Source
    offset: int
    moving: bool
    row: int = 0


@dataclass(frozen=True)
class Vector:
    """Element (i, j) of vector `index` of the stage: an expression of weights alone, such as a bias."""

    index: int


@dataclass(frozen=True)
class Accumulator:
    """Result of the contractions of gate `gate` at column j."""

    gate: int


@dataclass(frozen=True)
class RowCount:
    """Number of rows of the variadic operands of this instance (``k``)."""


@dataclass(frozen=True)
class AttributeValue:
    """Element `position` of attribute `attribute`, of the dtype of its variable."""

    attribute: int
    position: int


@dataclass(frozen=True)
class Column:
    """Number of the column, of the stage's dtype."""


Leaf = Element | Vector | Accumulator | RowCount | AttributeValue | Column
"""What a leaf variable of an expression stands for."""


@dataclass(frozen=True)
class Pass:
    """A value's row times a weight: ``sum over k < length of source[offset + row * i + k] * weight(k, j)``.

    ``weight`` is a TIR expression of the weight buffers in the variables `k` and the stage's column variable.
    """

    source: Source
    offset: int
    length: int
    k: Any
    weight: Any
    row: int = 0


@dataclass(frozen=True)
class Read:
    """Element ``offset + row * i + step * k + column * j`` of a row of `source`."""

    source: Source
    offset: int
    row: int
    step: int
    column: int


@dataclass(frozen=True)
class Product:
    """Any other contraction: ``sum over k < length of left(i, k) * right(k, j)``.

    Attributes
    ----------
    left : Read or TIR expression
        What does not depend on the column: elements of a value, or an expression of weights in the variables `k` and
        the stage's row variable.
    right : Read
        Elements of a value; ``column`` is 1 (the columns lie side by side: ``M = W [M_l; M_r]``), or ``step`` is 1
        for both (the elements of the sum do: ``M v``).
    """

    length: int
    k: Any
    left: Any
    right: Read


@dataclass(frozen=True)
class Gate:
    """A contraction: the sum of its passes."""

    passes: tuple[Pass | Product, ...]


@dataclass(frozen=True)
class Let:
    """``variable = expression``."""

    variable: Any
    expression: Any


@dataclass(frozen=True)
class Reduction:
    """``variable = sum (max, min, prod) of expression`` over the variadic rows of an instance.

    Over no rows it is the `identity`: 0 for a sum, 1 for a product.
    """

    variable: Any
    expression: Any
    combine: Combine = "sum"
    identity: float = 0.0


@dataclass(frozen=True)
class ColumnReduction:
    """``variable = sum (max, min) of expression`` over the columns of a row, the same for all of them.

    Where a vector has more elements than there are columns, those beyond do not count.
    """

    variable: Any
    expression: Any
    combine: Combine = "sum"
    identity: float = 0.0


@dataclass(frozen=True)
class RowValue:
    """``variable = expression`` for each variadic row of an instance: one number, kept in scratch rows of its own.

    With `combine` it is the sum (max, min) of the expression over `columns` columns, which need not be the stage's.
    """

    variable: Any
    expression: Any
    scratch: str
    combine: Combine | None = None
    identity: float = 0.0
    columns: int = 1


Line = Let | Reduction | ColumnReduction | RowValue
"""A line of a stage's body."""


@dataclass(frozen=True)
class Output:
    """A result of the stage: output `slot` of the cell, or scratch rows called `scratch`.

    If it is `narrow`, it has one element for each row, which does not depend on the column. With `begin`, it is the
    part of the output that begins at this column.
    """

    expression: Any
    slot: int = -1
    scratch: str = ""
    narrow: bool = False
    begin: int | None = None


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
        Number of columns of every output that is not narrow, or of its part.
    column : tirx.Var
        The variable of the column in expressions.
    gates : tuple of Gate
    vectors : tuple of expressions
        Weights-only expressions of column and row.
    body : tuple of Line
    outputs : tuple of Output
    leaves : dict from variable to Leaf
    domain : {"instances", "rows"}
    rows : int
        Rows of every output: an element of the domain has ``rows * columns`` elements, row by row.
    row : tirx.Var
        The variable of the row in expressions.
    dtype : str
        Of accumulators, packed weights, reductions and outputs. Elements of other dtypes occur in casts only.
    """

    cell: str
    name: str
    columns: int
    column: Any
    gates: tuple[Gate, ...]
    vectors: tuple[Any, ...]
    body: tuple[Line, ...]
    outputs: tuple[Output, ...]
    leaves: dict[Any, Leaf] = field(hash=False)
    domain: Domain = "instances"
    rows: int = 1
    row: Any = None
    dtype: str = "float32"

    @property
    def reductions(self) -> tuple[Reduction, ...]:
        """The reductions of the body."""
        return tuple(line for line in self.body if isinstance(line, Reduction))

    @property
    def whole_rows(self) -> bool:
        """Whether a tile has to compute all columns of its rows."""
        return any(isinstance(line, ColumnReduction | RowValue) for line in self.body)

    @property
    def work(self) -> int:
        """About how many multiplications an element of the domain takes: a line of the body counts as one."""
        products = sum(one.length for gate in self.gates for one in gate.passes)
        return self.rows * self.columns * (products + len(self.body) + len(self.outputs))

    @property
    def row_values(self) -> tuple[RowValue, ...]:
        """The row values of the body."""
        return tuple(line for line in self.body if isinstance(line, RowValue))

    @property
    def sources(self) -> tuple[Source, ...]:
        """Every source the stage reads, in order of first use."""
        found: dict[Source, None] = {}
        for gate in self.gates:
            for one in gate.passes:
                for source in _sources(one):
                    found.setdefault(source)
        for leaf in self.leaves.values():
            if isinstance(leaf, Element):
                found.setdefault(leaf.source)
        return tuple(found)

    def __str__(self) -> str:
        over = "" if self.domain == "instances" else " over variadic rows"
        shape = f"{self.rows} x {self.columns}" if self.rows > 1 else str(self.columns)
        dtype = "" if self.dtype == "float32" else f" of {self.dtype}"
        lines = [f"stage {self.name}{over}: {shape} columns{dtype}"]
        for number, gate in enumerate(self.gates):
            lines.extend(f"  accumulator {number} += {_pass(one)}" for one in gate.passes)
        for number, vector in enumerate(self.vectors):
            lines.append(f"  vector {number} = {vector}")
        for variable, leaf in self.leaves.items():
            if isinstance(leaf, Element):
                at = _position(leaf.offset, (leaf.row, ROW), (int(leaf.moving), COLUMN))
                lines.append(f"  {variable.name} = {_source(leaf.source)}[{at}]")
            else:
                lines.append(f"  {variable.name} = {leaf}")
        lines.extend(f"  {line.variable.name} = {_over(line)}{line.expression}" for line in self.body)
        for output in self.outputs:
            target = output.scratch or f"output {output.slot}"
            target += " (one a row)" if output.narrow else ""
            target += "" if output.begin is None else f"[{output.begin}:{output.begin + self.columns}]"
            lines.append(f"  {target} = {output.expression}")
        return "\n".join(lines)


def _over(line: Line) -> str:
    match line:
        case Reduction():
            return f"{line.combine} over p: "
        case ColumnReduction():
            return f"{line.combine} over {COLUMN}: "
        case RowValue():
            over = "" if line.combine is None else f", {line.combine} over {COLUMN} < {line.columns}"
            return f"for each p{over}: "
    return ""


def _sources(one: Pass | Product) -> list[Source]:
    if isinstance(one, Pass):
        return [one.source]
    return [read.source for read in (one.left, one.right) if isinstance(read, Read)]


def _pass(one: Pass | Product) -> str:
    if isinstance(one, Pass):
        at = _position(one.offset, (one.row, ROW))
        end = _position(one.offset + one.length, (one.row, ROW))
        return f"{_source(one.source)}[{at}:{end}] * ({one.weight})"
    left = _read(one.left) if isinstance(one.left, Read) else f"({one.left})"
    return f"sum over k < {one.length}: {left} * {_read(one.right)}"


def _read(read: Read) -> str:
    return f"{_source(read.source)}[{_position(read.offset, (read.row, ROW), (read.step, 'k'), (read.column, COLUMN))}]"


def _position(offset: int, *strides: tuple[int, str]) -> str:
    terms = [name if stride == 1 else f"{stride} * {name}" for stride, name in strides if stride]
    return " + ".join([str(offset)] * bool(offset or not terms) + terms)


def _source(source: Source) -> str:
    match source:
        case StageOperand(index):
            return f"operand{index}"
        case Variadic(index):
            return f"operand{index}[p]"
        case Lookup(weight, attribute, position):
            return f"{weight}[attribute{attribute}{f'.{position}' if position else ''}]"
        case Scratch(name, domain, _):
            return f"scratch {name!r}{'[p]' if domain == 'rows' else ''}"

"""What the passes know of Relax operators, in one table; the sets that passes ask for follow from it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto


class OpKind(Enum):
    """What an operator does with the elements of its tensors."""

    ELEMENTWISE = auto()
    """An element of the result depends on the elements at its place."""

    VIEW = auto()
    """The result has elements of its tensor, none computed."""

    ALONG_AXIS = auto()
    """One axis is joined, divided or normalised."""

    REDUCTION = auto()
    """Axes go away."""

    CONTRACTION = auto()
    """Sums of products."""


@dataclass(frozen=True)
class Op:
    """One row of the table.

    Attributes
    ----------
    name : str
        Without ``relax.``.
    kind : OpKind
    tensors : int
        How many it takes; a tuple counts as one.
    joins : bool
        Calls on tensors of equal shape may run as one, and a call may be divided into one for each part of the result
        (``GroupOps``, ``PushSplits``).
    keeps_order : bool
        A view with all elements in their order (``DropUnitDims`` moves it through other operators).
    in_place : bool
        A view that is read where its tensor lies (``SplitCells``).
    maps_rows : bool
        There is a form for one row of variadic operands (:mod:`relay_ext.row_ops`).
    """

    name: str
    kind: OpKind
    tensors: int = 1
    joins: bool = False
    keeps_order: bool = False
    in_place: bool = False
    maps_rows: bool = False


def _elementwise(names: str, tensors: int, joins: bool) -> list[Op]:
    return [Op(name, OpKind.ELEMENTWISE, tensors, joins=joins, maps_rows=True) for name in names.split()]


OPS = {
    op.name: op
    for op in (
        *_elementwise("abs erf exp log negative sigmoid sqrt tanh nn.relu nn.gelu nn.silu", 1, joins=True),
        *_elementwise("ceil clip cos floor round rsqrt sign sin square nn.gelu_tanh nn.leakyrelu", 1, joins=False),
        *_elementwise("add divide maximum minimum multiply subtract", 2, joins=True),
        *_elementwise("power", 2, joins=False),
        Op("reshape", OpKind.VIEW, keeps_order=True, in_place=True, maps_rows=True),
        Op("squeeze", OpKind.VIEW, keeps_order=True, in_place=True),
        Op("expand_dims", OpKind.VIEW, keeps_order=True, in_place=True),
        Op("flatten", OpKind.VIEW, keeps_order=True),
        Op("strided_slice", OpKind.VIEW, in_place=True),
        Op("concat", OpKind.ALONG_AXIS, maps_rows=True),
        Op("split", OpKind.ALONG_AXIS, maps_rows=True),
        Op("nn.softmax", OpKind.ALONG_AXIS, maps_rows=True),
        Op("nn.log_softmax", OpKind.ALONG_AXIS, maps_rows=True),
        Op("sum", OpKind.REDUCTION),
        Op("mean", OpKind.REDUCTION),
        Op("max", OpKind.REDUCTION),
        Op("min", OpKind.REDUCTION),
        Op("matmul", OpKind.CONTRACTION, 2, joins=True, maps_rows=True),
    )
}
"""By name. An operator that is not here is compiled like any other; no pass rewrites it by its kind."""

ELEMENTWISE = frozenset(f"relax.{op.name}" for op in OPS.values() if op.kind is OpKind.ELEMENTWISE)
REDUCTIONS = frozenset(f"relax.{op.name}" for op in OPS.values() if op.kind is OpKind.REDUCTION)
ORDERED_VIEWS = frozenset(f"relax.{op.name}" for op in OPS.values() if op.keeps_order)
VIEWS_IN_PLACE = frozenset(f"relax.{op.name}" for op in OPS.values() if op.in_place)

_JOINED = [op for op in OPS.values() if op.joins and op.kind is OpKind.ELEMENTWISE]
JOINED_UNARY = frozenset(op.name for op in _JOINED if op.tensors == 1)
JOINED_BINARY = frozenset(op.name for op in _JOINED if op.tensors == 2)

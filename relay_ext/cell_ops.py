"""The operators of one cell as a small graph: what can be batched with what inside the cell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from tvm import relax

from edbatch_tvm.batching.search import SearchPolicy
from edbatch_tvm.graph import InstanceGraph
from edbatch_tvm.tvm_compat import GenericConst, TensorType, tirx
from relay_ext.op_table import JOINED_BINARY, JOINED_UNARY
from relay_ext.signature import input_params, weight_params

SEARCH_WIDTH = 1 << 14
"""Beam of the search for the fewest groups; wider than a cell has states, so that it is exhaustive."""


@dataclass(frozen=True)
class CellOp:
    """One operator call of a cell.

    Attributes
    ----------
    index : int
        Position in the body.
    var : relax.Var
        What it is bound to.
    kind : str
        Operator name without ``relax.``.
    call : relax.Call
    values, weights : tuple of int
        Positions of the arguments that are values of the instance, and of those that are weights. An argument in
        neither is a constant.
    signature : str
        Operators of equal signature can run as one; empty for one that is left alone.
    reads : tuple of relax.Var
        The values of the instance it reads, those inside tuples included.
    """

    index: int
    var: Any
    kind: str
    call: Any
    values: tuple[int, ...]
    weights: tuple[int, ...]
    signature: str
    reads: tuple[Any, ...]

    @property
    def size(self) -> int:
        """Elements of the result."""
        size = 1
        for extent in self.var.ty.shape.values:
            size *= int(extent)
        return size


@dataclass(frozen=True, eq=False)
class CellOps:
    """The operator calls of a cell in order, apart from those on weights alone, which are computed at load."""

    ops: list[CellOp]
    of_weights: list[tuple[Any, Any]]


def read_ops(function: relax.Function) -> CellOps | None:
    """The operator calls of a cell, or None for a body of another form (tuples, nested calls, blocks)."""
    weights, inputs = list(weight_params(function)), input_params(function)
    if not isinstance(function.body, relax.SeqExpr):
        return None
    ops: list[CellOp] = []
    of_weights: list[tuple[Any, Any]] = []
    for block in function.body.blocks:
        for binding in block.bindings:
            call = binding.value
            if not isinstance(call, relax.Call) or not isinstance(call.op, tvm.ir.Op):
                return None
            if not isinstance(call.ty, TensorType) or not all(_is_simple(argument) for argument in call.args):
                return None
            kind = call.op.name.removeprefix("relax.")
            is_weight = [any(argument.same_as(weight) for weight in weights) for argument in call.args]
            is_value = [isinstance(a, relax.Var) and not w for a, w in zip(call.args, is_weight, strict=True)]
            read = [v for v in relax.analysis.free_vars(call) if not isinstance(v, tvm.ir.GlobalVar)]
            values = tuple(v for v in read if not any(v.same_as(weight) for weight in weights))
            if read and not values:
                weights.append(binding.var)
                of_weights.append((binding.var, call))
                continue
            ops.append(
                CellOp(
                    len(ops),
                    binding.var,
                    kind,
                    call,
                    tuple(np.flatnonzero(is_value).tolist()),
                    tuple(np.flatnonzero(is_weight).tolist()),
                    _signature(kind, call, is_weight, inputs),
                    values,
                )
            )
    return CellOps(ops, of_weights)


def _is_simple(argument: Any) -> bool:
    if isinstance(argument, relax.Tuple):
        return not any(isinstance(field, relax.Call | relax.Tuple) for field in argument.fields)
    if isinstance(argument, relax.ShapeExpr):
        return True
    return isinstance(argument, relax.Var | GenericConst) and isinstance(argument.ty, TensorType)


def _shape(argument: Any) -> tuple[int, ...] | None:
    extents = argument.ty.shape.values
    return tuple(int(e) for e in extents) if all(isinstance(e, tirx.IntImm) for e in extents) else None


def _signature(kind: str, call: Any, is_weight: list[bool], inputs: list[Any]) -> str:
    """What has to agree for two calls to run as one; empty where the rewrite has no rule.

    Products of a cell's input with weights agree only if the input is the same: joining those of two inputs would save
    a kernel and cost one, to gather the inputs. Computed inputs may lie side by side, and then are read in place.
    """
    if kind != "matmul" and kind not in JOINED_UNARY | JOINED_BINARY:
        return ""
    shapes = [_shape(argument) for argument in call.args]
    parts = [kind, str(call.ty.dtype)]
    if kind == "matmul":
        product = is_weight == [False, True] and None not in shapes and [len(s or ()) for s in shapes] == [1, 2]
        values = is_weight == [False, False] and None not in shapes and [len(s or ()) for s in shapes] == [2, 1]
        if not product and not values:
            return ""
        if product and any(call.args[0].same_as(given) for given in inputs):
            parts.append(str(call.args[0].name))
    elif kind in JOINED_UNARY:
        if is_weight != [False] or shapes[0] is None:
            return ""
    else:
        vectors = [s for s in shapes if s != ()]
        if all(is_weight) or None in shapes or len(set(vectors)) != 1:
            return ""
    for argument, shape, weight in zip(call.args, shapes, is_weight, strict=True):
        constant = isinstance(argument, GenericConst)
        what = str(argument.value.numpy().tolist()) if constant else "weight" if weight else "value"
        parts.append(f"{what}{shape}")
    return " ".join(parts)


def fewest_groups(ops: list[CellOp]) -> list[list[int]]:
    """Operators that run as one, in an order that respects dependence; as few groups as possible.

    It is the batching problem itself, on the graph of one cell, small enough to search all of it: a beam as wide as
    there are states keeps every state, and the bound over typewise heights cuts those that cannot win.
    """
    producer = {op.var: op.index for op in ops}
    kinds: dict[str, int] = {}
    types, pointer, operands = [], [0], []
    for op in ops:
        types.append(kinds.setdefault(op.signature or f"alone {op.index}", len(kinds)))
        operands += [producer[value] for value in op.reads if value in producer]
        pointer.append(len(operands))
    schedule = SearchPolicy(SEARCH_WIDTH)(InstanceGraph.from_arrays(types, pointer, operands))
    return [nodes.tolist() for _, nodes in schedule]

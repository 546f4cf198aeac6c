"""What the functions that pack weights have in common on every target: their signature, and expressions of weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edbatch_tvm.tvm_compat import TensorLoad, structural_map, structural_walk, tirx
from edbatch_tvm.tvm_compat import builder_tirx as T
from schedules import abi
from schedules import stage as ir


def declare_pack(stage: ir.Stage, weights: dict[Any, str], shape: tuple[int, ...]) -> tuple[dict[Any, Any], Any]:
    """Name, arguments and attributes of ``pack(weights..., packed)``, in the PrimFunc that is being built.

    Parameters
    ----------
    weights : dict from buffer to name
        The weight parameters of the cell; those that the stage reads become arguments.
    shape : tuple of int
        Of the packed weights.

    Returns
    -------
    buffers : dict from buffer to buffer
        What stands for each weight parameter in the function.
    packed : buffer
    """
    expressions = weight_expressions(stage)
    used = [buffer for buffer in weights if any(reads(one, buffer) for one in expressions)]
    name = f"{stage.name}_pack"
    T.func_name(name)
    buffers = {old: T.arg(old.name, T.buffer(list(old.shape), str(old.dtype), align=4)) for old in used}
    packed = T.arg("packed", T.buffer(shape, stage.dtype, align=abi.ALIGNMENT))
    texts = [f"weight:{weights[buffer]}" for buffer in used] + [f"packed:{stage.name}"]
    T.func_attr({"global_symbol": name, "tirx.noalias": True, abi.ARGUMENTS: texts})
    return buffers, packed


def weight_expressions(stage: ir.Stage) -> list[Any]:
    """The expressions of weights that are packed for `stage`."""
    found: list[Any] = list(stage.vectors)
    for gate in stage.gates:
        for one in gate.passes:
            if isinstance(one, ir.Pass):
                found.append(one.weight)
            elif not isinstance(one.left, ir.Read):
                found.append(one.left)
    return found


def reads(expression: Any, buffer: Any) -> bool:
    """Whether `expression` reads `buffer`."""
    return _finds(expression, buffer, TensorLoad, lambda load: load.source)


def uses(expression: Any, variable: Any) -> bool:
    """Whether `variable` stands in `expression`."""
    return _finds(expression, variable, tirx.Var, lambda node: node)


def _finds(expression: Any, wanted: Any, kind: Any, of: Callable[[Any], Any]) -> bool:
    found: list[Any] = []
    keep: Callable[[Any], None] = found.append
    structural_walk(expression, (kind, lambda node: keep(of(node))))
    return any(other.same_as(wanted) for other in found)


def rewritten(expression: Any, values: dict[Any, Any], buffers: dict[Any, Any]) -> Any:
    """`expression` with variables replaced by positions (int64 there) and loads moved to `buffers`."""
    wide = {variable: tirx.Cast("int64", at) for variable, at in values.items()}

    def load(node: Any) -> Any:
        return tirx.BufferLoad(buffers[node.source], node.indices)

    moved = structural_map(expression, (tirx.Var, lambda variable: wide.get(variable, variable)))
    return structural_map(moved, (TensorLoad, load))

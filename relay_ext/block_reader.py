"""Reading the blocks of a fused cell: what each buffer is, as a formula.

The analysis behind stage detection. A block that writes ``buffer[i, j] = f(i, j)`` is a :class:`Compute`; one that
writes ``buffer[i] = buffer[i] + f(i, k)`` from zero, or a maximum or minimum in the same way, is a :class:`Reduce`.
Anything else is :class:`NotReadable`, and the cell keeps the general path.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edbatch_tvm.tvm_compat import SBlock, SBlockRealize, TensorLoad, structural_map, tirx
from schedules.stage import Combine

_COMBINE: dict[type, Combine] = {tirx.Add: "sum", tirx.Max: "max", tirx.Min: "min", tirx.Mul: "prod"}


class NotReadable(Exception):
    """A block or expression outside the form that stages are made of; the message says which and why."""


@dataclass(frozen=True)
class Compute:
    """``buffer[iters] = value``."""

    iters: tuple[Any, ...]
    value: Any


@dataclass(frozen=True)
class Reduce:
    """``buffer[iters] = sum (max, min, prod) over reduce_iters of source``; over nothing, `identity`."""

    iters: tuple[Any, ...]
    reduce_iters: tuple[tuple[Any, Any], ...]
    source: Any
    combine: Combine = "sum"
    identity: float = 0.0


Definition = Compute | Reduce


def read_blocks(function: tirx.PrimFunc) -> dict[Any, Definition]:
    """The definition of every buffer that the blocks of `function` write.

    Raises
    ------
    NotReadable
        If a block is not of one of the two forms.
    """
    definitions: dict[Any, Definition] = {}
    body = function.body
    if isinstance(body, SBlockRealize):
        body = body.block.body
    for statement in body.seq if isinstance(body, tirx.SeqStmt) else [body]:
        loops: list[tirx.For] = []
        while isinstance(statement, tirx.For):
            loops.append(statement)
            statement = statement.body
        if not isinstance(statement, SBlockRealize):
            raise NotReadable(f"a statement outside a block ({type(statement).__name__})")
        buffer, definition = _read_block(statement, loops)
        if buffer in definitions:
            raise NotReadable(f"two blocks write {buffer.name!r}")
        definitions[buffer] = definition
    return definitions


def _read_block(realize: SBlockRealize, loops: list[tirx.For]) -> tuple[Any, Definition]:
    block: SBlock = realize.block
    store = block.body
    if not isinstance(store, tirx.BufferStore):
        raise NotReadable(f"block {block.name_hint!r} is more than one store")
    if not (isinstance(realize.predicate, tirx.IntImm) and int(realize.predicate) == 1):
        raise NotReadable(f"block {block.name_hint!r} has a predicate")
    bound = [value for value in realize.iter_values if not isinstance(value, tirx.IntImm)]
    if len(bound) != len(loops) or not all(v.same_as(loop.loop_var) for v, loop in zip(bound, loops, strict=True)):
        raise NotReadable(f"block {block.name_hint!r} is not bound one loop to one axis")
    spatial = [axis for axis in block.iter_vars if axis.iter_type == tirx.IterVar.DataPar]
    reduce = [axis for axis in block.iter_vars if axis.iter_type == tirx.IterVar.CommReduce]
    if len(spatial) + len(reduce) != len(block.iter_vars):
        raise NotReadable(f"block {block.name_hint!r} has an axis that is neither spatial nor a reduction")
    indices = list(store.indices)
    # TVM gives a block that writes a scalar an axis, which it does not use.
    iters = tuple(axis.var for axis in spatial) if indices else ()
    if len(indices) != len(iters) or not all(i.same_as(v) for i, v in zip(indices, iters, strict=True)):
        raise NotReadable(f"block {block.name_hint!r} does not write its axes in order")
    if not reduce:
        return store.buffer, Compute(iters, store.value)
    source = _combined(store)
    if source is None:
        raise NotReadable(f"block {block.name_hint!r} is a reduction other than a sum, product, maximum or minimum")
    if all(is_one(axis.dom.extent) for axis in reduce):
        zeros = {axis.var: tirx.const(0, axis.var.ty.dtype) for axis in reduce}
        taken = structural_map(source, (tirx.Var, lambda variable: zeros.get(variable, variable)))
        return store.buffer, Compute(iters, taken)
    init, combine = block.init, _COMBINE[type(store.value)]
    if not isinstance(init, tirx.BufferStore) or not isinstance(init.value, tirx.FloatImm):
        raise NotReadable(f"block {block.name_hint!r} is a reduction that does not start at a number")
    identity = float(init.value.value)
    if identity != {"sum": 0, "prod": 1}.get(combine, identity):
        raise NotReadable(f"block {block.name_hint!r} is a {combine} that starts at {identity}")
    return store.buffer, Reduce(iters, tuple((a.var, a.dom.extent) for a in reduce), source, combine, identity)


def _combined(store: tirx.BufferStore) -> Any:
    """What a reduction combines with its running result; None if it is another reduction."""
    value = store.value
    if type(value) in _COMBINE:
        for running, source in ((value.a, value.b), (value.b, value.a)):
            if isinstance(running, TensorLoad) and running.source.same_as(store.buffer):
                return source
    return None


def is_one(extent: Any) -> bool:
    """True for a constant 1."""
    return isinstance(extent, tirx.IntImm) and int(extent) == 1

"""Reductions over a few parts of a value, read as the additions, maxima, minima or products that they are.

Code that goes through a list, ``torch.cat([f(child) for child in children]).sum(0)``, reduces along an axis whose
elements are computed by different operators. A stage has no loop over such an axis; it has a line for each element.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edbatch_tvm.tvm_compat import tirx
from relay_ext.block_reader import Compute, Definition, Reduce, is_one
from relay_ext.tir_expressions import depends_on, outer_loads, substitute
from schedules.cpu.variadic_reductions import COMBINE

MOST = 8
"""Elements of a reduction that is unrolled, at most: each is a line of a stage, and the products that it reads too."""


EVERY = ("sum", "prod", "max", "min")
"""Kinds of reductions that are unrolled on a CPU."""

SHORT = ("sum", "prod")
"""The same on a GPU, whose kernels have the lines of a maximum inside of each other: twice as much code for each."""


def unroll_reductions(
    definitions: dict[Any, Definition], factors: Callable[[Any], list[Any]], kinds: tuple[str, ...] = EVERY
) -> dict[Any, Definition]:
    """`definitions`, with every reduction over a short axis that is not the last one as an expression.

    Before::

        s[j] += x[k, j]                                      # k < 3

    After::

        s[j] = x[0, j] + x[1, j] + x[2, j]

    Parameters
    ----------
    definitions : dict
    factors : callable
        The factors of what a sum adds up. A sum of products that reads one of them for several elements of its result
        is a contraction, and stays.
    kinds : tuple of str
        Which reductions.
    """
    unrolled: dict[Any, Definition] = {}
    for buffer, definition in definitions.items():
        unrolled[buffer] = definition
        if not isinstance(definition, Reduce) or definition.combine not in kinds:
            continue
        parts = _parts(buffer, definition, factors)
        if not parts:
            continue
        combined = COMBINE[definition.combine]
        total = parts[0]
        for number, part in enumerate(parts[1:], 2):
            total = combined(total, part)
            if number < len(parts) and definition.combine in ("max", "min"):
                # As a buffer of its own it is a line of its own: TVM takes exponential time to simplify nested ones.
                partial = tirx.decl_buffer(buffer.shape, buffer.dtype, f"{buffer.name}_{number}")
                unrolled[partial] = Compute(definition.iters, total)
                total = tirx.BufferLoad(partial, list(definition.iters))
        unrolled[buffer] = Compute(definition.iters, total)
    return unrolled


def _parts(buffer: Any, definition: Reduce, factors: Callable[[Any], list[Any]]) -> list[Any]:
    """What a reduction combines, one after the other; none if it is one of another kind."""
    loops = [(variable, extent) for variable, extent in definition.reduce_iters if not is_one(extent)]
    if len(loops) != 1 or not isinstance(loops[0][1], tirx.IntImm) or int(loops[0][1]) > MOST:
        return []
    ((variable, extent),) = loops
    if any(depends_on(load.indices[-1], variable) for load in outer_loads(definition.source) if load.indices):
        return []
    if definition.combine == "sum" and not _reads_each_once(buffer, definition, factors):
        return []
    ones = {other: tirx.const(0, other.ty.dtype) for other, count in definition.reduce_iters if is_one(count)}
    return [
        substitute(definition.source, {**ones, variable: tirx.const(number, variable.ty.dtype)})
        for number in range(int(extent))
    ]


def _reads_each_once(buffer: Any, definition: Reduce, factors: Callable[[Any], list[Any]]) -> bool:
    """Whether each element that the sum reads is read for one element of its result."""
    axes = [axis for axis, extent in zip(definition.iters, buffer.shape, strict=True) if not is_one(extent)]
    read = [factor for factor in factors(definition.source) if not isinstance(factor, tirx.FloatImm)]
    return bool(axes) and all(depends_on(factor, axes[-1]) for factor in read)

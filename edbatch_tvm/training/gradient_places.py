"""Where gradients of parts of weights go: into the gradient of the weight, so that nobody puts it together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from relay_ext.gradients.weight_expressions import WeightExpression


class InWeight(NamedTuple):
    """A part of a weight.

    Attributes
    ----------
    weight : str
    begin : int
        Its first element among those of the weight.
    stride : int
        Elements of the weight from one row of the part to the next.
    """

    weight: str
    begin: int
    stride: int


class GradientPlaces(NamedTuple):
    """Where the gradients of some expressions go.

    Attributes
    ----------
    parts : dict of str to InWeight
        Expressions whose gradients lie in that of a weight; the others have arrays of their own.
    sizes : dict of str to int
        The elements of these weights.
    incomplete : frozenset of str
        Those of them that have elements which no part has: their gradient is 0 there.
    """

    parts: Mapping[str, InWeight] = {}
    sizes: Mapping[str, int] = {}
    incomplete: frozenset[str] = frozenset()


def gradient_places(
    expressions: Mapping[str, WeightExpression], shapes: Mapping[str, tuple[int, ...]], but: Iterable[str]
) -> GradientPlaces:
    """The places of all parts of weights that do not overlap.

    Parameters
    ----------
    expressions : mapping of str to WeightExpression
        Those that have a gradient.
    shapes : mapping of str to tuple of int
        Of the weights.
    but : iterable of str
        Expressions whose gradients have arrays of their own in any case.
    """
    of_weight: dict[str, list[str]] = {}
    for name, one in expressions.items():
        if one.part:
            of_weight.setdefault(one.weights[0], []).append(name)
    parts: dict[str, InWeight] = {}
    incomplete = set()
    apart = set(but)
    for weight, names in of_weight.items():
        slices = [expressions[name].part for name in names]
        shape = shapes[weight]
        steps = all(one.step == 1 for part in slices for one in part)
        if len(shape) > 2 or not steps or weight in expressions or not apart.isdisjoint(names):
            continue
        times = np.zeros(shape, np.int8)
        for part in slices:
            times[part] += 1
        if times.max() > 1:
            continue
        if not times.all():
            incomplete.add(weight)
        for name, part in zip(names, slices, strict=True):
            row = part[0].start if len(part) == 2 else 0
            parts[name] = InWeight(weight, row * shape[-1] + part[-1].start, shape[-1])
    sizes = {one.weight: int(np.prod(shapes[one.weight])) for one in parts.values()}
    return GradientPlaces(parts, sizes, frozenset(incomplete))

"""The cotangents of declared outputs, from the forms in which users give them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edbatch_tvm.argument_checks import require_unmasked
from edbatch_tvm.errors import GraphError
from edbatch_tvm.graph import InstanceGraph
from edbatch_tvm.graph.equal_nodes import EqualNodes
from edbatch_tvm.runtime.result import Result
from edbatch_tvm.training.graph_rows import arenas_of
from edbatch_tvm.training.weight_sums import sum_rows


@dataclass(frozen=True, eq=False)
class Cotangents:
    """Cotangents of values.

    Attributes
    ----------
    values : int64 array of shape [m]
        Rising, each once.
    rows : dict of int to array
        For each arena those of its values, in their order: ``[values, *spec.shape]``.
    """

    values: np.ndarray
    rows: dict[int, np.ndarray]


def as_cotangents(result: Result, given: Any) -> Cotangents:
    """Cotangents by value; those of a value that is declared several times are added.

    Parameters
    ----------
    result : Result
    given : None, mapping or sequence
        None: one for every output, each of which has one element. A mapping of values to arrays. Or what has the form
        of the result: for each instance an array, or a list of arrays where it declared a list; None for no cotangent.

    Raises
    ------
    GraphError
        If the form or a shape is another.
    """
    if isinstance(given, Mapping):
        values = [result._local(int(value)) for value in given]
        return _collected(result, values, list(given.values()), [f"value {value}" for value in values])
    if given is None:
        return _ones(result)
    graph = result.graph
    if len(given) != len(result):
        raise GraphError(f"cotangents of {len(given)} instances", f"{len(result)}, as many as were run")
    outputs, pointer = graph.outputs.tolist(), graph.output_ptr.tolist()
    values, arrays, names = [], [], []
    for instance, scalar in enumerate(graph.scalar_output.tolist()):
        own = outputs[pointer[instance] : pointer[instance + 1]]
        parts = [given[instance]] if scalar else given[instance]
        parts = [None] * len(own) if parts is None else parts
        if len(parts) != len(own):
            raise GraphError(f"{len(parts)} cotangents for instance {instance}", f"{len(own)}, one for each output")
        for place, part in enumerate(parts):
            if part is not None:
                values.append(own[place])
                arrays.append(part)
                names.append(f"output {place} of instance {instance}")
    return _collected(result, values, arrays, names)


def added(given: Cotangents, graph: InstanceGraph, equal: EqualNodes) -> Cotangents:
    """Cotangents of values of `graph` as those of its distinct nodes: those of equal nodes added up."""
    arenas = arenas_of(graph, given.values)
    values, found = equal.values(given.values), {}
    for arena, rows in given.rows.items():
        _, found[arena] = sum_rows(values[arenas == arena], rows)
    return Cotangents(np.unique(values), found)


def without_detached(given: Cotangents, graph: InstanceGraph, detached: np.ndarray) -> Cotangents:
    """Cotangents but for those of detached nodes, which gradients do not pass."""
    kept = ~detached[given.values // graph.stride]
    arenas = arenas_of(graph, given.values)
    return Cotangents(given.values[kept], {arena: rows[kept[arenas == arena]] for arena, rows in given.rows.items()})


def _arenas(result: Result, values: np.ndarray) -> np.ndarray:
    """The arenas of values; an error if one is no value of the graph."""
    graph = result.graph
    inside = (values >= 0) & (values < graph.num_nodes * graph.stride)
    if not inside.all():
        result.value(int(values[np.argmin(inside)]))
    assert graph.signature is not None
    nodes = values // graph.stride
    arenas: np.ndarray = graph.signature.output_arena[graph.node_type[nodes], values - nodes * graph.stride]
    if (arenas < 0).any():
        result.value(int(values[np.argmax(arenas < 0)]))
    return arenas


def _ones(result: Result) -> Cotangents:
    values = result.graph.outputs.astype(np.int64)
    times = np.ones(len(values), np.int64)
    if not (values[1:] > values[:-1]).all():
        values, times = np.unique(values, return_counts=True)
    arenas = _arenas(result, values)
    one = len(arenas) and arenas[0]
    rows = {}
    for arena in [int(one)] if (arenas == one).all() and len(arenas) else np.unique(arenas).tolist():
        spec, dtype = result.graph.signature.value_specs[arena], result.arena_dtype(arena)  # type: ignore[union-attr]
        if spec.size != 1:
            raise GraphError(
                f"an output of shape {spec.shape} without a cotangent",
                "outputs of one element, or their cotangents",
                "add a loss to the graph, or pass backward() an array of the shape of each output",
            )
        rows[arena] = times[arenas == arena].astype(dtype).reshape(-1, *spec.shape)
    return Cotangents(values, rows)


def _collected(result: Result, values: list[int], arrays: Sequence[Any], names: list[str]) -> Cotangents:
    """Cotangents from a list of values and one of arrays."""
    wanted = np.array(values, np.int64)
    arenas = _arenas(result, wanted)
    rows = {}
    for arena in np.unique(arenas).tolist():
        chosen = np.flatnonzero(arenas == arena).tolist()
        spec, dtype = result.graph.signature.value_specs[arena], result.arena_dtype(arena)  # type: ignore[union-attr]
        for place in chosen:
            require_unmasked(f"the cotangent of {names[place]}", arrays[place], GraphError)
        parts = [np.asarray(arrays[place]) for place in chosen]
        for place, part in zip(chosen, parts, strict=True):
            if part.shape != spec.shape or part.dtype.kind not in "fiu":
                raise GraphError(f"the cotangent of {names[place]} is {part.dtype}{list(part.shape)}", str(spec))
        distinct, where = np.unique(wanted[chosen], return_inverse=True)
        if len(distinct) == len(chosen):
            rows[arena] = np.array(parts, dtype)[np.argsort(where)].reshape(-1, *spec.shape)
        else:
            rows[arena] = np.zeros((len(distinct), *spec.shape), dtype)
            np.add.at(rows[arena], where, np.array(parts, dtype))
    return Cotangents(np.unique(wanted), rows)

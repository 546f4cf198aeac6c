"""The backward graph of a minibatch: which adjoint runs when, and whose cotangents it reads.

A value's cotangent is the sum over its uses, in the order of the users and of their operands. A value with one use
has that user's gradient for its cotangent; one with more has a node that adds them. The schedule is the forward one in
reverse, with the sums that a batch needs before it. Everything here is done for all nodes at once, on arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edbatch_tvm.batching.schedule import Schedule
from edbatch_tvm.graph.instance import FIRST_EXTERNAL, ZERO, InstanceGraph
from edbatch_tvm.graph.spec import Signature
from edbatch_tvm.memory.plan import Plan

Kind = tuple[int, int]
"""A forward type and a number of variadic rows, of which a backward cell is made."""


@dataclass(frozen=True, eq=False)
class BackwardType:
    """What the graph needs to know of a backward cell.

    Attributes
    ----------
    type_id : int
        Its place in the backward signature; -1 if its nodes compute nothing.
    values : int array
        The outputs of the forward node that it reads.
    slots : int array
        For each operand entry of the forward node, the output that is its gradient, or -1.
    """

    type_id: int
    values: np.ndarray
    slots: np.ndarray


@dataclass(frozen=True, eq=False)
class Group:
    """The nodes of one kind that have cotangents.

    Attributes
    ----------
    kind : tuple of int
    forward, backward : int array
        Their numbers in both graphs; `backward` is empty for a type that computes nothing.
    """

    kind: Kind
    forward: np.ndarray
    backward: np.ndarray


@dataclass(frozen=True, eq=False)
class BackwardGraph:
    """A backward graph, its schedule, and where the gradients are.

    Attributes
    ----------
    graph : InstanceGraph
        Its external rows are the operands of the forward nodes, the cotangents that were given, and values of the
        forward nodes.
    schedule : Schedule
    groups : list of Group
    cotangent : int64 array
        For each value of the forward graph what its cotangent is in the backward graph: a value, an external row, zero.
    external_use : int64 array
        Values of the backward graph that are gradients of external rows of the forward graph.
    external_of : int64 array
        The external row of each.
    """

    graph: InstanceGraph
    schedule: Schedule
    groups: list[Group]
    cotangent: np.ndarray
    external_use: np.ndarray
    external_of: np.ndarray


@dataclass(frozen=True, eq=False)
class Kinds:
    """The kinds of the nodes of a graph.

    Attributes
    ----------
    types : int64 array of shape [nodes]
    each : list of tuple of int
        The kinds that occur.
    of_node : int64 array of shape [nodes]
        The place in `each`.
    """

    types: np.ndarray
    each: list[Kind]
    of_node: np.ndarray


def kinds_of(graph: InstanceGraph) -> Kinds:
    """The kinds of the nodes of a graph."""
    signature = graph.signature
    assert signature is not None
    fixed = np.array([cell.fixed_arity for cell in signature], np.int64)
    variadic = np.array([max(cell.variadic_count, 1) for cell in signature], np.int64)
    types = graph.node_type.astype(np.int64)
    rows = (np.diff(graph.operand_ptr) - fixed[types]) // variadic[types]
    width = int(rows.max(initial=0)) + 1
    pairs = types * width + rows
    # Few numbers, of which each occurs often: counted, not sorted.
    distinct = np.flatnonzero(np.bincount(pairs, minlength=len(signature) * width))
    place = np.zeros(len(signature) * width, np.int64)
    place[distinct] = np.arange(len(distinct))
    return Kinds(types, [divmod(pair, width) for pair in distinct.tolist()], place[pairs])


def backward_graph(
    graph: InstanceGraph,
    kinds: Kinds,
    plan: Plan,
    given: np.ndarray,
    find_type: Callable[[Kind], BackwardType],
    signature: Signature,
    sum_types: Mapping[int, int],
    outputs_with_cotangents: Sequence[int],
    detached: np.ndarray | None = None,
) -> BackwardGraph:
    """The backward graph of a minibatch.

    Parameters
    ----------
    graph : InstanceGraph
        The forward graph.
    kinds : Kinds
        Those of its nodes.
    plan : Plan
        A plan of a graph of this structure. It may have been made for another one, with other attributes and rows.
    given : int64 array of shape [m]
        The values whose cotangents are given, each once.
    find_type : callable
        The backward cell of a kind.
    signature : Signature
        Of the backward cells.
    sum_types : mapping of int to int
        The type that adds values of an arena of the forward signature.
    outputs_with_cotangents : sequence of int
        How many outputs of each cell have cotangents: its own, not those that it saves.
    detached : bool array of shape [nodes], optional
        Nodes that have no cotangents, whoever uses them; none are given for them.
    """
    stride = graph.stride
    n = graph.num_nodes
    types, kind_of = kinds.types, kinds.of_node
    found = [find_type(kind) for kind in kinds.each]

    pointer = graph.operand_ptr.astype(np.int64)
    values = graph.operand_value.astype(np.int64)
    user = np.repeat(np.arange(n), np.diff(pointer))
    slot = np.empty(len(values), np.int64)
    for number, one in enumerate(found):
        nodes = np.flatnonzero(kind_of == number)
        slot[(pointer[nodes][:, None] + np.arange(len(one.slots))).ravel()] = np.tile(one.slots, len(nodes))
    if detached is not None:
        slot[(values >= 0) & detached[values // stride]] = -1
    active = _active(graph, plan, given, user, values, slot)

    used = (slot >= 0) & active[user] & (values != ZERO)
    uses = np.flatnonzero(used & (values >= 0))
    is_given = np.zeros(n * stride, bool)
    is_given[given] = True
    number_of_uses = np.bincount(values[uses], minlength=n * stride) + is_given
    summed = np.flatnonzero(number_of_uses > 1)

    # Nodes: the batches in reverse; in each, what sums its cotangents, then the nodes themselves.
    batch_of = np.empty(n, np.int64)
    batch_of[plan.schedule.order] = np.repeat(np.arange(len(plan.schedule)), np.diff(plan.schedule.batch_ptr))
    type_ids = np.array([one.type_id for one in found], np.int64)
    nodes = np.flatnonzero(active & (type_ids[kind_of] >= 0))
    assert graph.signature is not None
    arena_of = graph.signature.output_arena[types[summed // stride], summed % stride]
    sum_type_of = np.full(len(graph.signature.value_specs), -1, np.int64)
    for arena, type_id in sum_types.items():
        sum_type_of[arena] = type_id
    what = np.concatenate((summed, nodes))
    of_type = np.concatenate((sum_type_of[arena_of], type_ids[kind_of[nodes]]))
    is_sum = np.arange(len(what)) < len(summed)
    reversed_batch = len(plan.schedule) - np.concatenate((batch_of[summed // stride], batch_of[nodes]))
    # By forward batch, sums first, type, number: one key, as it sorts faster than four.
    key = ((reversed_batch * 2 + ~is_sum) * len(signature) + of_type) * (n * stride) + what
    order = np.argsort(key)
    what, of_type = what[order], of_type[order]
    is_sum, reversed_batch = is_sum[order], reversed_batch[order]
    out = signature.stride
    place = np.arange(len(what))
    sum_node = np.full(n * stride, -1, np.int64)
    sum_node[what[is_sum]] = place[is_sum]
    node = np.full(n, -1, np.int64)
    node[what[~is_sum]] = place[~is_sum]

    # Cotangents.
    external = np.flatnonzero(values != ZERO)  # every operand that is read is an external row
    external_of_entry = np.full(len(values), ZERO, np.int64)
    external_of_entry[external] = FIRST_EXTERNAL - np.arange(len(external))
    given_external = FIRST_EXTERNAL - (len(external) + np.arange(len(given)))
    cotangent = np.full(n * stride, ZERO, np.int64)
    cotangent[given] = given_external
    contribution = node[user] * out + slot
    single = uses[number_of_uses[values[uses]] == 1]
    cotangent[values[single]] = contribution[single]
    cotangent[summed] = sum_node[summed] * out

    # What each sum adds: a cotangent that was given first, then the uses in order.
    parts = np.concatenate((given, values[uses]))
    what_part = np.concatenate((given_external, contribution[uses]))
    many = number_of_uses[parts] > 1
    parts, what_part = parts[many], what_part[many]
    by_value = np.argsort(sum_node[parts], kind="stable")

    # Values of the forward pass.
    reads = np.array([len(one.values) for one in found], np.int64)
    own = what[~is_sum]
    reads_of_own = reads[kind_of[own]]
    all_slots = np.concatenate([one.values for one in found] or [np.empty(0, np.int64)])
    slots_read = all_slots[_ranges((np.cumsum(reads) - reads)[kind_of[own]], reads_of_own)]
    values_read = np.repeat(own * stride, reads_of_own) + slots_read

    # Operands: those of the node, its values, its cotangents.
    outputs = np.array(outputs_with_cotangents, np.int64)
    entries = np.diff(pointer)
    length = np.where(is_sum, number_of_uses[np.where(is_sum, what, 0)], 0)
    length[~is_sum] = entries[own] + reads_of_own + outputs[types[own]]
    operand_ptr = np.concatenate(([0], np.cumsum(length)))
    operands = np.empty(int(operand_ptr[-1]), np.int64)
    operands[_ranges(operand_ptr[:-1][is_sum], length[is_sum])] = what_part[by_value]
    begin = operand_ptr[:-1][~is_sum]
    operands[_ranges(begin, entries[own])] = external_of_entry[_ranges(pointer[own], entries[own])]
    begin = begin + entries[own]
    first_value = FIRST_EXTERNAL - len(external) - len(given)
    operands[_ranges(begin, reads_of_own)] = first_value - np.arange(len(values_read))
    begin = begin + reads_of_own
    operands[_ranges(begin, outputs[types[own]])] = cotangent[_ranges(own * stride, outputs[types[own]])]

    external_spec, external_row = _externals(graph, plan, signature, values[external], given, values_read)
    made = InstanceGraph(
        of_type.astype(np.int16),
        operand_ptr.astype(np.int32),
        operands.astype(np.int32),
        signature,
        attributes=_attributes(graph, signature, types, what, of_type, is_sum, kinds.each, found),
        external_spec=external_spec,
        external_row=external_row,
    )
    groups = []
    for number, kind in enumerate(kinds.each):
        forward = np.flatnonzero(active & (kind_of == number))
        own = node[forward] if found[number].type_id >= 0 else np.empty(0, np.int64)
        if len(forward):
            by_place = np.argsort(own, kind="stable") if len(own) else slice(None)
            groups.append(Group(kind, forward[by_place], own[by_place]))
    # A type of sums is no type of adjoints: a batch ends where the type or the forward batch changes.
    starts = np.flatnonzero((np.diff(of_type, prepend=-1) != 0) | (np.diff(reversed_batch, prepend=1) != 0))
    batch_ptr = np.append(starts, len(what))
    schedule = Schedule.for_graph(
        made, place.astype(np.int32), batch_ptr.astype(np.int32), of_type[starts].astype(np.int16)
    )
    outside = np.flatnonzero(used & (values <= FIRST_EXTERNAL))
    return BackwardGraph(made, schedule, groups, cotangent, contribution[outside], FIRST_EXTERNAL - values[outside])


def _active(
    graph: InstanceGraph, plan: Plan, given: np.ndarray, user: np.ndarray, values: np.ndarray, slot: np.ndarray
) -> np.ndarray:
    """The nodes that have a cotangent of an output."""
    stride = graph.stride
    n = graph.num_nodes
    has = np.zeros(n, bool)
    has[given // stride] = True
    through = (slot >= 0) & (values >= 0)
    all_of_them = has.copy()
    all_of_them[values[through] // stride] = True
    if all_of_them.all():
        return all_of_them  # by induction from the nodes that nobody reads
    pointer = graph.operand_ptr.astype(np.int64)
    begins, ends = plan.schedule.batch_ptr[:-1], plan.schedule.batch_ptr[1:]
    for begin, end in zip(begins[::-1].tolist(), ends[::-1].tolist(), strict=True):
        nodes = plan.schedule.order[begin:end]
        nodes = nodes[has[nodes]]
        entries = _ranges(pointer[nodes], pointer[nodes + 1] - pointer[nodes])
        has[values[entries[through[entries]]] // stride] = True
    return has


def _ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The numbers of the ranges ``[start, start + length)``, one after the other."""
    total = int(lengths.sum())
    before = np.cumsum(lengths) - lengths
    return np.arange(total) + np.repeat(starts - before, lengths)


def _attributes(
    graph: InstanceGraph,
    signature: Signature,
    types: np.ndarray,
    what: np.ndarray,
    of_type: np.ndarray,
    is_sum: np.ndarray,
    kinds: list[Kind],
    found: list[BackwardType],
) -> dict[tuple[int, str], np.ndarray]:
    """The attributes of the forward nodes, for their adjoints."""
    attributes = {}
    for kind, one in zip(kinds, found, strict=True):
        if one.type_id < 0:
            continue
        nodes = what[~is_sum & (of_type == one.type_id)]
        for attribute in signature[one.type_id].attributes:
            attributes[one.type_id, attribute.name] = attribute_rows(graph, types, kind[0], attribute.name, nodes)
    return attributes


def attribute_rows(graph: InstanceGraph, types: np.ndarray, type_id: int, name: str, nodes: np.ndarray) -> np.ndarray:
    """An attribute of some nodes of a type."""
    of_type = np.flatnonzero(types == type_id)
    rows: np.ndarray = graph.attributes[type_id, name][np.searchsorted(of_type, nodes)]
    return rows


def arena_rows(graph: InstanceGraph, plan: Plan, values: np.ndarray) -> np.ndarray:
    """The rows of values, external rows and zeros in the arenas of a plan."""
    rows = np.zeros(len(values), np.int64)
    inside, outside = values >= 0, values <= FIRST_EXTERNAL
    rows[inside] = plan.value_row[values[inside]]
    rows[outside] = 1 + graph.external_row[FIRST_EXTERNAL - values[outside]]
    return rows


def arenas_of(graph: InstanceGraph, values: np.ndarray) -> np.ndarray:
    """The arenas that values and external rows lie in."""
    assert graph.signature is not None
    arenas = np.zeros(len(values), np.int64)
    inside, outside = values >= 0, values <= FIRST_EXTERNAL
    own = values[inside]
    arenas[inside] = graph.signature.output_arena[graph.node_type[own // graph.stride], own % graph.stride]
    arenas[outside] = graph.external_spec[FIRST_EXTERNAL - values[outside]]
    return arenas


def _externals(
    graph: InstanceGraph, plan: Plan, signature: Signature, read: np.ndarray, given: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where the external rows of the backward graph lie: in forward arenas; the given rows behind those."""
    assert graph.signature is not None
    specs = list(signature.value_specs)
    in_backward = np.array(
        [specs.index(spec) if spec in specs else -1 for spec in graph.signature.value_specs], np.int64
    )
    arenas = arenas_of(graph, given)
    own_row = np.zeros(len(given), np.int64)
    for arena in np.unique(arenas).tolist():
        chosen = arenas == arena
        own_row[chosen] = plan.arena_rows[arena] + np.arange(int(chosen.sum()))
    arena = in_backward[np.concatenate((arenas_of(graph, read), arenas, arenas_of(graph, values)))]
    row = np.concatenate((arena_rows(graph, plan, read), own_row, arena_rows(graph, plan, values)))
    return arena.astype(np.int16), row.astype(np.int32)

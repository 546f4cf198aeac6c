"""The backward graph of a minibatch: which adjoint runs when, and whose cotangents it reads.

A value's cotangent is the sum over its uses, in the order of the users and of their operands. A value with one use
has that user's gradient for its cotangent; one with more has a node that adds them. The schedule is the forward one in
reverse, with the sums that a batch needs before it. Everything here is done for all nodes at once, on arrays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edbatch_tvm.batching.schedule import Schedule
from edbatch_tvm.graph.instance import FIRST_EXTERNAL, ZERO, InstanceGraph
from edbatch_tvm.graph.spec import Signature
from edbatch_tvm.memory.plan import Plan
from edbatch_tvm.training.backward_types import BackwardGraph, BackwardType, Group
from edbatch_tvm.training.graph_rows import OperandEntries, arena_rows, arenas_of, attribute_rows, ranges
from relay_ext.gradients.adjoint_cells import Source
from relay_ext.gradients.sections import ROW_NUMBER


def backward_graph(
    graph: InstanceGraph,
    plan: Plan,
    given: np.ndarray,
    types: Sequence[BackwardType],
    signature: Signature,
    sum_types: Mapping[int, int],
    outputs: int,
    detached: np.ndarray | None = None,
) -> BackwardGraph:
    """The backward graph of a minibatch.

    Parameters
    ----------
    graph : InstanceGraph
        The forward graph.
    plan : Plan
        A plan of a graph of this structure. It may have been made for another one, with other attributes and rows.
    given : int64 array of shape [m]
        The values whose cotangents are given, each once.
    types : sequence of BackwardType
        For each cell of the forward signature.
    signature : Signature
        Of the backward cells.
    sum_types : mapping of int to int
        The type that adds values of an arena of the forward signature.
    outputs : int
        The most outputs of a node that may have cotangents.
    detached : bool array of shape [nodes], optional
        Nodes that have no cotangents, whoever uses them; none are given for them.
    """
    stride = graph.stride
    n = graph.num_nodes
    out = signature.stride
    own = graph.signature
    assert own is not None
    node_type = graph.node_type.astype(np.int64)
    values = graph.operand_value.astype(np.int64)
    user = np.repeat(np.arange(n), np.diff(graph.operand_ptr))
    met = np.flatnonzero(np.bincount(node_type, minlength=len(own))).tolist()
    has_slot = np.zeros(len(values), bool)
    for type_id in met:
        entries = OperandEntries(graph, type_id, np.flatnonzero(node_type == type_id))
        for number, slot in enumerate(types[type_id].slots):
            has_slot[entries.of(number)] = slot is not None
    if detached is not None:
        has_slot &= (values < 0) | ~detached[values // stride]
    active = _active(graph, plan, given, user, values, has_slot)

    used = has_slot & active[user] & (values != ZERO)
    uses = np.flatnonzero(used & (values >= 0))
    is_given = np.zeros(n * stride, bool)
    is_given[given] = True
    number_of_uses = np.bincount(values[uses], minlength=n * stride) + is_given
    alone = np.ones((len(own), stride), np.int64)  # how many an adjoint takes
    for row, backward_type in zip(alone, types, strict=True):
        row[list(backward_type.pairs)] = 2
    taken = alone[node_type].ravel()
    summed = np.flatnonzero(number_of_uses > taken)

    # Nodes: the batches in reverse; in each, what sums its cotangents, then the sections of its nodes, one by one.
    batch_of = np.empty(n, np.int64)
    batch_of[plan.schedule.order] = np.repeat(np.arange(len(plan.schedule)), np.diff(plan.schedule.batch_ptr))
    arena_of = own.output_arena[node_type[summed // stride], summed % stride]
    sum_type_of = np.full(len(own.value_specs), -1, np.int64)
    for arena, type_id in sum_types.items():
        sum_type_of[arena] = type_id
    members = [
        _Members(graph, type_id, np.flatnonzero(active & (node_type == type_id)), types[type_id]) for type_id in met
    ]
    parts = [(summed // stride, sum_type_of[arena_of], 0)]
    for one in members:
        for number, section in enumerate(one.type.sections):
            nodes = one.items(number)
            parts.append((nodes, np.full(len(nodes), section.type_id), 1 + number))
    of_type = np.concatenate([part[1] for part in parts])
    most = 1 + max(len(one.sections) for one in types)
    turn = [(len(plan.schedule) - batch_of[nodes]) * most + after for nodes, _, after in parts]
    # One key, as it sorts faster than two; a batch has nodes of one type, which are in their order already.
    key = np.concatenate(turn) * len(signature) + of_type
    order = np.argsort(key, kind="stable")
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    places = np.split(place, np.cumsum([len(part[0]) for part in parts])[:-1])
    sum_node = places[0]
    begin = 1
    for one in members:
        one.places = places[begin : begin + len(one.type.sections)]
        begin += len(one.type.sections)

    # Cotangents: what was given first, then the uses in order.
    contribution = np.full(len(values), ZERO, np.int64)
    for one in members:
        for number, slot in enumerate(one.type.slots):
            if slot is not None:
                variadic = own[one.type_id].operands[number].variadic
                contribution[one.entries.of(number)] = one.output(slot, variadic) * out + slot.number
    outside = _Outside(graph, plan, signature, given)
    given_external = outside.given(given)
    added = np.concatenate((given, values[uses]))
    addends = np.concatenate((given_external, contribution[uses]))
    by_value = np.argsort(added, kind="stable")
    added, addends = added[by_value], addends[by_value]
    place = np.arange(len(added)) - np.searchsorted(added, added)  # among those of the same value
    cotangent = np.full((n, stride, 2), ZERO, np.int64)
    few = number_of_uses[added] <= taken[added]
    cotangent[added[few] // stride, added[few] % stride, place[few]] = addends[few]
    cotangent[summed // stride, summed % stride, 0] = sum_node * out
    cotangent = cotangent[:, :outputs]

    # Operands: of sums, then of sections.
    length = np.concatenate([number_of_uses[summed], *(one.lengths(n) for one in members for n in one.numbers)])
    operand_ptr = np.concatenate(([0], np.cumsum(length[order])))
    operands = np.empty(int(operand_ptr[-1]), np.int64)
    operands[ranges(operand_ptr[sum_node], number_of_uses[summed])] = addends[~few]
    for one in members:
        for number in one.numbers:
            one.fill(operands, operand_ptr, number, cotangent, values, outside, stride, out)
    made = InstanceGraph(
        of_type[order].astype(np.int16),
        operand_ptr.astype(np.int32),
        operands.astype(np.int32),
        signature,
        attributes=_attributes(graph, signature, node_type, members),
        external_spec=outside.spec,
        external_row=outside.row,
    )
    # A type of sums is no type of sections: a batch ends where the type or the turn changes.
    starts = np.flatnonzero(np.diff(key[order], prepend=-1))
    batch_ptr = np.append(starts, len(order))
    schedule = Schedule.for_graph(
        made,
        np.arange(len(order), dtype=np.int32),
        batch_ptr.astype(np.int32),
        of_type[order][starts].astype(np.int16),
    )
    externals = np.flatnonzero(used & (values <= FIRST_EXTERNAL))
    some = [one for one in members if len(one.nodes)]
    return BackwardGraph(
        made,
        schedule,
        tuple(one.type_id for one in some),
        lambda: [one.group() for one in some],
        cotangent,
        contribution[externals],
        FIRST_EXTERNAL - values[externals],
    )


class _Outside:
    """The external rows of a backward graph: of each arena those of the forward pass, then the cotangents given.

    Attributes
    ----------
    spec, row : int array
        Of each of them.
    """

    def __init__(self, graph: InstanceGraph, plan: Plan, signature: Signature, given: np.ndarray) -> None:
        self._graph, self._plan = graph, plan
        assert graph.signature is not None
        specs = list(signature.value_specs)
        counts = np.zeros(len(specs), np.int64)
        arenas = arenas_of(graph, given)
        here = np.array([specs.index(spec) if spec in specs else -1 for spec in graph.signature.value_specs], np.int64)
        for arena, place in enumerate(here.tolist()):
            if place >= 0:
                counts[place] = plan.arena_rows[arena] - 1 + (arenas == arena).sum()
        self._begin = (np.cumsum(counts) - counts)[here]
        self.spec = np.repeat(np.arange(len(specs)), counts).astype(np.int16)
        self.row = ranges(np.zeros_like(counts), counts).astype(np.int32)

    def given(self, given: np.ndarray) -> np.ndarray:
        """The cotangents that are given for values."""
        arenas = arenas_of(self._graph, given)
        found = np.zeros(len(given), np.int64)
        for arena in np.unique(arenas).tolist():
            chosen = arenas == arena
            found[chosen] = self._begin[arena] + self._plan.arena_rows[arena] - 1 + np.arange(int(chosen.sum()))
        return FIRST_EXTERNAL - found

    def values(self, values: np.ndarray) -> np.ndarray:
        """Values of the forward graph, as what they are in the backward graph."""
        number = self._begin[arenas_of(self._graph, values)] + arena_rows(self._graph, self._plan, values) - 1
        found: np.ndarray = np.where(values == ZERO, ZERO, FIRST_EXTERNAL - number)
        return found


class _Members:
    """The nodes of one type that have cotangents, and their nodes in the backward graph."""

    def __init__(self, graph: InstanceGraph, type_id: int, nodes: np.ndarray, backward_type: BackwardType) -> None:
        self.type_id = type_id
        self.nodes = nodes
        self.type = backward_type
        self.numbers = range(len(backward_type.sections))
        self.entries = OperandEntries(graph, type_id, nodes)
        self.rows = self.entries.rows
        self.places: list[np.ndarray] = []

    def items(self, number: int) -> np.ndarray:
        """The forward node of each backward node of a section."""
        return np.repeat(self.nodes, self.rows) if self.type.sections[number].per_row else self.nodes

    def output(self, source: Source, per_row: bool) -> np.ndarray:
        """The backward nodes that compute an output, one for each row or for each node."""
        places = self.places[source.part]
        return np.repeat(places, self.rows) if per_row and not self.type.sections[source.part].per_row else places

    def lengths(self, number: int) -> np.ndarray:
        """The number of operands of each backward node of a section."""
        section = self.type.sections[number]
        every = sum(read.every_row for read in section.reads)
        length = len(section.reads) - every + every * self.rows
        return np.repeat(length, self.rows) if section.per_row else length

    def fill(
        self,
        operands: np.ndarray,
        operand_ptr: np.ndarray,
        number: int,
        cotangent: np.ndarray,
        values: np.ndarray,
        outside: _Outside,
        stride: int,
        out: int,
    ) -> None:
        """Write the operands of a section."""
        section = self.type.sections[number]
        at = operand_ptr[self.places[number]]
        for read in section.reads:
            source = read.source
            of_rows = False
            if source.kind == "operand":
                entries = self.entries.of(source.number)
                found, of_rows = outside.values(values[entries]), self.entries.variadic[source.number]
            elif source.kind == "value":
                found = outside.values(self.nodes * stride + source.number)
            elif source.kind == "cotangent":
                found = cotangent[self.nodes, source.number, source.part]
            else:
                of_rows = self.type.sections[source.part].per_row
                found = self.places[source.part] * out + source.number
            if read.every_row:
                lengths = self.rows
                if section.per_row:  # for each row all rows
                    first = np.cumsum(lengths) - lengths
                    found = found[ranges(np.repeat(first, lengths), np.repeat(lengths, lengths))]
                    lengths = np.repeat(lengths, lengths)
                operands[ranges(at, lengths)] = found
                at = at + lengths
            else:
                operands[at] = np.repeat(found, self.rows) if section.per_row and not of_rows else found
                at = at + 1

    def group(self) -> Group:
        """The nodes in the order in which their adjoints run."""
        if not self.places:
            return Group(self.type_id, self.nodes, self.rows, [], [])
        of_nodes = [number for number in self.numbers if not self.type.sections[number].per_row]
        before = np.cumsum(self.rows) - self.rows
        if of_nodes:
            order = np.argsort(self.places[of_nodes[0]])
        else:
            order = np.argsort(np.append(self.places[0], 0)[before], kind="stable")
        of_rows = ranges(before[order], self.rows[order])
        sections = [
            places[of_rows if section.per_row else order]
            for section, places in zip(self.type.sections, self.places, strict=True)
        ]
        types = [section.type_id for section in self.type.sections]
        return Group(self.type_id, self.nodes[order], self.rows[order], sections, types)


def _active(
    graph: InstanceGraph, plan: Plan, given: np.ndarray, user: np.ndarray, values: np.ndarray, has_slot: np.ndarray
) -> np.ndarray:
    """The nodes that have a cotangent of an output."""
    stride = graph.stride
    n = graph.num_nodes
    has = np.zeros(n, bool)
    has[given // stride] = True
    through = has_slot & (values >= 0)
    all_of_them = has.copy()
    all_of_them[values[through] // stride] = True
    if all_of_them.all():
        return all_of_them  # by induction from the nodes that nobody reads
    pointer = graph.operand_ptr.astype(np.int64)
    begins, ends = plan.schedule.batch_ptr[:-1], plan.schedule.batch_ptr[1:]
    for begin, end in zip(begins[::-1].tolist(), ends[::-1].tolist(), strict=True):
        nodes = plan.schedule.order[begin:end]
        nodes = nodes[has[nodes]]
        entries = ranges(pointer[nodes], pointer[nodes + 1] - pointer[nodes])
        has[values[entries[through[entries]]] // stride] = True
    return has


def _attributes(
    graph: InstanceGraph, signature: Signature, node_type: np.ndarray, members: Sequence[_Members]
) -> dict[tuple[int, str], np.ndarray]:
    """The attributes of the forward nodes, for their adjoints."""
    attributes = {}
    for one in members:
        for number, section in enumerate(one.type.sections):
            order = np.argsort(one.places[number])
            for attribute in signature[section.type_id].attributes:
                if attribute.name == ROW_NUMBER:
                    rows = ranges(np.zeros_like(one.rows), one.rows).astype(np.int32)
                else:
                    rows = attribute_rows(graph, node_type, one.type_id, attribute.name, one.items(number))
                attributes[section.type_id, attribute.name] = rows[order]
    return attributes

"""The layout of a cell's batched operators: in which order their results stand, and what has to be gathered.

Operators that run as one (a *group*) write their results as the rows of one buffer. A later group reads a set of
rows. It reads them in place if they are consecutive there and in the order in which it writes its own results; else
they have to be gathered. Which order serves most bytes is decided as follows.

* The results of a group are cut into *blocks*: products that share their input belong together, since one contraction
  makes them all; a group of any other operator is one block.
* Every operand set that lies in one block asks for two things: that its rows stand in the order of the reader's
  results (*alignment*), and that they are consecutive (*adjacency*). The requests are taken by size, largest first.
* Alignment makes row j of the reader and the row it reads members of one *lane* (union-find). It is refused if two
  rows of one block would fall into one lane.
* Adjacency is a consecutive-ones constraint on the lanes: a PQ tree (Booth and Lueker, 1976) takes it or refuses it.

The frontier of the tree orders the lanes, and every block follows that order. The method is greedy over requests:
each is granted if it is compatible with those granted before, so a larger request is never lost for a smaller one, but
a set of small ones may together be worth more than the large one that excluded them. Operand sets that come from
several blocks, or from the cell's inputs, are always gathered here, unless the values were placed side by side before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from tvm import relax

from edbatch_tvm.memory import PQTree
from relay_ext.cell_ops import CellOp, fewest_groups


@dataclass(frozen=True)
class Access:
    """How a group reads one argument.

    ``how`` is ``broadcast`` (one value for all), ``weights`` (packed in the group's order), ``constant``, ``slice``
    (rows ``start``, ``start + 1``, ... of group `source`) or ``gather``, with the reason.
    """

    how: str
    source: int = -1
    start: int = -1
    reason: str = ""

    def __str__(self) -> str:
        where = f" {self.source} from {self.start}" if self.how == "slice" else ""
        return f"{self.how}{where}{f' ({self.reason})' if self.reason else ''}"


@dataclass
class Group:
    """Operators that run as one, in the order of their results."""

    members: list[CellOp]
    accesses: list[Access] = field(default_factory=list)


@dataclass(frozen=True)
class _Request:
    """That the rows `operands` (operator indices) are read in place by the rows `results`."""

    size: int
    group: int
    argument: int
    results: tuple[int, ...]
    operands: tuple[int, ...]


@dataclass
class CellPlan:
    """Groups in the order they run, each with its layout and accesses; `tree` holds the admissible orders of lanes."""

    groups: list[Group]
    tree: PQTree | None = None

    def _gathered(self) -> set[tuple[Any, ...]]:
        return {
            tuple(rows_read(group.members, i))
            for group in self.groups
            for i, access in enumerate(group.accesses)
            if access.how == "gather"
        }

    @property
    def gathers(self) -> int:
        """Number of gather kernels: operand sets that do not lie in place, each gathered once."""
        return len(self._gathered())

    @property
    def gathered_elements(self) -> int:
        """Elements those kernels move for one instance."""
        return sum(_elements(value) for values in self._gathered() for value in values)

    def __str__(self) -> str:
        lines = []
        for number, group in enumerate(self.groups):
            names = " ".join(str(op.var.name) for op in group.members)
            reads = ", ".join(map(str, group.accesses))
            lines.append(f"{number}: {group.members[0].kind} [{names}] <- {reads}")
        return "\n".join(lines)


def _elements(value: Any) -> int:
    return math.prod(int(extent) for extent in value.ty.shape.values)


def plan_cell(ops: list[CellOp], planned: bool = True) -> CellPlan:
    """Group the operators of a cell and lay out their results.

    Parameters
    ----------
    ops : list of CellOp
        From :func:`relay_ext.cell_ops.read_ops`.
    planned : bool
        False keeps results in the order of declaration, to compare with.
    """
    if not ops:
        return CellPlan([])
    groups = [[ops[i] for i in indices] for indices in fewest_groups(ops)]
    blocks = [_blocks(members) for members in groups]
    block_of = {op.index: (g, b) for g, cut in enumerate(blocks) for b, block in enumerate(cut) for op in block}
    requests = [r for g, members in enumerate(groups) for r in _requests(g, members, ops, block_of)]
    tree = None
    if planned:
        rank, tree = _lane_order(requests, block_of, len(ops))
        blocks = [[sorted(block, key=lambda op: rank[op.index]) for block in cut] for cut in blocks]
    result = [Group([op for block in cut for op in block]) for cut in blocks]
    place = {op.index: (g, row) for g, group in enumerate(result) for row, op in enumerate(group.members)}
    for group in result:
        group.accesses = [_access(group.members, i, ops, place) for i in range(len(group.members[0].call.args))]
    return CellPlan(result, tree)


def _blocks(members: list[CellOp]) -> list[list[CellOp]]:
    """Products with weights by their input, in order of first use; one block for any other operator."""
    if members[0].kind != "matmul" or len(members[0].weights) != 1:
        return [members]
    by_input: dict[Any, list[CellOp]] = {}
    for op in members:
        by_input.setdefault(op.call.args[0], []).append(op)
    return list(by_input.values())


def _requests(
    group: int, members: list[CellOp], ops: list[CellOp], block_of: dict[int, tuple[int, int]]
) -> list[_Request]:
    producer = {op.var: op.index for op in ops}
    found = []
    for argument in members[0].values:
        operands = [producer.get(value, -1) for value in rows_read(members, argument)]
        if len(operands) != len(members) or len(members) < 2 or min(operands) < 0 or len(set(operands)) < len(operands):
            continue
        if len({block_of[index] for index in operands}) == 1:
            size = sum(ops[index].size for index in operands)
            found.append(_Request(size, group, argument, tuple(op.index for op in members), tuple(operands)))
    return found


class _Lanes:
    """Union-find of rows; no lane holds two rows of one block."""

    def __init__(self, block_of: dict[int, tuple[int, int]], count: int) -> None:
        self.parent = list(range(count))
        self.blocks = [{block_of[index]} for index in range(count)]

    def find(self, row: int) -> int:
        while self.parent[row] != row:
            self.parent[row] = self.parent[self.parent[row]]
            row = self.parent[row]
        return row

    def union(self, pairs: list[tuple[int, int]]) -> bool:
        """Join all pairs, or none."""
        parent, blocks = list(self.parent), [set(b) for b in self.blocks]
        for a, b in pairs:
            a, b = self.find(a), self.find(b)
            if a == b:
                continue
            if self.blocks[a] & self.blocks[b]:
                self.parent, self.blocks = parent, blocks
                return False
            self.parent[b] = a
            self.blocks[a] |= self.blocks[b]
        return True


def _lane_order(requests: list[_Request], block_of: dict[int, tuple[int, int]], count: int) -> tuple[list[int], PQTree]:
    """Rank of each row, and the tree it was taken from: requests are granted largest first."""
    lanes = _Lanes(block_of, count)
    granted: list[_Request] = []
    for request in sorted(requests, key=lambda r: (-r.size, r.group, r.argument)):
        before = list(lanes.parent), [set(b) for b in lanes.blocks]
        if not lanes.union(list(zip(request.results, request.operands, strict=True))):
            continue
        if _tree(lanes, [*granted, request], count) is None:
            lanes.parent, lanes.blocks = before
            continue
        granted.append(request)
    tree = _tree(lanes, granted, count)
    assert tree is not None
    position = {lane: rank for rank, lane in enumerate(tree.frontier())}
    return [position[lanes.find(row)] for row in range(count)], tree


def _tree(lanes: _Lanes, requests: list[_Request], count: int) -> PQTree | None:
    """The orders of lanes that keep the rows of every request together; None if there are none."""
    tree = PQTree(count)
    for request in requests:
        if not tree.reduce(sorted({lanes.find(row) for row in request.operands})):
            return None
    return tree


def rows_read(members: list[CellOp], argument: int) -> list[Any]:
    """The values a group reads for one argument: one per member, or one per block where one product serves it."""
    values = [op.call.args[argument] for op in members]
    blocks = _blocks(members)
    if (len(blocks) == 1 and blocks[0] is members) or len({len(block) for block in blocks}) > 1:
        return values
    return [block[0].call.args[argument] for block in blocks]


def _access(members: list[CellOp], argument: int, ops: list[CellOp], place: dict[int, tuple[int, int]]) -> Access:
    first = members[0]
    if argument in first.weights:
        return Access("weights")
    if argument not in first.values:
        return Access("constant")
    values = rows_read(members, argument)
    if all(value.same_as(values[0]) for value in values):
        return Access("broadcast")
    if not isinstance(values[0], relax.Var):
        return Access("constant")
    producer = {op.var: op.index for op in ops}
    indices = [producer.get(value, -1) for value in values]
    if min(indices) < 0:
        return Access("gather", reason="inputs of the cell" if max(indices) < 0 else "inputs of the cell among them")
    places = [place[index] for index in indices]
    if len({group for group, _ in places}) > 1:
        return Access("gather", reason="results of several groups")
    start = places[0][1]
    if [row for _, row in places] == list(range(start, start + len(places))):
        return Access("slice", places[0][0], start)
    return Access("gather", reason="not consecutive and aligned in their group")

"""Nodes of a PQ tree and how their children are linked.

A P node keeps its children in a dict, ordered and with removal in O(1). The children of a Q node form a chain: each
knows its one or two neighbours, without a sense of direction, so that two chains join in O(1) whichever way round they
are. Only the two ends of a chain are sure to know their parent, which is what keeps a reduction linear (Booth and
Lueker 1976, section 3).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

LEAF, P, Q = range(3)
"""Kinds of nodes."""

EMPTY, PARTIAL, FULL = range(3)
"""Labels: none, some or all leaves below are in the constraint."""

UNMARKED, QUEUED, BLOCKED, UNBLOCKED = range(4)
"""How far a reduction has come with a node; a blocked one does not know its parent yet."""

_NO_NODES: list[Any] = []  # shared by all nodes that no reduction has met; never changed


class Node:
    """A node; what is below the line belongs to the reduction that is under way."""

    __slots__ = (
        "children",
        "count",
        "first",
        "full",
        "kind",
        "label",
        "last",
        "leaf",
        "mark",
        "one",
        "other",
        "parent",
        "partial",
        "pending",
    )

    def __init__(self, kind: int, leaf: int = -1) -> None:
        self.kind = kind
        self.leaf = leaf
        self.parent: Node | None = None
        self.children: dict[Node, None] = {}
        self.first: Node | None = None
        self.last: Node | None = None
        self.one: Node | None = None
        self.other: Node | None = None
        # ----
        self.forget()

    def forget(self) -> None:
        """Forget what the last reduction noted here."""
        self.label = EMPTY
        self.mark = UNMARKED
        self.pending = 0
        self.count = 0
        self.full: list[Node] = _NO_NODES
        self.partial: list[Node] = _NO_NODES

    def meet(self) -> None:
        """Prepare for pertinent children."""
        self.mark = QUEUED
        self.full = []
        self.partial = []

    def child_list(self) -> list[Node]:
        """The children in order."""
        if self.kind != Q:
            return list(self.children)
        found: list[Node] = []
        before, node = None, self.first
        while node is not None:
            found.append(node)
            before, node = node, node.beyond(before)
        return found

    def beyond(self, before: Node | None) -> Node | None:
        """The neighbour that is not `before`; from an end of a chain (``before=None``) the only neighbour."""
        return self.other if self.one is before else self.one

    def put_in_place_of(self, old: Node, new: Node) -> None:
        """Let `new` be this node's neighbour where `old` was; None stands for an end."""
        if self.one is old:
            self.one = new
        else:
            self.other = new

    def add_neighbour(self, node: Node) -> None:
        """Let `node` be a neighbour of this end of a chain."""
        if self.one is None:
            self.one = node
        else:
            self.other = node


def p_node(children: Iterable[Node]) -> Node:
    """A P node of `children`, which have no neighbours; of one child the child itself."""
    children = dict.fromkeys(children)
    if len(children) == 1:
        return next(iter(children))
    node = Node(P)
    node.children = children
    for child in children:
        child.parent = node
    return node


def append(chain: Node, node: Node) -> None:
    """Make `node`, which has no neighbours, the last child of the Q node `chain`."""
    end = chain.last
    if end is None:
        chain.first = node
    else:
        end.add_neighbour(node)
        node.one = end
    chain.last = node
    node.parent = chain


def prepend(chain: Node, node: Node) -> None:
    """Make `node`, which has no neighbours, the first child of the Q node `chain`."""
    turn(chain)
    append(chain, node)
    turn(chain)


def turn(chain: Node) -> None:
    """Turn the Q node `chain` round."""
    chain.first, chain.last = chain.last, chain.first


def turn_round(node: Node) -> None:
    """Reverse the children of a P or Q node."""
    if node.kind == Q:
        turn(node)
    else:
        node.children = dict.fromkeys(reversed(node.children))


def substitute(old: Node, new: Node) -> None:
    """Let `new`, which has no place yet, take the place of `old` below its parent; `old` has none then."""
    new.one, new.other, new.parent = old.one, old.other, old.parent
    parent = old.parent
    if old.one is None and old.other is None:
        if parent is not None:
            del parent.children[old]
            parent.children[new] = None
    else:
        for neighbour in (old.one, old.other):
            if neighbour is not None:
                neighbour.put_in_place_of(old, new)
        _move_end(parent, old, new)
    old.one = old.other = old.parent = None


def splice(chain: Node) -> None:
    """Replace the Q node `chain`, itself in a chain, by its children; its last one towards its labelled neighbour.

    ``[E a Q[b c] F] --> [E a b c F]`` where F is not empty, and where no neighbour is labelled
    ``[Q[b c] a E] --> [c b a E]``.
    """
    inner, outer = chain.one, chain.other
    if inner is None or not inner.label:
        inner, outer = outer, inner
    if inner is not None and not inner.label:
        inner, outer = None, inner
    for end, neighbour in ((chain.last, inner), (chain.first, outer)):
        assert end is not None
        if neighbour is not None:
            end.add_neighbour(neighbour)
            neighbour.put_in_place_of(chain, end)
        else:
            _move_end(chain.parent, chain, end)


def _move_end(parent: Node | None, old: Node, new: Node) -> None:
    """If the child `old` of the Q node `parent` is an end of its chain, let `new` be that end."""
    if parent is None or parent.kind != Q:
        return
    if parent.first is old:
        parent.first = new
    elif parent.last is old:
        parent.last = new
    else:
        return
    new.parent = parent

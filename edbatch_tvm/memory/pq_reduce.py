"""One reduction of a PQ tree: the algorithm of Booth and Lueker (1976).

Three passes, each linear in the number of nodes that have a leaf of the constraint below them (up to the lowest node
that has all of them, the *pertinent root*), and these are linear in the constraint, amortised over all reductions:

1. *bubble*: from the leaves up, find the parents of the nodes met; inner children of a Q node learn theirs from a
   neighbour.
2. *label*: from the leaves up, say which nodes are full and which partial, and check that every node fits a template.
   Nothing has changed so far, so that a constraint that does not fit leaves the tree as it was.
3. *restructure*: below the pertinent root at most two chains of partial nodes lead down. Each is collapsed into one Q
   node with the empty leaves first and the full ones last, and these are joined at the root.

In the pictures of the templates ``( )`` is a P node, ``[ ]`` a Q node, E empty and F full children.
"""

from __future__ import annotations

from collections import deque

from edbatch_tvm.memory.pq_node import (
    BLOCKED,
    EMPTY,
    FULL,
    LEAF,
    PARTIAL,
    QUEUED,
    UNBLOCKED,
    UNMARKED,
    Node,
    P,
    Q,
    append,
    p_node,
    prepend,
    splice,
    substitute,
    turn,
)


def reduce(leaves: list[Node]) -> tuple[bool, Node | None]:
    """Make `leaves`, two or more of one tree, consecutive.

    Returns
    -------
    done : bool
        False if they cannot be consecutive; the tree is as it was.
    root : Node or None
        The root of the tree where that changed.
    """
    seen: list[Node] = []
    root = None
    done = _bubble(leaves, seen)
    if done:
        pertinent = _label(leaves)
        done = pertinent is not None
        if pertinent is not None:
            root = _restructure(pertinent, seen)
    for node in seen:
        node.forget()
    return done, root


def outline(leaves: list[Node]) -> list[Node]:
    """The full nodes that `leaves`, two or more and consecutive in every order, consist of: one, or a run in order."""
    seen: list[Node] = []
    found = None
    if _bubble(leaves, seen):
        root = _label(leaves)
        if root is not None and not root.partial:
            if root.kind == Q:
                found = _run_of(root.full[0])
            elif len(root.full) == len(root.children):
                found = [root]
    for node in seen:
        node.forget()
    assert found is not None, "leaves that are not consecutive in every order"
    return found


def _run_of(middle: Node) -> list[Node]:
    """The run of full nodes that `middle` is in."""
    runs: list[list[Node]] = []
    for start in (middle.one, middle.other):
        run: list[Node] = []
        before, node = middle, start
        while node is not None and node.label == FULL:
            run.append(node)
            before, node = node, node.beyond(before)
        runs.append(run)
    return [*reversed(runs[0]), middle, *runs[1]]


# Bubble -------------------------------------------------------------------------------------------------------------


def _bubble(leaves: list[Node], seen: list[Node]) -> bool:
    """Find the parents of all nodes below the pertinent root; False if there are several separate chains of them."""
    queue = deque(leaves)
    seen.extend(leaves)
    for leaf in leaves:
        leaf.mark = QUEUED
    blocks = above_root = 0
    while len(queue) + blocks + above_root > 1:
        if not queue:
            return False
        node = queue.popleft()
        one, other = node.one, node.other
        node.mark = UNBLOCKED
        if one is not None and other is not None:
            if one.mark == UNBLOCKED:
                node.parent = one.parent
            elif other.mark == UNBLOCKED:
                node.parent = other.parent
            else:
                node.mark = BLOCKED
        joined = (one is not None and one.mark == BLOCKED) + (other is not None and other.mark == BLOCKED)
        blocks -= joined
        if node.mark == BLOCKED:
            blocks += 1
            continue
        parent = node.parent
        if parent is None:
            above_root = 1
            continue
        parent.pending += 1
        if joined:
            for neighbour in (one, other):
                _unblock(neighbour, node, parent)
        if parent.mark == UNMARKED:
            parent.meet()
            queue.append(parent)
            seen.append(parent)
    if blocks:
        _adopt(seen)
    return True


def _unblock(node: Node | None, before: Node, parent: Node) -> None:
    """Tell the blocked nodes from `node` on, away from `before`, who their parent is."""
    while node is not None and node.mark == BLOCKED:
        node.mark = UNBLOCKED
        node.parent = parent
        parent.pending += 1
        before, node = node, node.beyond(before)


def _adopt(seen: list[Node]) -> None:
    """Give the one block of inner children of a Q node a parent for the time of this reduction."""
    pseudo = Node(Q)
    pseudo.meet()
    for node in seen:
        if node.mark == BLOCKED:
            node.parent = pseudo
            pseudo.pending += 1


# Label --------------------------------------------------------------------------------------------------------------


def _label(leaves: list[Node]) -> Node | None:
    """Label the nodes below the pertinent root and return it; None if one fits no template."""
    queue = list(leaves)
    for leaf in leaves:
        leaf.label = FULL
        leaf.count = 1
    for node in queue:
        if node.count == len(leaves):
            return node if _fits_as_root(node) else None
        if node.kind != LEAF:
            node.label = _label_inner(node)
            if not node.label:
                return None
        parent = node.parent
        assert parent is not None
        parent.count += node.count
        (parent.full if node.label == FULL else parent.partial).append(node)
        parent.pending -= 1
        if not parent.pending:
            queue.append(parent)
    return None


def _label_inner(node: Node) -> int:
    """Label of a node below the pertinent root; ``EMPTY`` if it fits no template."""
    if len(node.partial) > 1:
        return EMPTY
    if node.kind == P:
        return FULL if len(node.full) == len(node.children) else PARTIAL
    run, after = _full_run(None, _full_end(node))
    if after is None:
        return FULL
    if run == len(node.full) and (not node.partial or after is node.partial[0]):
        return PARTIAL
    return EMPTY


def _full_end(chain: Node) -> Node | None:
    """The end of a Q node that its full children, or else its partial one, have to be at."""
    first, last = chain.first, chain.last
    assert first is not None
    assert last is not None
    return first if first.label > last.label else last


def _fits_as_root(node: Node) -> bool:
    """Whether the pertinent root fits a template: its pertinent children are consecutive, partial ones at the ends."""
    if len(node.partial) > 2:
        return False
    if node.kind == P:
        return True
    if not node.full:
        one, other = node.partial
        return one.one is other or one.other is other
    middle = node.full[0]
    left, left_end = _full_run(middle, middle.one)
    right, right_end = _full_run(middle, middle.other)
    ends = (left_end is not None and left_end.label) + (right_end is not None and right_end.label)
    return left + 1 + right == len(node.full) and ends == len(node.partial)


def _full_run(before: Node | None, node: Node | None) -> tuple[int, Node | None]:
    """Number of full nodes from `node` on, away from `before`, and the node after them."""
    run = 0
    while node is not None and node.label == FULL:
        run += 1
        before, node = node, node.beyond(before)
    return run, node


# Restructure --------------------------------------------------------------------------------------------------------


def _restructure(root: Node, seen: list[Node]) -> Node | None:
    """Apply the templates; the root of the whole tree if it is another now."""
    chains = [_collapse(child, seen) for child in root.partial]
    if root.kind == Q:
        # Q2, Q3:  [E [E F] F [F E] E] --> [E E F F F E E]
        for chain in chains:
            splice(chain)
        return None
    if len(root.full) == len(root.children):
        return None  # P1
    for child in root.full:
        del root.children[child]
    middle = _group(root.full, seen)
    if not chains:
        # P2:  (E E F F) --> (E E (F F))
        assert middle is not None
        root.children[middle] = None
        middle.parent = root
        return None
    # P4:  (E F F [E F]) --> (E [E F (F F)])        P6:  (E F F [E F] [E F]) --> (E [E F (F F) F E])
    chain = chains[0]
    for one in chains:
        del root.children[one]
        one.parent = None
    if middle is not None:
        append(chain, middle)
    if len(chains) == 2:
        _join(chain, chains[1])
    if root.children:
        root.children[chain] = None
        chain.parent = root
        return None
    substitute(root, chain)
    return chain if chain.parent is None and chain.one is None and chain.other is None else None


def _collapse(node: Node, seen: list[Node]) -> Node:
    """Turn the partial `node`, in its place, into a Q node with empty children first and full ones last."""
    path = [node]
    while path[-1].partial:
        path.append(path[-1].partial[0])
    chain: Node | None = None
    for step in reversed(path):
        chain = _absorb(step, chain, seen)
    assert chain is not None
    return chain


def _absorb(node: Node, chain: Node | None, seen: list[Node]) -> Node:
    """The same for a node whose only partial child, if it has one, is such a Q node already."""
    if node.kind == Q:
        # Q2:  [F F [F E] E] --> [E E F F F]
        if _full_end(node) is node.first:
            turn(node)
        if chain is not None:
            splice(chain)
        return node
    # P3:  (E E F F) --> [(E E) (F F)]              P5:  (E E F F [E F]) --> [(E E) E F (F F)]
    for child in node.full:
        del node.children[child]
    if chain is None:
        chain = Node(Q)
        seen.append(chain)
    else:
        del node.children[chain]
        chain.parent = None
    chain.label = PARTIAL
    substitute(node, chain)
    full = _group(node.full, seen)
    if full is not None:
        append(chain, full)
    if node.children:
        node.label = EMPTY
        prepend(chain, node if len(node.children) > 1 else next(iter(node.children)))
    return chain


def _group(full: list[Node], seen: list[Node]) -> Node | None:
    """The full children `full` of a P node as one full node; None if there are none."""
    if not full:
        return None
    group = p_node(full)
    group.label = FULL
    seen.append(group)
    return group


def _join(chain: Node, other: Node) -> None:
    """Append the Q node `other`, reversed, to `chain`."""
    end, start, last = chain.last, other.last, other.first
    assert end is not None
    assert start is not None
    assert last is not None
    end.add_neighbour(start)
    start.add_neighbour(end)
    chain.last = last
    last.parent = chain

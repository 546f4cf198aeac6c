"""PQ trees: all orders of a set in which given subsets are consecutive."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise, permutations
from operator import index

from edbatch_tvm.errors import PlanError
from edbatch_tvm.memory.pq_node import LEAF, Node, P, Q, append, p_node
from edbatch_tvm.memory.pq_reduce import outline, reduce

Constraint = tuple[int, ...]


class PQTree:
    """All orders of ``0, ..., n - 1`` in which given subsets are consecutive.

    The children of a P node may be in any order, those of a Q node in the given order or its reverse. A new tree
    allows every order; :meth:`reduce` keeps those in which one more subset is consecutive.

    Parameters
    ----------
    n : int
        Number of leaves, 1 or more.

    Notes
    -----
    Kellogg S. Booth and George S. Lueker, "Testing for the consecutive ones property, interval graphs, and graph
    planarity using PQ-tree algorithms", Journal of Computer and System Sciences 13 (1976). All reductions together take
    time linear in n plus the total size of the constraints.

    Examples
    --------
    >>> tree = PQTree(4)
    >>> tree.reduce([0, 2]), tree.reduce([2, 3])
    (True, True)
    >>> print(tree)
    (1 [0 2 3])
    >>> tree.reduce([0, 3])
    False
    >>> tree.witness
    ((0, 2), (2, 3), (0, 3))
    >>> sum(1 for _ in tree.orders())
    4
    """

    def __init__(self, n: int) -> None:
        if type(n) is not int or not 1 <= n < 2**31:
            raise PlanError(f"a PQ tree of {n!r:.60} leaves", "1 or more, a number that fits int32")
        self._leaves = [Node(LEAF, leaf) for leaf in range(n)]
        self._root = p_node(self._leaves)
        self._start: PQTree | None = None
        self._held: list[Constraint] = []
        self._failed: Constraint | None = None
        self._witness: tuple[Constraint, ...] | None = None

    def __len__(self) -> int:
        return len(self._leaves)

    def __str__(self) -> str:
        from edbatch_tvm.memory.pq_text import format_tree

        return format_tree(self)

    def __repr__(self) -> str:
        return f"PQTree(leaves={len(self)}, constraints={len(self._held)})"

    @classmethod
    def parse(cls, text: str) -> PQTree:
        """The tree that ``str`` printed; see :func:`edbatch_tvm.memory.pq_text.parse_tree`.

        Examples
        --------
        >>> PQTree.parse("([0 2 3] 1)").frontier()
        [0, 2, 3, 1]
        """
        from edbatch_tvm.memory.pq_text import parse_tree

        return parse_tree(text)

    def to_dot(self) -> str:
        """The tree in the DOT language of Graphviz: P nodes are circles, Q nodes boxes."""
        from edbatch_tvm.memory.pq_text import dot

        return dot(self)

    @property
    def root(self) -> Node:
        """The root; not to be changed."""
        return self._root

    def reduce(self, leaves: Iterable[int]) -> bool:
        """Keep only the orders in which `leaves` are consecutive.

        Returns
        -------
        bool
            False if there is no such order; then the tree stays as it was, and :attr:`witness` says why.

        Raises
        ------
        PlanError
            If one of them is not a leaf of this tree.
        """
        try:
            constraint = tuple(dict.fromkeys(map(index, leaves)))
        except TypeError:
            raise PlanError(f"leaves {leaves!r:.60}", "a list of integers") from None
        count = len(self._leaves)
        if constraint and not 0 <= min(constraint) <= max(constraint) < count:
            raise PlanError(f"leaves {min(constraint)} to {max(constraint)}", f"leaves of 0 to {count - 1}")
        self._failed = self._witness = None
        if 1 < len(constraint) < count:
            done, root = reduce([self._leaves[leaf] for leaf in constraint])
            if not done:
                self._failed = constraint
                return False
            self._root = root or self._root
            self._held.append(constraint)
        return True

    @property
    def witness(self) -> tuple[Constraint, ...] | None:
        """Constraints that cannot hold together, if the last reduction failed: without any one of them the others can.

        The last one is the one that failed. Found when first asked for, in as many passes over the constraints as the
        witness has members. For a parsed tree, the tree itself holds as well.
        """
        if self._witness is None and self._failed is not None:
            critical = [self._failed]
            candidates = self._held
            while True:
                tree = self._start.copy() if self._start is not None else PQTree(len(self))
                if not all(tree.reduce(constraint) for constraint in critical):
                    break
                # The first of the candidates that does not fit is needed; those after it are not.
                at = next(i for i, constraint in enumerate(candidates) if not tree.reduce(constraint))
                critical.append(candidates[at])
                candidates = candidates[:at]
            self._witness = (*reversed(critical[1:]), self._failed)
        return self._witness

    def frontier(self) -> list[int]:
        """One of the orders: the leaves from left to right."""
        return leaves_below(self._root)

    def restricted(self, leaves: Sequence[int]) -> list[Constraint]:
        """Constraints that leave exactly the orders that `leaves` have within the orders of this tree.

        Parameters
        ----------
        leaves : sequence of int
            Two or more, different, and consecutive in every order.
        """
        found: list[Constraint] = []
        run = outline([self._leaves[leaf] for leaf in leaves])
        below = {node: leaves_below(node) for node in run}
        found.extend((*below[one], *below[two]) for one, two in pairwise(run))
        stack = list(run)
        while stack:
            node = stack.pop()
            if node.kind == LEAF:
                continue
            found.append(tuple(below[node]))
            children = node.child_list()
            below.update((child, leaves_below(child)) for child in children)
            if node.kind == Q:
                found.extend((*below[one], *below[two]) for one, two in pairwise(children))
            stack.extend(children)
        return found

    def orders(self) -> Iterator[list[int]]:
        """All the orders, each once. A P node of k children multiplies their number by k!, a Q node by 2."""
        inner = [node for node in self.nodes() if node.kind != LEAF]
        chosen: dict[Node, Sequence[Node]] = {}
        choices = [_arrangements(node) for node in inner]
        while True:
            # Like an odometer: the last node that can still change does, those after it start again.
            for at in range(len(chosen), len(inner)):
                chosen[inner[at]] = next(choices[at])
            yield self._arranged(chosen)
            while chosen:
                at = len(chosen) - 1
                following = next(choices[at], None)
                if following is not None:
                    chosen[inner[at]] = following
                    break
                del chosen[inner[at]]
                choices[at] = _arrangements(inner[at])
            else:
                return

    def _arranged(self, chosen: dict[Node, Sequence[Node]]) -> list[int]:
        found = []
        stack = [self._root]
        while stack:
            node = stack.pop()
            if node.kind == LEAF:
                found.append(node.leaf)
            else:
                stack.extend(reversed(chosen[node]))
        return found

    def nodes(self) -> list[Node]:
        """All nodes, a parent before its children."""
        found = [self._root]
        for node in found:
            if node.kind != LEAF:
                found.extend(node.child_list())
        return found

    def copy(self) -> PQTree:
        """An independent tree of the same orders and constraints."""
        twin = PQTree.__new__(PQTree)
        twin._start, twin._held = self._start, list(self._held)
        twin._failed, twin._witness = self._failed, self._witness
        order = self.nodes()
        twins = {node: Node(node.kind, node.leaf) for node in order}
        for node in reversed(order):
            link(twins[node], [twins[child] for child in node.child_list()])
        twin._root = twins[self._root]
        twin._leaves = [twins[leaf] for leaf in self._leaves]
        return twin

    @classmethod
    def of_nodes(cls, root: Node, leaves: list[Node]) -> PQTree:
        """A tree of linked nodes; it starts without constraints of its own."""
        tree = cls.__new__(cls)
        tree._root, tree._leaves = root, leaves
        tree._start, tree._held, tree._failed, tree._witness = None, [], None, None
        tree._start = tree.copy()
        return tree


def link(node: Node, children: list[Node]) -> None:
    """Give `node`, which has no children, these."""
    if node.kind == P:
        node.children = dict.fromkeys(children)
        for child in children:
            child.parent = node
    elif node.kind == Q:
        for child in children:
            append(node, child)


def leaves_below(top: Node) -> list[int]:
    """The leaves below a node from left to right."""
    found: list[int] = []
    stack = [top]
    while stack:
        node = stack.pop()
        if node.kind == LEAF:
            found.append(node.leaf)
        else:
            stack.extend(reversed(node.child_list()))
    return found


def _arrangements(node: Node) -> Iterator[Sequence[Node]]:
    """The orders that the children of `node` may have."""
    children = node.child_list()
    if node.kind == Q:
        return iter((children, children[::-1]))
    return permutations(children)


__all__ = ["PQTree"]

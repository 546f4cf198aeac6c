"""PQ trees as text, ``(0 [1 2 (3 4)] 5)`` with ``( )`` for a P node and ``[ ]`` for a Q node, and as DOT."""

from __future__ import annotations

import re

from edbatch_tvm.errors import PlanError
from edbatch_tvm.memory.pq_node import LEAF, Node, P, Q
from edbatch_tvm.memory.pq_tree import PQTree, link

_BRACKETS = {P: ("(", ")"), Q: ("[", "]")}
_LEAST = {P: 2, Q: 3}
_TOKEN = re.compile(r"[()\[\]]|[^()\[\]\s]+")


def format_tree(tree: PQTree) -> str:
    """Text of `tree`."""
    parts: list[str] = []
    stack: list[Node | str] = [tree.root]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            parts.append(item)
        elif item.kind == LEAF:
            parts.append(str(item.leaf))
        else:
            opening, closing = _BRACKETS[item.kind]
            parts.append(opening)
            stack.append(closing)
            stack.extend(reversed(item.child_list()))
    text = " ".join(parts)
    return re.sub(r"(?<=[(\[]) | (?=[)\]])", "", text)


def parse_tree(text: str) -> PQTree:
    """The tree that `text` describes.

    Raises
    ------
    PlanError
        If the text is no tree of the leaves 0, ..., n - 1, a P node has fewer than 2 children or a Q node fewer than 3.
    """
    open_nodes: list[tuple[Node, list[Node]]] = []
    leaves: list[Node] = []
    top: list[Node] = []
    for match in _TOKEN.finditer(text):
        token = match[0]
        if not ((token.isdecimal() and len(token) < 10) or token in "()[]"):
            raise PlanError(f"{token[:60]!r} in a PQ tree", "leaves, ( ) and [ ]")
        siblings = open_nodes[-1][1] if open_nodes else top
        if token in "([":
            node = Node(P if token == "(" else Q)
            siblings.append(node)
            open_nodes.append((node, []))
        elif token in ")]":
            if not open_nodes or _BRACKETS[open_nodes[-1][0].kind][1] != token:
                raise PlanError(
                    f"{token!r} at character {match.start()} of a PQ tree", "the bracket that was opened last"
                )
            node, children = open_nodes.pop()
            if len(children) < _LEAST[node.kind]:
                kind = "PQ"[node.kind - P]
                raise PlanError(f"a {kind} node of {len(children)} children", f"{_LEAST[node.kind]} or more")
            link(node, children)
        else:
            leaves.append(Node(LEAF, int(token)))
            siblings.append(leaves[-1])
    if open_nodes or len(top) != 1:
        given = f"{len(open_nodes)} open brackets" if open_nodes else f"{len(top)} roots"
        raise PlanError(f"{given} in a PQ tree", "one root, all brackets closed")
    leaves.sort(key=lambda leaf: leaf.leaf)
    numbers = [leaf.leaf for leaf in leaves]
    if numbers != list(range(len(leaves))):
        raise PlanError(f"leaves {numbers[:20]} in a PQ tree", f"each of 0 to {len(leaves) - 1} once")
    return PQTree.of_nodes(top[0], leaves)


def dot(tree: PQTree) -> str:
    """`tree` in the DOT language."""
    nodes = tree.nodes()
    name = {node: f"l{node.leaf}" if node.kind == LEAF else f"n{number}" for number, node in enumerate(nodes)}
    shape = {LEAF: "plaintext", P: "circle", Q: "box"}
    label = {P: "P", Q: "Q"}
    lines = ["graph PQTree {", "  ordering=out;"]
    for node in nodes:
        text = label.get(node.kind, str(node.leaf))
        lines.append(f'  {name[node]} [shape={shape[node.kind]}, label="{text}"];')
    for node in nodes:
        lines.extend(f"  {name[node]} -- {name[child]};" for child in (node.child_list() if node.kind != LEAF else ()))
    return "\n".join([*lines, "}"])

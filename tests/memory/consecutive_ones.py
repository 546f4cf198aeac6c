"""Independent checks of what a PQ tree says: brute force, and McConnell's theorem."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

Sets = Sequence[Sequence[int]]


def is_consecutive(order: Sequence[int], subset: Sequence[int]) -> bool:
    """Whether the members of `subset` stand together in `order`."""
    place = {leaf: position for position, leaf in enumerate(order)}
    places = [place[leaf] for leaf in subset]
    return not places or max(places) - min(places) == len(set(subset)) - 1


def brute_force(n: int, sets: Sets) -> set[tuple[int, ...]]:
    """All orders of n leaves in which every set is consecutive."""
    return {order for order in itertools.permutations(range(n)) if all(is_consecutive(order, one) for one in sets)}


def can_be_consecutive(n: int, sets: Sets) -> bool:
    """Whether there is an order in which every set is consecutive.

    R. M. McConnell, "A certifying algorithm for the consecutive-ones property", SODA 2004: there is one exactly if the
    incompatibility graph is bipartite. In other words: a leaf b outside a set lies on the same side of all its members.
    So join, for all a and c in a set and b outside, "a before b" with "c before b"; there is an order exactly if no
    "a before b" is joined with "b before a".
    """
    before = list(range(n * n))

    def find(pair: int) -> int:
        while before[pair] != pair:
            before[pair] = before[before[pair]]
            pair = before[pair]
        return pair

    for one in sets:
        members = set(one)
        for b in range(n):
            if b not in members:
                for a, c in itertools.pairwise(members):
                    before[find(a * n + b)] = find(c * n + b)
                    before[find(b * n + a)] = find(b * n + c)
    return all(find(a * n + b) != find(b * n + a) for a in range(n) for b in range(a))


def check_witness(n: int, witness: Sets) -> None:
    """Assert that the constraints cannot hold together, and that without any one of them they can.

    Leaves that are in the same constraints are one leaf here, which keeps the check small.
    """
    kinds = sorted({tuple(leaf in one for one in map(set, witness)) for leaf in range(n)})
    merged = [[place for place, kind in enumerate(kinds) if kind[number]] for number in range(len(witness))]
    assert not can_be_consecutive(len(kinds), merged)
    for number in range(len(merged)):
        assert can_be_consecutive(len(kinds), merged[:number] + merged[number + 1 :])

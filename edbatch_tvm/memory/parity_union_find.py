"""A union-find that knows of joined items whether they are equal or opposite."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

Item = TypeVar("Item", bound=Hashable)


class ParityUnionFind(Generic[Item]):
    """Items with a value of 0 or 1 each, of which some are known to be equal or different.

    Examples
    --------
    >>> parity = ParityUnionFind()
    >>> parity.join("a", "b", True), parity.join("b", "c", True), parity.join("a", "c", True)
    (True, True, False)
    >>> [parity.value(item) == parity.value("a") for item in "abc"]
    [True, False, True]
    """

    def __init__(self) -> None:
        self._parent: dict[Item, tuple[Item, bool]] = {}

    def join(self, one: Item, two: Item, different: bool) -> bool:
        """Say that two items differ, or are equal; False, and nothing said, if the opposite is known."""
        (root, value), (other, other_value) = self._find(one), self._find(two)
        if root == other:
            return (value != other_value) == different
        self._parent[root] = other, (value != other_value) != different
        return True

    def value(self, item: Item) -> bool:
        """A value that fits all that was said."""
        return self._find(item)[1]

    def _find(self, item: Item) -> tuple[Item, bool]:
        """The representative, and whether the item differs from it."""
        path = []
        while item in self._parent:
            path.append(item)
            item = self._parent[item][0]
        different = False
        for step in reversed(path):
            different ^= self._parent[step][1]
            self._parent[step] = item, different
        return item, different

"""The fast merge, if there is one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from edbatch_tvm.find_native import find_native

if TYPE_CHECKING:
    from edbatch_tvm.graph.instance import InstanceGraph
    from edbatch_tvm.graph.spec import Signature


class Merger(Protocol):
    """What a fast backend offers."""

    def merge(self, instances: Sequence[InstanceGraph]) -> InstanceGraph | None:
        """The merge of graphs of one signature; None if one of them is outside the regular form."""

    def merge_rows(
        self, rows: Sequence[bytes], first: InstanceGraph, signature: Signature | None = None
    ) -> InstanceGraph | None:
        """The merge of the graphs that have these rows, `first` the first of them; None if signatures differ, too.

        It is a graph over `signature`, if that is given: the same cells, which return more.
        """


def merger() -> Merger | None:
    """The fast merge, or None."""
    found: Merger | None = find_native("merge")
    return found

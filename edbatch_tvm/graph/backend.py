"""Where the fast merge comes from: :mod:`edbatch_tvm.native` if it can be had, else NumPy.

This package itself never imports TVM. The native package is imported when graphs are first merged.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from edbatch_tvm.graph.instance import InstanceGraph

VARIABLE = "EDBATCH_BACKEND"
"""Environment variable; ``python`` forces the reference. Read once, when this package is imported."""

python_only = os.environ.get(VARIABLE) == "python"


class Merger(Protocol):
    """What a fast backend offers."""

    def merge(self, instances: Sequence[InstanceGraph]) -> InstanceGraph | None:
        """The merge of graphs of one signature; None if one of them is outside the regular form."""

    def merge_rows(self, rows: Sequence[bytes], first: InstanceGraph) -> InstanceGraph | None:
        """The merge of the graphs that have these rows, `first` the first of them; None if signatures differ, too."""


_found: Merger | None = None
_looked_for = False


def merger() -> Merger | None:
    """The fast merge, or None."""
    global _found, _looked_for
    if python_only:
        return None
    if not _looked_for:
        _looked_for = True
        try:
            _found = importlib.import_module("edbatch_tvm.native.merger").load()
        except (ImportError, OSError, RuntimeError):
            _found = None
    return _found

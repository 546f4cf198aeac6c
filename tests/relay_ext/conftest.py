"""Lowering a cell to a chosen phase."""

from __future__ import annotations

from typing import Any

import tvm

from relay_ext.pipeline import cell_passes, run_passes


def lower_to(mod: Any, last: str) -> tvm.IRModule:
    """`mod` after the passes up to and including `last`."""
    names = [one.info.name for one in cell_passes()]
    return run_passes(mod, cell_passes()[: names.index(last) + 1])

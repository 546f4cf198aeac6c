"""PyTorch operators that export takes apart with PyTorch's own decompositions, since TVM's importer has them wrong."""

from __future__ import annotations

from typing import Any

from relay_ext.exact_torch_decompositions import own_decompositions
from relay_ext.torch_elementwise import elementwise_decompositions

DECOMPOSED = (
    # Scales and positions that differ from the ratio of the sizes.
    "upsample_nearest2d.vec",
    # Not known to the importer.
    "reflection_pad1d.default",
    "reflection_pad2d.default",
    "reflection_pad3d.default",
    "replication_pad1d.default",
    "replication_pad2d.default",
    "replication_pad3d.default",
    "heaviside.default",
    "select_scatter.default",
    "col2im.default",
)
"""Operators by name, as in ``torch.ops.aten``."""


def decompositions() -> Any:
    """The table for ``ExportedProgram.run_decompositions``: PyTorch's own and :data:`DECOMPOSED`."""
    import torch
    from torch._decomp import get_decompositions

    wanted = []
    for name in DECOMPOSED:
        packet, overload = name.split(".")
        if hasattr(torch.ops.aten, packet):
            wanted.append(getattr(getattr(torch.ops.aten, packet), overload))
    table = torch.export.default_decompositions()
    table.update(get_decompositions(wanted))
    table.update(own_decompositions())
    table.update(elementwise_decompositions())
    return table

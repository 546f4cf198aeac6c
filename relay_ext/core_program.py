"""Exported programs in core operators, without the repeated parts of PyTorch's own decomposition.

``ExportedProgram.run_decompositions`` looks for composite operators among all that there are, in every call, and copies
the history of every node. The table is the same in every call, and nobody reads the history.

What it does next takes as long and has to stay: it registers for every composite operator what this does anyway.
Without that, operators are decomposed that :func:`decompositions` replaces.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from relay_ext.torch_decompositions import decompositions

_SPLIT = "_split_decomp_table_to_cia_and_python_decomp"
"""A function of PyTorch; where it has none of this name, it is left as it is."""

_ours = threading.local()


def in_core_operators(program: Any) -> Any:
    """An exported program, decomposed by :func:`decompositions`."""
    for node in program.graph.nodes:
        node.meta.pop("from_node", None)
    with _split_once():
        return program.run_decompositions(decompositions())


@contextmanager
def _split_once() -> Iterator[None]:
    """Let PyTorch remember which operators of the table are composite."""
    from torch.export import exported_program

    original = getattr(exported_program, _SPLIT, None)
    if original is None:
        yield
        return

    def split(table: Any) -> Any:
        if not getattr(_ours, "decomposes", False):  # another thread
            return original(table)
        return tuple(part.copy() for part in _parts(original))

    setattr(exported_program, _SPLIT, split)
    _ours.decomposes = True
    try:
        yield
    finally:
        _ours.decomposes = False
        setattr(exported_program, _SPLIT, original)


@cache
def _parts(split: Any) -> tuple[dict[Any, Any], ...]:
    """The table, split into composite operators and others."""
    return tuple(split(dict(decompositions())))

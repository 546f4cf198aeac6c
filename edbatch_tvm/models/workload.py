"""What a workload is made of; one folder beside this file for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edbatch_tvm.graph import InstanceGraph, Signature
from edbatch_tvm.models.contractions import multiply_adds
from edbatch_tvm.models.reference import Function
from edbatch_tvm.models.weights import initial_weights


@dataclass(frozen=True)
class Workload:
    """A model with its data.

    Attributes
    ----------
    name : str
    cells : callable
        ``cells(hidden)`` is the IRModule of the cells.
    read : callable
        ``read(path, signature)`` is the list of instance graphs of a data file.
    generate : callable
        ``generate(count, signature, seed)`` is a list of `count` random instance graphs with the statistics of the
        real data.
    reference : mapping of str to callable
        Each cell in NumPy, for :func:`edbatch_tvm.models.reference.run_reference`.
    """

    name: str
    cells: Callable[[int], Any]
    read: Callable[[str | Path, Signature], list[InstanceGraph]]
    generate: Callable[[int, Signature, int], list[InstanceGraph]]
    reference: Mapping[str, Function]

    def weights(self, hidden: int, seed: int = 0) -> dict[str, np.ndarray]:
        """Seeded float32 weights; see :func:`edbatch_tvm.models.weights.initial_weights`."""
        return initial_weights(self.cells(hidden), seed)

    def multiply_adds(self, hidden: int) -> dict[str, int]:
        """Multiply-adds of the matrix products of one call of each cell, as written."""
        return multiply_adds(self.cells(hidden))

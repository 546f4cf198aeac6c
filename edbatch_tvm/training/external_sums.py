"""Gradients of external rows: initial states and features that learn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edbatch_tvm.graph import InstanceGraph
from edbatch_tvm.runtime.result import Result
from edbatch_tvm.training.gradient_kernel import GradientKernels
from edbatch_tvm.training.gradient_layout import DTYPES
from edbatch_tvm.training.row_sources import arena_of
from edbatch_tvm.training.weight_sums import sum_rows

if TYPE_CHECKING:
    from edbatch_tvm.training.model import TrainingResult


@dataclass(frozen=True, eq=False)
class ExternalSums:
    """The gradients of external rows of a forward graph.

    Attributes
    ----------
    numbers : int64 array of shape [m]
        The external rows that have one, rising: ``FIRST_EXTERNAL - value``, or what the result calls them.
    rows : array
        ``[m, *spec.shape]``.
    """

    numbers: np.ndarray
    rows: np.ndarray


def external_sums(
    forward: TrainingResult, backward: Result, of: np.ndarray, rows: np.ndarray, kernels: GradientKernels | None
) -> dict[int, ExternalSums]:
    """The gradients of the external rows of the forward graph, by the arena that they belong to.

    Parameters
    ----------
    forward : TrainingResult
    backward : Result
    of : int array
        External rows, in the order of their users.
    rows : int array
        Where their gradients lie in the arenas of the backward pass.
    kernels : GradientKernels or None
        What adds rows up; None: NumPy.
    """
    if not len(of):
        return {}
    graph = forward.graph
    specs = () if graph.signature is None else graph.signature.value_specs
    arenas = graph.external_spec[of]
    called = forward.external_numbers
    found = {}
    for arena in np.flatnonzero(np.bincount(arenas)).tolist():
        chosen = arenas == arena
        memory, own, places = arena_of(backward, specs[arena]), of[chosen], rows[chosen]
        index = own.astype(np.int64) if called is None else called[own]
        if kernels is None or memory.dtype not in DTYPES:
            numbers, sums = sum_rows(index, memory[places])
        else:
            numbers, sums = kernels.of(str(memory.dtype)).sum_rows(index, memory, places.astype(np.int64))
        found[arena] = ExternalSums(numbers, sums.reshape(len(sums), *specs[arena].shape))
    return found


def external_gradients(graph: InstanceGraph, sums: Mapping[int, ExternalSums]) -> tuple[np.ndarray, ...]:
    """The gradients of the external rows of a forward graph, laid out as they are."""
    found = [np.zeros(rows.shape, rows.dtype) for rows in graph.external_data]
    for arena, one in sums.items():
        index, total = sum_rows(graph.external_row[one.numbers].astype(np.int64), one.rows)
        found[arena][index] = total
    return tuple(found)

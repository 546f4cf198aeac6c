"""Comparison of a batched run with the float64 reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edbatch_tvm.errors import EdbatchError
from edbatch_tvm.graph import InstanceGraph

TOLERANCES = {"float32": 1e-5, "float64": 1e-13}
"""Largest relative error that passes, by the dtype of the cells."""

TOLERANCE = TOLERANCES["float32"]

LEAST_VALUE = 1e-2
"""A largest value below this fails: next to nothing was computed, so nothing was checked."""


@dataclass(frozen=True)
class Deviation:
    """How far a group of numbers is from the reference.

    Attributes
    ----------
    largest_value : float
        Largest absolute value of the reference.
    largest_difference : float
        Largest absolute difference; NaN where a result is none.
    """

    largest_value: float = 0.0
    largest_difference: float = 0.0

    @property
    def relative_error(self) -> float:
        """Largest difference over the largest value."""
        return self.largest_difference / self.largest_value if self.largest_value else float("inf")

    def merged(self, other: Deviation) -> Deviation:
        """Both groups as one."""
        # np.maximum keeps a NaN, max() may lose it.
        difference = float(np.maximum(self.largest_difference, other.largest_difference))
        return Deviation(max(self.largest_value, other.largest_value), difference)


@dataclass(frozen=True)
class Comparison:
    """Declared outputs and final states of a run, each held against its own largest value.

    Logits can be a hundred times smaller than states: relative to the states' largest value they could be wrong
    without anyone seeing it.
    """

    outputs: Deviation | None = None
    states: Deviation | None = None

    @property
    def groups(self) -> list[Deviation]:
        """Those of the two that there are: a model may declare everything that nothing reads."""
        return [group for group in (self.outputs, self.states) if group is not None]

    @property
    def relative_error(self) -> float:
        """The larger of the two relative errors."""
        # np.max keeps a NaN, max() may lose it.
        return float(np.max([group.relative_error for group in self.groups])) if self.groups else float("inf")

    @property
    def largest_value(self) -> float:
        """The smaller of the two largest values."""
        return min((group.largest_value for group in self.groups), default=0.0)

    def merged(self, other: Comparison) -> Comparison:
        """Both runs as one."""
        return Comparison(_merged(self.outputs, other.outputs), _merged(self.states, other.states))

    def require(self, dtype: str = "float32") -> None:
        """Raise unless the results of cells of `dtype` are right.

        Raises
        ------
        EdbatchError
            If a largest value or an error is out of bounds.
        """
        if not self.largest_value >= LEAST_VALUE:
            raise EdbatchError(
                f"check failed: the largest value is {self.largest_value:.3g}", f"{LEAST_VALUE:g} or more"
            )
        tolerance = TOLERANCES.get(dtype, TOLERANCE)
        if not self.relative_error <= tolerance:
            raise EdbatchError(f"check failed: relative error {self.relative_error:.3g}", f"{tolerance:g} or less")


def final_values(graph: InstanceGraph) -> np.ndarray:
    """The final states: every output of a node that has an output which nothing reads and nobody declared.

    Returns
    -------
    int array
        Values, ascending.
    """
    assert graph.signature is not None
    exists = graph.signature.output_arena[graph.node_type] >= 0
    used = np.zeros(exists.size, bool)
    used[graph.operand_value[graph.operand_value >= 0]] = True
    used[graph.outputs] = True
    ends = (exists & ~used.reshape(exists.shape)).any(axis=1)
    return np.flatnonzero(exists & ends[:, None])


def compare(
    graph: InstanceGraph,
    result: Any,
    reference: list[tuple[np.ndarray, ...]],
    value_of: np.ndarray | None = None,
) -> Comparison:
    """Compare the declared outputs and the final states of `result` with the reference.

    Parameters
    ----------
    graph : InstanceGraph
        The minibatch.
    result : Result
        ``result[i]`` are the outputs of instance i, ``result.values(values)`` the rows of values of one spec.
    reference : list of tuple of arrays
        From :func:`edbatch_tvm.checking.reference.run_reference`.
    value_of : int array, optional
        Where the values of `graph` are in the graph that was run, if that is its expansion.
    """
    assert graph.signature is not None
    stride = graph.stride
    outputs: Deviation | None = None
    states: Deviation | None = None
    for instance in range(graph.num_instances):
        declared = graph.outputs[graph.output_ptr[instance] : graph.output_ptr[instance + 1]].tolist()
        given = [result[instance]] if graph.scalar_output[instance] else result[instance]
        for value, array in zip(declared, given, strict=True):
            outputs = _merged(outputs, _deviation(array, reference[value // stride][value % stride]))
    final = final_values(graph)
    arena = graph.signature.output_arena[graph.node_type[final // stride], final % stride]
    for index in np.unique(arena):
        values = final[arena == index]
        ran = values if value_of is None else value_of[values]
        expected = np.stack([reference[value // stride][value % stride] for value in values.tolist()])
        states = _merged(states, _deviation(result.values(ran), expected))
    return Comparison(outputs, states)


def _merged(one: Deviation | None, other: Deviation | None) -> Deviation | None:
    if one is None or other is None:
        return one or other
    return one.merged(other)


def _deviation(given: Any, expected: np.ndarray) -> Deviation:
    given = np.asarray(given)
    if given.shape != expected.shape:
        raise EdbatchError(f"check failed: a result of shape {given.shape}", str(expected.shape))
    return Deviation(float(np.abs(expected).max(initial=0.0)), float(np.abs(given - expected).max(initial=0.0)))

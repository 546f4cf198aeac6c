"""Instances of one model as one minibatch graph."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edbatch_tvm.errors import GraphError
from edbatch_tvm.graph import InstanceGraph, Signature, merge, require_checked, validate
from edbatch_tvm.graph.merge import merge_again
from edbatch_tvm.graph.spec import first_difference


class Instances:
    """Merges instances of `cells`, and refuses others."""

    def __init__(self, cells: Signature) -> None:
        self.cells = cells
        self._equal = cells

    def merged(self, instances: Sequence[InstanceGraph], nodes: Signature | None = None) -> InstanceGraph:
        """The disjoint union of `instances`; where that is as fast, a graph over `nodes`: the cells returning more.

        Raises
        ------
        GraphError
            If there are none, or one consists of other cells or is not well formed; its position is named.
        """
        if isinstance(instances, InstanceGraph):
            raise GraphError("one instance graph", "a list of instance graphs", "model([instance])")
        if not isinstance(instances, Sequence) and np.ndim(instances) != 1:
            raise GraphError(f"instances in a {type(instances).__name__}", "a list of instance graphs")
        merged = merge_again(instances, nodes)
        if merged is not None and self.has_cells(instances[0].signature):
            return merged
        for position, instance in enumerate(instances):
            if not isinstance(instance, InstanceGraph):
                raise GraphError(f"instance {position} is a {type(instance).__name__}", "an InstanceGraph")
            if instance.signature is not self._equal and not self.has_cells(instance.signature):
                given, expected = first_difference(instance.signature, self.cells)
                raise GraphError(
                    f"instance {position} was built for other cells: {given}",
                    f"{expected}, a cell of this model",
                    "use model.builder()",
                )
            if not instance.checked:
                _validate(position, instance)
        return merge(instances)

    def has_cells(self, signature: Signature | None) -> bool:
        """Whether `signature` is that of the cells: what was equal last is kept, comparing is slow."""
        if signature is self.cells or signature is self._equal:
            return True
        if signature is None or signature != self.cells:
            return False
        self._equal = signature
        return True

    def require(self, graph: InstanceGraph, nodes: Signature) -> None:
        """Refuse a graph that was not checked, or does not consist of `nodes`: the cells, or what they expand to.

        Raises
        ------
        GraphError
            If it is such a graph.
        """
        require_checked(graph)
        known = nodes is self.cells and self.has_cells(graph.signature)
        if not known and graph.signature is not nodes and graph.signature != nodes:
            given, expected = first_difference(graph.signature, nodes)
            raise GraphError(
                f"a graph over other cells: {given}",
                f"{expected}, a cell of this model",
                "model.merge(instances) makes a graph that runs",
            )


def _validate(position: int, instance: InstanceGraph) -> None:
    try:
        validate(instance)
    except GraphError as error:
        raise GraphError(f"instance {position}: {error.given}", error.expected, error.hint) from None

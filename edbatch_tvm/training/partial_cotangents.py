"""Backward passes in which an output that nothing uses has no cotangent, where others have zero in its place.

Zero is as good as none but where it meets an infinite or undefined derivative: 0 times infinity is NaN. A cell returns
``exp(x)`` and ``log(x)``; where nothing uses the second one, PyTorch does not differentiate it, whatever x is. So a
backward pass that gives NaN runs again, if there are outputs without cotangents beside others that have one: nodes of
which the same outputs have cotangents become nodes of a type of their own, whose adjoint reads these alone.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edbatch_tvm.graph import CellSignature, InstanceGraph, Signature
from edbatch_tvm.runtime.executor import Executor
from edbatch_tvm.runtime.weights import WeightReader
from edbatch_tvm.training.backward_model import BackwardModel, Compile
from edbatch_tvm.training.cotangents import Cotangents
from edbatch_tvm.training.gradients import Gradients
from edbatch_tvm.training.graph_rows import OperandEntries
from edbatch_tvm.training.product_rows import ProductRows
from relay_ext.gradients.adjoint_cells import AdjointCell, Adjoints

if TYPE_CHECKING:
    from edbatch_tvm.training.model import TrainingModel, TrainingResult

Key = tuple[int, tuple[int, ...]]
"""A type, and its outputs that have cotangents."""


@dataclass(frozen=True, eq=False)
class PartialCells:
    """The cells of a model, and those of which some outputs have no cotangents; what a backward model asks for.

    Attributes
    ----------
    signature, nodes, adjoints, weights, executor, products
        See :class:`~edbatch_tvm.training.TrainingModel`.
    """

    signature: Signature
    nodes: Signature
    adjoints: Adjoints
    weights: WeightReader | None
    executor: Executor
    products: ProductRows | None


class PartialBackward:
    """Runs the backward passes of a model that gave NaN again.

    Parameters
    ----------
    model : TrainingModel
    compile_cells : callable

    Attributes
    ----------
    is_needed : bool
        Whether a cell has several outputs, so that there may be such passes.
    """

    def __init__(self, model: TrainingModel, compile_cells: Compile) -> None:
        self._model = model
        self._compile_cells = compile_cells
        self._adjoints: dict[Key, AdjointCell] = {}
        self._types: dict[Key, int] = {}
        self._backward: BackwardModel | None = None
        self._outputs = [model.adjoints.cells[cell.name].outputs for cell in model.nodes]
        self.is_needed = max(self._outputs, default=0) > 1

    def load(self, weights: Mapping[str, np.ndarray], rows: Mapping[str, np.ndarray]) -> None:
        """Take over the weights that the forward model has read."""
        if self._backward is not None:
            self._backward.load(weights, rows)

    def run(self, forward: TrainingResult, cotangents: Cotangents) -> Gradients | None:
        """The backward pass; None if no node has cotangents of some outputs alone."""
        found = self._found(forward, cotangents.values)
        if not found:
            return None
        if any(key not in self._types for key in found):
            for key in found:
                self._types.setdefault(key, len(self._outputs) + len(self._types))
            self._backward = BackwardModel(self._cells(), self._compile_cells, mixed=True)
        assert self._backward is not None
        return self._backward.run(self._retyped(forward, found), cotangents)

    def _found(self, forward: TrainingResult, given: np.ndarray) -> dict[Key, np.ndarray]:
        """The nodes of which some outputs have cotangents and others have none."""
        graph, plan = forward.graph, forward.plan
        stride, values = graph.stride, graph.operand_value.astype(np.int64)
        has = np.zeros((graph.num_nodes, stride), bool)
        has.reshape(-1)[given] = True
        found: dict[Key, list[np.ndarray]] = {}
        pointer = plan.schedule.batch_ptr.tolist()
        for begin, end in zip(pointer[-2::-1], pointer[:0:-1], strict=True):
            nodes = plan.schedule.order[begin:end].astype(np.int64)
            type_id = int(graph.node_type[nodes[0]])
            own, which = np.unique(has[nodes, : self._outputs[type_id]], axis=0, return_inverse=True)
            for number, row in enumerate(own):
                key = type_id, tuple(np.flatnonzero(row).tolist())
                chosen = nodes[which.reshape(-1) == number]
                if not row.all() and key[1]:
                    found.setdefault(key, []).append(chosen)
                entries = OperandEntries(graph, type_id, chosen)
                for place, slot in enumerate(self._adjoint(key).operands if key[1] else ()):
                    if slot is not None:
                        read = values[entries.of(place)]
                        read = read[read >= 0]
                        if forward.detached is not None:
                            read = read[~forward.detached[read // stride]]
                        has.reshape(-1)[read] = True
        return {key: np.concatenate(parts) for key, parts in found.items()}

    def _adjoint(self, key: Key) -> AdjointCell:
        type_id, present = key
        name = self._model.nodes[type_id].name
        if len(present) == self._outputs[type_id]:
            return self._model.adjoints.cells[name]
        if key not in self._adjoints:
            self._adjoints[key] = self._model.adjoints.partial(name, present)
        return self._adjoints[key]

    def _cells(self) -> PartialCells:
        """The cells of the model, then those that were met."""
        model = self._model
        taken = set(model.nodes.names)
        adjoints = dict(model.adjoints.cells)
        own: tuple[list[CellSignature], list[CellSignature]] = list(model.signature), list(model.nodes)
        for key in self._types:
            type_id, present = key
            name = "_".join([model.nodes[type_id].name, "of", *map(str, present)])
            while name in taken:
                name += "_"
            taken.add(name)
            adjoints[name] = self._adjoint(key)
            for cells in own:
                cells.append(replace(cells[type_id], name=name))
        signature, nodes = map(Signature, own)
        every = replace(model.adjoints, cells=adjoints)
        return PartialCells(signature, nodes, every, model.weights, model.executor, model.products)

    def _retyped(self, forward: TrainingResult, found: Mapping[Key, np.ndarray]) -> TrainingResult:
        """The result with these nodes as such of their own types."""
        assert self._backward is not None
        graph, signature = forward.graph, self._backward.model.signature
        types = graph.node_type.copy()
        for key, nodes in found.items():
            types[nodes] = self._types[key]
        attributes: dict[tuple[int, str], Any] = {}
        for (type_id, name), rows in graph.attributes.items():
            new = types[graph.node_type == type_id]
            attributes |= {(one, name): rows[new == one] for one in np.unique(new).tolist()}
        made: TrainingResult = copy.copy(forward)
        made.__dict__.pop("_places", None)
        made._signature = signature
        made.graph = InstanceGraph(
            types,
            graph.operand_ptr,
            graph.operand_value,
            signature,
            attributes=attributes,
            outputs=graph.outputs,
            node_ptr=graph.node_ptr,
            output_ptr=graph.output_ptr,
            external_spec=graph.external_spec,
            external_row=graph.external_row,
            external_data=graph.external_data,
            scalar_output=graph.scalar_output,
        )
        made.graph.checked = True
        return made

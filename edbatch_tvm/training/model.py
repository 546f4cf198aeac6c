"""A model that trains: its results have a backward pass."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np

from edbatch_tvm.batching import ScheduleInfo
from edbatch_tvm.errors import GraphError
from edbatch_tvm.graph import InstanceGraph, Signature
from edbatch_tvm.graph.equal_nodes import EqualNodes
from edbatch_tvm.graph.expand import ExpansionTable
from edbatch_tvm.memory import Plan
from edbatch_tvm.runtime.device_result import DeviceResult
from edbatch_tvm.runtime.minibatch import Instances
from edbatch_tvm.runtime.model import Model
from edbatch_tvm.runtime.result import Result
from edbatch_tvm.training.backward_model import BackwardModel, Compile
from edbatch_tvm.training.cotangents import Cotangents, added, as_cotangents, without_detached
from edbatch_tvm.training.gradients import Gradients
from edbatch_tvm.training.partial_cotangents import PartialBackward
from edbatch_tvm.training.product_rows import ProductRows
from edbatch_tvm.training.reached_weights import ReachedWeights
from edbatch_tvm.training.saved_graph import renumbered, with_saved_values
from relay_ext.gradients.adjoint_cells import Adjoints


class TrainingModel(Model):
    """A model whose results have a backward pass; ``edbatch_tvm.compile(..., training=True)`` makes one.

    Attributes
    ----------
    cells : Signature
        The cells that instances consist of.
    nodes : Signature
        What a node of a minibatch graph is: a cell, or an operator of one.
    signature : Signature
        What runs: the same, but nodes also return what the backward pass reads.
    adjoints : Adjoints
        The adjoints of its cells.
    version : int
        How often weights were taken over.
    products : ProductRows or None
        Fills in tables of products.
    """

    trains = True

    def __init__(
        self,
        forward: Model,
        nodes: Signature,
        adjoints: Adjoints,
        compile_backward: Compile,
        table: ExpansionTable | None = None,
        products: ProductRows | None = None,
    ) -> None:
        super().__init__(
            forward.signature,
            forward.executor,
            forward.target,
            forward.policy,
            forward.plan_name,
            forward.compile_seconds,
            table,
            forward.source,
            forward.weights,
            forward.equal_nodes,
        )
        self.cells = nodes if table is None else table.cells
        self.nodes = nodes
        self._saves = nodes != self.signature
        self._instances = Instances(self.cells)
        self.adjoints = adjoints
        self.version = 0
        self._backward = BackwardModel(self, compile_backward)
        self._partial = PartialBackward(self, compile_backward)
        self._reached = ReachedWeights(nodes, adjoints, () if products is None else products.derived)
        self._lock = threading.RLock()
        self.products = products
        if products is not None and self.weights is not None:
            self.weights = products.attached(self.weights, self.executor)
            self.refresh()

    def refresh(
        self, params: Mapping[str, Any] | None = None, *, rows: Mapping[str, Any] = MappingProxyType({})
    ) -> None:
        """See :meth:`Model.refresh`; results made before have no backward pass any more."""
        with self._lock:
            super().refresh(params, rows=rows)

    def _load(self, weights: Mapping[str, np.ndarray], rows: Mapping[str, np.ndarray]) -> None:
        super()._load(weights, rows)
        self.version += 1
        self._backward.load(weights, rows)
        self._partial.load(weights, rows)
        if self.products is not None:
            self.products.load(weights, rows)

    @property
    def saved_bytes(self) -> dict[str, int]:
        """For each cell, or operator, the bytes that a node saves for its backward pass, besides its own outputs."""
        return {
            cell.name: sum(spec.size * np.dtype(spec.dtype).itemsize for spec in cell.outputs[len(own.outputs) :])
            for cell, own in zip(self.signature, self.nodes, strict=True)
        }

    def held_weights(self) -> dict[str, np.ndarray]:
        """See :meth:`Model.held_weights`; tables of products have all rows."""
        with self._lock:
            if self.products is not None:
                self.products.fill_all(self.executor)
            return super().held_weights()

    @property
    def backward_model(self) -> Model | None:
        """The compiled cells of the backward pass; None before the first one."""
        return self._backward.compiled

    def merge(self, instances: Sequence[InstanceGraph]) -> InstanceGraph:
        """See :meth:`Model.merge`; nodes of the graph also have outputs for what they save."""
        if not self._saves:
            return super().merge(instances)
        direct = self._table is None
        merged = self._instances.merged(instances, self.signature) if direct else super().merge(instances)
        return merged if merged.signature is self.signature else with_saved_values(merged, self.signature)

    def execute(self, graph: InstanceGraph, plan: Plan, info: ScheduleInfo | None = None) -> TrainingResult:
        """See :meth:`Model.execute`."""
        if self.products is None:
            result = super().execute(graph, plan, info)
        else:
            with self._lock:  # no other weights are taken over between the two
                counts = self.products.fill(graph, self.executor)
                result = super().execute(graph, plan, info)
            result.report.products.update(counts)
        if isinstance(result, DeviceResult):
            return DeviceTrainingResult(self, result)
        return TrainingResult(self, result)


class TrainingResult(Result):
    """A result with a backward pass.

    Attributes
    ----------
    detached : bool array of shape [nodes] or None
        Nodes that gradients do not pass: no operand of theirs gets one, nor a weight. None: there are none.
    external_numbers : int64 array or None
        A number of 0 or more for each external row; the gradients of rows of one number are added up. None: each is
        its own.
    """

    def __init__(self, model: TrainingModel, forward: Result) -> None:
        super().__init__(forward.graph, forward.plan, forward.report, forward._views)
        self._train(model)

    def _train(self, model: TrainingModel) -> None:
        """What a backward pass will ask for."""
        self._model = model
        self._version = model.version
        self._used = False
        self._distinct: tuple[TrainingResult, EqualNodes] | None = None
        self.detached: np.ndarray | None = None
        self.external_numbers: np.ndarray | None = None

    @property
    def is_current(self) -> bool:
        """Whether the model has taken over no weights since the result was computed."""
        return self._version == self._model.version

    def weights_are_back(self) -> None:
        """Have a backward pass with the weights that the model took over last: those the result was computed with."""
        self._version = self._model.version
        if self._distinct is not None:
            self._distinct[0].weights_are_back()

    def _in_graph(self, values: np.ndarray) -> np.ndarray:
        return renumbered(values, self._model.nodes.stride, self._model.signature.stride)

    def backward(self, cotangents: Any = None, *, retain: bool = False) -> Gradients:
        """The gradients of weights and external rows, by those of the outputs.

        Parameters
        ----------
        cotangents : optional
            The gradients of the outputs. What has the form of the result: for each instance an array, or a list of
            arrays where it declared a list of outputs; None stands for an output without. Or a mapping of values, as
            :meth:`Result.value` takes them, to arrays. Default: one, for outputs of one element.
        retain : bool
            Whether there may be another backward pass; without it, the values of the forward pass are given back.

        Returns
        -------
        Gradients

        Raises
        ------
        GraphError
            If there was a backward pass already, if weights were taken over since the result was computed, or if a
            cotangent is not of the shape of its output.
        CellError
            If an adjoint cell cannot be compiled.
        """
        return self.backward_of(as_cotangents(self, cotangents), retain)

    def of_all_nodes(self, graph: InstanceGraph, equal: EqualNodes) -> TrainingResult:
        """See :meth:`Result.of_all_nodes`; the gradients of equal nodes are added."""
        made = super().of_all_nodes(graph, equal)
        assert isinstance(made, TrainingResult)
        made._distinct = self, equal
        return made

    def backward_of(self, cotangents: Cotangents, retain: bool = False) -> Gradients:
        """See :meth:`backward`; cotangents of any values, as arrays."""
        if self._distinct is not None:
            distinct, equal = self._distinct
            distinct.external_numbers = self.external_numbers
            return distinct.backward_of(added(cotangents, self.graph, equal), retain)
        if self.detached is not None:
            cotangents = without_detached(cotangents, self.graph, self.detached)
        model = self._model
        with model._lock:
            if self._used:
                raise GraphError(
                    "a second backward pass of a result", "one", "the first one with retain=True keeps what it needs"
                )
            if not self.is_current:
                raise GraphError(
                    "a backward pass with other weights than the result was computed with",
                    "backward() before refresh()",
                )
            gradients = model._backward.run(self, cotangents)
            if model._partial.is_needed and gradients.have_nan():
                gradients = model._partial.run(self, cotangents) or gradients
            gradients.find_reached = partial(model._reached.weights, self.graph, cotangents.values, self.detached)
            self._used = not retain
        return gradients


class DeviceTrainingResult(TrainingResult, DeviceResult):
    """A result with a backward pass, on a device."""

    def __init__(self, model: TrainingModel, forward: DeviceResult) -> None:
        DeviceResult.__init__(self, forward.graph, forward.plan, forward.report, forward._lease, forward._memory)
        self._train(model)

"""A model that trains: its results have a backward pass."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from types import MappingProxyType
from typing import Any

import numpy as np
import tvm
from tvm import IRModule, relax

from edbatch_tvm.batching import ScheduleInfo
from edbatch_tvm.bounded_cache import BoundedCache
from edbatch_tvm.errors import GraphError
from edbatch_tvm.find_native import find_native
from edbatch_tvm.graph import InstanceGraph, Signature
from edbatch_tvm.graph.equal_nodes import EqualNodes
from edbatch_tvm.graph.expand import ExpansionTable
from edbatch_tvm.memory import Plan
from edbatch_tvm.runtime.cpu_executor import CpuExecutor
from edbatch_tvm.runtime.device_executor import DeviceExecutor
from edbatch_tvm.runtime.device_result import DeviceResult
from edbatch_tvm.runtime.minibatch import Instances
from edbatch_tvm.runtime.model import Model
from edbatch_tvm.runtime.result import Result
from edbatch_tvm.training.backward_cells import (
    float_arenas,
    section_functions,
    section_name,
    sum_cell,
    sum_name,
)
from edbatch_tvm.training.backward_graph import BackwardGraph, BackwardType, SectionType
from edbatch_tvm.training.compiled_backward_graph import BackwardGraphs
from edbatch_tvm.training.compiled_sums import CompiledSums
from edbatch_tvm.training.cotangent_pairs import cotangent_pairs
from edbatch_tvm.training.cotangents import Cotangents, added, as_cotangents, without_detached
from edbatch_tvm.training.device_sums import DeviceRows, DeviceSums
from edbatch_tvm.training.external_sums import external_sums
from edbatch_tvm.training.forward_rows import ForwardRows
from edbatch_tvm.training.gradient_kernel import GradientKernels
from edbatch_tvm.training.gradient_layout import TypeTerms
from edbatch_tvm.training.gradients import Gradients, Pullback
from edbatch_tvm.training.row_sources import PassRows
from edbatch_tvm.training.saved_graph import renumbered, with_saved_values
from edbatch_tvm.training.weight_sums import Sums, with_numpy
from edbatch_tvm.tvm_compat import runtime
from relay_ext.gradients.adjoint_cells import Adjoints
from relay_ext.gradients.sections import BackwardCell, backward_cell
from relay_ext.renaming import module_of
from relay_ext.signature import weights_of

_MOST_LAYOUTS = 64
"""Sets of types that occur together, for which the layout of weight gradients is kept."""

Compile = Callable[[IRModule, Mapping[str, Any]], Model]
"""Compiles backward cells, with the options of the forward model."""


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
    """

    trains = True

    def __init__(
        self,
        forward: Model,
        nodes: Signature,
        adjoints: Adjoints,
        compile_backward: Compile,
        table: ExpansionTable | None = None,
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
        self._compile = compile_backward
        self._backward = _BackwardModel(self)
        self._lock = threading.RLock()

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

    @property
    def saved_bytes(self) -> dict[str, int]:
        """For each cell, or operator, the bytes that a node saves for its backward pass, besides its own outputs."""
        return {
            cell.name: sum(spec.size * np.dtype(spec.dtype).itemsize for spec in cell.outputs[len(own.outputs) :])
            for cell, own in zip(self.signature, self.nodes, strict=True)
        }

    @property
    def backward_model(self) -> Model | None:
        """The compiled cells of the backward pass; None before the first one."""
        return self._backward.compiled

    def merge(self, instances: Sequence[InstanceGraph]) -> InstanceGraph:
        """See :meth:`Model.merge`; nodes of the graph also have outputs for what they save."""
        merged = super().merge(instances)
        return with_saved_values(merged, self.signature) if self._saves else merged

    def execute(self, graph: InstanceGraph, plan: Plan, info: ScheduleInfo | None = None) -> TrainingResult:
        """See :meth:`Model.execute`."""
        result = super().execute(graph, plan, info)
        if isinstance(result, DeviceResult):
            return DeviceTrainingResult(self, result)
        return TrainingResult(self, result)


class TrainingResult(Result):
    """A result with a backward pass.

    Attributes
    ----------
    detached : bool array of shape [nodes] or None
        Nodes that gradients do not pass: no operand of theirs gets one, nor a weight. None: there are none.
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
            self._used = not retain
        return gradients


class DeviceTrainingResult(TrainingResult, DeviceResult):
    """A result with a backward pass, on a device."""

    def __init__(self, model: TrainingModel, forward: DeviceResult) -> None:
        DeviceResult.__init__(self, forward.graph, forward.plan, forward.report, forward._lease, forward._memory)
        self._train(model)


class _BackwardModel:
    """The backward cells of a model, compiled when they are first needed."""

    def __init__(self, model: TrainingModel) -> None:
        self.model = model
        self.arenas = float_arenas(model.signature, model.nodes)
        self.cells: dict[int, BackwardCell] = {}
        self.compiled: Model | None = None
        self._types: list[BackwardType] = []
        self._forward_arenas: list[int] = []
        self._graphs: BackwardGraphs | None = None
        self._pullbacks: Any = None
        self._kernels: GradientKernels | None = find_native("sum weight gradients")
        self._weight_layouts: BoundedCache[tuple[int, ...], CompiledSums] = BoundedCache(_MOST_LAYOUTS)

    def load(self, weights: Mapping[str, np.ndarray], rows: Mapping[str, np.ndarray]) -> None:
        """Take over the weights that the forward model has read."""
        compiled = self.compiled
        if compiled is not None and not compiled.take_over(weights, rows):
            given = self._weights(compiled)
            compiled.refresh(given, rows={name: own for name, own in rows.items() if name in given})

    def run(self, forward: TrainingResult, cotangents: Cotangents) -> Gradients:
        """One backward pass."""
        compiled = self.compiled or self._compile(self._pairs(forward, cotangents))
        begin = perf_counter()
        assert self._graphs is not None
        made = self._graphs.make(forward.graph, forward.plan, cotangents.values, forward.detached)
        specs = compiled.signature.value_specs
        rows = ForwardRows(forward, self._forward_arenas, specs, cotangents)
        made.graph.external_data = rows.lengths
        made.graph.checked = made.schedule.checked = True
        built = perf_counter()
        plan = compiled.plan(made.graph, made.schedule)
        planned = perf_counter()
        backward = self._executed(compiled, made, plan, rows)
        executed = perf_counter()
        weights = self._weight_sums(forward, backward, made)
        assert self.model.weights is not None
        shapes = {name: (spec.shape, spec.dtype) for name, spec in self.model.weights.wanted.items()}
        external = external_sums(forward, backward, made)
        end = perf_counter()
        backward.report.seconds.update(
            build=built - begin,
            plan=planned - built,
            execute=executed - planned,
            weights=end - executed,
            total=end - begin,
        )
        expressions = self.model.adjoints.expressions
        return Gradients(weights, expressions, shapes, self._pull_back(), forward.graph, external, backward)

    def _executed(self, compiled: Model, made: BackwardGraph, plan: Plan, rows: ForwardRows) -> Result:
        """Run the backward graph; it keeps no rows of the forward pass."""
        executor, own = compiled.executor, self.model.executor
        if isinstance(executor, CpuExecutor) and isinstance(own, CpuExecutor):
            shared = rows.shared(plan, own)
            made.graph.external_data = rows.copied(shared)
            backward = executor.run(made.graph, plan, given=shared)
        else:
            made.graph.external_data = rows.copied({})
            backward = compiled.execute(made.graph, plan)
        made.graph.external_data = rows.lengths
        return backward

    def _pairs(self, forward: TrainingResult, cotangents: Cotangents) -> dict[int, tuple[int, ...]]:
        """What the first minibatch says."""
        return cotangent_pairs(forward.graph, cotangents.values, self.model.nodes, self.model.adjoints.cells)

    def _compile(self, pairs: Mapping[int, Sequence[int]] = MappingProxyType({})) -> Model:
        """Compile the backward cells; those of some types take two cotangents of some outputs."""
        cells = {
            type_id: backward_cell(cell.name, self.model.adjoints.cells[cell.name], pairs.get(type_id, ()))
            for type_id, cell in enumerate(self.model.nodes)
        }
        specs = self.model.signature.value_specs
        functions = {sum_name(arena): sum_cell(specs[arena]) for arena in self.arenas}
        module = self.model.adjoints.with_tir(module_of(functions | section_functions(cells)))
        given = None if self.model.weights is None else self.model.weights.given
        needed = {name: array for name, array in (given or {}).items() if name in weights_of(module)}
        compiled = self.model._compile(module, needed)
        names = {name: place for place, name in enumerate(compiled.signature.names)}
        self.cells, self.compiled = cells, compiled
        sums = {arena: names[sum_name(arena)] for arena in self.arenas}
        self._types = [
            BackwardType(
                [
                    SectionType(names[section_name(cell, number)], section.per_row, section.reads)
                    for number, section in enumerate(cell.sections)
                ],
                cell.slots,
                pairs.get(type_id, ()),
            )
            for type_id, cell in cells.items()
        ]
        own = self.model.signature.value_specs
        self._forward_arenas = [own.index(spec) if spec in own else -1 for spec in compiled.signature.value_specs]
        self._graphs = BackwardGraphs(self.model.signature, compiled.signature, self._types, sums, self.model.nodes)
        return compiled

    def _weight_sums(self, forward: Result, backward: Result, made: BackwardGraph) -> dict[str, Sums]:
        """The gradients of all expressions of weights."""
        assert self.compiled is not None
        executor = self.compiled.executor
        if isinstance(executor, DeviceExecutor) and _is_float32(forward, backward):
            assert isinstance(forward, DeviceResult)
            assert isinstance(backward, DeviceResult)
            types = forward.graph.node_type.astype(np.int64)
            on_device = [
                DeviceRows(forward, backward, made, one, types, self.cells[one.type_id].terms, executor.memory)
                for one in made.groups
            ]
            return DeviceSums(executor.memory, executor.gradient_kernels()).compute(on_device)
        rows = PassRows(forward, backward, made, lambda type_id: self.cells[type_id].terms)
        compiled = self._compiled_sums(made)
        return with_numpy(rows.groups) if compiled is None else compiled.compute(rows)

    def _compiled_sums(self, made: BackwardGraph) -> CompiledSums | None:
        """The compiled contractions for nodes of these types; None without a compiler or arenas of a CPU."""
        compiled = self.compiled
        assert compiled is not None
        if self._kernels is None or made.arrays is None or not isinstance(compiled.executor, CpuExecutor):
            return None
        found = self._weight_layouts.get(made.types)
        if found is None:
            terms = []
            for type_id in made.types:
                own = self._types[type_id].sections
                sections = [compiled.signature[section.type_id] for section in own]
                per_row = [section.per_row for section in own]
                cell = self.model.signature[type_id]
                terms.append(TypeTerms(type_id, cell, self.cells[type_id].terms, sections, per_row))
            assert self.model.weights is not None
            shapes = {name: spec.shape for name, spec in self.model.weights.wanted.items()}
            expressions = self.model.adjoints.expressions
            found = CompiledSums(terms, self.model.signature, compiled.signature, self._kernels, expressions, shapes)
            self._weight_layouts.put(made.types, found)
        return found

    def _weights(self, model: Model) -> dict[str, Any]:
        assert self.model.weights is not None
        assert model.weights is not None
        given = self.model.weights.given or {}
        return {name: given[name] for name in model.weights.wanted}

    def _pull_back(self) -> Pullback:
        """A function that gives the gradients of the weights in an expression; the weights are read once."""
        named = {
            key: (f"pullback{place}", expression.pullback)
            for place, (key, expression) in enumerate(self.model.adjoints.expressions.items())
            if expression.pullback is not None
        }
        if self._pullbacks is None and named:
            module = self.model.adjoints.with_tir(module_of(dict(named.values())))
            self._pullbacks = relax.VirtualMachine(tvm.compile(module, target="llvm"), tvm.cpu())
        assert self.model.weights is not None
        weights = (self.model.weights.read() or {}) if named else {}

        def pull_back(key: str, gradient: np.ndarray) -> list[np.ndarray]:
            name, function = named[key]
            # (Not ascontiguousarray: it makes a vector of a number.)
            given = [runtime.tensor(np.asarray(weights[param.name], order="C")) for param in function.params[:-1]]
            own = np.asarray(gradient, str(function.params[-1].ty.dtype), order="C")
            return [part.numpy() for part in self._pullbacks[name](*given, runtime.tensor(own))]

        return pull_back


def _is_float32(*results: Result) -> bool:
    """Whether all values are float32."""
    signatures = [result.graph.signature for result in results]
    return all(spec.dtype == "float32" for one in signatures if one is not None for spec in one.value_specs)

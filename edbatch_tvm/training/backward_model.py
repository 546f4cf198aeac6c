"""The backward cells of a model, and backward passes with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import tvm
from tvm import IRModule, relax

from edbatch_tvm.bounded_cache import BoundedCache
from edbatch_tvm.find_native import find_native
from edbatch_tvm.memory import Plan
from edbatch_tvm.native.backward_tables import BackwardArrays, BackwardSteps
from edbatch_tvm.runtime.cpu_executor import CpuExecutor
from edbatch_tvm.runtime.device_executor import DeviceExecutor
from edbatch_tvm.runtime.device_result import DeviceResult
from edbatch_tvm.runtime.model import Model
from edbatch_tvm.runtime.result import Result
from edbatch_tvm.training.backward_cells import (
    float_arenas,
    section_functions,
    section_name,
    sum_cell,
    sum_name,
)
from edbatch_tvm.training.backward_types import BackwardGraph, BackwardType, SectionType
from edbatch_tvm.training.compiled_backward_graph import BackwardGraphs
from edbatch_tvm.training.compiled_sums import CompiledSums
from edbatch_tvm.training.cotangent_pairs import cotangent_pairs
from edbatch_tvm.training.cotangents import Cotangents
from edbatch_tvm.training.device_sums import DeviceRows, DeviceSums
from edbatch_tvm.training.external_sums import external_sums
from edbatch_tvm.training.forward_rows import ForwardRows
from edbatch_tvm.training.gradient_kernel import GradientKernels
from edbatch_tvm.training.gradient_layout import TypeTerms
from edbatch_tvm.training.gradients import Gradients, Pullback
from edbatch_tvm.training.graph_rows import arena_rows
from edbatch_tvm.training.planned_pass import PlannedPass, PlannedResult, planned_pass
from edbatch_tvm.training.row_sources import PassRows
from edbatch_tvm.training.weight_sums import Sums, with_numpy
from edbatch_tvm.tvm_compat import runtime
from relay_ext.gradients.sections import BackwardCell, backward_cell
from relay_ext.renaming import module_of
from relay_ext.signature import weights_of

if TYPE_CHECKING:
    from edbatch_tvm.training.model import TrainingModel, TrainingResult
    from edbatch_tvm.training.partial_cotangents import PartialCells

_MOST_LAYOUTS = 64
"""Sets of types that occur together, for which the layout of weight gradients is kept."""

Compile = Callable[[IRModule, Mapping[str, Any]], Model]
"""Compiles backward cells, with the options of the forward model."""


class BackwardModel:
    """The backward cells of a model, compiled when they are first needed.

    Parameters
    ----------
    model : TrainingModel or PartialCells
        The forward model.
    compile_cells : callable
    mixed : bool
        Whether the nodes of a batch may be of several types: their backward passes take the path of NumPy.

    Attributes
    ----------
    compiled : Model or None
        None before the first backward pass.
    cells : dict of int to BackwardCell
        The adjoint of each type.
    """

    def __init__(self, model: TrainingModel | PartialCells, compile_cells: Compile, mixed: bool = False) -> None:
        self.model = model
        self._compile_cells = compile_cells
        self._mixed = mixed
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
        compiled = self.compiled or self._compile({} if self._mixed else self._pairs(forward, cotangents))
        begin = perf_counter()
        assert self._graphs is not None
        rows = ForwardRows(forward, self._forward_arenas, compiled.signature.value_specs, cotangents)
        short = None
        if not self._mixed:
            short = planned_pass(forward, cotangents.values, self._graphs, compiled, lambda: rows.lengths)
        if short is not None:
            built = planned = perf_counter()
            backward: Result = self._executed_tables(compiled, short, rows)
            executed = perf_counter()
            weights = self._weight_sums(forward, backward, short.types, short.steps, lambda: short.made[0])
            uses = short.steps.external_of, short.steps.external_use
        else:
            make = self._graphs.make_in_numpy if self._mixed else self._graphs.make
            made = make(forward.graph, forward.plan, cotangents.values, forward.detached)
            made.graph.external_data = rows.lengths
            made.graph.checked = made.schedule.checked = True
            built = perf_counter()
            plan = compiled.plan(made.graph, made.schedule)
            planned = perf_counter()
            backward = self._executed(compiled, made, plan, rows)
            executed = perf_counter()
            weights = self._weight_sums(forward, backward, made.types, made.arrays, lambda: made)
            uses = made.external_of, arena_rows(made.graph, plan, made.external_use)
        expressions = self.model.adjoints.expressions
        products = self.model.products
        if products is not None:
            products.pull_back(weights, self._kernels)
            expressions = expressions | products.expressions
        external = external_sums(forward, backward, *uses, self._kernels)
        assert self.model.weights is not None
        shapes = {name: (spec.shape, spec.dtype) for name, spec in self.model.weights.wanted.items()}
        end = perf_counter()
        backward.report.seconds.update(
            build=built - begin,
            plan=planned - built,
            execute=executed - planned,
            weights=end - executed,
            total=end - begin,
        )
        return Gradients(weights, expressions, shapes, self._pull_back(), forward.graph, external, backward)

    def _executed_tables(self, compiled: Model, planned: PlannedPass, rows: ForwardRows) -> PlannedResult:
        """Run a planned pass, in the arenas of the forward pass where they have room."""
        executor, own = compiled.executor, self.model.executor
        assert isinstance(executor, CpuExecutor)
        assert isinstance(own, CpuExecutor)
        shared = rows.shared(planned.arena_rows, own)
        views, calls = executor.run_tables(planned.tables, rows.copied(shared), shared)
        return PlannedResult(planned, compiled, executor, views, calls)

    def _executed(self, compiled: Model, made: BackwardGraph, plan: Plan, rows: ForwardRows) -> Result:
        """Run the backward graph; it keeps no rows of the forward pass."""
        executor, own = compiled.executor, self.model.executor
        if isinstance(executor, CpuExecutor) and isinstance(own, CpuExecutor):
            shared = rows.shared(plan.arena_rows, own)
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
        compiled = self._compile_cells(module, needed)
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

    def _weight_sums(
        self,
        forward: Result,
        backward: Result,
        types: tuple[int, ...],
        arrays: BackwardArrays | BackwardSteps | None,
        make: Callable[[], BackwardGraph],
    ) -> dict[str, Sums]:
        """The gradients of all expressions of weights, for forward nodes of some types.

        `arrays` is what a compiled kernel made of the backward pass, if one did; `make` gives its graph.
        """
        assert self.compiled is not None
        executor = self.compiled.executor
        if isinstance(executor, DeviceExecutor) and _is_float32(forward, backward):
            assert isinstance(forward, DeviceResult)
            assert isinstance(backward, DeviceResult)
            made, node_types = make(), forward.graph.node_type.astype(np.int64)
            on_device = [
                DeviceRows(forward, backward, made, one, node_types, self.cells[one.type_id].terms, executor.memory)
                for one in made.groups
            ]
            return DeviceSums(executor.memory, executor.gradient_kernels()).compute(on_device)
        rows = PassRows(forward, backward, arrays, make, lambda type_id: self.cells[type_id].terms)
        compiled = self._compiled_sums(types, arrays)
        return with_numpy(rows.groups) if compiled is None else compiled.compute(rows)

    def _compiled_sums(
        self, types: tuple[int, ...], arrays: BackwardArrays | BackwardSteps | None
    ) -> CompiledSums | None:
        """The compiled contractions for nodes of these types; None without a compiler or arenas of a CPU."""
        compiled = self.compiled
        assert compiled is not None
        if self._kernels is None or arrays is None or not isinstance(compiled.executor, CpuExecutor):
            return None
        found = self._weight_layouts.get(types)
        if found is None:
            terms = []
            for type_id in types:
                own = self._types[type_id].sections
                sections = [compiled.signature[section.type_id] for section in own]
                per_row = [section.per_row for section in own]
                cell = self.model.signature[type_id]
                terms.append(TypeTerms(type_id, cell, self.cells[type_id].terms, sections, per_row))
            assert self.model.weights is not None
            shapes = {name: spec.shape for name, spec in self.model.weights.wanted.items()}
            expressions = self.model.adjoints.expressions
            found = CompiledSums(terms, self.model.signature, compiled.signature, self._kernels, expressions, shapes)
            self._weight_layouts.put(types, found)
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

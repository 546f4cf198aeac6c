"""Workloads on the emulated GPU."""

from __future__ import annotations

from typing import Any

from edbatch_tvm.backends.cuda_emulated import EMULATED, EmulatedBackend
from edbatch_tvm.checking.comparison import LEAST_VALUE, TOLERANCE, compare
from edbatch_tvm.checking.reference import run_reference
from edbatch_tvm.graph import merge
from edbatch_tvm.models import get_workload
from edbatch_tvm.runtime import Model
from relay_ext.pipeline import cell_passes, run_passes
from relay_ext.signature import signature_of
from schedules.cuda.kernels import Occupancy


def emulated_model(mod: Any, weights: Any, **options: Any) -> Model:
    """A model of cells without constants; `options` are those of EmulatedBackend.executor."""
    single = run_passes(mod, cell_passes())
    signature = signature_of(mod)
    executor = EmulatedBackend(EMULATED).executor(single, signature, weights, **options)
    return Model(signature, executor, EMULATED, "agenda", "batch", 0.0)


def check_workload(name: str, hidden: int, count: int, fill: int | None = None, **options: Any) -> Any:
    """Compile and run a workload, hold it against the reference; the result, with ``kernel_names`` of the model."""
    workload = get_workload(name)
    mod, weights = workload.cells(hidden), workload.weights(hidden)
    machine = Occupancy() if fill is None else Occupancy(fill=fill)
    tolerance = options.pop("tolerance", TOLERANCE)
    model = emulated_model(mod, weights, machine=machine, **options)
    instances = workload.generate(count, signature_of(mod), seed=1)
    result = model(instances)
    graph = merge(instances)
    comparison = compare(graph, result, run_reference(graph, workload.reference, weights))
    assert comparison.largest_value >= LEAST_VALUE
    assert comparison.relative_error <= tolerance
    result.relative_error = comparison.relative_error
    result.kernel_names = model.kernel_names
    return result

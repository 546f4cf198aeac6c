"""What memory plans save: the same cells and workloads in the forms between DyNet's and ours.

==================  ========================================================================================
form                what runs
==================  ========================================================================================
``declared``        a kernel per batched operator, results in the order of declaration, gathers as kernels of their own
``in cells``        the same after grouping and layout inside the cell (the paper's unfused, planned form)
``across``          ``in cells``, and rows of the arenas ordered across the graph
``fused``           one kernel per stage of a cell, operands read where they lie
==================  ========================================================================================
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from edbatch_tvm.benchmarking.static_cells import PUBLISHED, static_cells
from edbatch_tvm.compiler import compile_model
from edbatch_tvm.graph import InstanceGraph
from edbatch_tvm.memory import PLANS
from edbatch_tvm.models import get_workload
from edbatch_tvm.models.data import load_minibatches
from edbatch_tvm.runtime import Model
from relay_ext.group_ops import cell_plan
from relay_ext.signature import signature_of, weights_of

FLOAT_BYTES = 4


@dataclass(frozen=True)
class StaticRow:
    """One static cell in one size.

    ``gathers`` and ``gathered_bytes`` count the gather kernels of one batch and the bytes of the rows they move, in
    the order of declaration and planned; ``published`` are the kernels of the published code. ``planned_time`` and
    ``fused_time`` are times of a batch relative to the order of declaration.
    """

    cell: str
    hidden: int
    batch: int
    gathers: tuple[int, int]
    gathered_bytes: tuple[int, int]
    published: tuple[int, int]
    kernels: tuple[int, int, int]
    planned_time: float
    fused_time: float

    def as_json(self) -> dict[str, Any]:
        """The row as a dict of plain values."""
        return asdict(self)


@dataclass(frozen=True)
class WorkloadRow:
    """One workload in one form; ``time`` is the time to execute relative to the first form."""

    workload: str
    hidden: int
    form: str
    plan: str
    batches: int
    kernels: int
    bytes_gathered: int
    bytes_indexed: int
    contiguous: int
    broadcast: int
    indexed: int
    time: float

    def as_json(self) -> dict[str, Any]:
        """The row as a dict of plain values."""
        return asdict(self)


def static_rows(hidden: int, batches: tuple[int, ...], repeat: int = 20) -> Iterator[StaticRow]:
    """The seven static cells at one hidden size, for several batch sizes."""
    mod = static_cells(hidden)
    rng = np.random.default_rng(0)
    weights = {
        name: (rng.uniform(-1, 1, spec.shape) / np.sqrt(spec.shape[0])).astype(np.float32)
        for name, spec in weights_of(mod).items()
    }
    forms = ("group-declared", "group", "cell")
    models = [compile_model(mod, weights, granularity=form) for form in forms]
    for cell in signature_of(mod):
        declared, planned = (_of(cell_plan(mod, cell.name, planned)) for planned in (False, True))
        for batch in batches:
            runs = [_Run(model, _calls(model, cell.name, batch)) for model in models]
            times = _interleaved(runs, repeat)
            row_bytes = batch * FLOAT_BYTES
            yield StaticRow(
                cell=cell.name,
                hidden=hidden,
                batch=batch,
                gathers=(declared.gathers, planned.gathers),
                gathered_bytes=(declared.gathered_elements * row_bytes, planned.gathered_elements * row_bytes),
                published=PUBLISHED[cell.name],
                kernels=(runs[0].kernels, runs[1].kernels, runs[2].kernels),
                planned_time=times[1] / times[0],
                fused_time=times[2] / times[0],
            )


def _of(plan: Any) -> Any:
    assert plan is not None  # static cells are straight-line code
    return plan


def workload_rows(
    name: str, hidden: int, batch_size: int, minibatches: int, repeat: int = 5, seed: int = 0
) -> Iterator[WorkloadRow]:
    """One workload through the forms, on generated instances."""
    workload = get_workload(name)
    mod, weights = workload.cells(hidden), workload.weights(hidden, seed)
    forms = [("declared", "op", False, "batch"), ("in cells", "group", False, "batch")]
    forms += [("across", "group", False, plan) for plan in PLANS if plan not in ("batch", "auto")]
    forms += [("fused", "cell", True, plan) for plan in PLANS if plan != "auto"]
    compiled: dict[tuple[str, bool], Model] = {}
    runs: list[list[_Run]] = []
    for _, granularity, fused, plan in forms:
        if (granularity, fused) not in compiled:
            compiled[granularity, fused] = compile_model(
                mod, weights, policy="lookahead", granularity=granularity, fused=fused
            )
        model = compiled[granularity, fused]
        model.plan_name = plan
        groups = load_minibatches(workload, model.cells, None, batch_size, minibatches, seed)
        runs.append([_Run(model, group) for group in groups])
    seconds = np.sum([_interleaved(list(same), repeat) for same in zip(*runs, strict=True)], axis=0)
    for (form, _, _, plan), of_form, taken in zip(forms, runs, seconds, strict=True):
        counts = [run.report.operands for run in of_form]
        totals = {kind: sum(count[kind] for count in counts) for kind in ("contiguous", "broadcast", "indexed")}
        yield WorkloadRow(
            workload=name,
            hidden=hidden,
            form=form,
            plan=plan,
            batches=sum(run.report.batches for run in of_form),
            kernels=sum(run.kernels for run in of_form),
            bytes_gathered=sum(run.report.bytes_gathered for run in of_form),
            bytes_indexed=sum(run.report.bytes_indexed for run in of_form),
            time=float(taken / seconds[0]),
            **totals,
        )


class _Run:
    """One minibatch, scheduled and planned, ready to be executed many times."""

    def __init__(self, model: Model, instances: list[InstanceGraph]) -> None:
        self.model = model
        self.graph = model.merge(instances)
        schedule, _ = model.schedule(self.graph)
        self.plan = model.plan(self.graph, schedule)
        self.report = model.execute(self.graph, self.plan).report
        self.kernels = self.report.kernel_calls

    def seconds(self) -> float:
        begin = perf_counter()
        self.model.execute(self.graph, self.plan)
        return perf_counter() - begin


def _interleaved(runs: list[_Run], repeat: int) -> list[float]:
    """Median time of each run, all in turn, so that a change of the machine's speed meets all alike."""
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(repeat):
        for run, taken in zip(runs, times, strict=True):
            taken.append(run.seconds())
    return [median(taken) for taken in times]


def _calls(model: Model, cell: str, batch: int) -> list[InstanceGraph]:
    rng = np.random.default_rng(1)
    made = []
    for _ in range(batch):
        b = model.builder()
        operands = [rng.uniform(-1, 1, operand.spec.shape).astype(np.float32) for operand in model.cells[cell].operands]
        values = b.call(cell, *operands)
        made.append(b.finish(list(values) if isinstance(values, tuple) else [values]))
    return made

"""A measured run of a workload: compile, run all minibatches, time the stages, check against the reference."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
from tvm import IRModule

from edbatch_tvm.atomic_file import write_text
from edbatch_tvm.batching import AUTO, LEARNERS, Policy, Schedule, SearchPolicy, as_policy, best_policy
from edbatch_tvm.batching.qlearning import Progress
from edbatch_tvm.batching.search import WIDTH, SearchProgress
from edbatch_tvm.benchmarking.matmul_peak import peak_gflops
from edbatch_tvm.benchmarking.policy_learning import (
    Learned,
    LearnOptions,
    choose,
    expansion_table,
    learn,
    refuse_same_file,
)
from edbatch_tvm.checking.comparison import Comparison, compare
from edbatch_tvm.checking.reference import run_reference
from edbatch_tvm.compiler import compile_model, load_model
from edbatch_tvm.errors import PlanError
from edbatch_tvm.flops import multiply_adds_of_graph
from edbatch_tvm.graph import InstanceGraph, Signature, format_graph
from edbatch_tvm.graph.expand import ExpansionTable
from edbatch_tvm.memory import resolve_plan
from edbatch_tvm.models import get_workload
from edbatch_tvm.models.checkpoint import load_checkpoint
from edbatch_tvm.models.data import load_minibatches
from edbatch_tvm.models.trained import trained_workload
from edbatch_tvm.models.workload import Workload
from relay_ext.change_cell_dtype import ChangeCellDtype
from relay_ext.pipeline import run_passes
from relay_ext.signature import signature_of

Item = TypeVar("Item")
Track = Callable[[Iterable[Item], str], Iterable[Item]]
"""Wraps an iterable to show progress, given what is done."""


@dataclass(frozen=True)
class RunOptions:
    """What to run; the fields are the options of ``edbatch run``."""

    workload: str
    data: Path | None = None
    learn_data: Path | None = None
    hidden: int = 128
    batch_size: int = 64
    minibatches: int | None = None
    repeat: int = 0
    policy: str = "auto"
    encoding: str = AUTO
    learner: str = LEARNERS[0]
    width: int = WIDTH
    plan: str = "auto"
    granularity: str = "cell"
    fused: bool = True
    target: str = "llvm"
    database: Path | None = None
    dtype: str = "float32"
    seed: int = 0
    check: bool = False
    dump: Path | None = None
    save: Path | None = None
    load: Path | None = None
    checkpoint: Path | None = None


@dataclass
class Seconds:
    """Time of the stages of one minibatch, or of several added up.

    ``build`` merges instances that already exist as arrays.
    """

    build: float = 0.0
    schedule: float = 0.0
    plan: float = 0.0
    execute: float = 0.0
    total: float = 0.0

    def add(self, other: Seconds) -> None:
        """Add `other` to this."""
        for name, value in asdict(other).items():
            setattr(self, name, getattr(self, name) + value)

    @classmethod
    def median(cls, runs: list[Seconds]) -> Seconds:
        """The median of each stage."""
        return cls(**{name: median(getattr(run, name) for run in runs) for name in asdict(cls())})


@dataclass
class RunReport:
    """What a run gives; the fields are those of the JSON of ``edbatch run``."""

    workload: str
    target: str
    dtype: str
    hidden: int
    batch_size: int
    policy: str
    plan: str
    granularity: str
    fused: bool
    seed: int
    repeat: int
    data: str
    minibatches: int = 0
    instances: int = 0
    nodes: int = 0
    batches: int = 0
    lower_bound: int = 0
    policy_states: int = 0
    policy_steps: int = 0
    policy_misses: int = 0
    learn_data: str | None = None
    seconds: Seconds = field(default_factory=Seconds)
    compile_seconds: float = 0.0
    learn_seconds: float = 0.0
    instances_per_second: float = 0.0
    gflops: float = 0.0
    peak_gflops: float = 0.0
    operands: dict[str, int] = field(default_factory=lambda: {"contiguous": 0, "broadcast": 0, "indexed": 0})
    lookups: int = 0
    bytes_gathered: int = 0
    bytes_indexed: int = 0
    max_relative_error: float | None = None
    largest_value: float | None = None

    def as_json(self) -> dict[str, Any]:
        """The report as nested dicts of plain values."""
        return asdict(self)


@dataclass(eq=False)
class Prepared:
    """A workload ready to run: data read, policy learned, cells compiled."""

    options: RunOptions
    workload: Workload
    signature: Signature
    minibatches: list[list[InstanceGraph]]
    weights: dict[str, np.ndarray]
    model: Any
    report: RunReport


def _untracked(items: Iterable[Item], _: str) -> Iterable[Item]:
    return items


def run(
    options: RunOptions, track: Track[Any] = _untracked, progress: Progress | None = None
) -> tuple[RunReport, Comparison | None]:
    """Run a workload as `options` say.

    Parameters
    ----------
    options : RunOptions
    track : callable, optional
        ``track(iterable, what)`` shows progress over minibatches.
    progress : callable, optional
        Shows progress of learning; see :func:`edbatch_tvm.benchmarking.policy_learning.learn`.

    Returns
    -------
    report : RunReport
    comparison : Comparison or None
        With ``check``: what the report's errors rest on. Wrong results do not raise here, see
        :meth:`edbatch_tvm.checking.comparison.Comparison.require`.

    Raises
    ------
    EdbatchError
        If the options, the data or the environment do not allow it.
    """
    return measure(prepare(options, progress), track)


def prepare(
    options: RunOptions, progress: Progress | None = None, search_progress: SearchProgress | None = None
) -> Prepared:
    """Everything that comes before the first minibatch: read data, learn the policy, compile.

    `search_progress` is called as the policies ``search`` and ``best`` go on in each minibatch.
    """
    plan = resolve_plan(options.plan)
    workload, options = _workload(options)
    refuse_same_file(workload, options.data, options.learn_data)
    mod = _cells(options, workload)
    signature = signature_of(mod)
    minibatches = load_minibatches(
        workload,
        signature,
        options.data,
        options.batch_size,
        options.minibatches,
        options.seed,
        count_on=options.learn_data,
    )
    report = RunReport(
        workload=workload.name,
        target=options.target,
        dtype=options.dtype,
        hidden=options.hidden,
        batch_size=options.batch_size,
        policy=options.policy,
        plan=plan,
        seed=options.seed,
        repeat=options.repeat,
        granularity=options.granularity,
        fused=options.fused,
        data=str(options.data) if options.data is not None else "generator",
    )
    table = expansion_table(mod, options.granularity)
    policy = _policy(options, workload, signature, table, report, progress, search_progress)
    weights = workload.weights(options.hidden, options.seed)
    begin = perf_counter()
    if options.load is not None:
        if options.granularity != "cell":
            raise PlanError(f"a saved model at granularity {options.granularity!r}", "granularity 'cell'")
        model = load_model(options.load, weights, policy, report.plan)
    else:
        model = compile_model(
            mod,
            weights,
            target=options.target,
            policy=policy,
            plan=report.plan,
            granularity=options.granularity,
            fused=options.fused,
            database=options.database,
            dtype=options.dtype,
        )
    report.compile_seconds = perf_counter() - begin
    if options.save is not None:
        model.save(options.save)
    return Prepared(options, workload, signature, minibatches, weights, model, report)


def _workload(options: RunOptions) -> tuple[Workload, RunOptions]:
    """What to run; the policy of a checkpoint takes the place of ``auto``."""
    if options.checkpoint is None:
        return get_workload(options.workload), options
    found = load_checkpoint(options.checkpoint)
    policy = found.policy if options.policy == AUTO else options.policy
    return trained_workload(found, options.workload), replace(options, policy=policy)


def _cells(options: RunOptions, workload: Workload) -> IRModule:
    """The cells of a run, in the dtype of its values."""
    mod = workload.cells(options.hidden)
    return run_passes(mod, [ChangeCellDtype("float64")]) if _values(options) == "float64" else mod


def _values(options: RunOptions) -> str:
    """The dtype of the values of a run: shorter ones are for products alone."""
    return "float64" if options.dtype == "float64" else "float32"


def _policy(
    options: RunOptions,
    workload: Workload,
    signature: Signature,
    table: ExpansionTable | None,
    report: RunReport,
    progress: Progress | None,
    search_progress: SearchProgress | None,
) -> Policy:
    """The policy to run with; what `fsm` and `auto` look at to find one are not the instances of the run."""
    if options.policy == "search":
        return SearchPolicy(options.width, progress=search_progress)
    if options.policy == "best":
        return best_policy(options.width, search_progress)
    to_learn = LearnOptions(
        options.learn_data,
        options.batch_size,
        encoding=options.encoding,
        learner=options.learner,
        seed=options.seed,
        table=table,
    )
    learned: Learned[Policy]
    if options.policy == "fsm":
        learned = learn(workload, signature, to_learn, progress)
    elif options.policy == "auto":
        learned = choose(workload, signature, to_learn)
    else:
        return as_policy(options.policy, (signature if table is None else table.ops).names)
    report.learn_data, report.learn_seconds = to_learn.source, learned.seconds
    return learned.policy


def measure(prepared: Prepared, track: Track[Any] = _untracked) -> tuple[RunReport, Comparison | None]:
    """Run the minibatches of `prepared`; see :func:`run`."""
    options, workload, report = prepared.options, prepared.workload, prepared.report
    report.peak_gflops = peak_gflops(dtype=_values(options))
    mod = workload.cells(options.hidden)
    flops = 0
    comparison = Comparison() if options.check else None
    for number, instances in enumerate(track(prepared.minibatches, "running")):
        graph, schedule, info, result = _run_minibatch(prepared.model, instances, options.repeat, report)
        cells, value_of = graph, None
        if options.granularity != "cell":
            cells = prepared.model.merge_cells(instances)
            value_of = prepared.model.expand(cells).value_of
        flops += 2 * multiply_adds_of_graph(mod, cells)
        _count(report, graph, info, result.report)
        if options.dump is not None:
            _dump(options.dump, number, graph, schedule)
        if comparison is not None:
            reference = run_reference(cells, workload.reference, prepared.weights)
            comparison = comparison.merged(compare(cells, result, reference, value_of))
    report.peak_gflops = max(report.peak_gflops, peak_gflops(dtype=_values(options)))
    report.instances_per_second = report.instances / report.seconds.total
    report.gflops = flops / report.seconds.execute / 1e9
    if comparison is not None:
        report.max_relative_error = comparison.relative_error
        report.largest_value = comparison.largest_value
    return report, comparison


def unbatched_seconds(model: Any, instances: list[InstanceGraph]) -> float:
    """Time to execute `instances` by the same kernels one node at a time; not their scheduling."""
    total = 0.0
    for instance in instances:
        graph = model.merge([instance])
        alone = [(int(kind), [node]) for node, kind in enumerate(graph.node_type)]
        plan = model.plan(graph, Schedule.from_batches(graph, alone))
        begin = perf_counter()
        model.execute(graph, plan)
        total += perf_counter() - begin
    return total


def _run_minibatch(
    model: Any, instances: list[InstanceGraph], repeat: int, report: RunReport
) -> tuple[InstanceGraph, Any, Any, Any]:
    """Run a minibatch once; with ``repeat``, once more untimed and then `repeat` times around the caches."""
    times: list[Seconds] = []
    for turn in range(1 + repeat):
        begin = perf_counter()
        graph = model.merge(instances)
        built = perf_counter()
        schedule, info = model.schedule(graph, cache=repeat == 0)
        scheduled = perf_counter()
        plan = model.plan(graph, schedule)
        planned = perf_counter()
        result = model.execute(graph, plan, info)
        result.synchronize()
        end = perf_counter()
        if turn or not repeat:
            times.append(Seconds(built - begin, scheduled - built, planned - scheduled, end - planned, end - begin))
    report.seconds.add(Seconds.median(times))
    return graph, schedule, info, result


def _count(report: RunReport, graph: InstanceGraph, info: Any, counts: Any) -> None:
    """Add one minibatch to the sums of `report`."""
    report.minibatches += 1
    report.instances += graph.num_instances
    report.nodes += graph.num_nodes
    report.batches += info.batches
    report.lower_bound += info.lower_bound
    report.policy, report.policy_states = info.policy, info.states
    report.policy_steps += info.steps
    report.policy_misses += info.misses
    for kind in report.operands:
        report.operands[kind] += counts.operands[kind]
    report.lookups += counts.lookups
    report.bytes_gathered += counts.bytes_gathered
    report.bytes_indexed += counts.bytes_indexed


def _dump(folder: Path, number: int, graph: InstanceGraph, schedule: Any) -> None:
    """Write graph and schedule of a minibatch in text form."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / f"minibatch-{number:04d}.graph.txt", format_graph(graph) + "\n")
    write_text(folder / f"minibatch-{number:04d}.schedule.txt", f"{schedule}\n")

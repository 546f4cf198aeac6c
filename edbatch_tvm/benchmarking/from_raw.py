"""From raw items to results: trees, sentences and lattices as Python objects, built, merged and run at first sight."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from statistics import median
from time import perf_counter, thread_time
from typing import Any

from edbatch_tvm.benchmarking.measure import Prepared, Track
from edbatch_tvm.graph import Builder, InstanceGraph, Signature
from edbatch_tvm.graph.build import PythonBuilder
from edbatch_tvm.graph.native_builder import native_builder
from edbatch_tvm.models.data import load_items
from edbatch_tvm.models.minibatch_arrays import MinibatchArrays
from edbatch_tvm.models.workload import ReadOptions
from edbatch_tvm.runtime.cpu_executor import CpuExecutor
from edbatch_tvm.runtime.threads import get_num_threads

TURNS = 5
"""Turns where nobody says how many."""

BUILT, FLAT, ARRAYS, NATIVE, PYTHON = "built before", "flat arrays", "arrays", "builder", "Python builder"
"""The ways: instances exist; one graph from arrays, as readers give them; the same from arrays made of the items
first; the builder, item by item; the builder without C."""

Clock = Callable[[], float]

STAGES = ("build", "merge", "schedule", "plan", "execute", "total")


@dataclass
class FromRawReport:
    """What a run from raw items gives; the fields are those of the JSON of ``edbatch run --from-raw``.

    Attributes
    ----------
    seconds : dict
        For each way the seconds of a minibatch by stage: sums over the minibatches of medians over the turns, divided
        by their number. ``total`` is the median of whole turns, not the sum of the others: building is followed by one
        call of compiled code for the rest, where that can be, and the stages are those of another run, in steps.
    build_microseconds : dict
        For each way, of building a node, merging it for the first time included.
    file_nodes_per_second : dict
        From a data file to instances: ``arrays``, and ``Python builder`` (with the reader in Python).
    processor_time : bool
        Whether times are those of the thread on its core, which other work on the machine disturbs least: where one
        thread does everything. Else they are those of the clock.
    """

    workload: str
    hidden: int
    batch_size: int
    data: str
    turns: int
    minibatches: int = 0
    instances: int = 0
    nodes: int = 0
    seconds: dict[str, dict[str, float]] = field(default_factory=dict)
    build_microseconds: dict[str, float] = field(default_factory=dict)
    file_nodes_per_second: dict[str, float] = field(default_factory=dict)
    processor_time: bool = False

    def as_json(self) -> dict[str, Any]:
        """The report as nested dicts of plain values."""
        return asdict(self)


def measure_from_raw(prepared: Prepared, track: Track[Any] = lambda items, _: items) -> FromRawReport:
    """Time minibatches from raw items to results in host memory, by every way there is, in turns.

    No schedule and no plan is one that an earlier minibatch had. Results are those of the model; that they are right
    is what ``edbatch run --check`` looks at.
    """
    options, workload, signature = prepared.options, prepared.workload, prepared.signature
    minibatches = load_items(
        workload, options.data, options.batch_size, options.minibatches, options.seed, count_on=options.learn_data
    )
    builders = {PYTHON: PythonBuilder(signature)} | ({NATIVE: Builder(signature)} if native_builder() else {})
    ways: dict[str, Callable[[Sequence[Any]], list[InstanceGraph]]] = {
        name: _item_by_item(workload.graph, builder) for name, builder in builders.items()
    }
    arrays, flat = workload.arrays, workload.source.flat
    if arrays is not None and flat is not None:
        ways[ARRAYS] = lambda items: [arrays(signature, flat(items)).minibatch()]
    report = FromRawReport(
        workload.name,
        options.hidden,
        options.batch_size,
        str(options.data) if options.data is not None else "generator",
        options.repeat or TURNS,
        processor_time=get_num_threads() == 1 and isinstance(prepared.model.executor, CpuExecutor),
    )
    clock = thread_time if report.processor_time else perf_counter
    names = [BUILT, *([FLAT] if ARRAYS in ways else []), *ways]
    sums = {name: dict.fromkeys(STAGES, 0.0) for name in names}
    for items in track(minibatches, "running"):
        if arrays is not None and flat is not None:
            ways[FLAT] = _from_flat(arrays, signature, flat(items))
        times: dict[str, list[dict[str, float]]] = {name: [] for name in sums}
        for turn in range(1 + report.turns):  # the first one is not counted
            ready = workload.instances(signature, items)
            prepared.model.merge(ready)
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                found = _run(prepared.model, items, ways.get(name) or _always(ready), clock)
                if turn:
                    times[name].append(found)
        for name, runs in times.items():
            for stage in STAGES:
                sums[name][stage] += median(run[stage] for run in runs)
        report.minibatches += 1
        report.instances += len(items)
        report.nodes += sum(graph.num_nodes for graph in ready)
    report.seconds = {
        name: {stage: total / report.minibatches for stage, total in stages.items()} for name, stages in sums.items()
    }
    for name in names[1:]:
        stages = sums[name]
        report.build_microseconds[name] = 1e6 * (stages["build"] + stages["merge"]) / report.nodes
    if options.data is not None:
        report.file_nodes_per_second = _from_file(prepared, builders[PYTHON], report.turns, clock)
    return report


def _always(instances: list[InstanceGraph]) -> Callable[[Sequence[Any]], list[InstanceGraph]]:
    return lambda _: instances


def _from_flat(
    arrays: Callable[[Signature, Any], MinibatchArrays], signature: Signature, items: Any
) -> Callable[[Sequence[Any]], list[InstanceGraph]]:
    return lambda _: [arrays(signature, items).minibatch()]


def _item_by_item(
    graph: Callable[[Builder, Any], InstanceGraph], builder: Builder
) -> Callable[[Sequence[Any]], list[InstanceGraph]]:
    return lambda items: [graph(builder, item) for item in items]


def _run(
    model: Any, items: Sequence[Any], build: Callable[[Sequence[Any]], list[InstanceGraph]], clock: Clock
) -> dict[str, float]:
    """The seconds of one minibatch that nobody has seen before: of its stages, and of all together."""
    begin = clock()
    whole = clock() - begin if model.in_one_call(build(items)) is not None else None
    ends = [clock()]
    instances = build(items)
    ends.append(clock())
    graph = model.merge(instances)
    ends.append(clock())
    schedule, info = model.schedule(graph, cache=False)
    ends.append(clock())
    plan = model.plan(graph, schedule)
    ends.append(clock())
    model.execute(graph, plan, info).synchronize()
    ends.append(clock())
    stages = [end - begin for begin, end in pairwise(ends)]
    return dict(zip(STAGES, [*stages, ends[-1] - ends[0] if whole is None else whole], strict=True))


def _from_file(prepared: Prepared, python: Builder, turns: int, clock: Clock) -> dict[str, float]:
    """Nodes of all instances of the data file by the seconds that reading and building them takes."""
    options, workload, signature = prepared.options, prepared.workload, prepared.signature
    read, path, how = workload.source.read, options.data, ReadOptions(options.seed, options.learn_data)
    assert read is not None
    assert path is not None
    ways: dict[str, Callable[[], Iterable[InstanceGraph]]] = {
        PYTHON: lambda: [workload.graph(python, item) for item in read(path, how)]
    }
    arrays, flat = workload.arrays, workload.source.flat
    if arrays is not None and flat is not None:
        ways[ARRAYS] = lambda: workload.read(path, signature, how)
    times: dict[str, list[float]] = {name: [] for name in ways}
    nodes = 0
    for _ in range(turns):
        for name, way in ways.items():
            begin = clock()
            instances = way()
            times[name].append(clock() - begin)
            nodes = nodes or sum(graph.num_nodes for graph in instances)
            del instances
    return {name: nodes / median(seconds) for name, seconds in times.items()}

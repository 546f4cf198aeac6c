"""Our speed on a CPU beside the peers': sizes of a workload, all contenders in turn, medians, results compared."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from time import perf_counter, sleep
from typing import Any

import numpy as np

from edbatch_tvm.batching import Policy, select_policy
from edbatch_tvm.benchmarking.fma_peak import fma_gflops
from edbatch_tvm.benchmarking.matmul_peak import peak_gflops
from edbatch_tvm.benchmarking.measure import Seconds
from edbatch_tvm.benchmarking.policy_learning import LEARN_MINIBATCHES
from edbatch_tvm.benchmarking.train_test_split import DATA_FILES, learn_test_split
from edbatch_tvm.checking.comparison import TOLERANCE, compare
from edbatch_tvm.checking.reference import run_reference
from edbatch_tvm.compiler import compile_model
from edbatch_tvm.errors import DataError, EdbatchError
from edbatch_tvm.flops import multiply_adds_of_graph
from edbatch_tvm.graph import Builder, InstanceGraph, Signature, merge
from edbatch_tvm.models.data import split
from edbatch_tvm.models.trained import find_workload
from edbatch_tvm.models.workload import ReadOptions, Workload
from edbatch_tvm.peers.contenders import (
    OF_TORCH,
    Contender,
    Ours,
    Unbatched,
    dynet_contender,
    torch_contenders,
)
from edbatch_tvm.peers.dynet_run import DyNet
from relay_ext.signature import signature_of

MAIN = ("treelstm", "treegru", "lattice-lstm", "bilstm-tagger")
"""Workloads that run under ``torch.compile`` too, which takes from seconds to a minute each."""

WHERE: Mapping[str, frozenset[tuple[int, int]]] = {
    "compiled": frozenset({(64, 64), (128, 64)}),
    "eager": frozenset({(128, 64)}),
    "dynet": frozenset({(64, 64), (128, 64), (256, 64)}),
    "depth": frozenset({(128, 64)}),
    "agenda": frozenset({(128, 64)}),
    "unbatched": frozenset({(128, 1), (128, 8)}),
}
"""(hidden, batch size) at which a slow peer runs; ``hand`` runs at all sizes."""

LIMITS = {"mvrnn": (256, 64)}
"""Largest hidden and batch size of a workload whose values are matrices."""

PAUSE = 0.004
"""Seconds between turns, in which the idle threads of one contender's pool stop spinning."""

SHORT = 0.05
"""Seconds; a run that takes less is done again in the same turn, and the last is timed."""

LONG = 1.0
"""Seconds; the same in the first turn, in which memory is touched for the first time."""

WARM = 0.02
"""Seconds that the runs before the timed one take together, if they are short: caches and threads are as in a loop."""

REFERENCE_INSTANCES = 2

LEARN_BATCH_SIZE = 64
"""Instances of a minibatch that the policy learns from."""


@dataclass(frozen=True)
class BenchOptions:
    """What to compare; the fields are options of ``edbatch bench cpu``.

    ``minibatches`` 0 takes as many as make 8 instances, one at least; ``budget`` are the seconds of a size after which
    no further turn begins once there are three; ``everywhere`` runs slow peers at all sizes.
    """

    peers: tuple[str, ...] = ("hand",)
    hidden: tuple[int, ...] = (128,)
    batch_sizes: tuple[int, ...] = (64,)
    minibatches: int = 0
    repeat: int = 7
    budget: float = 2.0
    everywhere: bool = False
    data_root: Path | None = None
    seed: int = 0
    dynet_python: Path | None = None
    checkpoint: Path | None = None


@dataclass
class Row:
    """One size of one workload; ``seconds`` are of all minibatches, medians over turns.

    ``peers`` has for each peer its ``form``, its ``seconds`` for as many instances as ours ran, ``ratio``, how many
    times longer that is than our total (from merging to results), and ``ratio_of_best``, the same of the shortest
    times of both, which says more where the machine is busy. DyNet has ``also_seconds``, the making of its graph in
    Python, in none of the ratios. A peer that could not run has a ``note``.
    """

    workload: str
    hidden: int
    batch_size: int
    minibatches: int
    instances: int
    nodes: int
    batches: int
    policy: str
    turns: int
    seconds: dict[str, float]
    gflops: float
    instances_per_second: float
    error: float
    peers: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def host_share(self) -> float:
        """Part of the time that is not execution."""
        return 1 - self.seconds["execute"] / self.seconds["total"]


def measure_workload(
    name: str, hidden: int, options: BenchOptions, dynet: DyNet | None, no_dynet: str = ""
) -> tuple[list[Row], dict[str, float]]:
    """One workload at one hidden size, all batch sizes.

    Parameters
    ----------
    name : str
    hidden : int
    options : BenchOptions
    dynet : DyNet or None
    no_dynet : str
        Why there is none.

    Returns
    -------
    rows : list of Row
    rates : dict
        ``peak_gflops``, of a matrix product in torch or NumPy, and ``fma_gflops``; the best of several between sizes.

    Raises
    ------
    EdbatchError
        If ours or a peer's results are not right.
    """
    workload = find_workload(name, options.checkpoint)
    mod = workload.cells(hidden)
    signature = signature_of(mod)
    weights = workload.weights(hidden, options.seed)
    model = compile_model(mod, weights)
    instances = _instances(workload, signature, options)
    rates = {"peak_gflops": 0.0, "fma_gflops": 0.0}
    rows = []
    for batch_size in sizes(name, hidden, options):
        rates = {
            "peak_gflops": max(rates["peak_gflops"], peak_gflops()),
            "fma_gflops": max(rates["fma_gflops"], fma_gflops()),
        }
        count = options.minibatches or max(1, 8 // batch_size)
        minibatches = split(instances[: count * batch_size], batch_size)
        model.policy = _policy(name, options.data_root, options.seed)
        ours = Ours(model, minibatches)
        contenders = [Contender("ours", "", ours.run, None, sum(map(len, minibatches)), ours.last)]
        skipped: dict[str, str] = {}
        for peer in options.peers:
            if not options.everywhere and peer in WHERE and (hidden, batch_size) not in WHERE[peer]:
                continue
            if peer == "compiled" and name not in MAIN and not options.everywhere:
                continue
            if peer == "dynet" and dynet is None:
                skipped[peer] = no_dynet
                continue
            contenders += _contenders(peer, name, minibatches, weights, ours, dynet, mod)
        error = _reference_error(workload, model, minibatches[0][:REFERENCE_INSTANCES], weights)
        take_turns(contenders, options)
        _check(name, contenders, ours)
        rows.append(_row(name, hidden, batch_size, mod, minibatches, ours, contenders, error))
        for peer, note in skipped.items():
            rows[-1].peers[peer] = {"note": note}
    return rows, rates


def _instances(workload: Workload, signature: Signature, options: BenchOptions) -> list[InstanceGraph]:
    """As many instances as the largest minibatches take."""
    count = max((options.minibatches or max(1, 8 // size)) * size for size in options.batch_sizes)
    path = data_file(workload.name, options.data_root)
    builder = Builder(signature)
    items = items_of(workload.name, path, count, options.seed, options.checkpoint)
    return [workload.graph(builder, item) for item in items]


def data_file(name: str, data_root: Path | None) -> Path | None:
    """The data file of a workload; None where instances are generated."""
    return None if data_root is None or name not in DATA_FILES else data_root / DATA_FILES[name]


@lru_cache(maxsize=1)
def items_of(name: str, path: Path | None, count: int, seed: int, checkpoint: Path | None = None) -> list[Any]:
    """What instances are made from, none that the policy learns from; the same for all hidden sizes."""
    source = find_workload(name, checkpoint).source
    if path is None or source.read is None:
        return list(source.generate(count, seed))
    learned = LEARN_MINIBATCHES * LEARN_BATCH_SIZE
    items = list(source.read(path, ReadOptions(seed)))[learned : learned + count]
    if len(items) < count:
        raise DataError(f"{len(items)} instances in {path} after the {learned} to learn from", f"{count} or more")
    return items


@lru_cache(maxsize=1)
def _policy(name: str, data_root: Path | None, seed: int) -> Policy:
    """The best policy on other instances, a state machine learned from them included; the same for all sizes."""
    return select_policy(
        learn_test_split(name, data_root, LEARN_BATCH_SIZE, LEARN_MINIBATCHES, 1, seed).learn, seed=seed
    )


def sizes(name: str, hidden: int, options: BenchOptions) -> list[int]:
    """Batch sizes of a workload at a hidden size."""
    largest, most = LIMITS.get(name, (hidden, max(options.batch_sizes)))
    return [size for size in options.batch_sizes if hidden <= largest and size <= most]


def _contenders(
    peer: str,
    name: str,
    minibatches: list[list[InstanceGraph]],
    weights: Mapping[str, np.ndarray],
    ours: Ours,
    dynet: DyNet | None,
    mod: Any,
) -> list[Contender]:
    count = sum(map(len, minibatches))
    if peer in OF_TORCH:
        return torch_contenders(peer, name, minibatches, weights)
    if peer == "dynet":
        assert dynet is not None
        return [dynet_contender(dynet, name, minibatches, weights)]
    if peer == "unbatched":
        alone = Unbatched(ours.model, minibatches)
        return [Contender(peer, "one node at a time", alone.run, None, count)]
    return [Contender(peer, "our kernels", lambda: ours.run_with(peer), None, count)]


def take_turns(contenders: list[Contender], options: BenchOptions) -> None:
    """Time all contenders in turn, as often as the options say; of several forms of a peer the fastest two stay."""
    begin = perf_counter()
    for turn in range(options.repeat):
        if perf_counter() - begin > options.budget and turn >= (
            3 if perf_counter() - begin < 3 * options.budget else 2
        ):
            break
        # Each turn begins with another one: what runs after an idle process has an advantage on a busy machine.
        first = turn % len(contenders)
        for one in _alive(contenders[first:] + contenders[:first], turn):
            try:
                sleep(PAUSE)
                taken = one.run()
                if taken < (LONG if turn == 0 else SHORT):
                    spent = taken
                    while spent < WARM:
                        spent += one.run()
                    taken = one.run()
            except EdbatchError:
                raise
            except Exception as error:
                if one.name != "compiled":
                    raise
                one.note = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
                continue
            one.times.append(taken)
            one.details.append(one.detail())


def _alive(contenders: list[Contender], turn: int) -> Iterator[Contender]:
    for one in contenders:
        rivals = [other for other in contenders if other.name == one.name and other.times]
        slower = sum(min(other.times) < min(one.times) for other in rivals) if one.times else 0
        if not one.note and (turn < 2 or slower < 1 or len(rivals) == 1):
            yield one


def _reference_error(
    workload: Workload, model: Any, instances: list[InstanceGraph], weights: Mapping[str, np.ndarray]
) -> float:
    """Largest relative error of our results against the float64 reference, on a few instances."""
    graph = merge(instances)
    comparison = compare(graph, model(instances), run_reference(graph, workload.reference, weights))
    comparison.require()
    return comparison.relative_error


def _check(name: str, contenders: list[Contender], ours: Ours) -> None:
    """Compare the results of all contenders with ours."""
    ours.run()
    for one in contenders:
        if one.outputs is None or not one.times:
            continue
        one.run()
        for given, expected in zip(one.outputs(), ours.values, strict=False):
            wanted = expected[: len(given)]
            error = np.abs(given - wanted).max() / np.abs(wanted).max()
            if not error <= 2 * TOLERANCE:
                raise EdbatchError(
                    f"{one.name} ({one.form}) on {name} differs from ours by {error:.2g}", f"{2 * TOLERANCE:g} or less"
                )


def _row(
    name: str,
    hidden: int,
    batch_size: int,
    mod: Any,
    minibatches: list[list[InstanceGraph]],
    ours: Ours,
    contenders: Sequence[Contender],
    error: float,
) -> Row:
    mine = contenders[0]
    seconds = Seconds.median(mine.details)
    graphs = [merge(instances) for instances in minibatches]
    flops = 2 * sum(multiply_adds_of_graph(mod, graph) for graph in graphs)
    row = Row(
        workload=name,
        hidden=hidden,
        batch_size=batch_size,
        minibatches=len(minibatches),
        instances=mine.instances,
        nodes=sum(graph.num_nodes for graph in graphs),
        batches=ours.batches,
        policy=getattr(ours.model.policy, "name", str(ours.model.policy)),
        turns=len(mine.times),
        seconds={stage: getattr(seconds, stage) for stage in ("build", "schedule", "plan", "execute", "total")},
        gflops=flops / seconds.execute / 1e9,
        instances_per_second=mine.instances / seconds.total,
        error=error,
    )
    for one in contenders[1:]:
        if one.note:
            row.peers.setdefault(one.name, {"note": one.note})
            continue
        taken = median(one.times) * mine.instances / one.instances
        known = row.peers.get(one.name)
        if known is None or "note" in known or taken < known["seconds"]:
            found = {"form": one.form, "seconds": taken, "ratio": taken / seconds.total}
            found["ratio_of_best"] = min(one.times) * mine.instances / one.instances / min(mine.times)
            if one.name == "dynet":
                found["also_seconds"] = median(one.details) * mine.instances / one.instances
            row.peers[one.name] = found
    return row


def machine(threads: int, dynet: DyNet | None) -> dict[str, Any]:
    """What the figures were measured on and with."""
    found: dict[str, Any] = {
        "cpu": _cpu(),
        "threads": threads,
        "python": platform.python_version(),
        "tvm": version("apache-tvm"),
        "numpy": np.__version__,
    }
    if find_spec("torch") is not None:
        found["torch"] = version("torch")
    if dynet is not None:
        found["dynet"] = dynet.version
    return found


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            lines = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        return platform.processor()
    return lines[0] if lines else platform.processor()

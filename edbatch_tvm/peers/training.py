"""A training step beside the peers': forward pass, loss, backward pass, and packing of the weights that changed.

The loss is the sum of the cross entropies of all outputs, of classes drawn at random. No optimizer runs. All contenders
run in turn in one process (DyNet in one of its own), with the same weights, and their gradients are compared. As in
:mod:`edbatch_tvm.peers.compare`, what depends on the structure of a minibatch alone is made ahead for PyTorch, and is
part of our time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import repeat
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import numpy as np

from edbatch_tvm import losses
from edbatch_tvm.batching import Policy, select_policy
from edbatch_tvm.benchmarking.fma_peak import fma_gflops
from edbatch_tvm.benchmarking.policy_learning import LEARN_MINIBATCHES
from edbatch_tvm.checking.comparison import TOLERANCE
from edbatch_tvm.compiler import compile_model
from edbatch_tvm.errors import EdbatchError
from edbatch_tvm.flops import multiply_adds_of_graph
from edbatch_tvm.graph import Builder, InstanceGraph, Signature, merge
from edbatch_tvm.models import get_workload
from edbatch_tvm.models.data import LEARN_SEED, split
from edbatch_tvm.models.trained import find_workload
from edbatch_tvm.models.workload import ReadOptions, Workload
from edbatch_tvm.peers.compare import LEARN_BATCH_SIZE, BenchOptions, data_file, items_of, take_turns
from edbatch_tvm.peers.contenders import ONE_BY_ONE_INSTANCES, Contender, require_torch
from edbatch_tvm.peers.dynet_run import DyNet
from edbatch_tvm.peers.markdown_tables import markdown_table
from edbatch_tvm.training import TrainingModel
from relay_ext.signature import signature_of

TRAINED = ("treelstm", "lattice-lstm", "bilstm-tagger")
"""Workloads that the peers train."""

TRAINING_PEERS = ("hand", "eager", "dynet")
"""PyTorch by hand, PyTorch one node at a time, DyNet."""

PARTS = ("forward", "backward", "pack", "total")
"""Our step: the forward pass, the backward pass to arrays of gradients, and new weights packed."""

CLOCKS: Mapping[str, Callable[[], float]] = {"wall": perf_counter, "cpu": process_time}
"""What steps are timed with. The time of the processor says more on a busy machine, where there is one thread."""

LOSS = "loss"

MEDIAN_OF = 64
"""For a minibatch of one instance: as many are looked at to find one of median size."""

GradientsOf = Callable[[], Mapping[str, np.ndarray]]


@dataclass
class TrainingRow:
    """One size of one workload.

    ``seconds`` are those of :data:`PARTS`, medians over turns; ``gflops`` count three times the products of a forward
    pass, over the whole step. ``peers`` has for each peer its ``form``, its ``seconds`` for as many instances as ours
    ran, ``ratio``, how many times longer that is than our step, ``ratio_of_best``, the same of the shortest times of
    both, and ``error``, the largest difference of a gradient from ours relative to its largest value. DyNet has
    ``also_seconds``, the making of its graph in Python, in none of the ratios. A peer that could not run has a
    ``note``.
    """

    workload: str
    hidden: int
    batch_size: int
    nodes: int
    batches: int
    policy: str
    turns: int
    seconds: dict[str, float]
    gflops: float
    loss: float
    peers: dict[str, dict[str, Any]] = field(default_factory=dict)


class LossBuilder(Builder):
    """A builder that declares the losses of the outputs in place of the outputs."""

    def __init__(self, signature: Signature, labels: Iterator[int]) -> None:
        super().__init__(signature)
        self._labels = labels

    def finish(self, *outputs: Any) -> InstanceGraph:
        """See :meth:`Builder.finish`."""
        (logits,) = outputs
        return super().finish([self.call(LOSS, one, label=label) for one, label in zip(logits, self._labels)])  # noqa: B905


class OurStep:
    """Our training step: merges, schedules, plans, runs and packs anew in every run, nothing kept but memory."""

    def __init__(self, case: Case, clock: Callable[[], float]) -> None:
        self.model, self.weights, self.instances = case.model, case.weights, case.instances
        self.clock = clock
        self.seconds: dict[str, float] = {}
        self.gradients: dict[str, np.ndarray] = {}
        self.losses = np.empty(0)
        self.batches = 0

    def last(self) -> dict[str, float]:
        """The last step, part by part."""
        return self.seconds

    def run(self) -> float:
        """One step."""
        model = self.model
        begin = self.clock()
        graph = model.merge(self.instances)
        schedule, info = model.schedule(graph, cache=False)
        result = model.execute(graph, model.plan(graph, schedule), info)
        forward = self.clock()
        gradients = result.backward()
        self.gradients = dict(gradients.items())
        computed = self.clock()
        model.refresh(self.weights)
        end = self.clock()
        self.losses = result.values(graph.outputs)
        self.batches = len(schedule) + len(gradients.schedule)
        parts = (forward - begin, computed - forward, end - computed, end - begin)
        self.seconds = dict(zip(PARTS, parts, strict=True))
        return end - begin


def measure_training(
    name: str, hidden: int, options: BenchOptions, dynet: DyNet | None, no_dynet: str = "", clock: str = "wall"
) -> tuple[list[TrainingRow], float]:
    """One workload at one hidden size, all batch sizes.

    Parameters
    ----------
    name : str
        One of :data:`TRAINED`.
    hidden : int
    options : BenchOptions
        Those of ``edbatch bench training``.
    dynet : DyNet or None
    no_dynet : str
        Why there is none.
    clock : {"wall", "cpu"}
        See :data:`CLOCKS`.

    Returns
    -------
    rows : list of TrainingRow
    fma_gflops : float
        The rate of fused multiply-adds of this machine; the best of several between sizes.

    Raises
    ------
    EdbatchError
        If the gradients of a peer and ours differ.
    """
    workload = find_workload(name, options.checkpoint)
    mod = workload.cells(hidden)
    signature = signature_of(mod)
    weights = workload.weights(hidden, options.seed)
    classes = signature.cells[-1].outputs[0].size
    model = compile_model(
        losses.with_losses(mod, **{LOSS: losses.cross_entropy(classes)}),
        weights,
        training=True,
    )
    assert isinstance(model, TrainingModel)
    model.policy = _policy(name, model.cells, options.data_root, options.seed)
    path = data_file(name, options.data_root)
    items = items_of(name, path, max(*options.batch_sizes, MEDIAN_OF), options.seed, options.checkpoint)
    rate = 0.0
    rows = []
    for batch_size in options.batch_sizes:
        rate = max(rate, fma_gflops(clock=CLOCKS[clock]))
        case = Case(workload, weights, model, _of_size(workload, signature, items, batch_size), options.seed)
        ours = OurStep(case, CLOCKS[clock])
        contenders = [Contender("ours", "", ours.run, None, case.graph.num_nodes, ours.last)]
        gradients: list[GradientsOf] = []
        for peer in options.peers:
            for contender, own in _contenders(peer, case, dynet, clock):
                contenders.append(contender)
                gradients.append(own)
        ours.run()  # compiles the backward cells of new numbers of variadic rows
        take_turns(contenders, options)
        ours.run()
        for contender, own in zip(contenders[1:], gradients, strict=True):
            _compare(case, contender, ours, own)
        rows.append(_row(case, hidden, batch_size, mod, ours, contenders))
        if "dynet" in options.peers and dynet is None:
            rows[-1].peers["dynet"] = {"note": no_dynet}
    return rows, rate


@lru_cache(maxsize=1)
def _policy(name: str, signature: Signature, data_root: Path | None, seed: int) -> Policy:
    """The best policy on other instances with losses, a state machine learned from them included."""
    workload = get_workload(name)
    path, count = data_file(name, data_root), LEARN_MINIBATCHES * LEARN_BATCH_SIZE
    if path is None or workload.source.read is None:
        items = workload.source.generate(count, seed + LEARN_SEED)
    else:
        items = list(workload.source.read(path, ReadOptions(seed)))[:count]
    builder = LossBuilder(signature, repeat(0))
    graphs = [workload.graph(builder, item) for item in items]
    return select_policy([merge(one) for one in split(graphs, LEARN_BATCH_SIZE)], seed=seed)


def _of_size(workload: Workload, signature: Signature, items: list[Any], batch_size: int) -> list[Any]:
    """The first items; for one instance the one of median size among the first, since sizes differ much."""
    if batch_size > 1:
        return items[:batch_size]
    builder = Builder(signature)
    by_size = sorted(items[:MEDIAN_OF], key=lambda item: workload.graph(builder, item).num_nodes)
    return [by_size[len(by_size) // 2]]


class Case:
    """A minibatch: the graph of its outputs, which peers run, and our instances, whose outputs are losses."""

    def __init__(
        self,
        workload: Workload,
        weights: Mapping[str, np.ndarray],
        model: TrainingModel,
        items: list[Any],
        seed: int,
    ) -> None:
        self.workload, self.weights, self.model, self.items, self.seed = workload, weights, model, items, seed
        plain = Signature(cell for cell in model.cells if cell.name != LOSS)
        builder = Builder(plain)
        self.graph = merge([workload.graph(builder, item) for item in items])
        classes = plain.cells[-1].outputs[0].size
        self.labels = np.random.default_rng(seed).integers(0, classes, len(self.graph.outputs))
        losing = LossBuilder(model.cells, iter(self.labels.tolist()))
        self.instances = [workload.graph(losing, item) for item in items]

    def few(self) -> Case:
        """As many instances as PyTorch runs one node at a time."""
        if len(self.items) <= ONE_BY_ONE_INSTANCES:
            return self
        return Case(self.workload, self.weights, self.model, self.items[:ONE_BY_ONE_INSTANCES], self.seed)


def _contenders(peer: str, case: Case, dynet: DyNet | None, clock: str) -> Iterator[tuple[Contender, GradientsOf]]:
    """The ways to write `peer`, of which the fastest counts, and where their gradients are."""
    name, graph, weights, labels = case.workload.name, case.graph, case.weights, case.labels
    if peer == "dynet":
        if dynet is not None:
            dynet.load(name, graph, weights, labels)
            last = [0.0]

            def train() -> float:
                last[0], step, _ = dynet.train(clock)
                return step

            yield Contender(peer, "autobatch", train, None, graph.num_nodes, lambda: last[0]), dynet.gradients
        return
    require_torch()
    from edbatch_tvm.peers.torch_training import FORMS, ByLevel, OneByOne, PackedTagger

    runs: dict[str, Any] = {}
    if peer == "eager":
        few = case.few()
        graph = few.graph
        runs["one node at a time"] = OneByOne(name, graph, weights, few.labels)
    else:
        runs = {f"by level, {form}": ByLevel(name, graph, weights, labels, form) for form in FORMS}
        if name == "bilstm-tagger":
            runs["packed"] = PackedTagger(name, graph, weights, labels)
    for form, run in runs.items():
        yield Contender(peer, form, partial(_timed, run.run, CLOCKS[clock]), None, graph.num_nodes), run.gradients


def _timed(run: Callable[[], None], clock: Callable[[], float]) -> float:
    begin = clock()
    run()
    return clock() - begin


def _compare(case: Case, contender: Contender, ours: OurStep, gradients: GradientsOf) -> None:
    """Take down how much the gradients of a peer differ from ours; an error if that is too much."""
    few = case.few() if contender.name == "eager" else case
    mine = ours.gradients
    if few is not case:
        own = OurStep(few, ours.clock)
        own.run()
        mine = own.gradients
    contender.run()
    theirs = gradients()
    for name, wanted in mine.items():
        error = float(np.abs(theirs[name] - wanted).max() / max(np.abs(wanted).max(), 1e-30))
        if not error <= 2 * TOLERANCE:
            raise EdbatchError(
                f"the gradient of {name!r} by {contender.name} ({contender.form}) on {case.workload.name} differs"
                f" from ours by {error:.2g}",
                f"{2 * TOLERANCE:g} or less",
            )
        contender.error = max(contender.error, error)


def _row(case: Case, hidden: int, batch_size: int, mod: Any, ours: OurStep, contenders: list[Contender]) -> TrainingRow:
    mine = contenders[0]
    seconds = {part: median(one[part] for one in mine.details) for part in PARTS}
    flops = 3 * 2 * multiply_adds_of_graph(mod, case.graph)
    row = TrainingRow(
        workload=case.workload.name,
        hidden=hidden,
        batch_size=batch_size,
        nodes=case.graph.num_nodes,
        batches=ours.batches,
        policy=getattr(ours.model.policy, "name", str(ours.model.policy)),
        turns=len(mine.times),
        seconds=seconds,
        gflops=flops / seconds["total"] / 1e9,
        loss=float(ours.losses.sum()),
    )
    for one in contenders[1:]:
        factor = mine.instances / one.instances
        taken = median(one.times) * factor
        known = row.peers.get(one.name)
        if known is None or taken < known["seconds"]:
            found = {"form": one.form, "seconds": taken, "ratio": taken / seconds["total"], "error": one.error}
            found["ratio_of_best"] = min(one.times) * factor / min(mine.times)
            if one.name == "dynet":
                found["also_seconds"] = median(one.details)
            row.peers[one.name] = found
    return row


def training_table(rows: Sequence[TrainingRow], rate: float) -> str:
    """The rows as a table in Markdown; `rate` is that of fused multiply-adds, in GFLOP/s."""
    names = {"hand": "PyTorch by level", "eager": "PyTorch, one node at a time", "dynet": "DyNet"}
    shown = [name for name in TRAINING_PEERS if any(name in row.peers for row in rows)]
    head = ["workload", "H", "B", "nodes", *(f"{part}, ms" for part in PARTS), "share of FMA"]
    head += [f"{names[name]}, ms" for name in shown]
    lines = []
    for row in rows:
        line = [row.workload, str(row.hidden), str(row.batch_size), str(row.nodes)]
        line += [f"{1e3 * row.seconds[part]:.2f}" for part in PARTS]
        line.append(f"{row.gflops / rate:.2f}")
        for name in shown:
            peer = row.peers.get(name, {})
            form = peer.get("form", "").removeprefix("by level, ")
            by = f", {form}" if name == "hand" and form else ""
            line.append(
                f"{1e3 * peer['seconds']:.1f} ({peer['ratio']:.1f} ×, of the best {peer['ratio_of_best']:.1f} ×{by})"
                if "ratio" in peer
                else ""
            )
        lines.append(line)
    text = markdown_table(head, lines)
    notes = [
        f"Not run: {names[name]}: {row.peers[name]['note']}."
        for row in rows
        for name in shown
        if "note" in row.peers[name]
    ]
    return "\n\n".join([text, *dict.fromkeys(notes)])

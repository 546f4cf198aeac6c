"""A training run: epochs over a data file, accuracy on another one, checkpoints."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
from tvm import IRModule

from edbatch_tvm import losses
from edbatch_tvm.batching import AUTO, Policy, learn_policy
from edbatch_tvm.compiler import compile_model
from edbatch_tvm.errors import DataError, EdbatchError
from edbatch_tvm.flops import multiply_adds_of_graph
from edbatch_tvm.graph import InstanceGraph, merge
from edbatch_tvm.models import get_workload
from edbatch_tvm.models.checkpoint import Checkpoint, load_checkpoint
from edbatch_tvm.models.data import split
from edbatch_tvm.models.trained import labelled_of, trained_workload, with_vocabularies
from edbatch_tvm.models.workload import ReadOptions
from edbatch_tvm.runtime import Result
from edbatch_tvm.trainer.dropout import DROP, MASK, Masks, drop_cell
from edbatch_tvm.trainer.examples import LOSS, NO_CLASS, Examples, Read, label_names, to_measure, to_train
from edbatch_tvm.trainer.interrupts import Stop, between_steps
from edbatch_tvm.trainer.optimizers import Optimizer
from edbatch_tvm.trainer.options import AS_BEFORE, LATER, TrainOptions
from edbatch_tvm.training import TrainingModel
from relay_ext.from_torch import require_torch
from relay_ext.signature import signature_of

Show = Callable[[int, int, float], None]

LEARNED = "fsm"
"""The policy that is learned before the first step."""

LEARN_MINIBATCHES = 8
"""What it is learned from."""

_BACKWARD_WORK = 2
"""Products of a backward pass for each one of the forward pass: by weights, and by operands."""


@dataclass(frozen=True, eq=False)
class EpochReport:
    """The figures of an epoch.

    Attributes
    ----------
    epoch : int
        From 1.
    loss : float
        Mean loss of an instance, while weights changed.
    dev_accuracy : float
        Of all labelled outputs.
    dev_root_accuracy : float or None
        Of the last output of each instance, where it stands for all of it.
    dev_loss : float
        Mean loss of an instance after the epoch.
    seconds : dict of str to float
        ``total`` and its parts: ``forward``, ``backward``, ``optimizer``, ``refresh`` (packing the new weights),
        ``other``. Without ``dev``, which is the time to measure accuracy. Of an epoch that was stopped and taken up
        again, the time since.
    """

    epoch: int
    loss: float
    dev_accuracy: float
    dev_root_accuracy: float | None
    dev_loss: float
    seconds: dict[str, float]


class Training:
    """A run, ready for its epochs.

    Attributes
    ----------
    options : TrainOptions
    checkpoint : Checkpoint
        Where the run stands; its arrays of weights and state are those of the start.
    flops : int
        Floating-point operations of the matrix products of an epoch, counted as three forward passes.
    """

    def __init__(self, options: TrainOptions) -> None:
        self.options = options
        torch = require_torch()
        torch.set_num_threads(1)  # the optimizer's work is a few milliseconds: threads would wait for each other
        original = get_workload(options.workload)
        self._labelled = labelled = labelled_of(original)
        read = ReadOptions(options.seed)
        items, dev = labelled.read(options.data, read), labelled.read(options.dev, read)
        self.checkpoint = start = self._start(items)
        self.resumed = start.epoch + start.step > 0
        workload = trained_workload(start, options.workload)
        mod = workload.cells(options.hidden)
        self._optimizer = Optimizer(options.optimizer, options.rate, options.momentum, start.weights, labelled.tables)
        self._optimizer.load(start.state)
        classes = _classes(mod, labelled.output)
        more = {LOSS: losses.cross_entropy(classes)}
        self._masks: Masks | None = None
        if options.dropout:
            output = signature_of(mod)[labelled.output]
            self._masks = Masks(options.dropout, options.seed, output.operands[0].spec.size)
            more[DROP] = drop_cell(output)
        full = losses.with_losses(mod, **more)
        policy = start.policy if options.policy == AUTO else options.policy
        at_first = AUTO if policy == LEARNED else policy
        # Words and phrases repeat; but with masks, what comes after them is different.
        equal = not options.dropout
        model = compile_model(full, self._optimizer.weights, policy=at_first, training=True, equal_nodes=equal)
        assert isinstance(model, TrainingModel)
        self.model = model
        found = (workload, model.cells)
        self._train = _some(to_train(*found, items, start.vocabularies, start.labels), options.data)
        self._dev = _some(to_measure(*found, dev, start.vocabularies, start.labels), options.dev)
        if policy == LEARNED:
            model.policy = self._learned()
        work = multiply_adds_of_graph(full, merge(self._train.graphs))
        self.flops = 2 * work * (1 + _BACKWARD_WORK)

    @property
    def instances(self) -> tuple[int, int]:
        """Numbers of instances to train on and to measure accuracy on."""
        return len(self._train.graphs), len(self._dev.graphs)

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return -(-len(self._train.graphs) // self.options.batch_size)

    def _learned(self) -> Policy:
        """A state machine learned from the first instances of the data file."""
        size = self.options.batch_size
        some = split(self._train.graphs[: LEARN_MINIBATCHES * size], size)
        return learn_policy([self.model.merge(graphs) for graphs in some], seed=self.options.seed)

    def _start(self, items: Read) -> Checkpoint:
        """Where to start from: the file of an earlier run, or nothing."""
        options = self.options
        kept = {name: getattr(options, name) for name in AS_BEFORE} | {
            "lr": options.rate,
            "data": _digest(options.data),
        }
        if options.checkpoint is not None and options.checkpoint.exists():
            found = load_checkpoint(options.checkpoint)
            own = {"workload": options.workload, "hidden": options.hidden, **kept}
            before = {"workload": found.workload, "hidden": found.hidden, **LATER, **found.options}
            for name, value in own.items():
                if before.get(name) != value:
                    what = "the contents of --data" if name == "data" else f"{name} {before.get(name)}"
                    raise DataError(
                        f"checkpoint {options.checkpoint} is of a run with other options",
                        what if name != "data" else "the same --data",
                        "go on with the options it was started with, or name another file",
                    )
            return found
        labelled = self._labelled
        vocabularies = labelled.vocabularies(items, options.vocabulary)
        workload = with_vocabularies(get_workload(options.workload), vocabularies)
        names = label_names(items, _classes(workload.cells(1), labelled.output), options.data)
        weights = workload.weights(options.hidden, options.seed)
        for table in labelled.tables:
            weights[table][0] = 0  # other words: no word of the file changes it where all have rows of their own
        return Checkpoint(options.workload, options.hidden, kept, vocabularies, names, "auto", weights)

    def epochs(self, show: Show) -> Iterator[EpochReport]:
        """Train until ``options.epochs`` are done, and write the checkpoint after each.

        Parameters
        ----------
        show : callable
            ``show(epoch, step, loss)`` is called after each step, with the mean loss of the epoch so far.

        Raises
        ------
        EdbatchError
            If the loss is no finite number.
        KeyboardInterrupt
            After Ctrl-C; the checkpoint, where there is one, has the steps done.
        """
        at = self.checkpoint
        with between_steps() if self.options.checkpoint is not None else nullcontext(Stop()) as stop:
            while at.epoch < self.options.epochs:
                report = self._epoch(show, stop)
                if report is not None:
                    at.epochs.append(asdict(report))
                    at.epoch, at.step, at.loss = at.epoch + 1, 0, 0.0
                    self._save()
                    yield report
                if stop.requested:
                    raise KeyboardInterrupt

    def _epoch(self, show: Show, stop: Stop) -> EpochReport | None:
        """The rest of an epoch; None if it was stopped."""
        at, size = self.checkpoint, self.options.batch_size
        order = np.random.default_rng([self.options.seed, at.epoch]).permutation(len(self._train.graphs))
        begin = perf_counter()
        seconds = dict.fromkeys(("forward", "backward", "optimizer", "refresh"), 0.0)
        for number in range(at.step, self.steps):
            chosen = order[number * size : (number + 1) * size].tolist()
            at.loss += self._step(chosen, seconds)
            at.step = number + 1
            mean = at.loss / min(at.step * size, len(order))
            if not math.isfinite(mean):
                raise EdbatchError(
                    f"loss {mean} in epoch {at.epoch + 1}, step {at.step}", "a finite one", "a smaller --lr"
                )
            show(at.epoch + 1, at.step, mean)
            if stop.requested and at.step < self.steps:
                self._save()
                return None
        trained = perf_counter()
        accuracy, root, loss = self._measure()
        total = trained - begin
        seconds |= {"other": total - sum(seconds.values()), "total": total, "dev": perf_counter() - trained}
        return EpochReport(at.epoch + 1, at.loss / len(order), accuracy, root, loss, seconds)

    def _step(self, chosen: list[int], seconds: dict[str, float]) -> float:
        """One step of the optimizer on the instances of these numbers; the sum of the losses."""
        times = [perf_counter()]
        graphs = [self._train.graphs[one] for one in chosen]
        result = self.model(graphs) if self._masks is None else self._dropped(self._masks, chosen, graphs)
        loss = float(result.values(result.graph.outputs).sum(dtype=np.float64))
        times.append(perf_counter())
        gradients = result.backward()  # type: ignore[attr-defined]
        times.append(perf_counter())
        changed = self._optimizer.step(gradients, 1 / len(chosen))
        times.append(perf_counter())
        self.model.refresh(self._optimizer.weights, rows=changed)
        times.append(perf_counter())
        for name, taken in zip(("forward", "backward", "optimizer", "refresh"), np.diff(times).tolist(), strict=True):
            seconds[name] += taken
        return loss

    def _dropped(self, masks: Masks, chosen: list[int], graphs: list[InstanceGraph]) -> Result:
        """Run a minibatch with new masks."""
        key = self.model.cells.type_id(DROP), MASK
        counts = [len(graph.attributes[key]) if key in graph.attributes else 0 for graph in graphs]
        merged = self.model.merge(graphs)
        merged.attributes[key] = masks.rows(self.checkpoint.epoch, chosen, counts)
        schedule, info = self.model.schedule(merged)
        return self.model.execute(merged, self.model.plan(merged, schedule, cache=True), info)

    def _measure(self) -> tuple[float, float | None, float]:
        """Accuracy of all labelled outputs and of the last ones, and the mean loss, on the instances of ``--dev``."""
        logits = []
        for graphs in split(self._dev.graphs, self.options.batch_size):
            result = self.model(graphs)
            logits.append(result.values(result.graph.outputs).astype(np.float64))
        outputs, classes = np.concatenate(logits), np.concatenate(self._dev.classes)
        right = outputs.argmax(axis=1) == classes
        known = np.flatnonzero(classes >= 0)
        largest = outputs.max(axis=1)
        log_sum = largest + np.log(np.exp(outputs - largest[:, None]).sum(axis=1))
        loss = (log_sum[known] - outputs[known, classes[known]]).sum() / len(self._dev.graphs)
        last = np.cumsum([len(one) for one in self._dev.classes]) - 1
        root = float(right[last].mean()) if self._labelled.has_root else None
        return float(right[classes != NO_CLASS].mean()), root, float(loss)

    def _save(self) -> None:
        if self.options.checkpoint is None:
            return
        policy = self.model.resolved_policy
        self.checkpoint.policy = AUTO if policy is None else policy.name
        self.checkpoint.weights = {name: tensor.numpy() for name, tensor in self._optimizer.weights.items()}
        self.checkpoint.state = self._optimizer.state()
        self.checkpoint.save(self.options.checkpoint)


def _classes(mod: IRModule, output: str) -> int:
    """The number of classes that a cell of `mod` gives logits of."""
    return signature_of(mod)[output].outputs[0].size


def _some(examples: Examples, path: Path) -> Examples:
    """Examples of a file, if there are any."""
    if not examples.graphs:
        raise DataError(f"0 labelled instances in {path}", "1 or more")
    return examples


def _digest(path: Path) -> str:
    """The digest of a data file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()

"""Accuracy after training, by ``edbatch train`` and by PyTorch batched by level: same weights, order and optimizer.

Run as ``python -m benchmarks.training_accuracy --data FILE --dev FILE``. Both start from the same weights for each seed
and see the same minibatches in the same order. Losses and gradients of the peer are autograd's, of cells written in
PyTorch (:mod:`edbatch_tvm.peers.torch_training`); the optimizers are torch's for both. Accuracy on ``--dev`` is that of
all labelled nodes and that of roots. Times are of this process's processor, since machines are busy.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any

import numpy as np
import torch

import edbatch_tvm as eb
from edbatch_tvm.atomic_file import write_text
from edbatch_tvm.graph import merge
from edbatch_tvm.models import get_workload
from edbatch_tvm.models.trained import labelled_of, trained_workload
from edbatch_tvm.models.workload import ReadOptions
from edbatch_tvm.peers.torch_training import ByLevel
from edbatch_tvm.trainer.examples import to_measure
from edbatch_tvm.trainer.options import TrainOptions
from edbatch_tvm.trainer.run import Training
from relay_ext.signature import signature_of


class DenseGradients(Mapping[str, np.ndarray]):
    """Gradients of PyTorch, of which tables also have rows: those that were read."""

    def __init__(self, gradients: Mapping[str, np.ndarray], read: Mapping[str, np.ndarray]) -> None:
        self._gradients, self._read = gradients, read

    def __getitem__(self, name: str) -> np.ndarray:
        return self._gradients[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._gradients)

    def __len__(self) -> int:
        return len(self._gradients)

    def reaches(self, _name: str) -> bool:
        return True

    def rows(self, table: str) -> tuple[np.ndarray, np.ndarray]:
        index = self._read[table]
        return index, self._gradients[table][index]


class ByLevelTraining(Training):
    """The same run, whose steps are PyTorch's."""

    def __init__(self, options: TrainOptions) -> None:
        super().__init__(options)
        workload = trained_workload(self.checkpoint, options.workload)
        items = labelled_of(get_workload(options.workload)).read(options.data, ReadOptions(options.seed))
        signature = signature_of(workload.cells(options.hidden))
        self._logits = to_measure(workload, signature, items, self.checkpoint.vocabularies, self.checkpoint.labels)
        (self._table,) = labelled_of(get_workload(options.workload)).tables

    def _step(self, chosen: list[int], seconds: dict[str, float]) -> float:
        graph = merge([self._logits.graphs[one] for one in chosen])
        labels = np.concatenate([self._logits.classes[one] for one in chosen])
        weights = {name: tensor.numpy() for name, tensor in self._optimizer.weights.items()}
        run = ByLevel(self.options.workload, graph, weights, labels, "arena")
        run.run()
        words = {self._table: np.unique(graph.attributes[graph.signature.type_id("leaf"), "word"]).astype(np.int64)}
        gradients: Any = DenseGradients(run.gradients(), words)
        self._optimizer.step(gradients, 1 / len(chosen))
        return run.loss

    def _measure(self) -> tuple[float, float | None, float]:
        self.model.refresh(self._optimizer.weights)
        return super()._measure()


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a line a seed and way, then means and standard deviations."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--dev", type=Path, required=True)
    parser.add_argument("--instances", type=int, help="train on the first N lines (all)")
    parser.add_argument("--hidden", type=int, default=150)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--lr", type=float)
    options = parser.parse_args(arguments)
    eb.set_num_threads(1)
    torch.set_num_threads(1)
    lines = options.data.read_text(encoding="utf-8").splitlines(keepends=True)[: options.instances]
    found: dict[str, list[tuple[float, float]]] = {"edbatch train": [], "PyTorch by level": []}
    with TemporaryDirectory() as folder:
        data = Path(folder) / "train.txt"
        write_text(data, "".join(lines))
        print(f"{len(lines)} trees, hidden {options.hidden}, {options.epochs} epochs", flush=True)
        for seed in range(options.seeds):
            own = TrainOptions("treelstm", data, options.dev, options.epochs, options.hidden, lr=options.lr, seed=seed)
            for name, kind in zip(found, (Training, ByLevelTraining), strict=True):
                run, begin = kind(own), process_time()
                reports = list(run.epochs(lambda *_: None))
                last = reports[-1]
                found[name].append((last.dev_root_accuracy or 0.0, last.dev_accuracy))
                losses = " ".join(f"{one.loss:.4f}" for one in reports)
                figures = f"root {found[name][-1][0]:.4f}, nodes {found[name][-1][1]:.4f}"
                print(f"seed {seed}  {name:<17} {figures}; losses {losses}; {process_time() - begin:.0f} s", flush=True)
    for name, pairs in found.items():
        parts = [
            f"{what} {mean(column):.4f} ± {stdev(column) if len(column) > 1 else 0.0:.4f}"
            for what, column in zip(("root", "nodes"), zip(*pairs, strict=True), strict=True)
        ]
        print(f"{name:<17} {', '.join(parts)}")


if __name__ == "__main__":
    main()

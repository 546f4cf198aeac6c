"""Graphs of a workload to learn from, and others to be measured on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edbatch_tvm.errors import DataError
from edbatch_tvm.graph import InstanceGraph, merge
from edbatch_tvm.models import get_workload
from edbatch_tvm.models.data import LEARN_SEED, load_minibatches
from relay_ext.signature import signature_of

DATA_FILES = {
    "treelstm": "sst/train.txt",
    "treelstm-2type": "sst/train.txt",
    "treegru": "sst/train.txt",
    "mvrnn": "sst/train.txt",
    "childsum-tree": "sst/train.txt",
    "bilstm-tagger": "wikiner/train.txt",
    "bilstm-tagger-char": "wikiner/train.txt",
    "lstm-nmt": "iwslt15/tst2012",
    "lattice-lstm": "lattice/train.txt",
    "lattice-gru": "lattice/train.txt",
}
"""Data file of each workload that has one, in a folder such as ``shared/data``."""


@dataclass(frozen=True, eq=False)
class Split:
    """Minibatch graphs of a workload, and where they come from."""

    learn: list[InstanceGraph]
    test: list[InstanceGraph]
    source: str


def learn_test_split(
    name: str, data_root: Path | None, batch_size: int, learn_minibatches: int, test_minibatches: int, seed: int = 0
) -> Split:
    """Minibatches of the workload called `name`: of its data file the first to learn from, the next to measure on.

    Parameters
    ----------
    name : str
    data_root : Path or None
        Folder of the data files; without it, and for workloads without a file, instances are generated.
    batch_size, learn_minibatches, test_minibatches : int
        Instances of a minibatch, minibatches to learn from and to measure on (at most).
    seed : int
        Of the generator, and of what a file leaves open.

    Raises
    ------
    DataError
        If the file holds too little to learn from and to measure on.
    """
    workload = get_workload(name)
    signature = signature_of(workload.cells(1))
    if data_root is None or name not in DATA_FILES:
        learn = load_minibatches(workload, signature, None, batch_size, learn_minibatches, seed + LEARN_SEED)
        test = load_minibatches(workload, signature, None, batch_size, test_minibatches, seed)
        return Split([merge(part) for part in learn], [merge(part) for part in test], "generator")
    path = data_root / DATA_FILES[name]
    parts = load_minibatches(workload, signature, path, batch_size, learn_minibatches + test_minibatches, seed)
    graphs = [merge(part) for part in parts]
    if len(graphs) <= learn_minibatches:
        raise DataError(f"{len(graphs)} minibatches in {path}", f"more than the {learn_minibatches} to learn from")
    return Split(graphs[:learn_minibatches], graphs[learn_minibatches:], str(path))

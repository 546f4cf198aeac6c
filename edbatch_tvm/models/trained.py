"""Workloads with a vocabulary that was counted in a data file, and with weights that were trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from edbatch_tvm.errors import EdbatchError, WeightError
from edbatch_tvm.models import WORKLOADS, get_workload
from edbatch_tvm.models.checkpoint import Checkpoint, load_checkpoint
from edbatch_tvm.models.labelled import Labelled, numbered_by
from edbatch_tvm.models.vocabulary import VOCABULARY, Vocabulary
from edbatch_tvm.models.workload import ReadOptions, Workload
from edbatch_tvm.runtime.kernels import check_weights
from relay_ext.signature import weights_of
from relay_ext.table_rows import with_table_rows


@dataclass(frozen=True, eq=False)
class TrainedWorkload(Workload):
    """A workload of one hidden size with weights; a :class:`Workload` for all that runs one.

    Attributes
    ----------
    trained : mapping of str to array
    """

    trained: Mapping[str, np.ndarray] = field(default_factory=dict)

    def weights(self, hidden: int, seed: int = 0) -> dict[str, np.ndarray]:
        """The trained weights, whatever the seed.

        Raises
        ------
        WeightError
            If they are of another hidden size.
        """
        try:
            found = check_weights(weights_of(self.cells(hidden)), self.trained)
        except WeightError as error:
            raise WeightError(f"the checkpoint of {self.name}: {error.given}", error.expected) from None
        return {name: array.copy() for name, array in found.items()}


def labelled_of(workload: Workload) -> Labelled[Any]:
    """How the data files of a workload are read for training.

    Raises
    ------
    EdbatchError
        If they have no labels; it names the workloads whose files do.
    """
    if workload.labelled is None:
        those = [name for name in WORKLOADS if get_workload(name).labelled is not None]
        raise EdbatchError(f"{workload.name} has no data files with labels", f"one of {', '.join(those)}")
    return workload.labelled


def with_vocabularies(workload: Workload, vocabularies: Mapping[str, Vocabulary]) -> Workload:
    """A workload that reads words by vocabularies, and has a row of its tables for each word.

    Tables have at least the rows that generated instances read.
    """
    labelled, original = labelled_of(workload), workload.cells
    rows = {table: max(len(vocabularies[name]), VOCABULARY) for table, name in labelled.tables.items()}
    number = numbered_by(vocabularies)

    def cells(hidden: int) -> Any:
        return with_table_rows(original(hidden), rows)

    def read(path: str | Path, options: ReadOptions) -> list[Any]:
        return [labelled.numbered(item, number) for item, _ in labelled.read(path, options)]

    return replace(workload, cells=cells, source=replace(workload.source, read=read, read_flat=None))


def trained_workload(checkpoint: Checkpoint, name: str) -> TrainedWorkload:
    """The workload of a checkpoint, which is to be the one called `name`, with its vocabularies and weights.

    Raises
    ------
    EdbatchError
        If the checkpoint is of another workload.
    WeightError
        If its weights do not fit its workload.
    """
    if checkpoint.workload != name:
        raise EdbatchError(f"a checkpoint of {checkpoint.workload}", f"one of {name}")
    original = get_workload(name)
    missing = sorted(set(labelled_of(original).tables.values()) - set(checkpoint.vocabularies))
    if missing:
        raise WeightError(f"a checkpoint of {original.name} without the vocabulary {missing[0]!r}")
    found = with_vocabularies(original, checkpoint.vocabularies)
    shared = {field.name: getattr(found, field.name) for field in fields(Workload)}
    trained = TrainedWorkload(**shared, trained=checkpoint.weights)
    if checkpoint.hidden < 1:
        raise WeightError(f"a checkpoint of hidden size {checkpoint.hidden}", "1 or more")
    trained.weights(checkpoint.hidden)
    return trained


def find_workload(name: str, path: Path | None) -> Workload:
    """The workload called `name`; where `path` is that of a checkpoint, with its vocabularies and weights."""
    return get_workload(name) if path is None else trained_workload(load_checkpoint(path), name)

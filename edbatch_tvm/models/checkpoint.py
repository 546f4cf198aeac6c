"""Checkpoints of training: weights, vocabularies and the state of the run, in one file that holds data alone.

A checkpoint is an uncompressed ``.npz`` archive, written whole or not at all: ``weight:<name>`` and
``state:<weight>:<name>`` are the weights and what the optimizer keeps of each, and ``run`` is a JSON text as bytes.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np

from edbatch_tvm.argument_checks import as_path
from edbatch_tvm.atomic_file import replacing
from edbatch_tvm.errors import DataError
from edbatch_tvm.models.vocabulary import Vocabulary

FORMAT, VERSION = "edbatch-checkpoint", 1

RUN, WEIGHT, STATE = "run", "weight:", "state:"

_BROKEN = (KeyError, IndexError, TypeError, ValueError, AttributeError, EOFError, NotImplementedError, RecursionError)
_BROKEN_ARCHIVE = (*_BROKEN, zipfile.BadZipFile, MemoryError, RuntimeError, OverflowError)


@dataclass(eq=False)
class Checkpoint:
    """A training run at some step.

    Attributes
    ----------
    workload : str
    hidden : int
    options : dict of str to plain values
        What the further course depends on: seed, optimizer, ...
    vocabularies : dict of str to Vocabulary
    labels : tuple of str
        In the order of their classes.
    policy : str
        Name of the batching policy.
    weights : dict of str to array
    state : dict of str to dict of str to array
        For each weight what the optimizer keeps of it.
    epoch, step : int
        Epochs done, and steps of the next one.
    loss : float
        The sum of the losses of these steps.
    epochs : list of dict
        The figures of the epochs done.
    """

    workload: str
    hidden: int
    options: dict[str, Any]
    vocabularies: dict[str, Vocabulary]
    labels: tuple[str, ...]
    policy: str
    weights: dict[str, np.ndarray]
    state: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    epochs: list[dict[str, Any]] = field(default_factory=list)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the checkpoint; who reads meanwhile, or after the process was stopped, sees the old file or this one.

        Raises
        ------
        DataError
            If the file cannot be written.
        """
        arrays: dict[str, np.ndarray] = {RUN: np.frombuffer(json.dumps(self._document()).encode(), np.uint8)}
        arrays |= {f"{WEIGHT}{name}": array for name, array in self.weights.items()}
        for weight, kept in self.state.items():
            arrays |= {f"{STATE}{weight}:{name}": array for name, array in kept.items()}
        try:
            with replacing(as_path("checkpoint", path, DataError)) as file:
                _write_npz(file, arrays)
        except OSError as error:
            raise DataError(f"checkpoint {str(path)!r} cannot be written: {error.strerror}") from error

    def _document(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "version": VERSION,
            "workload": self.workload,
            "hidden": self.hidden,
            "options": self.options,
            "vocabularies": {name: list(one.words) for name, one in self.vocabularies.items()},
            "labels": list(self.labels),
            "policy": self.policy,
            "epoch": self.epoch,
            "step": self.step,
            "loss": self.loss,
            "epochs": self.epochs,
        }


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read what :meth:`Checkpoint.save` wrote. Nothing in the file is executed.

    Raises
    ------
    DataError
        If it cannot be read, is no checkpoint, or a damaged one.
    """

    def refuse(given: str, expected: str = "the file as it was written") -> NoReturn:
        raise DataError(f"checkpoint {str(path)!r}: {given}", expected)

    try:
        with zipfile.ZipFile(as_path("checkpoint", path, DataError)) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                refuse("is compressed")
            arrays = {entry.filename.removesuffix(".npy"): _array(archive, entry) for entry in archive.infolist()}
        document = json.loads(arrays[RUN].tobytes().decode())
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            refuse("is no checkpoint", f"format {FORMAT!r}")
        if document.get("version") != VERSION:
            refuse(f"version {document.get('version')!r}", f"version {VERSION}")
        return _checkpoint(document, arrays)
    except DataError:
        raise
    except OSError as error:
        refuse(f"cannot be read: {error.strerror or error}", "an existing file")
    except _BROKEN_ARCHIVE as error:
        refuse(f"is no checkpoint, or a damaged one ({type(error).__name__}: {error})")


def _checkpoint(document: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Checkpoint:
    """The checkpoint of a document and its arrays; a ValueError or one like it if it is broken."""
    state: dict[str, dict[str, np.ndarray]] = {}
    for key, array in arrays.items():
        if key.startswith(STATE):
            _, weight, name = key.split(":")
            state.setdefault(weight, {})[name] = array
    return Checkpoint(
        workload=_of(str, document["workload"]),
        hidden=_of(int, document["hidden"]),
        options=_of(dict, document["options"]),
        vocabularies={
            name: Vocabulary(_of(str, word) for word in _of(list, words))
            for name, words in document["vocabularies"].items()
        },
        labels=tuple(_of(str, label) for label in _of(list, document["labels"])),
        policy=_of(str, document["policy"]),
        weights={key.removeprefix(WEIGHT): array for key, array in arrays.items() if key.startswith(WEIGHT)},
        state=state,
        epoch=_of(int, document["epoch"]),
        step=_of(int, document["step"]),
        loss=float(document["loss"]),
        epochs=[_of(dict, figures) for figures in _of(list, document["epochs"])],
    )


def _of(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError(f"a {type(value).__name__}, not a {kind.__name__}")
    return value


def _array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(entry) as file:
        array = np.lib.format.read_array(file, allow_pickle=False)
        if file.read(1):
            raise ValueError(f"{entry.filename} is longer than its array")
    return array


def _write_npz(file: Any, arrays: Mapping[str, np.ndarray]) -> None:
    """What :func:`numpy.savez` writes, for arrays of any name."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)

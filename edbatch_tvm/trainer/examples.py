"""Instances of labelled data files: with losses to train on, and with logits to measure accuracy on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edbatch_tvm.errors import DataError
from edbatch_tvm.graph import Builder, InstanceGraph, Signature
from edbatch_tvm.models.labelled import Labelled, Labels, numbered_by
from edbatch_tvm.models.vocabulary import Vocabulary
from edbatch_tvm.models.workload import Workload

LOSS = "loss"
"""Name of the loss cell."""

NO_CLASS = -1
"""In place of the class of an output that has no label."""

UNKNOWN_CLASS = -2
"""In place of the class of a label that the training file does not have: no logit is right."""

Read = Sequence[tuple[Any, Labels]]
"""The items of a data file with their labels."""


def label_names(items: Read, classes: int, path: Any) -> tuple[str, ...]:
    """The labels of items, sorted: the class of each is its place.

    Raises
    ------
    DataError
        If there is none, or more than the cells have classes.
    """
    names = sorted({label for _, labels in items for label in labels if label is not None})
    if not 0 < len(names) <= classes:
        raise DataError(f"{len(names)} labels in {path}", f"1 to {classes}, which the cells tell apart")
    return tuple(names)


@dataclass(frozen=True, eq=False)
class Examples:
    """Instances, and the classes of their outputs.

    Attributes
    ----------
    graphs : list of InstanceGraph
    classes : list of int array
        A class for each output of an instance that the model has without losses.
    """

    graphs: list[InstanceGraph]
    classes: list[np.ndarray]


class _LossBuilder(Builder):
    """A builder whose instances declare losses in place of the logits that they are finished with."""

    classes: Sequence[int] = ()

    def finish(self, *outputs: Any) -> InstanceGraph:
        (logits,) = outputs
        pairs = zip(logits, self.classes, strict=True)
        return super().finish([self.call(LOSS, one, label=label) for one, label in pairs if label >= 0])


def to_train(
    workload: Workload,
    signature: Signature,
    items: Read,
    vocabularies: Mapping[str, Vocabulary],
    labels: tuple[str, ...],
) -> Examples:
    """Instances that declare the losses of their labelled outputs; items without a label are left out."""
    builder = _LossBuilder(signature)
    return _examples(workload, builder, items, vocabularies, labels)


def to_measure(
    workload: Workload,
    signature: Signature,
    items: Read,
    vocabularies: Mapping[str, Vocabulary],
    labels: tuple[str, ...],
) -> Examples:
    """Instances that declare logits; items without a label are left out."""
    return _examples(workload, Builder(signature), items, vocabularies, labels)


def _examples(
    workload: Workload,
    builder: Builder,
    items: Read,
    vocabularies: Mapping[str, Vocabulary],
    labels: tuple[str, ...],
) -> Examples:
    labelled: Labelled[Any] | None = workload.labelled
    assert labelled is not None
    class_of: dict[str | None, int] = {label: number for number, label in enumerate(labels)} | {None: NO_CLASS}
    number = numbered_by(vocabularies)
    graphs, classes = [], []
    for item, own in items:
        found = [class_of.get(label, UNKNOWN_CLASS) for label in own]
        if all(one == NO_CLASS for one in found):
            continue
        if isinstance(builder, _LossBuilder):
            builder.classes = found
        graphs.append(workload.graph(builder, labelled.numbered(item, number)))
        classes.append(np.array(found))
    return Examples(graphs, classes)

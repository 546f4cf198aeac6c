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
from edbatch_tvm.trainer.dropout import DROP, MASK

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
    """A builder whose instances declare losses in place of the logits that they are finished with.

    Where the cells have one that drops numbers, `output` reads what it leaves. Masks are drawn for each minibatch;
    those of instances drop nothing, and lie in memory that all share.

    Parameters
    ----------
    signature : Signature
    output : str
        The cell whose outputs are the logits.
    """

    def __init__(self, signature: Signature, output: str) -> None:
        super().__init__(signature)
        self.classes: Sequence[int] = ()
        self._output = output
        self._drop = signature.type_id(DROP) if DROP in signature.names else None
        if self._drop is not None:
            (spec,) = (attribute.spec for attribute in signature[DROP].attributes)
            self._mask = np.ones(spec.shape, spec.dtype)
            self._masks = _ones(1, self._mask)

    def call(self, cell: str, /, *operands: Any, **named: Any) -> Any:
        if self._drop is not None and cell == self._output:
            drop = super().call
            operands = tuple(drop(DROP, one, mask=self._mask) for one in operands)
        return super().call(cell, *operands, **named)

    def finish(self, *outputs: Any) -> InstanceGraph:
        (logits,) = outputs
        pairs = zip(logits, self.classes, strict=True)
        graph = super().finish([self.call(LOSS, one, label=label) for one, label in pairs if label >= 0])
        if self._drop is not None:
            count = len(graph.attributes.get((self._drop, MASK), ()))
            if count > len(self._masks):
                self._masks = _ones(2 * count, self._mask)
            if count:  # all instances share the memory
                graph.attributes[self._drop, MASK] = self._masks[:count]
        return graph


def _ones(count: int, mask: np.ndarray) -> np.ndarray:
    """Masks that drop nothing; read-only, as all arrays of instances are."""
    made = np.ones((count, *mask.shape), mask.dtype)
    made.flags.writeable = False
    return made


def to_train(
    workload: Workload,
    signature: Signature,
    items: Read,
    vocabularies: Mapping[str, Vocabulary],
    labels: tuple[str, ...],
) -> Examples:
    """Instances that declare the losses of their labelled outputs; items without a label are left out."""
    assert workload.labelled is not None
    builder = _LossBuilder(signature, workload.labelled.output)
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

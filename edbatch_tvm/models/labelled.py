"""Workloads whose data files have labels: what training reads, with a vocabulary of the words that are there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from edbatch_tvm.models.vocabulary import Vocabulary

if TYPE_CHECKING:
    from edbatch_tvm.models.workload import ReadOptions

Item = TypeVar("Item")

Number = Callable[[str, Any], int]
"""``number(vocabulary, word)`` is the row of a word of the vocabulary of this name."""

Labels = Sequence[str | None]
"""A label for each declared output of an instance; None for an output that has none."""


@dataclass(frozen=True, eq=False)
class Labelled(Generic[Item]):
    """Data files with labels.

    Attributes
    ----------
    read : callable
        ``read(path, options)`` are the items of a data file with their words, and the labels of each.
    numbered : callable
        ``numbered(item, number)`` is an item with rows in place of words, as ``Workload.graph`` takes it.
    tables : mapping of str to str
        The weights that have a row for each word, and the names of their vocabularies.
    output : str
        The cell whose outputs are the logits of labels.
    has_root : bool
        Whether the last output of an instance stands for all of it, as that of the root of a tree.
    """

    read: Callable[[str | Path, ReadOptions], Sequence[tuple[Item, Labels]]]
    numbered: Callable[[Item, Number], Any]
    tables: Mapping[str, str]
    output: str
    has_root: bool

    def vocabularies(self, items: Sequence[tuple[Item, Labels]], most: int | None = None) -> dict[str, Vocabulary]:
        """The vocabularies of items, each of the `most` frequent words; None: of all words."""
        counts = {name: Counter[str]() for name in self.tables.values()}

        def count(vocabulary: str, word: Any) -> int:
            counts[vocabulary][str(word)] += 1
            return 0

        for item, _ in items:
            self.numbered(item, count)
        return {name: Vocabulary.counted(counted, most) for name, counted in counts.items()}


def numbered_by(vocabularies: Mapping[str, Vocabulary]) -> Number:
    """What :attr:`Labelled.numbered` takes, of vocabularies."""
    return lambda vocabulary, word: vocabularies[vocabulary].row(str(word))

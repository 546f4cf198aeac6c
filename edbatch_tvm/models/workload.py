"""What a workload is made of; one folder beside this file for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from edbatch_tvm.checking.reference import Function
from edbatch_tvm.errors import DataError
from edbatch_tvm.flops import multiply_adds
from edbatch_tvm.graph import Builder, InstanceGraph, Signature
from edbatch_tvm.models.labelled import Labelled
from edbatch_tvm.models.minibatch_arrays import MinibatchArrays
from edbatch_tvm.models.weights import initial_weights

Item = TypeVar("Item")

MODULES_KEPT = 8
"""Modules of cells that a workload keeps, by hidden size: TVM parses one in 0.05 to 0.2 s."""


@dataclass(frozen=True)
class ReadOptions:
    """What the instances of a file may depend on besides the file; most workloads ignore it.

    Attributes
    ----------
    seed : int
        Of choices that the data leaves open, such as the type of a tree node.
    count_on : Path or None
        The data file in which words are counted; None for the file that is read.
    """

    seed: int = 0
    count_on: Path | None = None


_DEFAULT = ReadOptions()


def _itself(path: Path) -> tuple[Path, ...]:
    return (path,)


@dataclass(frozen=True)
class Source(Generic[Item]):
    """Where trees, sentences, lattices, ... come from; workloads of one kind of input share one.

    Attributes
    ----------
    read : callable or None
        ``read(path, options)`` are the items of a data file, in file order; None where there is no such file.
    generate : callable
        ``generate(count, seed)`` are `count` random items with the statistics of the real data.
    files : callable
        ``files(path)`` are the files that reading `path` opens, where `path` itself is none.
    flat : callable, optional
        ``flat(items)`` are items in arrays (:mod:`edbatch_tvm.models.flat_items`).
    read_flat : callable, optional
        ``read_flat(path, options)`` are the items of a data file in arrays; None for a file that `read` is to read, or
        to say what is wrong with it.
    """

    read: Callable[[str | Path, ReadOptions], Sequence[Item]] | None
    generate: Callable[[int, int], Sequence[Item]]
    files: Callable[[Path], tuple[Path, ...]] = _itself
    flat: Callable[[Sequence[Item]], Any] | None = None
    read_flat: Callable[[str | Path, ReadOptions], Any] | None = None


@dataclass(frozen=True, eq=False)
class Workload:
    """A model with its data.

    Attributes
    ----------
    name : str
    cells : callable
        ``cells(hidden)`` is the IRModule of the cells, a new one at each call; its functions are made once.
    source : Source
        Where the items come from that instance graphs are built of.
    graph : callable
        ``graph(builder, item)`` is the instance graph of one item.
    reference : mapping of str to callable
        Each cell in NumPy, for :func:`edbatch_tvm.checking.reference.run_reference`.
    labelled : Labelled, optional
        How files are read for training, where they have labels.
    arrays : callable, optional
        ``arrays(signature, items)`` are the instances of items in arrays, those that `graph` gives.
    """

    name: str
    cells: Callable[[int], Any]
    source: Source[Any]
    graph: Callable[[Builder, Any], InstanceGraph]
    reference: Mapping[str, Function]
    labelled: Labelled[Any] | None = None
    arrays: Callable[[Signature, Any], MinibatchArrays] | None = None

    def __post_init__(self) -> None:
        kept = lru_cache(MODULES_KEPT, typed=True)(self.cells)
        object.__setattr__(self, "cells", lambda hidden: kept(hidden).clone())

    def read(
        self, path: str | Path, signature: Signature, options: ReadOptions = _DEFAULT, limit: int | None = None
    ) -> list[InstanceGraph]:
        """The instance graphs of a data file, or the first `limit` of them; all of the file is read and checked.

        Raises
        ------
        DataError
            If the file is missing or broken, or the workload has none.
        """
        if self.source.read is None:
            raise DataError(f"data file {path} for {self.name}", "no data file", "its instances are always generated")
        read_flat = self.source.read_flat
        flat = read_flat(path, options) if self.arrays is not None and read_flat is not None else None
        if self.arrays is not None and flat is not None:
            return self.arrays(signature, flat if limit is None else flat.part(0, limit)).instances()
        return self.instances(signature, self.source.read(path, options)[:limit])

    def generate(self, count: int, signature: Signature, seed: int = 0) -> list[InstanceGraph]:
        """`count` random instance graphs with the statistics of the real data."""
        return self.instances(signature, self.source.generate(count, seed))

    def instances(self, signature: Signature, items: Sequence[Any]) -> list[InstanceGraph]:
        """The instance graphs of items of the source."""
        if self.arrays is not None and self.source.flat is not None:
            return self.arrays(signature, self.source.flat(items)).instances()
        builder = Builder(signature)
        return [self.graph(builder, item) for item in items]

    def weights(self, hidden: int, seed: int = 0) -> dict[str, np.ndarray]:
        """Seeded float32 weights; see :func:`edbatch_tvm.models.weights.initial_weights`."""
        return initial_weights(self.cells(hidden), seed)

    def multiply_adds(self, hidden: int) -> dict[str, int]:
        """Multiply-adds of the matrix products of one call of each cell, as written."""
        return multiply_adds(self.cells(hidden))

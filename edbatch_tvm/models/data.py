"""Where the instances of a run come from, and how they become minibatches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from edbatch_tvm.errors import DataError
from edbatch_tvm.graph import InstanceGraph, Signature
from edbatch_tvm.models.workload import ReadOptions, Workload

Item = TypeVar("Item")

GENERATED_MINIBATCHES = 4
"""Minibatches to generate where neither a file nor a number says how many there are."""

LEARN_SEED = 1 << 20
"""What is added to the seed of a run to generate the instances that a policy learns from."""


def load_minibatches(
    workload: Workload,
    signature: Signature,
    path: Path | None,
    batch_size: int,
    limit: int | None,
    seed: int,
    count_on: Path | None = None,
) -> list[list[InstanceGraph]]:
    """Minibatches of a file in file order, or of generated instances where there is no file.

    Parameters
    ----------
    workload : Workload
    signature : Signature
    path : Path or None
        A data file; None for the generator.
    batch_size : int
    limit : int or None
        Largest number of minibatches; None for all of the file.
    seed : int
        Of the generator, and of what a file leaves open.
    count_on : Path, optional
        See :class:`edbatch_tvm.models.workload.ReadOptions`.

    Returns
    -------
    list of list of InstanceGraph
        The last one may be short.

    Raises
    ------
    DataError
        If the file is broken or holds no instance.
    """
    if path is None:
        count = (GENERATED_MINIBATCHES if limit is None else limit) * batch_size
        instances = workload.generate(count, signature, seed)
    else:
        most = None if limit is None else limit * batch_size
        instances = workload.read(path, signature, ReadOptions(seed, count_on), most)
        if not instances:
            raise DataError(f"0 instances in {path}", "1 or more")
    return split(instances, batch_size)


def load_items(
    workload: Workload, path: Path | None, batch_size: int, limit: int | None, seed: int, count_on: Path | None = None
) -> list[list[Any]]:
    """Minibatches of the items that instances are built of; see :func:`load_minibatches`.

    Raises
    ------
    DataError
        If the file is broken or holds no item, or the workload has none.
    """
    if path is None:
        count = (GENERATED_MINIBATCHES if limit is None else limit) * batch_size
        return split(workload.source.generate(count, seed), batch_size)
    if workload.source.read is None:
        raise DataError(f"data file {path} for {workload.name}", "no data file", "its instances are always generated")
    most = None if limit is None else limit * batch_size
    items = workload.source.read(path, ReadOptions(seed, count_on))[:most]
    if not items:
        raise DataError(f"0 instances in {path}", "1 or more")
    return split(items, batch_size)


def split(instances: Sequence[Item], batch_size: int) -> list[list[Item]]:
    """Consecutive minibatches of `batch_size` instances, or items; the last may be short."""
    return [list(instances[begin : begin + batch_size]) for begin in range(0, len(instances), batch_size)]

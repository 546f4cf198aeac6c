"""Learning a policy for a workload, on instances that are not those it is measured on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any, Generic, TypeVar

from edbatch_tvm.batching import AUTO, LEARNERS, FsmPolicy, Policy, learn_policy, select_policy
from edbatch_tvm.batching.qlearning import Progress
from edbatch_tvm.errors import DataError
from edbatch_tvm.graph import InstanceGraph, Signature, merge
from edbatch_tvm.graph.expand import ExpansionTable, expand
from edbatch_tvm.models.data import LEARN_SEED, load_minibatches
from edbatch_tvm.models.workload import Workload
from relay_ext.split_cells import split_cells

LEARN_MINIBATCHES = 8
"""Minibatches to learn from where no number is given."""


@dataclass(frozen=True)
class LearnOptions:
    """What a policy learns from.

    Attributes
    ----------
    data : Path or None
        A data file; None for the generator.
    batch_size : int
    minibatches : int
        Largest number of minibatches, taken from the start of the file.
    encoding, learner : str
        Of the state machine; see :func:`edbatch_tvm.batching.learn_policy`.
    seed : int
        Of the generator (which moves it away from the seed that instances to run are generated from) and of learning.
    table : ExpansionTable, optional
        What expands graphs of cells into those to be scheduled; see :func:`expansion_table`.
    """

    data: Path | None = None
    batch_size: int = 64
    minibatches: int = LEARN_MINIBATCHES
    encoding: str = AUTO
    learner: str = LEARNERS[0]
    seed: int = 0
    table: ExpansionTable | None = None

    @property
    def source(self) -> str:
        """The file, or ``generator``."""
        return str(self.data) if self.data is not None else "generator"


AnyPolicy = TypeVar("AnyPolicy", bound=Policy, covariant=True)


@dataclass(frozen=True, eq=False)
class Learned(Generic[AnyPolicy]):
    """A policy, the minibatch graphs it was learned from, and the seconds it took."""

    policy: AnyPolicy
    graphs: list[InstanceGraph]
    seconds: float


def learn(
    workload: Workload, signature: Signature, options: LearnOptions, progress: Progress | None = None
) -> Learned[FsmPolicy]:
    """Learn a state machine for `workload`.

    Parameters
    ----------
    workload : Workload
    signature : Signature
    options : LearnOptions
    progress : callable, optional
        Called with episodes done, batches of the best table so far, and their lower bound.
    """
    graphs = _graphs(workload, signature, options)
    begin = perf_counter()
    policy = learn_policy(graphs, options.encoding, options.learner, options.seed, progress)
    return Learned(policy, graphs, perf_counter() - begin)


def choose(workload: Workload, signature: Signature, options: LearnOptions) -> Learned[Policy]:
    """The best of the policies that need no learning, on two minibatches of `options`."""
    graphs = _graphs(workload, signature, replace(options, minibatches=2))
    begin = perf_counter()
    policy = select_policy(graphs, learn=False, seed=options.seed)
    return Learned(policy, graphs, perf_counter() - begin)


def _graphs(workload: Workload, signature: Signature, options: LearnOptions) -> list[InstanceGraph]:
    seed = options.seed + LEARN_SEED
    minibatches = load_minibatches(workload, signature, options.data, options.batch_size, options.minibatches, seed)
    graphs = [merge(instances) for instances in minibatches]
    return graphs if options.table is None else [expand(graph, options.table).graph for graph in graphs]


def expansion_table(mod: Any, granularity: str) -> ExpansionTable | None:
    """What expands graphs of the cells of `mod` into graphs of `granularity`; None for cells themselves."""
    return split_cells(mod).table() if granularity == "op" else None


def refuse_same_file(workload: Workload, data: Path | None, learn_data: Path | None) -> None:
    """Raise if a policy would learn from the instances it is measured on.

    Raises
    ------
    DataError
        If both are one file.
    """
    if data is None or learn_data is None:
        return
    for path, other in product(workload.source.files(data), workload.source.files(learn_data)):
        if path.exists() and other.exists() and path.samefile(other):
            raise DataError(
                f"{data} both to learn from and to measure on",
                "two files",
                "without --learn-data, instances are generated",
            )

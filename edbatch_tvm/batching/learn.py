"""``learn_policy``: from minibatches of a model to a state machine."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

from edbatch_tvm.batching import backend
from edbatch_tvm.batching.agenda import AgendaPolicy
from edbatch_tvm.batching.bounds import lower_bound
from edbatch_tvm.batching.encoding import encoding_id
from edbatch_tvm.batching.fsm import FsmPolicy, LearnStats, run_table
from edbatch_tvm.batching.imitation import Table, complete, imitate, improve
from edbatch_tvm.batching.lookahead import LookaheadPolicy
from edbatch_tvm.batching.policy import Policy
from edbatch_tvm.batching.qlearning import Progress, QLearning, q_learn
from edbatch_tvm.batching.ratio import RatioPolicy
from edbatch_tvm.batching.samples import Resampler, over_one_type_list
from edbatch_tvm.batching.search import SearchPolicy
from edbatch_tvm.batching.table import StateTable
from edbatch_tvm.errors import PolicyError
from edbatch_tvm.graph import InstanceGraph

LEARNERS = ("imitation", "paper")

TEACHERS: tuple[Policy, ...] = (LookaheadPolicy(), RatioPolicy(), AgendaPolicy(), SearchPolicy(8))
"""Whose schedules are imitated; all of them run whole frontiers."""

STARTS = 2
"""Imitating tables that are improved, those of fewest batches."""

ROUNDS = 40
"""Fresh minibatches on which a table is completed, before and after it is improved."""

IMPROVE_SECONDS = 8.0
"""For all starts together."""


def learn_policy(
    graphs: Sequence[InstanceGraph],
    encoding: str = "sort",
    learner: str = "imitation",
    seed: int = 0,
    progress: Progress | None = None,
    settings: QLearning | None = None,
) -> FsmPolicy:
    """Learn a state machine from minibatches.

    Parameters
    ----------
    graphs : sequence of InstanceGraph
        Minibatch graphs of one model, several for a policy that holds on others too.
    encoding : {'base', 'max', 'sort', 'tight'}
        What the machine sees of a frontier; see :mod:`edbatch_tvm.batching.encoding`.
    learner : {'imitation', 'paper'}
        ``imitation`` is described in :mod:`edbatch_tvm.batching.imitation`; ``paper`` is Q-learning as published (Chen
        et al., ICML 2023, section 3.3), see :mod:`edbatch_tvm.batching.qlearning`.
    seed : int
    progress : callable, optional
        Called now and then with episodes (or roll-outs) done, batches of the best table so far, and the bound.
    settings : QLearning, optional
        Settings of the ``paper`` learner.

    Returns
    -------
    FsmPolicy
        Its ``stats`` tell episodes, batches, bound and seconds.

    Raises
    ------
    PolicyError
        If there is nothing to learn from, or no such encoding or learner.
    """
    begin = perf_counter()
    code = encoding_id(encoding)
    if learner not in LEARNERS:
        raise PolicyError(f"unknown learner {learner!r}", f"one of {', '.join(LEARNERS)}")
    bare, names = over_one_type_list(graphs)
    bound = sum(map(lower_bound, bare))
    if learner == "paper":
        table, episodes = q_learn(
            bare, code, lambda t: _batches(t, bare, code), seed, settings or QLearning(), progress
        )
    else:
        table, episodes = _learn_by_imitation(bare, code, seed, bound, progress)
    stats = LearnStats(learner, episodes, _batches(table, bare, code), bound, perf_counter() - begin, seed)
    return FsmPolicy(encoding, names, table, stats)


def _learn_by_imitation(
    graphs: Sequence[InstanceGraph], encoding: int, seed: int, bound: int, progress: Progress | None
) -> tuple[Table, int]:
    """Imitate the teachers, complete and improve the best tables, keep the one that does best on fresh minibatches."""
    starts: list[tuple[int, Table]] = []
    for teacher in TEACHERS:
        if isinstance(teacher, SearchPolicy) and backend.kernels() is None:
            continue  # plain Python takes minutes to search
        table = imitate(graphs, [teacher(graph) for graph in graphs], encoding)
        starts.append((_batches(table, graphs, encoding), table))
        if starts[-1][0] == bound:
            starts = starts[-1:]
            break
    starts.sort(key=lambda start: start[0])
    sampler = Resampler(graphs, seed)
    trials = 0
    least = starts[0][0]

    def report(done: int, batches: int) -> None:
        nonlocal least
        least = min(least, batches)
        if progress is not None:
            progress(trials + done, least, bound)

    tables = [table for _, table in starts[:STARTS]]
    for table in tables:
        complete(table, encoding, sampler, ROUNDS)
        trials += improve(table, graphs, encoding, IMPROVE_SECONDS / len(tables), report)
        complete(table, encoding, sampler, ROUNDS)
    fresh = [*graphs, *(sampler.draw() for _ in graphs)]
    return min(tables, key=lambda t: _batches(t, fresh, encoding)), trials


def _batches(table: Table, graphs: Sequence[InstanceGraph], encoding: int) -> int:
    native = StateTable(table)
    return sum(len(run_table(graph, encoding, native)[0]) for graph in graphs)

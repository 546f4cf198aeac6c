"""``learn_policy``: from minibatches of a model to a state machine."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

from edbatch_tvm.batching import native_kernels
from edbatch_tvm.batching.agenda import AgendaPolicy
from edbatch_tvm.batching.bounds import lower_bound
from edbatch_tvm.batching.encoding import ENCODINGS, encoding_id
from edbatch_tvm.batching.fsm import FsmPolicy, LearnStats, batches_of
from edbatch_tvm.batching.imitation import Table, complete, imitate, improve
from edbatch_tvm.batching.lookahead import LookaheadPolicy
from edbatch_tvm.batching.policy import Policy
from edbatch_tvm.batching.qlearning import Progress, QLearning, q_learn
from edbatch_tvm.batching.ratio import RatioPolicy
from edbatch_tvm.batching.search import SearchPolicy
from edbatch_tvm.batching.training_graphs import Resampler, over_one_type_list
from edbatch_tvm.errors import PolicyError
from edbatch_tvm.graph import InstanceGraph

LEARNERS = ("imitation", "paper")

AUTO = "auto"
"""Stands for the encoding that does best on held-back minibatches."""

AUTO_ENCODINGS = ("sort", "tight")
"""Encodings that ``auto`` chooses from, the one of least host time first."""

TEACHERS: tuple[Policy, ...] = (LookaheadPolicy(), RatioPolicy(), AgendaPolicy(), SearchPolicy(8))
"""Whose schedules are imitated; all of them run whole frontiers."""

STARTS = 2
"""Imitating tables that are improved, those of fewest batches."""

ROUNDS = 40
"""Fresh minibatches on which a table is completed, before and after it is improved."""

DRAWN = 3
"""Minibatches drawn for each given one, to improve and to judge tables on."""

DRAWN_LEAST = 16
"""Minibatches drawn where few are given."""

IMPROVE_NODES = 60_000_000
"""Nodes that roll-outs may run to improve the tables of one encoding: some seconds natively."""

TRIAL = 4
"""Part of that for each encoding while one is chosen: one over this."""

IMPROVE_NODES_PYTHON = IMPROVE_NODES // 200
"""The same for plain Python."""


def learn_policy(
    graphs: Sequence[InstanceGraph],
    encoding: str = AUTO,
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
    encoding : {'auto', 'base', 'max', 'sort', 'tight'}
        What the machine sees of a frontier; see :mod:`edbatch_tvm.batching.encoding`. ``auto`` learns with `sort` and,
        where that leaves something to gain, with `tight`, and takes the one of fewer batches on every third minibatch,
        held back from learning. For the ``paper`` learner it is `sort`.
    learner : {'imitation', 'paper'}
        ``imitation`` is described in :mod:`edbatch_tvm.batching.imitation`; ``paper`` is Q-learning as published (Chen
        et al., ICML 2023, section 3.3), see :mod:`edbatch_tvm.batching.qlearning`.
    seed : int
    progress : callable, optional
        Called from time to time with episodes (or roll-outs) done, batches of the best table so far, and the bound.
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
    if learner not in LEARNERS:
        raise PolicyError(f"unknown learner {learner!r}", f"one of {', '.join(LEARNERS)}")
    if encoding not in (AUTO, *ENCODINGS):
        raise PolicyError(f"unknown encoding {encoding!r}", f"one of {', '.join((AUTO, *ENCODINGS))}")
    bare, names = over_one_type_list(graphs)
    if encoding == AUTO:
        encoding = AUTO_ENCODINGS[0] if learner == "paper" else AUTO
    if learner == "paper":
        table, episodes = q_learn(bare, encoding_id(encoding), seed, settings or QLearning(), progress)
    elif encoding == AUTO:
        encoding, table, episodes = _learn_best_encoding(bare, seed, progress)
    else:
        table, episodes = _learn_by_imitation(bare, encoding_id(encoding), seed, _budget(), progress)
    batches, bound = batches_of(table, bare, encoding_id(encoding)), sum(map(lower_bound, bare))
    stats = LearnStats(learner, episodes, batches, bound, perf_counter() - begin, seed)
    return FsmPolicy(encoding, names, table, stats)


def split_for_validation(
    graphs: Sequence[InstanceGraph],
) -> tuple[list[InstanceGraph], list[InstanceGraph]]:
    """Graphs to learn from, and every third held back to choose on; of fewer than three both are all."""
    graphs = [graph for graph in graphs if graph.num_nodes]
    if len(graphs) < 3:
        return graphs, graphs
    return [graph for index, graph in enumerate(graphs) if index % 3 != 2], graphs[2::3]


def _learn_best_encoding(
    graphs: Sequence[InstanceGraph], seed: int, progress: Progress | None
) -> tuple[str, Table, int]:
    """Try the encodings on a part of the graphs, judge them on the others, then learn from all with the better one."""
    lesson, held_back = split_for_validation(graphs)
    test = [*held_back, *_draw(Resampler(held_back, seed), len(held_back), _budget())]
    bound = sum(map(lower_bound, test))
    tried: list[tuple[int, str]] = []
    episodes = 0
    for encoding in AUTO_ENCODINGS:
        table, more = _learn_by_imitation(lesson, encoding_id(encoding), seed, _budget() // TRIAL, progress)
        episodes += more
        tried.append((batches_of(table, test, encoding_id(encoding)), encoding))
        if tried[-1][0] == bound:
            break
    _, encoding = min(tried, key=lambda entry: entry[0])
    table, more = _learn_by_imitation(graphs, encoding_id(encoding), seed, _budget(), progress)
    return encoding, table, episodes + more


def _learn_by_imitation(
    graphs: Sequence[InstanceGraph], encoding: int, seed: int, budget: int, progress: Progress | None
) -> tuple[Table, int]:
    """Imitate the teachers, complete and improve the best tables, keep the one that does best on fresh minibatches."""
    bound = sum(map(lower_bound, graphs))
    starts: list[tuple[int, Table]] = []
    for teacher in TEACHERS:
        if isinstance(teacher, SearchPolicy) and native_kernels.kernels() is None:
            continue  # plain Python takes minutes to search
        table = imitate(graphs, [teacher(graph) for graph in graphs], encoding)
        starts.append((batches_of(table, graphs, encoding), table))
        if starts[-1][0] == bound:
            starts = starts[-1:]
            break
    starts.sort(key=lambda start: start[0])
    sampler = Resampler(graphs, seed)
    course = [*graphs, *_draw(sampler, len(graphs), budget)]
    course_bound = sum(map(lower_bound, course))
    tables = [table for _, table in starts[:STARTS]]
    trials = 0
    least: int | None = None

    def report(done: int, batches: int) -> None:
        nonlocal least
        least = batches if least is None else min(least, batches)
        if progress is not None:
            progress(trials + done, least, course_bound)

    for table in tables:
        complete(table, encoding, sampler, ROUNDS)
        trials += improve(table, course, encoding, budget // len(tables), report)
        complete(table, encoding, sampler, ROUNDS)
    fresh = [*graphs, *_draw(sampler, len(graphs), budget)]
    return min(tables, key=lambda t: batches_of(t, fresh, encoding)), trials


def _budget() -> int:
    return IMPROVE_NODES if native_kernels.kernels() is not None else IMPROVE_NODES_PYTHON


def _draw(sampler: Resampler, given: int, budget: int) -> list[InstanceGraph]:
    """Drawn minibatches, by how many there are; all together no larger than a part of the budget."""
    drawn: list[InstanceGraph] = []
    nodes = 0
    while len(drawn) < max(DRAWN * given, DRAWN_LEAST) and nodes < budget // 50:
        drawn.append(sampler.draw())
        nodes += drawn[-1].num_nodes
    return drawn

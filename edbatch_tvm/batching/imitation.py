"""Learning by imitation: a table from the decisions of good schedules, then improved by its own batch counts.

Three steps. *Imitate*: replay a teacher's schedules and take in each state the action taken most often. *Complete*: run
the table on fresh minibatches drawn from the same instances; what `lookahead` did in an unknown state enters the table.
*Improve*: the reward of a whole table is the number of batches it needs, and the native kernels roll a minibatch out in
a tenth of a millisecond, so states are tried one by one with each of their other actions, and what saves batches stays.
No step draws on luck: the seed only decides which minibatches complete the table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from time import perf_counter

from edbatch_tvm.batching import backend
from edbatch_tvm.batching.encoding import State, encode, types_of
from edbatch_tvm.batching.frontier import Frontier
from edbatch_tvm.batching.fsm import run_table
from edbatch_tvm.batching.samples import Resampler
from edbatch_tvm.batching.schedule import Schedule
from edbatch_tvm.batching.table import StateTable, ValueTable
from edbatch_tvm.graph import InstanceGraph

Table = dict[State, int]


def count_actions(graph: InstanceGraph, schedule: Schedule, encoding: int, counts: ValueTable) -> None:
    """Count in `counts` which action `schedule`, which runs whole frontiers, takes in which state."""
    kernels = backend.kernels()
    if kernels is not None:
        kernels.replay(graph, encoding, counts, schedule.batch_type)
        return
    counts.make_room(len(schedule))
    frontier = Frontier(graph)
    for action in schedule.batch_type.tolist():
        counts.row(encode(frontier, encoding))[counts.num_types + action] += 1
        frontier.execute(action)


def imitate(graphs: Sequence[InstanceGraph], schedules: Sequence[Schedule], encoding: int) -> Table:
    """Most frequent action of each state of `schedules`."""
    counts = ValueTable(graphs[0].num_types)
    for graph, schedule in zip(graphs, schedules, strict=True):
        count_actions(graph, schedule, encoding, counts)
    return counts.most_frequent()


def complete(table: Table, encoding: int, sampler: Resampler, rounds: int) -> int:
    """Add to `table` the states that it meets on `rounds` fresh minibatches, and return how many.

    A new state gets the action that lookahead took there.
    """
    before = len(table)
    native = StateTable(table)
    for _ in range(rounds):
        graph = sampler.draw()
        schedule, misses = run_table(graph, encoding, native)
        if misses:
            counts = ValueTable(graph.num_types)
            count_actions(graph, schedule, encoding, counts)
            for state, action in counts.most_frequent().items():
                table.setdefault(state, action)
            native = StateTable(table)
    return len(table) - before


def improve(
    table: Table,
    graphs: Sequence[InstanceGraph],
    encoding: int,
    bound: int,
    seconds: float,
    report: Callable[[int, int], None] | None = None,
) -> int:
    """Change actions of `table`, one state at a time, as long as that saves batches on `graphs`.

    Parameters
    ----------
    table : dict
        Changed in place.
    graphs : sequence of InstanceGraph
    encoding : int
    bound : int
        Lower bound over `graphs`: reached, there is nothing left to do.
    seconds : float
        Stop after this time.
    report : callable, optional
        Called with roll-outs done and batches after each round.

    Returns
    -------
    int
        Roll-outs over all `graphs`.
    """
    deadline = perf_counter() + seconds
    native = StateTable(table)

    def batches_of() -> int:
        return sum(len(run_table(graph, encoding, native)[0]) for graph in graphs)

    least = batches_of()
    trials, before = 1, least + 1
    visits: Counter[State] = Counter()
    for graph in graphs:
        counts = ValueTable(graph.num_types)
        count_actions(graph, run_table(graph, encoding, native)[0], encoding, counts)
        visits.update(counts.visits())
    # States met most often first; those never met on these graphs cannot matter here.
    states = [state for state, _ in visits.most_common() if state in table]
    while bound < least < before and perf_counter() < deadline:
        before = least
        for state in states:
            for action in sorted(types_of(state, encoding)):
                held = native.actions[state]
                if action == held:
                    continue
                native.change(state, action)
                batches = batches_of()
                trials += 1
                if batches < least:
                    least = batches
                else:
                    native.change(state, held)
            if least <= bound or perf_counter() > deadline:
                break
        if report is not None:
            report(trials, least)
    table.update(native.actions)
    return trials

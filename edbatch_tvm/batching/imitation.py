"""Learning by imitation: a table from the decisions of good schedules, then improved by its own batch counts.

Three steps. *Imitate*: replay a teacher's schedules and take in each state the action taken most often. *Complete*: run
the table on fresh minibatches drawn from the same instances; what `lookahead` did in an unknown state enters the table.
*Improve*: the reward of a whole table is the number of batches it needs, and the native kernels roll a minibatch out in
a tenth of a millisecond, so states are tried one by one with each of their other actions, and what saves batches stays.
Minibatches drawn from the given instances take part in this: without them a table fits the few it is given (measured on
lattices: 1.148 times the bound on others, 1.127 with three drawn ones for each given one). The seed only decides which
minibatches are drawn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from edbatch_tvm.batching import native_kernels
from edbatch_tvm.batching.bounds import lower_bound
from edbatch_tvm.batching.encoding import State, encode, types_of
from edbatch_tvm.batching.frontier import Frontier
from edbatch_tvm.batching.fsm import run_table
from edbatch_tvm.batching.schedule import Schedule
from edbatch_tvm.batching.state_table import StateTable, ValueTable
from edbatch_tvm.batching.training_graphs import Resampler
from edbatch_tvm.graph import InstanceGraph

Table = dict[State, int]

PATIENCE = 10
"""A changed action is dropped once it has cost this many batches more than it saved."""


def count_actions(graph: InstanceGraph, schedule: Schedule, encoding: int, counts: ValueTable) -> None:
    """Count in `counts` which action `schedule`, which runs whole frontiers, takes in which state."""
    kernels = native_kernels.kernels()
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
    budget: int,
    report: Callable[[int, int], None] | None = None,
) -> int:
    """Change actions of `table`, one state at a time, as long as that saves batches on `graphs`.

    Parameters
    ----------
    table : dict
        Changed in place.
    graphs : sequence of InstanceGraph
    encoding : int
    budget : int
        Number of nodes after which roll-outs end: a count, not a time, so that every machine learns the same table.
    report : callable, optional
        Called with roll-outs done and batches over all `graphs` after each round.

    Returns
    -------
    int
        Roll-outs of one graph.
    """
    native = StateTable(table)
    met = [_states_met(graph, encoding, native) for graph in graphs]
    batches = [sum(states.values()) for states in met]
    bounds = [lower_bound(graph) for graph in graphs]
    trials = len(graphs)
    spent = sum(graph.num_nodes for graph in graphs)
    changed = True
    while changed and batches != bounds and spent < budget:
        changed = False
        # States met most often first; those never met on these graphs cannot matter here.
        total: Counter[State] = Counter()
        for states in met:
            total.update(states)
        for state in [state for state, _ in total.most_common() if state in native.actions]:
            for action in sorted(types_of(state, encoding)):
                held = native.actions[state]
                touched = [index for index, states in enumerate(met) if state in states]
                if action == held or all(batches[index] == bounds[index] for index in touched) or spent >= budget:
                    continue
                native.change(state, action)
                tried: dict[int, int] = {}
                saved = 0
                for index in touched:
                    tried[index] = len(run_table(graphs[index], encoding, native)[0])
                    saved += batches[index] - tried[index]
                    spent += graphs[index].num_nodes
                    if saved < -PATIENCE:
                        break
                trials += len(tried)
                if saved <= 0:
                    native.change(state, held)
                    continue
                changed = True
                for index, count in tried.items():
                    batches[index] = count
                    met[index] = _states_met(graphs[index], encoding, native)
                    spent += graphs[index].num_nodes
        if report is not None:
            report(trials, sum(batches))
    table.update(native.actions)
    return trials


def _states_met(graph: InstanceGraph, encoding: int, table: StateTable) -> dict[State, int]:
    """How often the machine meets each state on `graph`."""
    counts = ValueTable(graph.num_types)
    count_actions(graph, run_table(graph, encoding, table)[0], encoding, counts)
    return counts.visits()

"""Batches by hand are valid, and as few as the structure that an engineer sees allows."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from edbatch_tvm.batching import Schedule, check_schedule, lower_bound
from edbatch_tvm.peers.hand_batches import PHASES, hand_batches, phases_of
from tests.peers.conftest import Example, example


def schedule_by_hand(case: Example) -> Schedule:
    batches = hand_batches(case.graph, PHASES.get(case.name) or phases_of(case.graph))
    return Schedule.from_batches(case.graph, [(kind, nodes.tolist()) for kind, nodes in batches])


def test_valid(every: Example) -> None:
    check_schedule(every.graph, schedule_by_hand(every))


def test_trees_and_translations_meet_the_bound() -> None:
    for name in ("treelstm", "treegru", "mvrnn", "childsum-tree", "lstm-nmt"):
        case = example(name)
        assert len(schedule_by_hand(case)) == lower_bound(case.graph)


def test_joins_close_their_level() -> None:
    case = example("lattice-lstm")
    names = case.graph.signature.names
    kinds = [names[kind] for kind, _ in hand_batches(case.graph, phases_of(case.graph))]
    assert kinds[0] == "start"
    assert kinds[-1] == "readout"
    longest = int(np.diff(case.graph.output_ptr).max())
    assert kinds.count("char_arc") == longest - 1
    assert all(before != "join" for before, kind in pairwise(kinds) if kind == "join")

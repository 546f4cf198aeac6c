"""Learned policies reach the bound on graphs they were not learned from, with few unknown states."""

from __future__ import annotations

from collections.abc import Callable
from time import sleep

import numpy as np
import pytest

from edbatch_tvm.batching import (
    FsmPolicy,
    Policy,
    QLearning,
    Schedule,
    get_policy,
    learn_policy,
    lower_bound,
    select_policy,
)
from edbatch_tvm.batching.policy import Run
from edbatch_tvm.batching.policy_selection import quickest_of_best
from edbatch_tvm.batching.portfolio import QUICK
from edbatch_tvm.errors import PolicyError
from edbatch_tvm.graph import InstanceGraph
from tests.batching.corpora import in_minibatches, read_lattices, read_sentences, read_trees
from tests.batching.graphs import Arrays, lattice, minibatches, sentence, tree

Make = Callable[[np.random.Generator], InstanceGraph]


def ratio_and_misses(policy: FsmPolicy, graphs: list[InstanceGraph]) -> tuple[float, float]:
    """Batches over the bound, and misses over steps."""
    runs = [policy.run(graph) for graph in graphs]
    batches = sum(len(run.schedule) for run in runs)
    return batches / sum(map(lower_bound, graphs)), sum(run.misses for run in runs) / batches


@pytest.mark.parametrize("encoding", ["base", "max", "sort", "tight"])
@pytest.mark.parametrize("make", [tree, sentence])
def test_the_bound_is_reached_on_other_graphs(make: Make, encoding: str) -> None:
    policy = learn_policy(minibatches(make, 0, 6), encoding)
    ratio, misses = ratio_and_misses(policy, [*minibatches(make, 1, 6), *minibatches(make, 2, 2, size=7)])
    assert ratio == 1
    assert misses <= 0.02
    assert policy.stats.batches == policy.stats.bound


@pytest.mark.parametrize(("encoding", "most"), [("base", 1.75), ("max", 1.70), ("sort", 1.60), ("tight", 1.25)])
def test_lattices(encoding: str, most: float) -> None:
    policy = learn_policy(minibatches(lattice, 0, 4, size=32), encoding)
    ratio, misses = ratio_and_misses(policy, minibatches(lattice, 1, 4, size=32))
    assert ratio <= most
    assert misses <= 0.02


def test_published_learner_on_trees() -> None:
    policy = learn_policy(minibatches(tree, 0, 3), "sort", learner="paper")
    ratio, misses = ratio_and_misses(policy, minibatches(tree, 1, 3))
    assert ratio <= 1.01
    assert misses <= 0.02
    assert policy.stats.episodes >= 50


@pytest.mark.parametrize("learner", ["imitation", "paper"])
def test_learning_is_repeatable(learner: str) -> None:
    graphs = minibatches(lattice, 0, 2, size=8)
    settings = QLearning(episodes=100)
    first, second = (learn_policy(graphs, "sort", learner, seed=3, settings=settings) for _ in range(2))
    assert first.table == second.table


@pytest.mark.parametrize(("make", "encoding"), [(tree, "sort"), (lattice, "tight")])
def test_the_encoding_is_chosen_on_held_back_minibatches(make: Make, encoding: str) -> None:
    policy = learn_policy(minibatches(make, 0, 6, size=32))
    assert policy.encoding == encoding
    fixed = learn_policy(minibatches(make, 0, 6, size=32), "sort")
    others = minibatches(make, 1, 4, size=32)
    assert ratio_and_misses(policy, others)[0] <= ratio_and_misses(fixed, others)[0]
    assert learn_policy(minibatches(make, 0, 1, size=4), learner="paper").encoding == "sort"


def test_seeds_agree() -> None:
    others = minibatches(lattice, 1, 6, size=16)
    ratios = [ratio_and_misses(learn_policy(minibatches(lattice, 0, 3, size=8), seed=s), others)[0] for s in range(4)]
    assert max(ratios) <= 1.03 * min(ratios)


def test_the_published_learner_sees_one_minibatch() -> None:
    graphs = minibatches(tree, 0, 3, size=8)
    first = learn_policy(graphs, learner="paper", seed=1)
    assert first.table == learn_policy(graphs[:1], learner="paper", seed=1).table


def test_progress_is_reported() -> None:
    graphs = minibatches(lattice, 0, 2, size=8)
    calls: list[tuple[int, int, int]] = []
    learn_policy(graphs, "base", "paper", progress=lambda *call: calls.append(call), settings=QLearning(episodes=100))
    assert [episodes for episodes, _, _ in calls] == [50, 100]
    assert all(batches >= bound == lower_bound(graphs[0]) for _, batches, bound in calls)


def test_minibatches_that_lack_a_type() -> None:
    """A bare minibatch numbers the types it has; names tell them apart."""
    arrays = Arrays()
    first = arrays.add(10)
    arrays.add(30, first)
    without = arrays.graph()
    middle = arrays.add(20, first)
    arrays.add(30, middle)
    graph = arrays.graph()
    policy = learn_policy([without, graph])
    assert policy.type_names == ("10", "20", "30")
    assert [(type_id, nodes.tolist()) for type_id, nodes in policy(without)] == [(10, [0]), (30, [1])]
    assert policy.run(without).misses == 0
    assert len(policy(graph)) == 3


def test_choice_for_a_model() -> None:
    trees = minibatches(tree, 0, 3)
    assert select_policy(trees, learn=False).name in ("lookahead", "ratio")
    assert select_policy(trees).name in ("fsm", "lookahead", "ratio")
    graphs = minibatches(lattice, 0, 6, size=32)
    chosen = select_policy(graphs, encoding="tight")
    assert chosen.name == "fsm"
    held_back = graphs[2::3]
    for name in QUICK:
        policy = get_policy(name)
        assert all(len(chosen(graph)) <= len(policy(graph)) for graph in held_back)
    assert select_policy([]).name == "depth"


class Pieces(Policy):
    """Nodes of one type, which wait for none, in a number of batches."""

    name = "pieces"

    def __init__(self, batches: int, seconds: float) -> None:
        self.batches, self.seconds = batches, seconds

    def run(self, graph: InstanceGraph) -> Run:
        sleep(self.seconds)
        ptr = np.linspace(0, graph.num_nodes, self.batches + 1).astype(np.int32)
        schedule = Schedule.for_graph(
            graph, np.arange(graph.num_nodes, dtype=np.int32), ptr, np.zeros(self.batches, np.int16)
        )
        return Run(schedule, self.name)


def test_the_quicker_of_near_policies_is_chosen() -> None:
    graph = InstanceGraph.from_arrays([0] * 300, [0] * 301, np.empty(0, np.int32))
    slow = Pieces(200, 0.002)
    assert quickest_of_best([slow, quick := Pieces(220, 0.0)], [graph]) is quick
    assert quickest_of_best([slow, Pieces(221, 0.0)], [graph]) is slow


def test_nothing_to_learn_from() -> None:
    with pytest.raises(PolicyError, match="0 graphs without a node; expected graphs to learn from"):
        learn_policy([])


def test_unknown_learner_and_encoding() -> None:
    graphs = minibatches(tree, 0, 1, size=2)
    with pytest.raises(PolicyError, match="unknown learner 'dqn'; expected one of imitation, paper"):
        learn_policy(graphs, learner="dqn")
    with pytest.raises(PolicyError, match="unknown encoding 'size'; expected one of auto, base, max, sort, tight"):
        learn_policy(graphs, "size")


def test_real_trees() -> None:
    policy = learn_policy(in_minibatches(read_trees("sst/train.txt")[:512]))
    assert ratio_and_misses(policy, in_minibatches(read_trees("sst/dev.txt"))) == (1, 0)


def test_real_sentences() -> None:
    sentences = read_sentences("wikiner/train.txt", 1500)
    policy = learn_policy(in_minibatches(sentences[1000:]))
    ratio, misses = ratio_and_misses(policy, in_minibatches(sentences[:1000]))
    assert ratio == 1
    assert misses <= 0.02


@pytest.mark.slow
def test_real_lattices() -> None:
    train, dev = read_lattices("lattice/train.txt"), read_lattices("lattice/dev.txt")
    graphs = [*in_minibatches(dev), *in_minibatches(train[512:])]
    for encoding, most in (("sort", 1.30), ("auto", 1.20)):
        policy = learn_policy(in_minibatches(train[:256]), encoding)
        ratio, misses = ratio_and_misses(policy, graphs)
        assert ratio <= most
        assert misses <= 0.02

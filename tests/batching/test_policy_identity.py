"""What the cache of schedules takes for one policy: the object, unless the package says otherwise."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Hashable
from typing import Any

import pytest

from edbatch_tvm.batching import Policy, SearchPolicy, clear_cache, get_policy, policy_names, schedule
from edbatch_tvm.batching.agenda import AgendaPolicy
from edbatch_tvm.batching.policy import FrontierPolicy, Run, identity_of
from edbatch_tvm.batching.portfolio import PortfolioPolicy
from edbatch_tvm.errors import PolicyError
from edbatch_tvm.graph import InstanceGraph

CHAINS = InstanceGraph.from_arrays([0, 1, 0, 1, 2], [0, 0, 1, 1, 2, 3], [0, 2, 3])


def one_by_one(graph: InstanceGraph) -> Any:
    from edbatch_tvm.batching import Schedule

    return Schedule.from_batches(graph, [(int(kind), [node]) for node, kind in enumerate(graph.node_type)])


class Plain(Policy):
    """A policy without a name."""

    def __init__(self, other: Any) -> None:
        self.other = other

    def run(self, graph: InstanceGraph) -> Run:
        return Run(self.other(graph), "plain")


class Named(Plain):
    name = "depth"


class Equal(Plain):
    """Equal to everything, and not to be hashed."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


class OfDepth(AgendaPolicy):
    """A user's rule that inherits from one of the package, its name too."""

    def choose(self, frontier: Any) -> int:
        return max(t for t in range(frontier.num_types) if frontier.size[t])


class Search(SearchPolicy):
    def run(self, graph: InstanceGraph) -> Run:
        return Run(one_by_one(graph), "mine")


class Function:
    """Callables that are all equal."""

    def __init__(self, other: Any) -> None:
        self.other = other

    def __call__(self, graph: InstanceGraph) -> Any:
        return self.other(graph)

    def method(self, graph: InstanceGraph) -> Any:
        return self.other(graph)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Function)

    def __hash__(self) -> int:
        return 1


def pairs() -> dict[str, tuple[Any, Any]]:
    depth = get_policy("depth")
    return {
        "without a name": (Plain(one_by_one), Plain(depth)),
        "of one name": (Named(one_by_one), Named(depth)),
        "of a name of the package": (Named(one_by_one), "depth"),
        "equal and unhashable": (Equal(one_by_one), Equal(depth)),
        "functions that are equal": (Function(one_by_one), Function(depth)),
        "methods": (Function(one_by_one).method, Function(depth).method),
        "lambdas": (lambda graph: one_by_one(graph), lambda graph: depth(graph)),
        "partials": (functools.partial(one_by_one), functools.partial(depth)),
        "a list's function": (functools.partial(one_by_one, *[]), depth),
        "inherited from a search": (Search(8), SearchPolicy(8)),
        "inside best": (PortfolioPolicy([Plain(one_by_one)]), PortfolioPolicy([Plain(depth)])),
    }


@pytest.mark.parametrize("name", pairs())
def test_each_policy_gets_its_own_schedule(name: str) -> None:
    clear_cache()
    first, second = pairs()[name]
    assert len(schedule(CHAINS, first)[0]) == 5
    assert len(schedule(CHAINS, second)[0]) == 3
    for policy, batches in ((first, 5), (second, 3)):
        again, info = schedule(CHAINS, policy)
        assert (len(again), info.cached) == (batches, True)


def test_a_rule_that_inherits_a_name() -> None:
    clear_cache()
    assert identity_of(OfDepth()) != identity_of(OfDepth()) != identity_of(AgendaPolicy())
    schedule(CHAINS, "agenda")
    assert not schedule(CHAINS, OfDepth())[1].cached


def test_policies_of_the_package_of_equal_options_are_one() -> None:
    # Tests register policies of their own, which stay registered.
    names = [name for name in policy_names() if type(get_policy(name)).__module__.startswith("edbatch_tvm.")]
    for name in names:
        assert identity_of(get_policy(name)) == identity_of(get_policy(name))
    assert len({identity_of(get_policy(name)) for name in names}) == len(names)
    assert identity_of(SearchPolicy(3)) == identity_of(SearchPolicy(3)) != identity_of(SearchPolicy(4))


def test_an_identity_of_a_user() -> None:
    class Own(Plain):
        identity: Hashable = "own"

    class Other(Plain):
        identity: Hashable = "own"

    class Wrong(Plain):
        identity: Any = ["a list"]  # noqa: RUF012

    assert identity_of(Own(1)) == identity_of(Own(2)) != identity_of(Other(1))
    with pytest.raises(PolicyError, match=r"the identity of policy Wrong\(\) is a list; expected hashable"):
        schedule(CHAINS, Wrong(one_by_one))


def test_identities_are_not_used_again() -> None:
    clear_cache()
    for _ in range(200):  # objects that are gone leave their addresses to others
        assert not schedule(CHAINS, Plain(one_by_one))[1].cached
        assert not schedule(CHAINS, lambda graph: one_by_one(graph))[1].cached


def test_policies_keep_nothing_of_a_graph() -> None:
    """One object, two graphs, two threads: each choice of one graph with choices of the other in between."""
    wide = InstanceGraph.from_arrays([0, 0, 1, 2, 0, 1], [0, 0, 1, 2, 3, 4, 6], [0, 1, 2, 3, 2, 4])
    for name in policy_names():
        policy = get_policy(name)
        if not isinstance(policy, FrontierPolicy):
            continue
        wanted = {id(graph): policy.reference(graph) for graph in (CHAINS, wide)}
        state = dict(vars(policy))
        barrier = threading.Barrier(2)
        choose, wrong = policy.choose, []

        def in_turn(frontier: Any, choose: Any = choose, barrier: Any = barrier) -> int:
            with contextlib.suppress(threading.BrokenBarrierError):  # the other is done
                barrier.wait(2)
            return choose(frontier)

        def run(graph: InstanceGraph, policy: Any = policy, barrier: Any = barrier, wrong: Any = wrong) -> None:
            if policy.reference(graph) != wanted[id(graph)]:  # noqa: B023
                wrong.append(graph)
            barrier.abort()

        policy.choose = in_turn  # type: ignore[method-assign]
        threads = [threading.Thread(target=run, args=(graph,)) for graph in (CHAINS, wide)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        del policy.choose
        assert (wrong, dict(vars(policy))) == ([], state)

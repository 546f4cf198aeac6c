"""What a batching policy is, and the registry of policies by name."""

from __future__ import annotations

import abc
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from edbatch_tvm.argument_checks import require_type
from edbatch_tvm.batching import native_kernels
from edbatch_tvm.batching.frontier import Frontier
from edbatch_tvm.batching.schedule import Schedule
from edbatch_tvm.errors import PolicyError
from edbatch_tvm.graph import InstanceGraph


@dataclass(frozen=True)
class Run:
    """A schedule and what the policy did to find it."""

    schedule: Schedule
    policy: str
    misses: int = 0
    states: int = 0


class Same:
    """An object as a key: equal to itself alone, whatever it says of equality and hashes. Keeps the object alive."""

    __slots__ = ("one",)

    def __init__(self, one: object) -> None:
        self.one = one

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.one is other.one

    def __hash__(self) -> int:
        return id(self.one)


def _of_package(kind: type) -> bool:
    return kind.__module__.startswith(f"{__name__.partition('.')[0]}.")


class Policy(abc.ABC):
    """A rule that turns a graph into a schedule.

    Attributes
    ----------
    name : str
        What the registry, reports and messages call it.
    """

    name: str = ""

    @property
    def identity(self) -> Hashable:
        """What tells this policy from others in the schedule cache: the object; of a policy of this package its name.

        A subclass may say otherwise; see :func:`identity_of`.
        """
        return (type(self), self.name) if _of_package(type(self)) else Same(self)

    @property
    def trusted(self) -> bool:
        """Whether its schedules are valid without a check: they are, of the policies of this package."""
        return _of_package(type(self))

    @abc.abstractmethod
    def run(self, graph: InstanceGraph) -> Run:
        """Schedule `graph`."""

    def __call__(self, graph: InstanceGraph) -> Schedule:
        """Schedule of `graph`."""
        return self.run(graph).schedule

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def identity_of(policy: Policy) -> Hashable:
    """What tells `policy` from all others: policies of which it is equal give equal schedules.

    A class of this package may say that policies of equal options are one; a user's class may say so of its own, and
    inherits nothing of the kind.

    Raises
    ------
    PolicyError
        If the class says what cannot be hashed.
    """
    kind = type(policy)
    says = next(base for base in kind.__mro__ if "identity" in vars(base))
    if _of_package(says) and not _of_package(kind):
        return Same(policy)
    identity = kind, policy.identity
    try:
        hash(identity)
    except TypeError:
        raise PolicyError(
            f"the identity of policy {policy!r} is a {type(policy.identity).__name__}", "hashable"
        ) from None
    return identity


class FrontierPolicy(Policy):
    """A policy that runs, step by step, all ready nodes of one type.

    Running fewer never helps: what is left out only comes later. A subclass says which type. It keeps nothing of a
    graph: several threads may use one policy. What belongs to a graph is kept by its frontier.

    Attributes
    ----------
    typewise : bool
        Whether :meth:`choose` needs typewise frontiers.
    native : bool
        Whether the native kernels have the rule of this name.
    """

    typewise = False
    native = False

    @abc.abstractmethod
    def choose(self, frontier: Frontier) -> int:
        """Type to run next, one of those with ready nodes."""

    def run(self, graph: InstanceGraph) -> Run:
        """Schedule `graph` by the native kernel, or by :meth:`reference` where there is none."""
        kernels = native_kernels.kernels() if self.native else None
        if kernels is None:
            return Run(self.reference(graph), self.name)
        return Run(Schedule.for_graph(graph, *kernels.run(graph, self.name)), self.name)

    def reference(self, graph: InstanceGraph) -> Schedule:
        """Schedule `graph` in plain Python."""
        frontier = Frontier(graph, self.typewise)
        batches = []
        while frontier.remaining:
            type_id = self.choose(frontier)
            batches.append((type_id, frontier.execute(type_id)))
        return Schedule.from_batches(graph, batches)


_REGISTRY: dict[str, Callable[[], Policy]] = {}


def register_policy(name: str, factory: Callable[[], Policy]) -> None:
    """Make ``schedule(graph, policy=name)`` use the policy that `factory` returns.

    Parameters
    ----------
    name : str
    factory : callable
        Returns the policy; called whenever it is asked for.

    Raises
    ------
    PolicyError
        If the name is taken.
    """
    require_type(name, str, "a name for a policy", PolicyError)
    if not callable(factory):
        raise PolicyError(f"policy {name!r} made by a {type(factory).__name__}", "a function that returns the policy")
    if name in _REGISTRY:
        raise PolicyError(f"a policy called {name!r} is registered already", "another name")
    _REGISTRY[name] = factory


def policy_names() -> tuple[str, ...]:
    """Names of the registered policies."""
    return tuple(sorted(_REGISTRY))


def get_policy(name: str) -> Policy:
    """The policy called `name`.

    Raises
    ------
    PolicyError
        If there is none; lists those there are.
    """
    if not isinstance(name, str) or name not in _REGISTRY:
        raise PolicyError(
            f"unknown policy {name!r:.60}", f"one of {', '.join(policy_names())}, or the path of a policy file (.json)"
        )
    return _REGISTRY[name]()

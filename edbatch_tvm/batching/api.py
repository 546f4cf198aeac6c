"""``schedule``: from a graph and a policy to a schedule, cached by structure."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable
from pathlib import Path
from time import perf_counter

from edbatch_tvm.batching import native_kernels
from edbatch_tvm.batching.bounds import lower_bound
from edbatch_tvm.batching.check_schedule import check_schedule
from edbatch_tvm.batching.graph_keys import cache_key
from edbatch_tvm.batching.policy import Policy, Run, Same, get_policy, identity_of, policy_names
from edbatch_tvm.batching.policy_file import load_policy
from edbatch_tvm.batching.schedule import Schedule, ScheduleInfo
from edbatch_tvm.batching.schedule_cache import ScheduleCache
from edbatch_tvm.errors import PolicyError
from edbatch_tvm.graph import InstanceGraph, require_checked

PolicyLike = str | os.PathLike[str] | Policy | Callable[[InstanceGraph], Schedule]


class CallablePolicy(Policy):
    """A user's function as a policy."""

    trusted = False

    def __init__(self, function: Callable[[InstanceGraph], Schedule]) -> None:
        self.function = function
        self.name = str(getattr(function, "__name__", type(function).__name__))

    @property
    def identity(self) -> Hashable:
        """The function itself; of a bound method, the object and its function."""
        bound = getattr(self.function, "__self__", None), getattr(self.function, "__func__", None)
        return Same(self.function) if bound[1] is None else (Same(bound[0]), Same(bound[1]))

    def run(self, graph: InstanceGraph) -> Run:
        """Call the function.

        Raises
        ------
        PolicyError
            If it returned anything but a schedule.
        """
        schedule = self.function(graph)
        if not isinstance(schedule, Schedule):
            raise PolicyError(f"policy {self.name!r} returned {type(schedule).__name__}", "a Schedule")
        return Run(schedule, self.name)


def as_policy(policy: PolicyLike, type_names: tuple[str, ...] | None = None) -> Policy:
    """The policy that a name, a path, a function or a policy stands for.

    Parameters
    ----------
    policy : str, path, callable or Policy
        A registered name comes before a file of that name.
    type_names : tuple of str, optional
        Cells that a policy file has to fit.

    Raises
    ------
    PolicyError
        If it stands for none.
    """
    if isinstance(policy, Policy):
        return policy
    if isinstance(policy, str | os.PathLike):
        text = os.fspath(policy)
        looks_like_file = not isinstance(policy, str) or text.endswith(".json") or os.sep in text
        if text not in policy_names() and (looks_like_file or Path(text).is_file()):
            return load_policy(text, type_names)
        return get_policy(text)
    if callable(policy):
        return CallablePolicy(policy)
    raise PolicyError(f"a policy of type {type(policy).__name__}", "a name, a path, a Policy or a function")


def schedule(graph: InstanceGraph, policy: PolicyLike = "auto", cache: bool = True) -> tuple[Schedule, ScheduleInfo]:
    """Batches of `graph` by `policy`.

    Parameters
    ----------
    graph : InstanceGraph
        Of one input or of a minibatch.
    policy : str, path, Policy or callable
        A registered name, a policy file, a policy, or any function from graph to schedule.
    cache : bool
        Whether to reuse a schedule found before for a graph of the same structure.

    Returns
    -------
    schedule : Schedule
        ``len(schedule)`` batches; iterating gives ``(type id, nodes)``.
    info : ScheduleInfo
        ``print(info)`` shows a table.

    Raises
    ------
    PolicyError
        If there is no such policy, or it was learned for other cells.

    Examples
    --------
    >>> from edbatch_tvm.graph import InstanceGraph, require_checked
    >>> chain = InstanceGraph.from_arrays([0, 1, 0, 1], [0, 0, 1, 1, 2], [0, 2])
    >>> result, info = schedule(chain, "depth")
    >>> [(type_id, nodes.tolist()) for type_id, nodes in result]
    [(0, [0, 2]), (1, [1, 3])]
    """
    begin = perf_counter()
    chosen = as_policy(policy)
    require_checked(graph)
    kernels = native_kernels.label()
    key = (cache_key(graph), identity_of(chosen), kernels) if cache else None
    run = _CACHE.get(key, graph) if key is not None else None
    cached = run is not None
    if run is None:
        run = chosen.run(graph)
        if not chosen.trusted:
            check_schedule(graph, run.schedule)
        run.schedule.checked = True
        if key is not None:
            _CACHE.put(key, run)
    seconds = perf_counter() - begin
    return run.schedule, ScheduleInfo(
        policy=run.policy,
        batches=len(run.schedule),
        nodes=graph.num_nodes,
        steps=len(run.schedule),
        misses=run.misses,
        states=run.states,
        seconds=seconds,
        backend=kernels,
        cached=cached,
        _bound=lambda: lower_bound(graph),
    )


def clear_cache() -> None:
    """Forget all schedules."""
    _CACHE.clear()


_CACHE = ScheduleCache()

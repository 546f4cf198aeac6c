"""A stream of minibatches: the next ones are merged, scheduled and planned while one runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from edbatch_tvm.batching import ScheduleInfo
from edbatch_tvm.errors import GraphError
from edbatch_tvm.graph import InstanceGraph
from edbatch_tvm.graph.equal_nodes import EqualNodes
from edbatch_tvm.memory import Plan

if TYPE_CHECKING:
    from edbatch_tvm.runtime.model import Model
    from edbatch_tvm.runtime.result import Result


class Prepared(NamedTuple):
    """A minibatch before its kernels run.

    Attributes
    ----------
    whole : InstanceGraph
        All instances.
    equal : EqualNodes or None
        Its equal nodes, where they are merged.
    graph : InstanceGraph
        What runs.
    plan : Plan
    info : ScheduleInfo
    seconds : dict of str to float
        ``build``, ``schedule`` and ``plan``.
    """

    whole: InstanceGraph
    equal: EqualNodes | None
    graph: InstanceGraph
    plan: Plan
    info: ScheduleInfo
    seconds: dict[str, float]


def results_of(model: Model, minibatches: Iterable[Sequence[InstanceGraph]], prefetch: int) -> Iterator[Result]:
    """The results of minibatches, in order; see :meth:`Model.map`."""
    if isinstance(prefetch, bool) or not isinstance(prefetch, int) or prefetch < 0:
        raise GraphError(f"prefetch={prefetch!r:.60}", "a number of minibatches, 0 or more")
    if isinstance(minibatches, InstanceGraph):
        raise GraphError("one instance graph", "an iterable of minibatches", "model.map([[instance]])")
    return _in_turns(model, iter(minibatches), prefetch)


def _in_turns(model: Model, minibatches: Iterator[Sequence[InstanceGraph]], prefetch: int) -> Iterator[Result]:
    if not prefetch:
        for instances in minibatches:
            yield model(instances)
        return

    def prepare_next() -> Prepared | None:
        for instances in minibatches:
            return model.prepare(instances)
        return None

    # One thread: minibatches are taken in order, and what the user's iterator does is never done twice at once.
    pool = ThreadPoolExecutor(1, "edbatch-map")
    waiting: deque[Future[Prepared | None]] = deque()
    try:
        waiting.extend(pool.submit(prepare_next) for _ in range(prefetch))
        while (prepared := waiting.popleft().result()) is not None:
            waiting.append(pool.submit(prepare_next))
            yield model.run(prepared)
    finally:
        pool.shutdown(cancel_futures=True)

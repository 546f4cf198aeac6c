"""Eager PyTorch and ``eb.autobatch`` on the same elements, in turn."""

from __future__ import annotations

import copy
import statistics
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter, process_time, thread_time
from typing import Any

import torch
from torch.utils import _pytree as pytree

import edbatch_tvm as eb

SEED = 0
"""Of the random numbers that a model draws, in the reference and in the call compared with it."""


_CALLS_TO_SETTLE = 12


@dataclass
class Case:
    """A model of a repository and a minibatch for it.

    Attributes
    ----------
    model : torch.nn.Module
    elements : list
        One tuple of arguments of ``forward`` for each element.
    cells : list
    by_hand : callable, optional
        The minibatch as the repository's authors batch it.
    in_double : callable, optional
        ``model, elements`` in float64, for the reference; None: the reference is eager float32.
    options : dict
        Of ``eb.autobatch``.
    to_train : list, optional
        Elements whose results have gradients, where those of `elements` have none.
    """

    model: torch.nn.Module
    elements: list[tuple[Any, ...]]
    cells: list[Any] | None
    by_hand: Callable[[], Any] | None = None
    in_double: Callable[[torch.nn.Module, list[Any]], tuple[torch.nn.Module, list[Any]]] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    to_train: list[tuple[Any, ...]] | None = None


@dataclass
class Figures:
    """What one case showed; times in seconds."""

    error: float
    first_call: float
    first_cpu: float
    breaks: int
    batches: int
    rounds: int
    eager: float | None = None
    batched: float = 0.0
    by_hand: float | None = None
    left: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        times = ""
        if self.eager is not None:
            times = f"{self.eager / self.batched:.2f} x eager ({self.eager * 1e3:.0f} : {self.batched * 1e3:.0f} ms), "
        if self.by_hand is not None:
            times += f"{self.by_hand / self.batched:.2f} x hand-batched ({self.by_hand * 1e3:.0f} ms), "
        return (
            f"error {self.error:.1e}, {times}first call {self.first_call:.1f} s "
            f"({self.first_cpu:.1f} of CPU), {self.breaks} breaks, "
            f"{self.batches} batches, {self.rounds} rounds"
            + "".join(f"; {name} is left to PyTorch: {why}" for name, why in self.left.items())
        )


def doubled(model: torch.nn.Module, elements: list[Any]) -> tuple[torch.nn.Module, list[Any]]:
    """`model` and `elements` in float64."""
    model, elements = copy.deepcopy((model, elements))
    return model.double(), pytree.tree_map_only(
        torch.Tensor, lambda one: one.double() if one.is_floating_point() else one, elements
    )


def measure(case: Case, rounds: int, cpu: bool = False, fallback: str = "never") -> Figures:
    """Run a case: the reference, the first call, then eager, batched and by hand in turn.

    PyTorch has one thread or two, whichever is faster, for eager calls as for batched ones.

    Parameters
    ----------
    case : Case
    rounds : int
    cpu : bool
        Measure processor time of one thread.
    fallback : str
        Of `autobatch`; with ``"auto"``, calls are timed after it is settled what PyTorch computes.
    """
    clock = thread_time if cpu else perf_counter
    if cpu:
        eb.set_num_threads(1)
    model, elements = case.model, case.elements
    for module in model.modules():  # a model may have a method `children`, which `eval` calls
        module.training = False
    expected = reference(case)
    given = [element[0] if len(element) == 1 else element for element in elements]
    begin, begin_cpu = perf_counter(), process_time()
    fast = eb.autobatch(model, cells=case.cells, fallback=fallback, **case.options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fast.map(given)
        first_call, first_cpu = perf_counter() - begin, process_time() - begin_cpu
        torch.manual_seed(SEED)
        figures = Figures(
            difference(fast.map(given), expected), first_call, first_cpu, 0, fast.batches, len(fast.reports)
        )
        figures.breaks = sum(one.count if hasattr(one, "count") else 1 for one in fast.breaks)
        for _ in range(_CALLS_TO_SETTLE if fallback == "auto" else 0):
            fast.map(given)
        figures.left = fast.left_to_pytorch
        by_threads: list[list[tuple[float, float]]] = [[] for _ in ((1,) if cpu else (1, 2))]
        by_hand: list[float] = []
        for _ in range(rounds):
            for threads, times in enumerate(by_threads, 1):
                torch.set_num_threads(threads)
                eager = seconds(lambda: [model(*element) for element in elements], clock)
                times.append((eager, seconds(lambda: fast.map(given), clock)))
            torch.set_num_threads(1)
            if case.by_hand is not None:
                by_hand.append(seconds(case.by_hand, clock))
    if rounds:
        medians = [[statistics.median(column) for column in zip(*times, strict=True)] for times in by_threads]
        figures.eager, figures.batched = (min(column) for column in zip(*medians, strict=True))
        figures.by_hand = statistics.median(by_hand) if by_hand else None
    return figures


def reference(case: Case) -> list[Any]:
    """The results of eager PyTorch, in float64 where the model can."""
    torch.manual_seed(SEED)
    if case.in_double is None:
        return copy.deepcopy([case.model(*element) for element in case.elements])
    torch.set_default_dtype(torch.float64)
    try:
        model, elements = case.in_double(case.model, case.elements)
        return [model(*element) for element in elements]
    finally:
        torch.set_default_dtype(torch.float32)


def seconds(action: Callable[[], Any], clock: Callable[[], float] = perf_counter) -> float:
    """How long `action` takes."""
    begin = clock()
    action()
    return clock() - begin


def difference(found: list[Any], wanted: list[Any]) -> float:
    """Largest difference of a tensor relative to its largest value; infinity if anything else differs."""
    worst = 0.0
    pairs = zip(pytree.tree_leaves(found), pytree.tree_leaves(wanted), strict=True)
    for one, other in pairs:
        if not isinstance(other, torch.Tensor):
            worst = max(worst, 0.0 if one == other else float("inf"))
        elif one.shape != other.shape:
            return float("inf")
        elif other.numel():
            finite = other.isfinite()
            if not torch.equal(one[~finite].nan_to_num(nan=0.5), other[~finite].to(one.dtype).nan_to_num(nan=0.5)):
                return float("inf")
            one, other = one[finite], other[finite]
            if other.numel():
                worst = max(worst, float((one - other).abs().max()) / (float(other.abs().max()) or 1.0))
    return worst

"""Whether calls take longer than the model itself: found out once, in a call that compiles nothing, and told.

A few elements run once more, by the model's own code on a copy of the model, and are timed. That takes a quarter of the
call's own time at most. A warning is given for large minibatches alone: of small ones it would tell little. Where the
user leaves it to measurement, PyTorch runs the whole model from then on; small minibatches are then looked at several
times.
"""

from __future__ import annotations

import copy
import random
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import perf_counter
from typing import Any

import torch

from edbatch_tvm.errors import SlowerWarning
from edbatch_tvm.recording.source_locations import users_place

LEAST_ELEMENTS = 16
LEAST_SECONDS = 0.05
"""Of a call that is looked at."""
WARM_CALLS = 3
"""Calls in a row that compile nothing, the last of which is looked at."""
CLEAR = 1.5, 1.2, 1.0
"""How many times as long the slower way has to take, after one compared call, after two and after more, to be settled.
"""
MOST_ELEMENTS = 4
_MOST_OF_CALL = 0.25
_SLOWER = 1.2
"""How much longer a call has to take than the model: elements differ, and so do runs of one."""

Function = Callable[[torch.nn.Module], Any]


class EagerComparison:
    """Calls of one model, until enough of them were compared.

    Parameters
    ----------
    leaves : bool
        Whether a model that is faster by itself is left to PyTorch; else a warning is given.

    Attributes
    ----------
    settled : bool
    """

    def __init__(self, leaves: bool = False) -> None:
        self.settled = False
        self._leaves = leaves
        self._warm = 0
        self._cells = -1
        self._seconds = self._eager = 0.0
        self._compared = 0

    def note(
        self, model: torch.nn.Module, functions: Sequence[Function], cells: int, seconds: float, ran: float
    ) -> str:
        """Note a call.

        Parameters
        ----------
        cells : int
            Number of cells that there are, and of times that they were measured.
        seconds, ran : float
            How long the call took, and what of it batches took.

        Returns
        -------
        str
            Why the model is left to PyTorch from now on; "" if it is not.
        """
        self._warm = self._warm + 1 if cells == self._cells else 0
        self._cells = cells
        large = len(functions) >= LEAST_ELEMENTS and seconds >= LEAST_SECONDS
        if self.settled or self._warm < WARM_CALLS or not functions or not (large or self._leaves):
            return ""
        step = max(1, len(functions) // MOST_ELEMENTS)
        times = eager_seconds(model, functions[step // 2 :: step], seconds * _MOST_OF_CALL)
        self.settled = not self._leaves or not times
        if not times:
            return ""
        eager = sum(times) / len(times) * len(functions)
        if self._leaves:
            return self._compare(seconds, eager)
        if seconds > _SLOWER * eager:
            warnings.warn_explicit(
                f"a call takes longer than the model itself: {_ms(seconds)} for {len(functions)} elements, which "
                f"{type(model).__name__} takes about {_ms(eager)} for, going by {len(times)} of them. {_ms(ran)} were "
                f"batches, {_ms(seconds - ran)} the model's own code and recording; list larger parts as cells, use "
                "fast.record for elements that come again, or run the model as it is",
                SlowerWarning,
                *users_place(),
            )
        return ""

    def _compare(self, seconds: float, eager: float) -> str:
        """Add a call to those that were compared; why the model is left to PyTorch, once that is settled."""
        self._seconds += seconds
        self._eager += eager
        self._compared += 1
        slower, faster = sorted((self._seconds, self._eager), reverse=True)
        if self._seconds < LEAST_SECONDS or slower < CLEAR[min(self._compared, len(CLEAR)) - 1] * faster:
            return ""
        self.settled = True
        if self._seconds <= self._eager:
            return ""
        batched, alone = (_ms(one / self._compared) for one in (self._seconds, self._eager))
        return f"{alone} a minibatch, in batches {batched}"


def eager_seconds(model: torch.nn.Module, functions: Sequence[Function], most: float) -> list[float]:
    """How long elements take by the model's own code, of as many as take `most` seconds together.

    Nothing changes: a copy of the model runs them, and random numbers come as if they had not run. None are timed where
    the model cannot be copied or an element fails by itself.
    """
    times: list[float] = []
    python, numbers = random.getstate(), torch.get_rng_state()
    with suppress(Exception):
        own = copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})
        functions[0](own)  # what is made once
        while len(times) < len(functions) and sum(times) < most:
            begin = perf_counter()
            functions[len(times)](own)
            times.append(perf_counter() - begin)
    random.setstate(python)
    torch.set_rng_state(numbers)
    return times


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.{0 if seconds >= 1e-2 else 2}f} ms"

"""Whether calls take longer than the model itself: found out once, in a call that compiles nothing, and told.

A few elements run once more, by the model's own code on a copy of the model, and are timed. That takes a quarter of the
call's own time at most. Only large minibatches are looked at: of small ones a warning would tell little.
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
MOST_ELEMENTS = 4
_MOST_OF_CALL = 0.25
_SLOWER = 1.2
"""How much longer a call has to take than the model: elements differ, and so do runs of one."""

Function = Callable[[torch.nn.Module], Any]


class EagerComparison:
    """Calls of one model, until one of them was compared.

    Attributes
    ----------
    settled : bool
    """

    def __init__(self) -> None:
        self.settled = False
        self._warm = 0
        self._cells = -1

    def note(
        self, model: torch.nn.Module, functions: Sequence[Function], cells: int, seconds: float, ran: float
    ) -> None:
        """Note a call.

        Parameters
        ----------
        cells : int
            Number of cells that there are.
        seconds, ran : float
            How long the call took, and what of it batches took.
        """
        self._warm = self._warm + 1 if cells == self._cells else 0
        self._cells = cells
        if self.settled or self._warm < WARM_CALLS or len(functions) < LEAST_ELEMENTS or seconds < LEAST_SECONDS:
            return
        self.settled = True
        step = len(functions) // MOST_ELEMENTS
        times = eager_seconds(model, functions[step // 2 :: step], seconds * _MOST_OF_CALL)
        if not times:
            return
        eager = sum(times) / len(times) * len(functions)
        if seconds > _SLOWER * eager:
            warnings.warn_explicit(
                f"a call takes longer than the model itself: {_ms(seconds)} for {len(functions)} elements, which "
                f"{type(model).__name__} takes about {_ms(eager)} for, going by {len(times)} of them. {_ms(ran)} were "
                f"batches, {_ms(seconds - ran)} the model's own code and recording; list larger parts as cells, use "
                "fast.record for elements that come again, or run the model as it is",
                SlowerWarning,
                *users_place(),
            )


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
    return f"{seconds * 1e3:.0f} ms"

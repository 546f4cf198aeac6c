"""Run the instances of a minibatch together: each goes on until it reads a value, then all that wait are served."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from edbatch_tvm.errors import EnvironmentMismatch
from edbatch_tvm.recording.failures import CallError, name_element
from edbatch_tvm.recording.isolation import State, is_now, restore, state, switched_to


def require_greenlet() -> Any:
    """The class ``greenlet``.

    Raises
    ------
    EnvironmentMismatch
        If the package is not installed.
    """
    try:
        from greenlet import greenlet
    except ImportError:
        raise EnvironmentMismatch(
            "greenlet is not installed", "greenlet 3 or later", "pip install 'edbatch-tvm[torch]'"
        ) from None
    return greenlet


def isolated(function: Callable[[], Any], own: State) -> Callable[[], Any]:
    """`function`, after which PyTorch is in the state `own`, in which it begins."""

    def run() -> Any:
        try:
            return function()
        finally:
            if not is_now(own):
                restore(own)

    return run


class Driver:
    """Runs functions as greenlets that advance together.

    Parameters
    ----------
    compute : callable
        Computes everything recorded so far; called when every function has ended or waits.
    after_round : callable, optional
        Called before that.
    first : int
        The number of the first function in the minibatch, for errors.

    Attributes
    ----------
    resumed : callable
        Called with the number of a function whenever it goes on.
    before_wait : callable
        Called when the first function waits.
    """

    __slots__ = (
        *("_after_round", "_compute", "_current", "_first", "_greenlet", "_hub", "_state"),
        *("__weakref__", "before_wait", "fibers", "resumed", "rounds"),
    )

    def __init__(
        self,
        compute: Callable[[], None],
        after_round: Callable[[], None] = lambda: None,
        first: int = 0,
    ) -> None:
        self._greenlet = require_greenlet()
        self._current = self._greenlet.getcurrent
        self._compute = compute
        self._after_round = after_round
        self.resumed: Callable[[int], None] = lambda number: None
        self.before_wait: Callable[[], None] = lambda: None
        self._first = first
        self._hub: Any = None
        self._state = state()
        self.rounds = 0
        self.fibers: list[Any] = []

    def wait(self) -> None:
        """Called by a function that needs a value: come back when it is computed."""
        hub = self._hub
        if hub is None or self._current().parent is not hub:
            self._compute()
        elif is_now(self._state) and not self._state.transforms:
            hub.switch()
        elif state().transforms:  # code that torch.vmap or the like runs is not left: others would run inside it
            self._compute()
        else:
            with switched_to(self._state):
                hub.switch()

    def run(self, functions: Sequence[Callable[[], Any]]) -> list[Any]:
        """What the functions return, in order.

        Raises
        ------
        Exception
            What the first function to fail raises; it says which function that is. The others are ended.
        """
        self._hub = self._greenlet.getcurrent()
        self._state = state()
        fibers = self.fibers = [
            self._greenlet(isolated(function, self._state), parent=self._hub) for function in functions
        ]
        for fiber in fibers:
            fiber.gr_context = contextvars.copy_context()
        results: list[Any] = [None] * len(fibers)
        waiting = list(range(len(fibers)))
        try:
            while waiting:
                still: list[int] = []
                for number in waiting:
                    fiber = fibers[number]
                    self.resumed(number)
                    try:
                        result = fiber.switch()
                    except CallError:
                        raise  # of whatever element
                    except Exception as error:
                        name_element(error, number + self._first)
                        raise
                    if fiber.dead:
                        results[number] = result
                    else:
                        if not still and not self.rounds:
                            self.before_wait()
                        still.append(number)
                waiting = still
                self.rounds += 1
                self._after_round()
                if waiting:
                    self._compute()
        finally:
            for fiber in fibers:
                if fiber and not fiber.dead:
                    with suppress(Exception, SystemExit):  # of code that catches everything: the first error counts
                        fiber.throw()
            self._hub, self.fibers = None, []
        return results

    def finish(self) -> None:
        """Let go of what it calls, which may hold the driver in turn."""
        self._compute = self._after_round = self.before_wait = lambda: None
        self.resumed = lambda number: None

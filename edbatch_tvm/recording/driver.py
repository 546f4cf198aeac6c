"""Run the instances of a minibatch together: each goes on until it reads a value, then all that wait are served."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from edbatch_tvm.errors import EnvironmentMismatch
from edbatch_tvm.recording.failures import CallError, name_element
from edbatch_tvm.recording.isolation import OF_PYTORCH, State, is_now, restore, state, switched_to
from edbatch_tvm.recording.process_settings import process_settings
from edbatch_tvm.recording.warning_handlers import warning_handlers


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


class Fiber:
    """Runs functions in a greenlet: one after the other, until one of them waits, and no others then.

    Attributes
    ----------
    greenlet : greenlet
    number : int
        The function that it runs.
    ended : bool
        Whether it has found no more of them.
    handler : int or None
        Where it waits, the handler of warnings there.
    """

    __slots__ = ("ended", "greenlet", "handler", "number")

    def __init__(self, greenlet: Any) -> None:
        self.greenlet = greenlet
        self.number = 0
        self.ended = False
        self.handler: int | None = None


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
    failed : int or None
        The first function that has raised an error, in the order of the functions.
    late_variable : str
        A context variable that a function had changed in the end, after it waited; "" if there is none.
    """

    __slots__ = (
        *("_after_round", "_begun", "_compute", "_current", "_error", "_first", "_greenlet", "_hub", "_left", "_state"),
        *("__weakref__", "_handlers", "_settings", "before_wait", "failed", "late_variable", "resumed", "rounds"),
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
        self._hub: Any = None  # without it nothing waits: what is asked for is computed at once
        self._handlers = warning_handlers()
        self._settings: tuple[Any, ...] = ()
        self._state = state()
        self._left = contextvars.copy_context()
        self.rounds = 0
        self.failed: int | None = None
        self._error: Exception | None = None
        self._begun = 0
        self.late_variable = ""

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
            What the first function that fails raises, of all that would; it says which function that is. Those before
            it have run to their ends, those after it are ended.
        """
        if not functions:
            return []
        hub = self._greenlet.getcurrent()
        self._hub = None if self._handlers is None else hub
        self._state = state()
        self._settings = process_settings()
        results: list[Any] = [None] * len(functions)
        self._left = before = contextvars.copy_context()
        numbers = iter(range(len(functions)))
        fibers: list[Fiber] = []

        def work(fiber: Fiber) -> None:
            # One after the other: many models wait for nothing, and a greenlet for each would take longer.
            for fiber.number in numbers:
                self.resumed(fiber.number)
                function = isolated(functions[fiber.number], self._state)
                results[fiber.number] = self._in_context(fiber.number, function)
            fiber.ended = True

        waiting: list[Fiber] = []
        try:
            while not (fibers and fibers[-1].ended) and self.failed is None:
                fiber = Fiber(self._greenlet(work, parent=hub))
                fibers.append(fiber)
                self._go_on(fiber, fiber)
                if not fiber.greenlet.dead:
                    if not waiting:
                        self.before_wait()
                    waiting.append(fiber)
            self._end_round(waiting)
            while waiting:
                still: list[Fiber] = []
                for fiber in waiting:
                    if self.failed is not None and fiber.number > self.failed:
                        continue
                    self.resumed(fiber.number)
                    self._go_on(fiber)
                    if not fiber.greenlet.dead:
                        still.append(fiber)
                waiting = [one for one in still if self.failed is None or one.number < self.failed]
                self._end_round(waiting)
        finally:
            for fiber in fibers:
                if not fiber.greenlet.dead:
                    with suppress(Exception, SystemExit):  # of code that catches everything: the first error counts
                        self._switch(fiber, fiber.greenlet.throw)
            self._hub = None
            for variable, value in self._left.items():
                if before.get(variable, before) is not value:
                    variable.set(value)
        if self._error is not None:
            raise self._error
        return results

    def _in_context(self, number: int, function: Callable[[], Any]) -> Any:
        """What a function returns; it finds context variables as those before it have left them."""
        before, rounds = self._left, self.rounds
        own = before.copy()
        self._begun = number
        try:
            return own.run(function)
        finally:
            changed = [one for one, value in own.items() if before.get(one, own) is not value and one not in OF_PYTORCH]
            if self._begun == number:  # those after it are still to begin
                self._left = own
            if changed and self.rounds > rounds:
                self.late_variable = changed[0].name

    def _go_on(self, fiber: Fiber, *begin: Fiber) -> None:
        """Let a fiber go on until it waits, has ended or fails: then those before it still run to their ends."""
        try:
            self._switch(fiber, fiber.greenlet.switch, *begin)
            # It waits inside a block with other settings, which others would not find as they would without it.
            while not fiber.greenlet.dead and process_settings() != self._settings:
                self._compute()
                self._switch(fiber, fiber.greenlet.switch)
        except CallError:
            raise  # of whatever element
        except Exception as error:
            name_element(error, fiber.number + self._first)
            self.failed, self._error = fiber.number, error

    def _switch(self, fiber: Fiber, to: Callable[..., Any], *begin: Fiber) -> None:
        """Go to a fiber until it comes back, each with its own handler of warnings."""
        if self._handlers is None:
            to(*begin)
            return
        current, become = self._handlers
        own = current()
        if not begin:
            become(fiber.handler)
        try:
            to(*begin)
        finally:
            fiber.handler = current()
            become(own)

    def _end_round(self, waiting: list[Fiber]) -> None:
        self.rounds += 1
        self._after_round()
        if waiting:
            self._compute()

    def finish(self) -> None:
        """Let go of what it calls, which may hold the driver in turn."""
        self._compute = self._after_round = self.before_wait = lambda: None
        self.resumed = lambda number: None

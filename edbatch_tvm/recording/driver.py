"""Run the instances of a minibatch together: each goes on until it reads a value, then all that wait are served."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from edbatch_tvm.errors import EnvironmentMismatch


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


class Driver:
    """Runs functions as greenlets that advance together.

    Parameters
    ----------
    compute : callable
        Computes everything recorded so far; called when every function has ended or waits.
    """

    def __init__(self, compute: Callable[[], None]) -> None:
        self._greenlet = require_greenlet()
        self._compute = compute
        self._hub: Any = None

    def wait(self) -> None:
        """Called by a function that needs a value: come back when it is computed."""
        if self._hub is None or self._greenlet.getcurrent() is self._hub:
            self._compute()
        else:
            self._hub.switch()

    def run(self, functions: Sequence[Callable[[], Any]]) -> list[Any]:
        """What the functions return, in order.

        Raises
        ------
        Exception
            What the first function to fail raises, with a note that says which it is; the others are ended.
        """
        self._hub = self._greenlet.getcurrent()
        fibers = [self._greenlet(function, parent=self._hub) for function in functions]
        results: list[Any] = [None] * len(fibers)
        waiting = list(range(len(fibers)))
        try:
            while waiting:
                still = []
                for number in waiting:
                    result = self._resume(fibers[number], number)
                    if fibers[number].dead:
                        results[number] = result
                    else:
                        still.append(number)
                waiting = still
                if waiting:
                    self._compute()
        finally:
            for fiber in fibers:
                if fiber and not fiber.dead:
                    fiber.throw()
            self._hub = None
        return results

    def _resume(self, fiber: Any, number: int) -> Any:
        try:
            return fiber.switch()
        except Exception as error:
            if hasattr(error, "add_note"):  # Python 3.11
                error.add_note(f"in element {number} of the minibatch")
            raise

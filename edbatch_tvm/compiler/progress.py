"""A progress bar on the terminal for compilations that take long."""

from __future__ import annotations

import sys
import threading
from types import TracebackType
from typing import Any

from tqdm import tqdm

PATIENCE = 2.0
"""Seconds after which the bar appears."""


_SHOWN = threading.local()
"""Has the outermost :class:`Progress` of a thread as ``progress``."""


class Progress:
    """Context: shows the steps of a compilation on standard error once they take long; nothing if it is no terminal.

    Inside another one of the same thread, its steps are steps of that one.
    """

    def __init__(self) -> None:
        self._bar: Any = None
        self._timer: threading.Timer | None = None
        self._outer: Progress | None = None

    def __enter__(self) -> Progress:
        self._outer = getattr(_SHOWN, "progress", None)
        if self._outer is not None:
            return self
        _SHOWN.progress = self
        if sys.stderr is not None and sys.stderr.isatty():
            # Not shown by tqdm itself, which would wait for the next step: generating code is one long one.
            self._bar = tqdm(total=1, desc="compiling", unit="step", leave=False, file=sys.stderr, delay=1e9)
            self._timer = threading.Timer(PATIENCE, self._show)
            self._timer.daemon = True
            self._timer.start()
        return self

    def __call__(self, step: str) -> None:
        """The next step begins: a pass, or what comes after them."""
        if self._outer is not None:
            self._outer(step)
        if self._bar is not None:
            self._bar.set_postfix_str(step, refresh=False)
            self._bar.update()

    def expect(self, steps: int) -> None:
        """So many more steps follow."""
        if self._outer is not None:
            self._outer.expect(steps)
        if self._bar is not None:
            self._bar.total += steps

    def _show(self) -> None:
        self._bar.delay = 0
        self._bar.refresh()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._outer is None:
            _SHOWN.progress = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()
            self._bar.close()

"""Ctrl-C between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stop:
    """Whether the user asked to stop."""

    requested = False


@contextmanager
def between_steps() -> Iterator[Stop]:
    """In the block, the first Ctrl-C only sets ``requested`` of what it yields; the second one interrupts as usual."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():  # which alone takes signals
        yield stop
        return
    before = signal.getsignal(signal.SIGINT)

    def request(number: int, frame: FrameType | None) -> None:
        stop.requested = True
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, request)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)

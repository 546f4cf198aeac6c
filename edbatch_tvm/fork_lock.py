"""Locks that a forked child finds free."""

from __future__ import annotations

import os
import threading
import weakref

_LOCKS: weakref.WeakSet[threading.RLock] = weakref.WeakSet()
_held: list[threading.RLock] = []


def fork_lock() -> threading.RLock:
    """A lock that no other thread holds while this process is forked, so that the child does not wait for it forever.

    A fork waits for the sections under way, which may take other such locks, in any order. Reentrant, because the
    garbage collector may run in such a section, and with it what gives an arena back.
    """
    lock = threading.RLock()
    _LOCKS.add(lock)
    return lock


def _hold() -> None:
    # All locks or none: a section that holds one of them may wait for another.
    while True:
        held: list[threading.RLock] = []
        for lock in list(_LOCKS):
            if not lock.acquire(blocking=False):
                break
            held.append(lock)
        else:
            _held[:] = held
            return
        _release(held)
        with lock:
            pass


def _let_go() -> None:
    held = _held[:]
    _held.clear()
    _release(held)


def _release(held: list[threading.RLock]) -> None:
    for lock in held:
        lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold, after_in_parent=_let_go, after_in_child=_let_go)

"""Locks that a forked child finds free."""

from __future__ import annotations

import os
import threading
import weakref

_LOCKS: weakref.WeakSet[threading.RLock] = weakref.WeakSet()
_held: list[threading.RLock] = []


def fork_lock() -> threading.RLock:
    """A lock that no other thread holds while this process is forked, so that the child does not wait for it forever.

    It is for short sections that take no other lock. Reentrant, because the garbage collector may run in such a
    section, and with it what gives an arena back.
    """
    lock = threading.RLock()
    _LOCKS.add(lock)
    return lock


def _hold() -> None:
    _held[:] = list(_LOCKS)
    for lock in _held:
        lock.acquire()


def _let_go() -> None:
    for lock in _held:
        lock.release()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold, after_in_parent=_let_go, after_in_child=_let_go)

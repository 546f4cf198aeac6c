"""Locks that are safe to fork with: no child finds one taken, and no fork waits for a section that waits for it."""

from __future__ import annotations

import os
import threading
import warnings

import pytest

from edbatch_tvm.fork_lock import fork_lock

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


def test_sections_that_take_each_others_locks_do_not_stop_a_fork() -> None:
    locks = [fork_lock() for _ in range(3)]
    done = threading.Event()
    errors: list[str] = []

    def work() -> None:
        outer, middle, inner = locks
        while not done.is_set():
            with outer, middle, inner:
                pass

    def fork() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 on forks beside threads
            for _ in range(20):
                child = os.fork()
                if not child:
                    free = all(lock.acquire(timeout=5) for lock in locks)
                    os._exit(0 if free else 3)
                if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
                    errors.append("a child found a lock taken")

    workers = [threading.Thread(target=work, daemon=True), *(threading.Thread(target=fork, daemon=True) for _ in "ab")]
    for worker in workers:
        worker.start()
    for worker in workers[1:]:
        worker.join(60)
        assert not worker.is_alive(), "a fork waits for a section that waits for it"
    done.set()
    workers[0].join(60)
    assert not errors


def test_a_fork_waits_for_the_section_under_way() -> None:
    lock, inside, leave = fork_lock(), threading.Event(), threading.Event()
    forked: list[int] = []

    def section() -> None:
        with lock:
            inside.set()
            leave.wait(60)

    def fork() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if not child:
            os._exit(0)
        os.waitpid(child, 0)
        forked.append(child)

    threads = [threading.Thread(target=section, daemon=True), threading.Thread(target=fork, daemon=True)]
    threads[0].start()
    assert inside.wait(60)
    threads[1].start()
    threads[1].join(0.2)
    assert not forked
    leave.set()
    for thread in threads:
        thread.join(60)
    assert forked


def test_the_lock_of_recorded_cells_is_one_of_them() -> None:
    torch = pytest.importorskip("torch")

    from edbatch_tvm.fork_lock import _LOCKS
    from edbatch_tvm.recording.library import Library

    assert Library(torch.nn.Linear(1, 1), {})._lock in _LOCKS

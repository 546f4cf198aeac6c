"""Threads of the kernels: all physical cores, not pinned, without the user setting anything; any number at any time.

TVM keeps a pool of workers for each thread that calls it, sized by ``TVM_NUM_THREADS`` (or ``OMP_NUM_THREADS``) at the
first parallel call. A pool cannot grow afterwards, but any part of it can be used.

A forked child has none of its parent's threads, and TVM's pool would wait for them forever. So kernels run on the
calling thread in a child that was forked after a model was compiled or loaded. A process started by ``spawn`` has
worker threads of its own. (When such a child ends, TVM joins the threads it never had. That fails if the child started
threads itself and ends by a return from main; :func:`os._exit`, which multiprocessing uses, skips it.)
"""

from __future__ import annotations

import os
import threading
from functools import cache
from pathlib import Path

from edbatch_tvm.errors import TargetError
from edbatch_tvm.tvm_compat import config_thread_pool

_ALL_CORES = 1
"""TVM's mode that uses cores of any kind and, with ``TVM_BIND_THREADS=0``, leaves their affinity alone."""

_SPINS = "1000"
"""Turns for which an idle worker looks for work before it sleeps, each of which offers its core to others: longer than
the host takes between two minibatches; TVM's own 300,000 keep a core busy for a tenth of a second after every run."""


MOST_THREADS = max(64, 4 * (os.cpu_count() or 1))
"""More are refused: TVM starts as many as it is told, until the machine has none left."""


class _Pool(threading.local):
    """What the pool of this thread was set to."""

    threads = 0


_POOL = _Pool()
_wanted: int | None = None


def physical_cores() -> int:
    """Number of physical cores this process may run on (hyper-threads counted once)."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    cores = set()
    for cpu in os.sched_getaffinity(0):
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            cores.add(siblings.read_text().strip())
        except OSError:
            cores.add(str(cpu))
    return max(1, len(cores))


def prepare_threads() -> None:
    """Tell TVM's thread pool its size before its first parallel call.

    On x86 TVM takes half of the visible CPUs, which on a virtual machine of two cores is one; and it pins its
    workers, which makes the main thread share a core with one of them. Variables that the user set are left alone,
    unless ``OMP_NUM_THREADS``, which is others' as well, holds no number for this pool.

    Raises
    ------
    TargetError
        If ``TVM_NUM_THREADS`` is set to something else than a number from 1 to :data:`MOST_THREADS`.
    """
    wanted = _of_variable("TVM_NUM_THREADS")
    if wanted is None and _of_variable("OMP_NUM_THREADS") is None:
        os.environ["TVM_NUM_THREADS"] = str(physical_cores())
    os.environ.setdefault("TVM_BIND_THREADS", "0")
    os.environ.setdefault("TVM_THREAD_POOL_SPIN_COUNT", _SPINS)
    _watch_forks()


_forked = False


def forked() -> bool:
    """Whether this process was forked from one that had compiled or loaded a model."""
    return _forked


def _run_alone() -> None:
    """In a forked child: TVM reads the variable before every parallel call, and with one thread asks no pool."""
    global _forked, _wanted
    _forked, _wanted = True, None
    os.environ["TVM_NUM_THREADS"] = "1"


@cache
def _watch_forks() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_run_alone)


def largest_number() -> int:
    """Most threads that can be used: ``TVM_NUM_THREADS``, else ``OMP_NUM_THREADS``, else the physical cores."""
    return _of_variable("TVM_NUM_THREADS") or _of_variable("OMP_NUM_THREADS") or physical_cores()


def _of_variable(name: str) -> int | None:
    """The number of threads that an environment variable names; None if it is not set, or not to one."""
    text = os.environ.get(name, "").strip()
    if text.isascii() and text.isdigit() and len(text) < 9 and 1 <= int(text) <= MOST_THREADS:
        return int(text)
    if text and name == "TVM_NUM_THREADS":
        raise TargetError(f"TVM_NUM_THREADS={text}", f"a number from 1 to {MOST_THREADS}")
    return None


def get_num_threads() -> int:
    """Number of threads that kernels run on."""
    return largest_number() if _wanted is None else _wanted


def set_num_threads(threads: int) -> None:
    """Set the number of threads that run kernels, from the next minibatch on, in every thread of this process.

    Parameters
    ----------
    threads : int
        From 1 to :func:`largest_number`.

    Raises
    ------
    TargetError
        If it is not in this range.
    """
    global _wanted
    most = largest_number()
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= most:
        raise TargetError(
            f"{threads!r} threads",
            f"a number from 1 to {most}",
            "set TVM_NUM_THREADS before the first minibatch to have more",
        )
    _wanted = threads


def use_threads() -> int:
    """Set the pool of this thread to :func:`get_num_threads`; how many there are."""
    threads = get_num_threads()
    if _forked:
        return 1  # without a look at the pool, which is the parent's
    if _POOL.threads != threads:
        config_thread_pool(_ALL_CORES, threads)
        _POOL.threads = threads
    return threads

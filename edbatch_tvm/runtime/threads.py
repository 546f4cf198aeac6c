"""Worker threads of the kernels: all physical cores, not pinned, without the user setting anything."""

from __future__ import annotations

import os
from pathlib import Path


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
    workers, which makes the main thread share a core with one of them. Variables that the user set are left alone.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        os.environ.setdefault("TVM_NUM_THREADS", str(physical_cores()))
    os.environ.setdefault("TVM_BIND_THREADS", "0")


def num_threads() -> int:
    """Number of threads that kernels run on."""
    for name in ("TVM_NUM_THREADS", "OMP_NUM_THREADS"):
        if os.environ.get(name, "").isdigit():
            return max(1, int(os.environ[name]))
    return physical_cores()

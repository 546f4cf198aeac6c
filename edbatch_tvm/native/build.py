"""Build the kernels once and keep the libraries in a cache directory.

A library's name holds a digest of what it depends on: this package's sources, the TVM version and the CPU. A process
writes a scratch file and renames it, so that another one sees no library or a whole one. A library that does not load,
or whose content is not what was written (loading a part of one would end the process), is built again.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from edbatch_tvm.cache_files import cache_directory, read_sealed, write_sealed
from edbatch_tvm.fork_lock import fork_lock

_BUILDING = fork_lock()

SHARED_SOURCES = (
    "constants.py",
    "build.py",
    "../tvm_compat.py",
    "tir/inlined.py",
    "tir/buffers.py",
    "tir/depths_and_heights.py",
    "cell_tables.py",
    "../batching/encoding.py",
    "../batching/fixed_point.py",
    "../../schedules/cpu/tir_pipeline.py",
)
SCHEDULE_SOURCES = (
    "tir/schedule_loop.py",
    "tir/frontiers.py",
    "tir/policy_rules.py",
    "tir/state_machine.py",
    "../batching/splitmix.py",
)
LIBRARIES = {
    "merge": ("tir/merging.py", "../graph/array_addresses.py"),
    "equal": ("tir/equal_nodes.py",),
    "levels": ("tir/depth_schedule.py",),
    "postorder": ("tir/postorder_schedule.py", "../batching/postorder.py"),
    "values": ("tir/kept_values.py",),
    "backward": ("tir/backward_graph.py", "tir/term_addresses.py", "tir/addressed_rows.py", "backward_tables.py"),
    "backward_steps": (
        "tir/backward_steps.py",
        "tir/backward_pass.py",
        "tir/backward_nodes.py",
        "tir/backward_reads.py",
        "tir/gradient_tables.py",
        "tir/addressed_rows.py",
        "backward_tables.py",
        "../memory/steps_table.py",
    ),
    "schedule": SCHEDULE_SOURCES,
    "learn": SCHEDULE_SOURCES,
    "search": ("tir/beam_search.py", "tir/beam_states.py", "tir/candidate_heap.py"),
    "plan": (
        "tir/arena_placement.py",
        "tir/step_tables.py",
        "tir/batch_pieces.py",
        "tir/batch_shares.py",
        "tir/layout_comparison.py",
        "tir/node_ordering.py",
        "../memory/steps_table.py",
    ),
}
"""Files of this project that each library is made from, beside the shared ones. Each is built on first use: small ones
keep the first call short."""


def library_path(name: str, sources: Sequence[str] | None = None) -> Path:
    """Path of a library for this project, TVM and machine; `sources` are those of one that is not in LIBRARIES."""
    digest = hashlib.sha256()
    root = Path(__file__).parent
    for source in (*SHARED_SOURCES, *LIBRARIES[name]) if sources is None else sources:
        digest.update((root / source).read_bytes())
    for version in (importlib.metadata.version("apache-tvm"), importlib.metadata.version("apache-tvm-ffi")):
        digest.update(version.encode())
    digest.update(platform.machine().encode())
    digest.update(cpu_features().encode())
    return cache_directory() / f"{name}-{digest.hexdigest()[:20]}.so"


def load_library(name: str) -> Any:
    """A library: loaded from the cache, or built and put there. A fork of another thread waits until it is there.

    Parameters
    ----------
    name : str
        One of :data:`LIBRARIES`.

    Returns
    -------
    tvm.runtime.Module or tvm.runtime.Executable
        ``library[name]`` is a callable. The executable itself where no library can be written (no C compiler to link
        with, read-only file system): then every process builds its own.

    Raises
    ------
    ImportError
        If TVM is missing.
    """
    return kept_library(library_path(name), partial(_compile, name))


def kept_library(path: Path, compile_it: Callable[[], Any]) -> Any:
    """The library at `path`, or what `compile_it` gives, which is put there; see :func:`load_library`."""
    with _BUILDING:
        return _kept(path, compile_it)


def _kept(path: Path, compile_it: Callable[[], Any]) -> Any:
    from edbatch_tvm.tvm_compat import runtime

    try:
        if read_sealed(path) is not None:
            return runtime.load_module(str(path))
    except (OSError, RuntimeError):
        pass
    executable = compile_it()
    from schedules.cpu.link import shared_library

    try:
        write_sealed(path, shared_library(executable))
        return runtime.load_module(str(path))
    except (OSError, RuntimeError):
        return executable


def _functions(name: str) -> dict[str, Any]:
    """PrimFuncs of a library; importing them parses them."""
    if name == "merge":
        from edbatch_tvm.native.tir.merging import merge

        return {"merge": merge}
    if name == "equal":
        from edbatch_tvm.native.tir.equal_nodes import merge_equal

        return {"merge_equal": merge_equal}
    if name == "values":
        from edbatch_tvm.native.tir.kept_values import copy, find, keep, number

        return {"keep": keep, "find": find, "copy": copy, "number": number}
    if name == "backward":
        from edbatch_tvm.native.tir.backward_graph import backward
        from edbatch_tvm.native.tir.term_addresses import term_addresses

        return {"backward": backward, "term_addresses": term_addresses}
    if name == "backward_steps":
        from edbatch_tvm.native.tir.backward_steps import backward_steps
        from edbatch_tvm.native.tir.gradient_tables import gradient_tables

        return {"backward_steps": backward_steps, "gradient_tables": gradient_tables}
    if name == "search":
        from edbatch_tvm.native.tir.beam_search import search

        return {"search": search}
    if name == "plan":
        from edbatch_tvm.native.tir.arena_placement import place
        from edbatch_tvm.native.tir.batch_pieces import cut
        from edbatch_tvm.native.tir.batch_shares import divide
        from edbatch_tvm.native.tir.layout_comparison import any_worse
        from edbatch_tvm.native.tir.node_ordering import order
        from edbatch_tvm.native.tir.step_tables import fill

        return {"place": place, "fill": fill, "order": order, "any_worse": any_worse, "cut": cut, "divide": divide}
    if name == "levels":
        from edbatch_tvm.native.tir.depth_schedule import depth_schedule, heights

        return {"heights": heights, "depth_schedule": depth_schedule}
    if name == "postorder":
        from edbatch_tvm.native.tir.postorder_schedule import postorder_schedule

        return {"postorder_schedule": postorder_schedule}
    from edbatch_tvm.native.tir.schedule_loop import schedule_loop

    return {"episode": schedule_loop(True)} if name == "learn" else {"schedule": schedule_loop(False)}


def _compile(name: str) -> Any:
    import tvm

    from schedules.cpu.tir_pipeline import KERNEL_PIPELINE

    functions = {key: function.with_attr("global_symbol", key) for key, function in _functions(name).items()}
    target: dict[str, Any] = {"kind": "llvm", "opt-level": 2}
    if "avx2" in cpu_features().split():
        # Eight lanes to a register, for the typewise rows.
        target["mcpu"] = "x86-64-v3"
    return tvm.compile(tvm.IRModule(functions), target=tvm.target.Target(target), tir_pipeline=KERNEL_PIPELINE)


def cpu_features() -> str:
    """Features of the CPU as Linux lists them; empty elsewhere."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            lines = [line for line in file if line.startswith(("flags", "Features"))]
    except OSError:
        return ""
    return lines[0].partition(":")[2].strip() if lines else ""

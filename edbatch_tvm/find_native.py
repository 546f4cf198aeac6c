"""Where the native kernels of graphs, policies and plans come from: :mod:`edbatch_tvm.native` if it can be had.

Those of weight gradients, which need more of this project, come from :mod:`edbatch_tvm.training`.

Nothing here imports TVM; a part of the native package is imported when it is first asked for. Where that fails, plain
Python and NumPy do the work, and :func:`backend_label` says why.
"""

from __future__ import annotations

import importlib
import logging
import os
from typing import Any

VARIABLE = "EDBATCH_BACKEND"
"""Environment variable; ``python`` forces the reference. Read once, when this module is imported."""

python_only = os.environ.get(VARIABLE) == "python"

PARTS = {
    "build instances": "edbatch_tvm.graph.native_builder",
    "read data files": "edbatch_tvm.models.native_reader",
    "merge": "edbatch_tvm.native.merger",
    "merge equal nodes": "edbatch_tvm.native.equal_nodes",
    "run minibatches in one call": "edbatch_tvm.runtime.one_call",
    "schedule": "edbatch_tvm.native.kernels",
    "plan": "edbatch_tvm.native.planner",
    "build backward graphs": "edbatch_tvm.native.backward_graphs",
    "plan backward passes": "edbatch_tvm.native.backward_steps",
    "sum weight gradients": "edbatch_tvm.training.gradient_kernel",
}
"""What native kernels do, and the module that has their ``load()``."""

_found: dict[str, tuple[Any, str]] = {}


def find_native(part: str) -> Any:
    """The kernels of a part, or None."""
    return None if python_only else _find(part)[0]


def backend_label(part: str) -> str:
    """``native``, or ``python`` and why."""
    return f"python ({VARIABLE}=python)" if python_only else _find(part)[1]


def _find(part: str) -> tuple[Any, str]:
    known = _found.get(part)
    if known is None:
        known = _found[part] = _load(part)
    return known


def _load(part: str) -> tuple[Any, str]:
    try:
        return importlib.import_module(PARTS[part]).load(), "native"
    except (ImportError, OSError, RuntimeError) as error:
        lines = str(error).strip().splitlines()
        reason = lines[0] if lines else type(error).__name__
        # Without TVM that is how this package is used; with it, somebody may wonder why all is slow.
        level = logging.INFO if isinstance(error, ImportError) else logging.WARNING
        logging.getLogger(__name__).log(level, "no native kernels to %s, so Python does it: %s", part, reason)
        return None, f"python ({reason})"

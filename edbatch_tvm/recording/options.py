"""What `autobatch` passes on to :func:`edbatch_tvm.compile`, checked before anything is compiled."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from typing import Any

from edbatch_tvm.backends import find_backend
from edbatch_tvm.batching import get_policy
from edbatch_tvm.compiler import compile_model
from edbatch_tvm.errors import RecordingError
from edbatch_tvm.memory import resolve_plan

_OWN = ("fallback",)
"""Options of `autobatch` itself."""

_DECIDED = {
    "training": "it trains where gradients are recorded",
    "dtype": "it computes in the dtype of the model's parameters; use model.double()",
    "granularity": "calls of cells are what it records; list smaller parts as cells",
    "equal_nodes": "equal calls of a round are one node anyway",
}
"""Options of :func:`edbatch_tvm.compile` that `autobatch` decides by itself, and how."""


def check_options(options: Mapping[str, Any]) -> None:
    """Check that options have known names, a known target, plan and policy.

    Raises
    ------
    RecordingError
        For an unknown name, or one of an option that `autobatch` decides by itself.
    TargetError, PlanError, PolicyError
    """
    given = list(inspect.signature(compile_model).parameters)[2:]
    known = [*_OWN, *(name for name in given if name not in _DECIDED)]
    for name in options:
        if name in _DECIDED:
            raise RecordingError(f"option {name!r} of autobatch", f"one of {', '.join(known)}", _DECIDED[name])
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else ""
            raise RecordingError(f"unknown option {name!r} of autobatch", f"one of {', '.join(known)}", hint)
    if "target" in options:
        find_backend(options["target"])
    if "plan" in options:
        resolve_plan(options["plan"])
    policy = options.get("policy", "auto")
    if isinstance(policy, str) and policy != "auto" and not policy.endswith(".json"):
        get_policy(policy)

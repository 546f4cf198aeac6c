"""edbatch-tvm: automatic batching for dynamic neural networks on Apache TVM.

``import edbatch_tvm as eb`` is cheap: what needs TVM is imported when it is first used (PEP 562).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edbatch_tvm import losses
    from edbatch_tvm.batching import (
        FsmPolicy,
        Schedule,
        ScheduleInfo,
        check_schedule,
        learn_policy,
        load_policy,
        lower_bound,
        policy_names,
        register_policy,
        save_policy,
        schedule,
    )
    from edbatch_tvm.compiler import cells_from_nn, cells_from_torch, emit_source
    from edbatch_tvm.compiler import compile_model as compile
    from edbatch_tvm.compiler import load_model as load
    from edbatch_tvm.errors import EdbatchError
    from edbatch_tvm.explanation import Explanation, explain
    from edbatch_tvm.graph import Builder, InstanceGraph, Signature, merge, validate
    from edbatch_tvm.memory import Plan, PQTree, plan_memory
    from edbatch_tvm.recording import AutoBatched, autobatch
    from edbatch_tvm.runtime import Model, Report, Result
    from edbatch_tvm.runtime.threads import get_num_threads, set_num_threads
    from edbatch_tvm.training import register_gradient
    from edbatch_tvm.tuning.model import TuneReport, tune

__version__ = "0.1.0"

_HOME = {
    "AutoBatched": "recording",
    "Builder": "graph",
    "EdbatchError": "errors",
    "Explanation": "explanation",
    "FsmPolicy": "batching",
    "InstanceGraph": "graph",
    "Model": "runtime",
    "PQTree": "memory",
    "Plan": "memory",
    "Report": "runtime",
    "Result": "runtime",
    "Schedule": "batching",
    "ScheduleInfo": "batching",
    "Signature": "graph",
    "TuneReport": "tuning.model",
    "autobatch": "recording",
    "cells_from_nn": "compiler",
    "cells_from_torch": "compiler",
    "check_schedule": "batching",
    "emit_source": "compiler",
    "explain": "explanation",
    "get_num_threads": "runtime.threads",
    "learn_policy": "batching",
    "load_policy": "batching",
    "lower_bound": "batching",
    "merge": "graph",
    "plan_memory": "memory",
    "policy_names": "batching",
    "register_gradient": "training",
    "register_policy": "batching",
    "save_policy": "batching",
    "schedule": "batching",
    "set_num_threads": "runtime.threads",
    "tune": "tuning.model",
    "validate": "graph",
}

_RENAMED = {"compile": "compile_model", "load": "load_model"}

__all__ = [
    "AutoBatched",
    "Builder",
    "EdbatchError",
    "Explanation",
    "FsmPolicy",
    "InstanceGraph",
    "Model",
    "PQTree",
    "Plan",
    "Report",
    "Result",
    "Schedule",
    "ScheduleInfo",
    "Signature",
    "TuneReport",
    "autobatch",
    "cells_from_nn",
    "cells_from_torch",
    "check_schedule",
    "compile",
    "emit_source",
    "explain",
    "get_num_threads",
    "learn_policy",
    "load",
    "load_policy",
    "losses",
    "lower_bound",
    "merge",
    "plan_memory",
    "policy_names",
    "register_gradient",
    "register_policy",
    "save_policy",
    "schedule",
    "set_num_threads",
    "tune",
    "validate",
]


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        value = getattr(import_module("edbatch_tvm.compiler"), _RENAMED[name])
    elif name == "losses":
        value = import_module("edbatch_tvm.losses")
    elif name in _HOME:
        value = getattr(import_module(f"edbatch_tvm.{_HOME[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

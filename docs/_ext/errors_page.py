"""The page of errors: written when the site is built, from the classes themselves and from errors that are raised."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from edbatch_tvm import errors
from edbatch_tvm.errors import EdbatchError

HEAD = """# Errors

Every error that is raised on purpose derives from `EdbatchError`, so that a caller can catch them without catching
bugs, and the command line prints one line. A message says what was *given* and where, what was *expected*, and, where
there is one thing to do, a *hint*:

    GIVEN; expected EXPECTED (hint: HINT)

The three parts are attributes of the error, too. The messages below were raised when this page was built.
"""


def _bad_graph() -> Any:
    from edbatch_tvm.graph import InstanceGraph

    return InstanceGraph.from_arrays([0, 0, 1], [0, 0, 1, 2], [2, 1])


def _bad_call() -> Any:
    from edbatch_tvm.graph import Builder, CellSignature, Operand, Signature, ValueSpec

    cell = CellSignature("node", (Operand("h", ValueSpec((4,))),), (), (ValueSpec((4,)),))
    return Builder(Signature([cell])).call("leaf")


def _bad_weights() -> Any:
    from edbatch_tvm.compiler import compile_model
    from edbatch_tvm.models import get_workload

    return compile_model(get_workload("treegru").cells(4), {})


def _bad_policy() -> Any:
    from edbatch_tvm.batching import get_policy

    return get_policy("fastest")


def _bad_plan() -> Any:
    from edbatch_tvm.memory import resolve_plan

    return resolve_plan("dense")


def _bad_recording() -> Any:
    from edbatch_tvm.recording import autobatch

    return autobatch(object(), ["leaf"])


def _bad_config() -> Any:
    from schedules.cpu.stage_config import StageConfig

    return StageConfig.from_json([])


def _bad_database() -> Any:
    from edbatch_tvm.compiler import compile_model
    from edbatch_tvm.models import get_workload

    workload = get_workload("treegru")
    return compile_model(workload.cells(4), workload.weights(4, 0), database="missing")


def _bad_data() -> Any:
    from edbatch_tvm.graph import parse_graph

    return parse_graph("instance\n  %0 = 7()\n  %2 = 7()")


def _bad_model_file() -> Any:
    from edbatch_tvm.compiler import load_model

    return load_model(__file__)


def _bad_target() -> Any:
    from edbatch_tvm.backends import find_backend

    return find_backend("abacus")


def _bad_workload() -> Any:
    from edbatch_tvm.models import get_workload

    return get_workload("transformer")


def _bad_environment() -> Any:
    from edbatch_tvm.tvm_version import require_tvm

    with mock.patch("importlib.metadata.version", return_value="0.1"):
        return require_tvm()


EXAMPLES: dict[str, Callable[[], Any]] = {
    "EdbatchError": _bad_workload,
    "GraphError": _bad_graph,
    "CellError": _bad_call,
    "WeightError": _bad_weights,
    "PolicyError": _bad_policy,
    "PlanError": _bad_plan,
    "RecordingError": _bad_recording,
    "ConfigError": _bad_config,
    "DatabaseError": _bad_database,
    "DataError": _bad_data,
    "ModelFileError": _bad_model_file,
    "TargetError": _bad_target,
    "EnvironmentMismatch": _bad_environment,
}
"""For each class, something that raises it."""


def error_classes() -> list[type[EdbatchError]]:
    """The classes of :mod:`edbatch_tvm.errors`, in the order of the file."""
    return [one for one in vars(errors).values() if inspect.isclass(one) and issubclass(one, EdbatchError)]


def example(cls: type[EdbatchError]) -> str:
    """The message of an error of exactly this class."""
    try:
        EXAMPLES[cls.__name__]()
    except EdbatchError as error:
        if type(error) is cls:
            return str(error)
        raise
    raise AssertionError(f"the example of {cls.__name__} raises nothing")


def _shown(cls: type[EdbatchError]) -> str:
    """An example as Markdown; none where there is none yet, so that a new class does not break the site."""
    return f"```text\n{example(cls)}\n```\n" if cls.__name__ in EXAMPLES else ""


def page() -> str:
    """The page in Markdown."""
    parts = [HEAD]
    for cls in error_classes():
        bases = ", ".join(f"`{base.__name__}`" for base in cls.__bases__)
        text = (inspect.getdoc(cls) or "").split("\n\n")[0]
        parts.append(f"## {cls.__name__}\n\n{text} Derives from {bases}.\n\n{_shown(cls)}")
    return "\n".join(parts)


def setup(app: Any) -> dict[str, Any]:
    """Write the page before Sphinx reads its sources."""

    def write(app: Any) -> None:
        path = Path(app.srcdir) / "generated" / "errors.md"
        path.parent.mkdir(exist_ok=True)
        text = page()
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")

    app.connect("builder-inited", write)
    return {"parallel_read_safe": True}

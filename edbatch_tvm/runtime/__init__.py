"""Runtime: arenas, executor, report."""

from edbatch_tvm.runtime.model import Model
from edbatch_tvm.runtime.report import Report
from edbatch_tvm.runtime.result import Result

__all__ = ["Model", "Report", "Result"]

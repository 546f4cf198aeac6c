"""What was batched, what not, and why; how it was read and what it cost: tables, a page, a trace.

The package is not called ``explain``: that name is the function :func:`edbatch_tvm.explain`.
"""

from edbatch_tvm.tvm_version import require_tvm

require_tvm()

from edbatch_tvm.explanation.explain import explain  # noqa: E402  (TVM must not be imported before the check)
from edbatch_tvm.explanation.record import (  # noqa: E402
    BatchExplanation,
    CellExplanation,
    Explanation,
    TrainingExplanation,
)

__all__ = ["BatchExplanation", "CellExplanation", "Explanation", "TrainingExplanation", "explain"]

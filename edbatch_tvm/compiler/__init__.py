"""From cells and weights to a model.

The package is not called ``compile``: that name is the function :func:`edbatch_tvm.compile`.
"""

from edbatch_tvm.tvm_version import require_tvm

require_tvm()

from edbatch_tvm.compiler.compile import compile_model  # noqa: E402  (TVM must not be imported before the check)
from edbatch_tvm.compiler.serialization import load_model, save_model  # noqa: E402
from edbatch_tvm.compiler.source import emit_source  # noqa: E402
from relay_ext.from_nn import cells_from_nn  # noqa: E402
from relay_ext.from_torch import cells_from_torch  # noqa: E402

__all__ = ["cells_from_nn", "cells_from_torch", "compile_model", "emit_source", "load_model", "save_model"]

"""From cells and weights to a model.

The package is not called ``compile``: that name is the function :func:`edbatch_tvm.compile`.
"""

from edbatch_tvm.tvm_version import require_tvm

require_tvm()

from edbatch_tvm.compiler.compile import compile_model  # noqa: E402  (TVM must not be imported before the check)

__all__ = ["compile_model"]

"""Targets: one class per file, found by name.

``backend`` is what a target has to offer, ``options`` what a caller chooses; ``cpu``, ``cuda`` and ``cuda_emulated``
are the targets. Compiling, loading, tuning and the command line ask the backend that :func:`find_backend` gives, never
which target it is.
"""

from edbatch_tvm.tvm_version import require_tvm

require_tvm()

from edbatch_tvm.backends.backend import Backend, TargetLike  # noqa: E402  (TVM must not be imported before the check)
from edbatch_tvm.backends.cpu import CpuBackend  # noqa: E402
from edbatch_tvm.backends.cuda import CudaBackend  # noqa: E402
from edbatch_tvm.backends.cuda_emulated import EmulatedBackend  # noqa: E402
from edbatch_tvm.backends.numpy_interpreter import NumpyBackend  # noqa: E402
from edbatch_tvm.backends.options import GRANULARITIES, CompileOptions  # noqa: E402
from edbatch_tvm.backends.registry import backend_names, find_backend, register_backend  # noqa: E402

for _one in (CpuBackend, CudaBackend, EmulatedBackend, NumpyBackend):
    register_backend(_one)

__all__ = [
    "GRANULARITIES",
    "Backend",
    "CompileOptions",
    "TargetLike",
    "backend_names",
    "find_backend",
    "register_backend",
]

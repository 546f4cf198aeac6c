"""Tuning of a model's kernels, on the batch sizes of real data.

Reading order: ``histogram`` (which batch sizes matter), ``tunable_kernels`` (those of a module), ``run``,
``verify`` (what is kept only if it is right and faster), ``workload`` (the same for a workload and its data).
"""

from edbatch_tvm.tvm_version import require_tvm

require_tvm()

from edbatch_tvm.tuning.model.tune import TuneReport, tune  # noqa: E402  (TVM must not be imported before the check)

__all__ = ["TuneReport", "tune"]

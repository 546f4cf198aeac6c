"""Models that train: the adjoints of the cells, compiled as the cells are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tvm import IRModule

from edbatch_tvm.backends import CompileOptions, TargetLike
from edbatch_tvm.errors import TargetError
from edbatch_tvm.runtime.model import Model
from edbatch_tvm.training import TrainingModel
from relay_ext.bind_sizes import BindSizes, find_sizes
from relay_ext.gradients.adjoint_cells import adjoint_cells
from relay_ext.pipeline import run_passes
from relay_ext.push_splits import PushSplits


def for_training(
    model: Model,
    mod: IRModule,
    params: Mapping[str, Any] | None,
    sizes: Mapping[str, int] | None,
    target: TargetLike,
    options: CompileOptions,
) -> TrainingModel:
    """A compiled model with a backward pass.

    Raises
    ------
    NoGradientError
        If an operator of a cell has no gradient; it names both.
    TargetError
        If the model is not for a CPU, or below granularity ``cell``.
    """
    from edbatch_tvm.compiler.compile import compile_model

    if options.granularity != "cell" or model.target not in ("llvm", "numpy"):
        raise TargetError(
            f"training on target {model.target!r} at granularity {options.granularity!r}",
            "target 'llvm' and granularity 'cell'",
        )
    # A gate by itself has an adjoint that is a stage; where the gates are split, theirs are joined, which is none.
    adjoints = adjoint_cells(run_passes(mod, [BindSizes(find_sizes(mod, params, sizes)), PushSplits()]))

    def compile_backward(cells: IRModule, weights: Mapping[str, Any]) -> Model:
        return compile_model(
            cells, weights, target, policy="agenda", database=options.database, fast_math=options.fast_math
        )

    return TrainingModel(model, adjoints, compile_backward)

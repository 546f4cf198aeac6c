"""Models that train: the adjoints of the cells, compiled as the cells are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tvm import IRModule

from edbatch_tvm.argument_checks import require_choice
from edbatch_tvm.backends import CompileOptions, TargetLike
from edbatch_tvm.errors import PlanError, TargetError
from edbatch_tvm.graph import Signature
from edbatch_tvm.runtime.model import Model
from edbatch_tvm.training import TrainingModel
from edbatch_tvm.tvm_compat import tirx
from relay_ext.bind_sizes import BindSizes, find_sizes
from relay_ext.change_cell_dtype import ChangeCellDtype
from relay_ext.check_cells import CheckCells
from relay_ext.gradients.adjoint_cells import Adjoints, adjoint_cells
from relay_ext.pipeline import run_passes
from relay_ext.push_splits import PushSplits

MEMORY = ("auto", "save", "recompute")
"""What the backward pass reads of the forward pass: values that were saved, or such as are computed again."""


def differentiate(
    mod: IRModule,
    params: Mapping[str, Any] | None,
    sizes: Mapping[str, int] | None,
    options: CompileOptions,
    memory: str,
) -> Adjoints:
    """The adjoints of cells.

    Raises
    ------
    NoGradientError
        If an operator of a cell has no gradient; it names both.
    TargetError
        If the model is below granularity ``cell``.
    PlanError
        If `memory` is unknown.
    """
    require_choice("memory", memory, MEMORY, PlanError)
    if options.granularity != "cell":
        raise TargetError(f"training at granularity {options.granularity!r}", "granularity 'cell'")
    # A gate by itself has an adjoint that is a stage; where the gates are split, theirs are joined, which is none.
    dtype = [ChangeCellDtype("float64")] if options.dtype == "float64" else []
    passes = [CheckCells(), BindSizes(find_sizes(mod, params, sizes)), *dtype, PushSplits()]
    cells = run_passes(mod, passes)
    # A pass removes functions that nothing calls; a registered gradient may call them.
    tir = {var: function for var, function in mod.functions.items() if isinstance(function, tirx.PrimFunc)}
    functions = {var: function for var, function in tir.items() if var not in cells.functions}
    cells = IRModule(dict(cells.functions.items()) | functions, attrs=cells.attrs)
    return adjoint_cells(cells, save=memory != "recompute")


def training_model(forward: Model, adjoints: Adjoints, target: TargetLike, options: CompileOptions) -> TrainingModel:
    """The forward cells of `adjoints`, compiled, as a model with a backward pass."""
    from edbatch_tvm.compiler.compile import compile_model

    def compile_backward(cells: IRModule, weights: Mapping[str, Any]) -> Model:
        return compile_model(
            cells,
            weights,
            target,
            policy="agenda",
            launch=options.launch,
            dtype=options.dtype,
            database=options.database,
            fast_math=options.fast_math,
        )

    own = (replace(cell, outputs=cell.outputs[: adjoints.cells[cell.name].outputs]) for cell in forward.signature)
    return TrainingModel(forward, Signature(own), adjoints, compile_backward)

"""Models that train: the adjoints of the cells, compiled as the cells are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tvm import IRModule

from edbatch_tvm.argument_checks import require_choice
from edbatch_tvm.backends import CompileOptions, TargetLike
from edbatch_tvm.errors import PlanError, TargetError
from edbatch_tvm.graph import Signature
from edbatch_tvm.runtime.model import Model
from edbatch_tvm.runtime.weights import WeightReader
from edbatch_tvm.training import TrainingModel
from edbatch_tvm.training.product_rows import ProductRows, unfilled
from edbatch_tvm.tvm_compat import tirx
from relay_ext.bind_sizes import BindSizes, find_sizes
from relay_ext.change_cell_dtype import ChangeCellDtype
from relay_ext.check_cells import CheckCells
from relay_ext.gradients.adjoint_cells import Adjoints, adjoint_cells
from relay_ext.pipeline import run_passes
from relay_ext.push_splits import PushSplits
from relay_ext.signature import weights_of
from relay_ext.split_cells import SplitModule, split_cells
from relay_ext.tabulate_products import DerivedWeight, TabulateProducts, rows_read, tabulate_products

MEMORY = ("auto", "save", "recompute")
"""What the backward pass reads of the forward pass: values that were saved, or such as are computed again."""


@dataclass(frozen=True, eq=False)
class Differentiated:
    """What a model that trains is made of.

    Attributes
    ----------
    adjoints : Adjoints
        Of the cells, or of their operators.
    weights : WeightReader
        Of the cells.
    split : SplitModule or None
        The operators that the cells consist of, at granularity ``op``.
    derived : tuple of DerivedWeight
        Tables of products that the cells read; `weights` are those that they were written with.
    """

    adjoints: Adjoints
    weights: WeightReader
    split: SplitModule | None
    derived: tuple[DerivedWeight, ...] = ()

    def weights_of_cells(self) -> dict[str, Any]:
        """The weights that the cells that run read, or the operators; zeros for tables of products.

        Raises
        ------
        WeightError
            If weights of the cells are missing, extra, or of another shape or dtype.
        """
        self.weights.read()
        read = weights_of(self.adjoints.forward)
        own = {name: array for name, array in (self.weights.given or {}).items() if name in read}
        return own | {one.name: unfilled(one, self.weights.wanted) for one in self.derived}


def differentiate(
    mod: IRModule,
    params: Mapping[str, Any] | None,
    sizes: Mapping[str, int] | None,
    options: CompileOptions,
    memory: str,
) -> Differentiated:
    """The adjoints of cells, or of the operators that they consist of.

    Raises
    ------
    NoGradientError
        If an operator of a cell has no gradient; it names both.
    TargetError
        If the model is of granularity ``group``, or not fused.
    PlanError
        If `memory` is unknown.
    """
    require_choice("memory", memory, MEMORY, PlanError)
    if options.granularity not in ("cell", "op"):
        raise TargetError(f"training at granularity {options.granularity!r}", "granularity 'cell' or 'op'")
    if not options.fused:
        raise TargetError("training with fused=False", "fused=True")
    if options.product_tables and memory == "recompute":
        raise PlanError("product_tables with memory='recompute'", "memory='save'", "tables are not there any more")
    # A gate by itself has an adjoint that is a stage; where the gates are split, theirs are joined, which is none.
    dtype = [ChangeCellDtype("float64")] if options.dtype == "float64" else []
    cells = run_passes(mod, [CheckCells(), BindSizes(find_sizes(mod, params, sizes)), *dtype])
    weights = WeightReader(weights_of(cells), params or {})
    derived: tuple[DerivedWeight, ...] = ()
    if options.product_tables:
        derived = tabulate_products(cells, options.product_tables, for_training=True)[1]
        cells = run_passes(cells, [TabulateProducts(options.product_tables, for_training=True)])
    if options.granularity == "cell":
        cells = run_passes(cells, [PushSplits()])
    # A pass removes functions that nothing calls; a registered gradient may call them.
    tir = {var: function for var, function in mod.functions.items() if isinstance(function, tirx.PrimFunc)}
    functions = {var: function for var, function in tir.items() if var not in cells.functions}
    cells = IRModule(dict(cells.functions.items()) | functions, attrs=cells.attrs)
    split = split_cells(cells) if options.granularity == "op" else None
    products = [one.name for one in derived]
    adjoints = adjoint_cells(cells if split is None else split.module, memory != "recompute", products)
    return Differentiated(adjoints, weights, split, derived)


def training_model(
    forward: Model, differentiated: Differentiated, target: TargetLike, options: CompileOptions
) -> TrainingModel:
    """The forward cells of what was differentiated, compiled, as a model with a backward pass."""
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

    adjoints, split = differentiated.adjoints, differentiated.split
    own = Signature(
        replace(cell, outputs=cell.outputs[: adjoints.cells[cell.name].outputs]) for cell in forward.signature
    )
    written = differentiated.weights
    if (split is not None or differentiated.derived) and forward.weights is not None:
        # Weights that no operator reads are weights of the cells all the same.
        forward.weights = replace(forward.weights, wanted=written.wanted, given=written.given)
    products = None
    if differentiated.derived:
        products = ProductRows(
            differentiated.derived,
            rows_read(adjoints.forward, differentiated.derived),
            forward.signature,
            written.wanted,
            compile_backward,
        )
    return TrainingModel(
        forward, own, adjoints, compile_backward, None if split is None else split.table(own), products
    )

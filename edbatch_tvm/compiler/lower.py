"""From cells and weights to what a backend builds: every compilation goes through here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tvm import IRModule

from edbatch_tvm.backends import Backend, CompileOptions
from edbatch_tvm.compiler.progress import Progress
from edbatch_tvm.graph.expand import ExpansionTable
from edbatch_tvm.graph.spec import Signature
from edbatch_tvm.runtime.compilation_cache import KeptCells, find, key_of
from edbatch_tvm.runtime.weights import WeightReader
from relay_ext.bind_sizes import find_sizes
from relay_ext.fuse_cells import cell_constants
from relay_ext.index_bounds import with_bounds, with_index_bounds
from relay_ext.lift_weights import lift_weights
from relay_ext.pipeline import PassRun, node_passes, source_passes
from relay_ext.signature import signature_of, weights_of
from relay_ext.split_cells import split_cells
from relay_ext.tabulate_products import TabulateProducts, tabulate_products, with_derived


@dataclass(frozen=True, eq=False)
class Lowered:
    """Cells after all passes, and what was found out on the way.

    Attributes
    ----------
    module : IRModule
        What the backend builds; `nodes`, where `compiled` is there instead.
    nodes : IRModule
        The cells that are the nodes of graphs.
    signature : Signature
        Of `nodes`, with the bounds of their indices.
    table : ExpansionTable or None
        How graphs of the cells as written become graphs of `nodes`, where these are others.
    weights : WeightReader
    arrays : dict of str to array
        What `weights` reads.
    key : str or None
        What compiled cells are kept under; None if they are not.
    compiled : KeptCells or None
        The compiled cells, where an earlier process kept them, or the backend compiles them one by one.
    found : bool
        Whether an earlier process kept them.
    """

    module: IRModule
    nodes: IRModule
    signature: Signature
    table: ExpansionTable | None
    weights: WeightReader
    arrays: dict[str, np.ndarray]
    key: str | None = None
    compiled: KeptCells | None = None
    found: bool = False


def lower_cells(
    mod: IRModule,
    params: Mapping[str, Any] | None,
    backend: Backend,
    options: CompileOptions,
    sizes: Mapping[str, int] | None = None,
    dump_dir: str | Path | None = None,
    progress: Progress | None = None,
    reuse: bool = False,
) -> Lowered:
    """Run :func:`relay_ext.pipeline.pipeline` over `mod`.

    Parameters
    ----------
    params : mapping of str to array, optional
        Without weights, none are read.
    progress : Progress, optional
        Told of each pass before it runs.
    reuse : bool
        Take over what was compiled before; not where the module after each pass is wanted.

    Raises
    ------
    CellError
        If a cell cannot be batched, or a symbolic size is unknown or ambiguous.
    WeightError
        If weights are missing, extra, or of another shape or dtype.
    DatabaseError
        If `options.database` has no readable records of this device.
    """
    run = PassRun(mod, dump_dir, progress)
    to_bound = source_passes(find_sizes(mod, params, sizes), options.dtype)
    to_nodes = node_passes(options.granularity)
    if progress is not None:
        progress.expect(len(to_bound) + len(to_nodes))
    bound = run(to_bound)
    weights = WeightReader(weights_of(bound), params or {})
    arrays = {} if params is None else weights.read() or {}  # refused before the passes, which take longer
    if options.product_tables:
        derived = tabulate_products(bound, options.product_tables)[1]  # once more: a pass returns the module alone
        bound = run([TabulateProducts(options.product_tables)])
        wanted = weights_of(bound)
        weights = replace(weights, derived=derived, read_by_cells=tuple(wanted))
        arrays = with_derived(derived, arrays, wanted) if params is not None else {}
    nodes = run(to_nodes)
    signature = signature_of(nodes)
    reuse = reuse and dump_dir is None
    choices = backend.choices(options) if reuse else None
    key = None if choices is None else key_of(nodes, choices)
    kept = None if key is None else find(key)
    compiled = kept if kept is not None or not reuse else backend.compile_cells(nodes, signature, options, progress)
    if compiled is not None:
        module, constants = nodes, compiled.constants
        signature = with_bounds(signature, compiled.bounds)
    else:
        passes = backend.passes(signature, options)
        if progress is not None:
            progress.expect(len(passes))
        module = run(passes)
        constants = {name: tensor.numpy() for name, tensor in cell_constants(run.after["LegalizeCells"]).items()}
        signature = with_index_bounds(signature, run.after["GuardIndices"])
    grouped = run.after.get("GroupOps")
    weights = replace(weights, grouped=grouped, constants=constants)
    if grouped is not None and params is not None:
        arrays = lift_weights(grouped, arrays)[1]
    table = None
    if options.granularity != "cell":
        # The same ops again: the pass leaves the module, this what the cells consist of.
        table = split_cells(run.after.get("LiftWeights", bound), fold_views=grouped is not None).table(signature)
    return Lowered(module, nodes, signature, table, weights, arrays | constants, key, compiled, kept is not None)

"""Products of rows of tables with weights, once a minibatch for each row that it reads.

Cells read such products from tables (:class:`relay_ext.tabulate_products.TabulateProducts`), of which a forward pass
fills in the rows that its nodes read and that are not there since the weights were taken over. A backward pass sums
the gradients of each row over the nodes that read it, as for any table; one product with the weight then gives the
gradient of the table's row, and one product of all rows that of the weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from tvm import IRModule, relax
from tvm.relax import op as R

from edbatch_tvm.graph import InstanceGraph
from edbatch_tvm.graph.spec import Signature, ValueSpec
from edbatch_tvm.runtime.cpu_executor import CpuExecutor
from edbatch_tvm.runtime.executor import Executor
from edbatch_tvm.runtime.model import Model
from edbatch_tvm.runtime.weights import WeightReader
from edbatch_tvm.training.compiled_sums import product_tables
from edbatch_tvm.training.gradient_kernel import GradientKernels
from edbatch_tvm.training.gradient_layout import DTYPES
from edbatch_tvm.training.loose_batches import LooseBatches
from edbatch_tvm.training.row_sources import padded_rows
from edbatch_tvm.training.weight_sums import Sums
from edbatch_tvm.tvm_compat import TensorType
from relay_ext.gradients.weight_expressions import WeightExpression
from relay_ext.renaming import module_of
from relay_ext.tabulate_products import DerivedWeight
from schedules.abi import padded

ROW = "row"
"""The attribute of cells that multiply a row of a table."""


class ProductRows:
    """Fills in tables of products, and takes their gradients back to what was multiplied.

    Parameters
    ----------
    derived : sequence of DerivedWeight
        The tables.
    reads : mapping of str to list of (str, str)
        Which cells read each table, by which attributes.
    cells : Signature
    specs : mapping of str to ValueSpec
        Of all weights as written.
    compile_cells : callable
        Compiles cells, with the options of the model.

    Attributes
    ----------
    expressions : dict of str to WeightExpression
        The parts of weights that :meth:`pull_back` finds gradients of.
    """

    def __init__(
        self,
        derived: Sequence[DerivedWeight],
        reads: Mapping[str, Sequence[tuple[str, str]]],
        cells: Signature,
        specs: Mapping[str, ValueSpec],
        compile_cells: Callable[[IRModule, Mapping[str, Any]], Model],
    ) -> None:
        self.derived = tuple(derived)
        self.expressions = {}
        for one in self.derived:
            extents = specs[one.weight].shape
            part = tuple(slice(*own.indices(extent)) for own, extent in zip(one.part, extents, strict=True))
            self.expressions[f"{one.name}.factor"] = WeightExpression((one.weight,), None, part)
        self._reads = {
            name: tuple((cells.type_id(cell), attribute) for cell, attribute in some) for name, some in reads.items()
        }
        self._specs = specs
        self._compile_cells = compile_cells
        self._weights: Mapping[str, np.ndarray] = {}
        self._batches: LooseBatches | None = None

    def attached(self, weights: WeightReader, executor: Executor) -> WeightReader:
        """The reader of the weights of a model that reads these tables and runs on an executor.

        On a CPU it has no numbers for them; elsewhere they are computed whenever weights are read.
        """
        every = (*weights.wanted, *(one.name for one in self.derived))
        reader = replace(weights, derived=self.derived, read_by_cells=every)
        if not isinstance(executor, CpuExecutor):
            return reader
        executor.kernels.filled_later = frozenset(one.name for one in self.derived)
        used = {name: (weights.given or {})[name] for one in self.derived for name in (one.table, one.weight)}
        self._batches = LooseBatches(self._compile_cells(product_cells(self.derived, self._specs), used))
        return replace(reader, compute=lambda one, _: unfilled(one, self._specs))

    def load(self, weights: Mapping[str, np.ndarray], rows: Mapping[str, np.ndarray]) -> None:
        """Take over the weights that the model has read."""
        self._weights = weights
        if self._batches is not None:
            taken = self._batches.model.take_over(weights, rows)
            assert taken

    def fill(self, graph: InstanceGraph, executor: Executor) -> dict[str, tuple[int, int]]:
        """Fill in the rows that nodes of a graph read.

        Returns
        -------
        dict of str to (int, int)
            For each table, how often nodes read it and how many of its rows.
        """
        counts, wanted = {}, {}
        known: dict[tuple[str, tuple[tuple[int, str], ...]], tuple[int, np.ndarray]] = {}
        for place, one in enumerate(self.derived):
            key = one.table, self._reads[one.name]
            if key not in known:
                known[key] = self._rows_read(graph, *key)
            times, wanted[place] = known[key]
            counts[one.name] = times, len(wanted[place])
        self._fill(wanted, executor)
        return counts

    def fill_all(self, executor: Executor) -> None:
        """Fill in all rows."""
        self._fill(
            {place: np.arange(self._specs[one.table].shape[0]) for place, one in enumerate(self.derived)}, executor
        )

    def _fill(self, wanted: Mapping[int, np.ndarray], executor: Executor) -> None:
        """Compute the rows that are not there yet, for each table by its number."""
        if self._batches is None:
            return
        assert isinstance(executor, CpuExecutor)
        loaded = executor.kernels.loaded
        missing = {}
        for place, rows in wanted.items():
            one = self.derived[place]
            if one.name not in loaded.filled:
                loaded.filled[one.name] = np.zeros(self._specs[one.table].shape[0], bool)
            own = rows[~loaded.filled[one.name][rows]]
            if len(own):
                missing[place] = own
        found = self._batches.run([(f"product{place}", rows) for place, rows in missing.items()])
        for (place, rows), products in zip(missing.items(), found, strict=True):
            name = self.derived[place].name
            for table in executor.kernels.rooms(loaded, name):
                table[rows, : products.shape[1]] = products
            loaded.filled[name][rows] = True

    def _rows_read(self, graph: InstanceGraph, table: str, reads: Sequence[tuple[int, str]]) -> tuple[int, np.ndarray]:
        """How often nodes read a table by some attributes, and which rows of it, rising."""
        is_read, times = np.zeros(self._specs[table].shape[0], bool), 0
        for key in reads:
            index = graph.attributes.get(key)
            if index is not None:
                is_read[index] = True
                times += len(index)
        return times, np.flatnonzero(is_read)

    def pull_back(self, sums: dict[str, Sums], kernels: GradientKernels | None) -> None:
        """Replace the gradients of rows of products by those of what was multiplied."""
        found = [(place, one, sums.pop(one.name)) for place, one in enumerate(self.derived) if one.name in sums]
        rows = [(f"pullback{place}", own.rows) for place, _, own in found if own.rows is not None]
        if self._batches is not None:
            of_rows = self._batches.run(rows)
        else:
            of_rows = [own @ one.factor(self._weights).T for (_, own), (_, one, _) in zip(rows, found, strict=True)]
        for (_, one, own), of_table in zip(found, of_rows, strict=True):
            assert own.index is not None
            assert own.rows is not None
            sums.setdefault(one.table, Sums()).add_rows(own.index, np.array(of_table))
            of_factor = self._of_factor(one, own.index, own.rows, kernels)
            of_factor = of_factor.T if one.transposed else of_factor
            whole = sums.get(one.weight)
            if whole is not None and whole.dense is not None:
                whole.dense.reshape(self._specs[one.weight].shape)[one.part] += of_factor
            else:
                sums[f"{one.name}.factor"] = Sums(dense=of_factor)

    def _of_factor(
        self, one: DerivedWeight, index: np.ndarray, rows: np.ndarray, kernels: GradientKernels | None
    ) -> np.ndarray:
        """The gradient of the rows of a weight that rows of a table are multiplied by."""
        if kernels is None or self._batches is None or str(rows.dtype) not in DTYPES:
            product: np.ndarray = self._weights[one.table][index].T @ rows
            return product
        kernel = kernels.of(str(rows.dtype))
        table, width = self._batches.table(one.table), self._specs[one.table].shape[1]
        if table.shape[1] != padded(width):
            table, index = padded_rows(table[index]), np.arange(len(index))
        right = rows if rows.shape[1] == padded(rows.shape[1]) else padded_rows(rows)
        tables, product = product_tables(kernel, table[:, :width], index, right, np.arange(len(rows)))
        kernel.run(tables)
        return product


def unfilled(one: DerivedWeight, specs: Mapping[str, ValueSpec]) -> np.ndarray:
    """Zeros in place of a table of products whose rows are computed later; they take no memory."""
    spec = one.spec(specs)
    return np.broadcast_to(np.zeros((), spec.dtype), spec.shape)


def product_cells(derived: Sequence[DerivedWeight], specs: Mapping[str, ValueSpec]) -> IRModule:
    """Cells ``product<i>``: a row of a table times rows of a weight; ``pullback<i>``: a row times their transpose."""
    functions = {}
    for place, one in enumerate(derived):
        functions[f"product{place}"] = _product(one, specs)
        functions[f"pullback{place}"] = _pullback(one, specs)
    return module_of(functions)


def _product(one: DerivedWeight, specs: Mapping[str, ValueSpec]) -> relax.Function:
    row = relax.Var(ROW, TensorType((), "int32"))
    table, weight = _weight(one.table, specs), _weight(one.weight, specs)
    rows = R.permute_dims(weight) if one.transposed else weight
    part = R.strided_slice(rows, [0], [one.begin], [one.end])
    return _cell([row, table, weight], lambda: R.matmul(R.take(table, row, axis=0), part))


def _pullback(one: DerivedWeight, specs: Mapping[str, ValueSpec]) -> relax.Function:
    spec = one.spec(specs)
    gradient = relax.Var("gradient", TensorType(spec.shape[1:], spec.dtype))
    weight = _weight(one.weight, specs)
    part = R.strided_slice(weight, [int(one.transposed)], [one.begin], [one.end])
    return _cell([gradient, weight], lambda: R.matmul(gradient, part if one.transposed else R.permute_dims(part)))


def _weight(name: str, specs: Mapping[str, ValueSpec]) -> relax.Var:
    return relax.Var(name, TensorType(specs[name].shape, specs[name].dtype))


def _cell(params: Sequence[relax.Var], compute: Callable[[], Any]) -> relax.Function:
    """A cell whose first parameter is that of the node."""
    builder = relax.BlockBuilder()
    with builder.function("cell", list(params), {"num_input": 1}):
        with builder.dataflow():
            result = builder.emit_output(compute())
        builder.emit_func_output(result)
    return builder.finalize()["cell"]

"""Pass: the product of a table's row with a weight becomes a row of a table of products, which is computed at load."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import tvm
from tvm import IRModule, relax
from tvm.relax import op as R

from edbatch_tvm.graph.spec import ValueSpec
from edbatch_tvm.tvm_compat import TensorType, structural_map
from relay_ext.signature import cell_functions, input_attrs, input_params, weight_params, weights_of

LEAST_COLUMNS = 32
"""Products of shorter rows are left: reading a row of the result from memory takes as long as computing it."""

LEAST_IN_TRAINING = 192
"""The same in training, where rows of products and of their gradients are written and read several times a step."""


@dataclass(frozen=True)
class DerivedWeight:
    """A weight that is computed from others.

    Attributes
    ----------
    name : str
    weight : str
    begin, end : int
        Which of its rows.
    transposed : bool
        Whether these are rows of its transpose.
    table : str
        What is multiplied by them; empty: nothing, they are the new weight.
    """

    name: str
    weight: str
    begin: int
    end: int
    transposed: bool
    table: str = ""

    def spec(self, specs: Mapping[str, ValueSpec]) -> ValueSpec:
        """Shape and dtype, by those of the others."""
        shape = specs[self.weight].shape[::-1] if self.transposed else specs[self.weight].shape
        rows = specs[self.table].shape[0] if self.table else self.end - self.begin
        return ValueSpec((rows, shape[1]), specs[self.weight].dtype)

    @property
    def part(self) -> tuple[slice, slice]:
        """The part of the weight that these rows are, axis by axis."""
        rows = slice(self.begin, self.end)
        return (slice(None), rows) if self.transposed else (rows, slice(None))

    def factor(self, weights: Mapping[str, np.ndarray]) -> np.ndarray:
        """The rows of the weight, or of its transpose."""
        part = weights[self.weight][self.part]
        return part.T if self.transposed else part

    def compute(self, weights: Mapping[str, np.ndarray]) -> np.ndarray:
        """Its value, by those of the others."""
        rows = self.factor(weights)
        found: np.ndarray = np.ascontiguousarray(weights[self.table] @ rows if self.table else rows)
        return found

    def as_json(self) -> dict[str, Any]:
        """As a dict of plain values."""
        return asdict(self)


def with_derived(
    derived: Sequence[DerivedWeight],
    weights: Mapping[str, np.ndarray],
    wanted: Collection[str],
    compute: Callable[[DerivedWeight, Mapping[str, np.ndarray]], np.ndarray] = DerivedWeight.compute,
) -> dict[str, np.ndarray]:
    """The weights that cells read, of those as written: `wanted` names what they read."""
    every = dict(weights)
    for one in derived:
        if one.name in wanted:
            every[one.name] = compute(one, weights)
    return {name: array for name, array in every.items() if name in wanted}


def specs_read(
    derived: Sequence[DerivedWeight], specs: Mapping[str, ValueSpec], read: Sequence[str]
) -> dict[str, ValueSpec]:
    """Shapes and dtypes of the weights `read` that cells read, by those of the weights as written.

    Without derived weights all are read.
    """
    if not derived:
        return dict(specs)
    every = dict(specs) | {one.name: one.spec(specs) for one in derived}
    return {name: every[name] for name in read}


def rows_read(mod: IRModule, derived: Sequence[DerivedWeight]) -> dict[str, list[tuple[str, str]]]:
    """For each table of products the cells that read rows of it, each with the attribute that says which."""
    found: dict[str, list[tuple[str, str]]] = {one.name: [] for one in derived if one.table}
    for cell, function in cell_functions(mod).items():
        weights = {param: param.name for param in weight_params(function) if param.name in found}

        def visit(node: Any, cell: str = cell, weights: Mapping[Any, str] = weights) -> None:
            if _is(node, "take") and node.args[0] in weights:
                read = cell, str(node.args[1].name)
                if read not in found[weights[node.args[0]]]:
                    found[weights[node.args[0]]].append(read)

        relax.analysis.post_order_visit(function.body, visit)
    return found


def tabulate_products(
    mod: IRModule, most_bytes: int, for_training: bool = False
) -> tuple[IRModule, tuple[DerivedWeight, ...]]:
    """Replace products of rows of tables by rows of tables of products; see :class:`TabulateProducts`.

    Parameters
    ----------
    mod : IRModule
        Cells of known sizes.
    most_bytes : int
        Of all new tables together; products whose table has no room any more stay.
    for_training : bool
        See :class:`TabulateProducts`.

    Returns
    -------
    mod : IRModule
    derived : tuple of DerivedWeight
        The weights that the cells read now and were not written with.
    """
    found = _Derived(weights_of(mod), most_bytes, for_training)
    functions = dict(mod.functions.items())
    for name, function in cell_functions(mod).items():
        rewritten = _Cell(name, _canonical(name, function), found).run()
        if rewritten is not None:
            functions[mod.get_global_var(name)] = _without_unused(name, rewritten)
    return IRModule(functions, attrs=mod.attrs), tuple(found.by_key.values())


@tvm.transform.module_pass(opt_level=0, name="TabulateProducts")
@dataclass(frozen=True)
class TabulateProducts:
    """Multiply tables by the weights that their rows are multiplied by, once.

    Before::

        x = R.take(table, word, axis=0)                 # table: [V, E], W: [E + H, N]
        y = R.matmul(R.concat((x, h)), W)

    After::

        y0 = R.take(product, word, axis=0)              # product = table @ W[0:E], of weights alone
        y1 = R.matmul(h, rows)                          # rows = W[E : E + H]
        y = R.add(y0, y1)

    A product with a weight or its transpose, of a row with at least :data:`LEAST_COLUMNS` elements, or
    :data:`LEAST_IN_TRAINING`. It saves
    ``2 E N`` operations a node and costs ``V N`` elements of memory.

    Attributes
    ----------
    most_bytes : int
        Of all new tables together.
    for_training : bool
        ``rows`` are a slice of W in the cell, so that the gradient of W is found as ever.
    """

    most_bytes: int = 1 << 28
    for_training: bool = False

    def transform_module(self, mod: IRModule, _context: tvm.transform.PassContext) -> IRModule:
        """Run the pass."""
        return tabulate_products(mod, self.most_bytes, self.for_training)[0]


class _Derived:
    """The derived weights of a module."""

    def __init__(self, specs: dict[str, ValueSpec], most_bytes: int, for_training: bool) -> None:
        self.specs = specs
        self.room = most_bytes
        self.for_training = for_training
        self.least = LEAST_IN_TRAINING if for_training else LEAST_COLUMNS
        self.by_key: dict[tuple[str, int, int, bool, str], DerivedWeight] = {}

    def of(self, weight: str, begin: int, end: int, transposed: bool, table: str = "") -> DerivedWeight | None:
        """Rows of a weight, or their product with a table; None if there is no room for it."""
        key = weight, begin, end, transposed, table
        if key not in self.by_key:
            name = f"{table}.{weight}.product{begin}" if table else f"{weight}.rows{begin}"
            taken = self.specs.keys() | {one.name for one in self.by_key.values()}
            while name in taken:
                name += "_"
            one = DerivedWeight(name, weight, begin, end, transposed, table)
            spec = one.spec(self.specs)
            needed = spec.size * np.dtype(spec.dtype).itemsize if table else 0
            if needed > self.room:
                return None
            self.room -= needed
            self.by_key[key] = one
        return self.by_key[key]


@dataclass(frozen=True)
class _Row:
    """A row of a table, by an attribute."""

    table: Any
    call: Any


class _Cell:
    def __init__(self, name: str, function: relax.Function, derived: _Derived) -> None:
        self.name = name
        self.function = function
        self.derived = derived
        self.inputs = set(input_params(function))
        self.weights = {param: param.name for param in weight_params(function)}
        self.values: dict[Any, Any] = {}
        self.new: dict[str, Any] = {}
        self.builder = relax.BlockBuilder()

    def run(self) -> relax.Function | None:
        """The cell with products in tables; None if it has none."""
        if not isinstance(self.function.body, relax.SeqExpr):
            return None
        bindings = [binding for block in self.function.body.blocks for binding in block.bindings]
        self.values = {binding.var: binding.value for binding in bindings}
        parts = {binding.var: found for binding in bindings if (found := self._parts(binding.value))}
        if not parts:
            return None
        params = [*self.function.params, *self.new.values()]
        with self.builder.function(self.name, params, attrs=input_attrs(self.function)):
            with self.builder.dataflow():
                new: dict[Any, Any] = {}
                for binding in bindings:
                    value = self._sum(parts[binding.var]) if binding.var in parts else binding.value
                    new[binding.var] = self.builder.emit(_renamed(value, new), binding.var.name)
                result = _renamed(self.function.body.body, new)
                fields = list(result.fields) if isinstance(result, relax.Tuple) else [result]
                outputs = [self.builder.emit_output(field) for field in fields]
            self.builder.emit_func_output(relax.Tuple(outputs) if isinstance(result, relax.Tuple) else outputs[0])
        made: relax.Function = self.builder.finalize()[self.name]
        return made.with_attr("global_symbol", self.name)

    def _parts(self, value: Any) -> list[Any] | None:
        """What a product is the sum of, where rows of tables are among its operands: rows and smaller products."""
        if not _is(value, "matmul") or len(value.args[0].ty.shape.values) != 1:
            return None
        found = self._weight(value.args[1])
        if found is None:
            return None
        weight, transposed = found
        begin, parts, left, any_row = 0, [], [], False
        for operand in self._operands(value.args[0]):
            width = int(operand.ty.shape.values[0])
            row = self._row(operand) if width >= self.derived.least else None
            one = None if row is None else self.derived.of(weight, begin, begin + width, transposed, row.table.name)
            if row is None or one is None:
                left.append((operand, begin, begin + width))
            else:
                any_row = True
                parts.append(R.take(self._param(one), row.call.args[1], axis=0, mode=str(row.call.attrs.mode)))
            begin += width
        if not any_row:
            return None
        for operands, first, last in _joined(left):
            joined = operands[0] if len(operands) == 1 else R.concat(operands, axis=0)
            parts.append(R.matmul(joined, self._rows(value.args[1], weight, first, last, transposed)))
        return parts

    def _sum(self, parts: list[Any]) -> Any:
        total = parts[0]
        for part in parts[1:]:
            total = R.add(total, part)
        return total

    def _rows(self, matrix: Any, weight: str, first: int, last: int, transposed: bool) -> Any:
        """Some rows of a matrix, which is a weight or its transpose."""
        if self.derived.for_training:
            return R.strided_slice(matrix, [0], [first], [last])
        rows = self.derived.of(weight, first, last, transposed)
        assert rows is not None
        return self._param(rows)

    def _weight(self, value: Any) -> tuple[str, bool] | None:
        """The name of a weight with two dimensions, and whether `value` is its transpose."""
        transposed = False
        while value in self.values:
            value = self.values[value]
        if _is(value, "permute_dims") and len(value.args[0].ty.shape.values) == 2:
            axes = value.attrs.axes
            if axes is not None and [int(axis) % 2 for axis in axes] != [1, 0]:
                return None
            value, transposed = value.args[0], True
        if value not in self.weights or len(value.ty.shape.values) != 2:
            return None
        return self.weights[value], transposed

    def _operands(self, value: Any) -> list[Any]:
        """The vectors that are one behind the other in a vector."""
        bound = self.values.get(value, value)
        if _is(bound, "concat"):
            fields = bound.args[0]
            fields = self.values.get(fields, fields)
            if isinstance(fields, relax.Tuple):
                return [one for field in fields.fields for one in self._operands(field)]
        return [value]

    def _row(self, value: Any) -> _Row | None:
        """A row of a table by one attribute."""
        while value in self.values and isinstance(self.values[value], relax.Var):
            value = self.values[value]
        call: Any = self.values.get(value)
        if not _is(call, "take") or call.args[0] not in self.weights or call.args[1] not in self.inputs:
            return None
        table, index = call.args
        axis = call.attrs.axis
        if len(table.ty.shape.values) != 2 or len(index.ty.shape.values) or axis is None or int(axis) != 0:
            return None
        if self.derived.for_training and str(call.attrs.mode) != "fast":  # its rows are not what the attribute says
            return None
        return _Row(table, call)

    def _param(self, one: DerivedWeight) -> Any:
        if one.name not in self.new:
            spec = one.spec(self.derived.specs)
            self.new[one.name] = relax.Var(one.name, TensorType(spec.shape, spec.dtype))
        return self.new[one.name]


def _renamed(value: Any, new: dict[Any, Any]) -> Any:
    """Variables of one function as those of another."""
    return structural_map(value, (relax.Var, lambda variable: new.get(variable, variable)))


def _joined(left: list[tuple[Any, int, int]]) -> list[tuple[list[Any], int, int]]:
    """Operands that stand together, together."""
    found: list[tuple[list[Any], int, int]] = []
    for operand, begin, end in left:
        if found and found[-1][2] == begin:
            operands, first, _ = found[-1]
            found[-1] = [*operands, operand], first, end
        else:
            found.append(([operand], begin, end))
    return found


def _is(value: Any, name: str) -> bool:
    return isinstance(value, relax.Call) and getattr(value.op, "name", "") == f"relax.{name}"


def _canonical(name: str, function: relax.Function) -> relax.Function:
    alone = IRModule({name: function})
    made: relax.Function = relax.transform.CanonicalizeBindings()(relax.transform.Normalize()(alone))[name]
    return made


def _without_unused(name: str, function: relax.Function) -> relax.Function:
    """A cell without what it computes for nobody, and without weights that it does not read."""
    function = relax.transform.DeadCodeElimination()(IRModule({name: function}))[name]
    free = set(relax.analysis.free_vars(function.body))
    kept = [*input_params(function), *(param for param in weight_params(function) if param in free)]
    return relax.Function(kept, function.body, function.ret_ty, function.is_pure, function.attrs)

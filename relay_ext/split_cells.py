"""Cells into single ops, for graphs as DyNet sees them (``granularity="op"``)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any

import tvm
from tvm import IRModule, relax

from edbatch_tvm.errors import CellError
from edbatch_tvm.graph.expand import CellBody, ExpansionTable, OpCall, Source
from edbatch_tvm.graph.spec import CellSignature, Signature
from edbatch_tvm.tvm_compat import StructuralKey, TensorType, TupleType, structural_equal, tirx
from relay_ext.check_cells import KERNEL_SUFFIX, CheckCells
from relay_ext.op_table import VIEWS_IN_PLACE
from relay_ext.row_ops import row_form
from relay_ext.signature import (
    ATTRIBUTES,
    cell_functions,
    input_params,
    output_vars,
    signature_of,
    weight_params,
)


@tvm.transform.module_pass(opt_level=0, name="SplitCells")
@dataclass(frozen=True)
class SplitCells:
    """Make a cell of its own of every op; :func:`split_cells` also says which ops each cell consists of.

    With `fold_views`, see there.

    Before::

        def leaf(word, embedding, W, b):            def gate(x, W, b):
            x = R.take(embedding, word, axis=0)         g = R.sigmoid(R.matmul(x, W) + b)
            y = R.tanh(R.matmul(x, W) + b)              return g
            return y

    After::

        def take_embedding(a0, embedding): return R.take(embedding, a0, axis=0)
        def matmul_W(x0, W): return R.matmul(x0, W)
        def add_b(x0, b): return R.add(x0, b)
        def tanh(x0): return R.tanh(x0)
        def sigmoid(x0): return R.sigmoid(x0)

    Ops are one cell, and so batch together, if they agree in operator, attributes, shapes, dtypes and the names of
    their weights, wherever they stand. What cannot be a value of a graph is folded into the ops that use it:
    expressions of weights and constants, integers, and rows of variadic operands that an op does not map over. An op
    that maps over rows becomes an op on one row, to be called for each.

    An op with several results (``R.split``) stays one cell with several outputs: an op for each result would be as
    many batches, and as many types, for copies of parts of one row.

    Raises
    ------
    CellError
        If a cell is not one (see :class:`relay_ext.check_cells.CheckCells`) or has a ``match_cast``.
    """

    fold_views: bool = False

    def transform_module(self, mod: IRModule, _context: tvm.transform.PassContext) -> IRModule:
        """Run the pass."""
        return split_cells(mod, self.fold_views).module


@dataclass(frozen=True)
class SplitModule:
    """Ops as cells, and what the cells they come from consist of.

    Attributes
    ----------
    module : IRModule
    cells : Signature
        Of the cells that were split.
    bodies : tuple of CellBody
        One for each of `cells`; ops are numbered as in the signature of `module`.
    """

    module: IRModule
    cells: Signature
    bodies: tuple[CellBody, ...]

    def table(self, ops: Signature | None = None) -> ExpansionTable:
        """For the expansion of graphs; `ops` is the signature of `module` where more is known of its bounds."""
        return ExpansionTable(self.cells, signature_of(self.module) if ops is None else ops, self.bodies)


def split_cells(mod: IRModule, fold_views: bool = False) -> SplitModule:
    """Split the cells of `mod`; see :class:`SplitCells`.

    With `fold_views`, an operator that only names a part of a value is folded into those that use it: they read the
    part in place.
    """
    mod = tvm.transform.Sequential([CheckCells()])(mod)
    signature = signature_of(mod)
    plain = relax.transform.CanonicalizeBindings()(relax.transform.Normalize()(mod))
    ops = _Ops(plain, fold_views)
    functions = cell_functions(plain)
    bodies = [_Splitter(functions[cell.name], cell, ops).body() for cell in signature]
    used = sorted({call.type_id for body in bodies for call in body.calls})
    number = {type_id: position for position, type_id in enumerate(used)}
    renumbered = tuple(
        replace(body, calls=tuple(replace(call, type_id=number[call.type_id]) for call in body.calls))
        for body in bodies
    )
    return SplitModule(ops.module([ops.functions[type_id] for type_id in used]), signature, renumbered)


class _Ops:
    """The ops found so far, each once."""

    def __init__(self, mod: IRModule, fold_views: bool) -> None:
        self.folded = VIEWS_IN_PLACE if fold_views else frozenset()
        self.tir = {var: function for var, function in mod.functions.items() if isinstance(function, tirx.PrimFunc)}
        self.functions: list[tuple[str, relax.Function]] = []
        self._known: dict[Any, int] = {}
        self._names = {var.name_hint for var in self.tir}

    def type_id(self, name: str, expression: Any, inputs: _OpInputs) -> int:
        """Number of the op that computes `expression`."""
        builder = relax.BlockBuilder(IRModule(self.tir))
        params, weights = inputs.params, inputs.weights
        with builder.function("op", [*params, *weights.values()], attrs=inputs.attrs):
            with builder.dataflow():
                result = builder.normalize(expression)
                if isinstance(result.ty, TupleType):
                    parts = builder.emit(result)
                    fields = [relax.TupleGetItem(parts, index) for index in range(len(parts.ty.fields))]
                    result = relax.Tuple([builder.emit_output(one) for one in fields])
                elif not isinstance(result, relax.Var):
                    result = builder.emit_output(result)
            builder.emit_func_output(result)
        function = relax.utils.copy_with_new_vars(builder.finalize()["op"])
        key = StructuralKey(function), tuple(weights)
        if key not in self._known:
            self._known[key] = len(self.functions)
            unique = self._unique("_".join([name, *weights]))
            self.functions.append((unique, function.with_attr("global_symbol", unique)))
        return self._known[key]

    def _unique(self, text: str) -> str:
        name = base = re.sub(r"\W", "_", text) + ("_" if KERNEL_SUFFIX.search(text) else "")
        number = 1
        while name in self._names:
            number += 1
            name = f"{base}_{number}"
        self._names.add(name)
        return name

    def module(self, functions: list[tuple[str, relax.Function]]) -> IRModule:
        """The ops, and the TIR functions that they call."""
        return IRModule({tvm.ir.GlobalVar(name): function for name, function in functions} | self.tir)


@dataclass(frozen=True)
class _Value:
    """A value of the graph: one, or one for each row."""

    source: Source
    type: Any
    rows: bool


@dataclass(frozen=True)
class _Attribute:
    var: relax.Var


@dataclass(frozen=True)
class _Weight:
    var: relax.Var


@dataclass(frozen=True)
class _Folded:
    """An expression that becomes part of the ops that use it."""

    expression: Any
    depends: bool


@dataclass
class _OpInputs:
    """Parameters of an op while its expression is rewritten onto them; each occurrence of a value is one."""

    operands: list[relax.Var] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
    attributes: dict[str, relax.Var] = field(default_factory=dict)
    weights: dict[str, relax.Var] = field(default_factory=dict)

    @property
    def params(self) -> list[relax.Var]:
        """The per-instance parameters."""
        return [*self.operands, *self.attributes.values()]

    @property
    def attrs(self) -> dict[str, Any]:
        """What the function says of them."""
        floats = [var.name for var in self.attributes.values() if str(var.ty.dtype).startswith(("float", "bfloat"))]
        return {"num_input": len(self.params)} | ({ATTRIBUTES: floats} if floats else {})

    def operand(self, value: _Value, one_row: bool) -> relax.Var:
        shape = list(value.type.shape.values)[int(one_row and value.rows) :]
        var = relax.Var(f"x{len(self.operands)}", TensorType(shape, value.type.dtype))
        self.operands.append(var)
        self.sources.append(value.source)
        return var

    def attribute(self, given: relax.Var) -> relax.Var:
        name = f"a{len(self.attributes)}"
        return self.attributes.setdefault(given.name, relax.Var(name, given.ty))

    def weight(self, given: relax.Var) -> relax.Var:
        return self.weights.setdefault(given.name, relax.Var(given.name, given.ty))


class _Splitter:
    """Walks the bindings of one cell."""

    def __init__(self, function: relax.Function, cell: CellSignature, ops: _Ops) -> None:
        self.function = function
        self.cell = cell
        self.ops = ops
        self.calls: list[OpCall] = []
        self.kinds: dict[Any, Any] = {}
        slots = {operand.name: slot for slot, operand in enumerate(cell.operands)}
        for param in input_params(function):
            if param.name in slots:
                slot = slots[param.name]
                self.kinds[param] = _Value(Source(slot), param.ty, cell.operands[slot].variadic)
            else:
                self.kinds[param] = _Attribute(param)
        for param in weight_params(function):
            self.kinds[param] = _Weight(param)

    def body(self) -> CellBody:
        """The ops that the outputs need."""
        if isinstance(self.function.body, relax.SeqExpr):
            for block in self.function.body.blocks:
                for binding in block.bindings:
                    self.kinds[binding.var] = self._kind(binding)
        outputs = tuple(self._output(out) for out in output_vars(self.function))
        return self._reachable(outputs)

    def _kind(self, binding: Any) -> Any:
        if not isinstance(binding, relax.VarBinding):
            raise CellError(f"cell {self.cell.name!r} has a match_cast", "values of known shape")
        value = binding.value
        if isinstance(value, relax.Var):
            return self.kinds[value]
        if isinstance(value, relax.Tuple):
            return tuple(self._of(one) for one in value.fields)
        if isinstance(value, relax.TupleGetItem) and isinstance(self._of(value.tuple_value), tuple):
            return self._of(value.tuple_value)[int(value.index)]
        if not self._depends(value):
            return _Folded(value, depends=False)
        if isinstance(value, relax.Call) and getattr(value.op, "name", "") in self.ops.folded:
            return _Folded(value, depends=True)
        if _is_value(value.ty):
            inputs = _OpInputs()
            return self._emit(_name(value), self._rewrite(value, inputs), inputs, value.ty, rows=False)
        rows = self._row_call(value)
        return _Folded(value, depends=True) if rows is None else rows

    def _of(self, expression: Any) -> Any:
        return self.kinds[expression] if isinstance(expression, relax.Var) else _Folded(expression, depends=False)

    def _depends(self, expression: Any) -> bool:
        """Whether `expression` depends on the instance."""
        kind = self._of(expression)
        if isinstance(kind, tuple):
            return True
        if isinstance(kind, _Folded) and isinstance(expression, relax.Var):
            return kind.depends
        return isinstance(kind, _Value | _Attribute) or any(map(self._depends, _children(expression)))

    def _rewrite(self, expression: Any, inputs: _OpInputs) -> Any:
        """`expression` over parameters of the op."""
        if not isinstance(expression, relax.Var):
            children = [self._rewrite(child, inputs) for child in _children(expression)]
            return _rebuilt(expression, children)
        return self._param(self.kinds[expression], inputs, one_row=False)

    def _param(self, kind: Any, inputs: _OpInputs, one_row: bool) -> Any:
        if isinstance(kind, tuple):
            return relax.Tuple([self._param(one, inputs, one_row) for one in kind])
        if isinstance(kind, _Value):
            return inputs.operand(kind, one_row)
        if isinstance(kind, _Attribute):
            return inputs.attribute(kind.var)
        return inputs.weight(kind.var) if isinstance(kind, _Weight) else self._rewrite(kind.expression, inputs)

    def _row_call(self, value: Any) -> Any | None:
        """An op called for each row, or None if `value` is not that."""
        if not (isinstance(value, relax.Call) and isinstance(value.op, tvm.ir.Op) and _is_value(value.ty, rows=True)):
            return None
        tensors = [one for argument in value.args for one in self._tensors(argument)]
        is_rows = [isinstance(kind, _Value) and kind.rows for kind in tensors]
        if not any(is_rows) or any(_has_rows(kind) for kind in tensors if isinstance(kind, _Folded)):
            return None
        inputs = _OpInputs()
        call = row_form(value, is_rows, [self._param(kind, inputs, one_row=True) for kind in tensors])
        if call is None:
            return None
        call = relax.BlockBuilder().normalize(call)
        if not structural_equal(call.ty, _row_type(value.ty)):
            return None
        return self._emit(_name(value), call, inputs, value.ty, rows=True)

    def _tensors(self, argument: Any) -> list[Any]:
        """The kinds of the tensors of an argument of a call."""
        if isinstance(argument, relax.Tuple):
            return [kind for one in argument.fields for kind in self._tensors(one)]
        kind = self._of(argument)
        if isinstance(kind, tuple):
            return list(kind)
        return [kind] if isinstance(argument.ty, TensorType) else []

    def _emit(self, name: str, expression: Any, inputs: _OpInputs, result: Any, rows: bool) -> Any:
        """Append a call of the op; its results as kinds, with types as in the cell."""
        type_id = self.ops.type_id(name, expression, inputs)
        number = len(self.calls)
        self.calls.append(OpCall(type_id, tuple(inputs.sources), tuple(inputs.attributes), rows))
        if isinstance(result, TupleType):
            return tuple(_Value(Source(slot, number), one, rows) for slot, one in enumerate(result.fields))
        return _Value(Source(0, number), result, rows)

    def _output(self, out: Any) -> Source:
        kind = self._of(out)
        if not isinstance(kind, _Value) or kind.source.op is None:
            inputs = _OpInputs()
            direct = isinstance(kind, _Value | _Weight)
            name = "copy" if direct else _name(kind.expression)
            kind = self._emit(name, self._param(kind, inputs, one_row=False), inputs, out.ty, rows=False)
        assert isinstance(kind, _Value)
        return kind.source

    def _reachable(self, outputs: tuple[Source, ...]) -> CellBody:
        needed = {out.op for out in outputs}
        for number in range(len(self.calls) - 1, -1, -1):
            if number in needed:
                needed.update(source.op for source in self.calls[number].operands)
        kept = [number for number in range(len(self.calls)) if number in needed]
        place: dict[int | None, int | None] = {number: position for position, number in enumerate(kept)}
        place[None] = None
        calls = tuple(
            replace(call, operands=tuple(Source(source.slot, place[source.op]) for source in call.operands))
            for call in (self.calls[number] for number in kept)
        )
        return CellBody(calls, tuple(Source(out.slot, place[out.op]) for out in outputs))


def _name(expression: Any) -> str:
    """What an op is called, before its weights."""
    if not isinstance(expression, relax.Call):
        return "value"
    if isinstance(expression.op, tvm.ir.Op) and expression.op.name.startswith("relax.call_tir"):
        return str(expression.args[0].name_hint)
    return str(expression.op.name).rpartition(".")[2]


def _children(expression: Any) -> list[Any]:
    if isinstance(expression, relax.Call):
        return list(expression.args)
    if isinstance(expression, relax.Tuple):
        return list(expression.fields)
    return [expression.tuple_value] if isinstance(expression, relax.TupleGetItem) else []


def _rebuilt(expression: Any, children: list[Any]) -> Any:
    if isinstance(expression, relax.Call):
        return relax.Call(expression.op, children, expression.attrs, expression.ty_args)
    if isinstance(expression, relax.Tuple):
        return relax.Tuple(children)
    if isinstance(expression, relax.TupleGetItem):
        return relax.TupleGetItem(children[0], expression.index)
    return expression


def _is_value(annotation: Any, rows: bool = False) -> bool:
    """Whether something of this type can be a value of a graph; with `rows`, one for each row."""
    if isinstance(annotation, TupleType):
        return bool(len(annotation.fields)) and all(_is_value(one, rows) for one in annotation.fields)
    if not isinstance(annotation, TensorType) or annotation.shape is None:
        return False
    extents = list(annotation.shape.values)
    if rows and (not extents or not isinstance(extents.pop(0), tirx.Var)):
        return False
    floating = str(annotation.dtype).startswith(("float", "bfloat"))
    return floating and all(isinstance(extent, tirx.IntImm) for extent in extents)


def _row_type(annotation: Any) -> Any:
    if isinstance(annotation, TupleType):
        return TupleType([_row_type(one) for one in annotation.fields])
    return TensorType(list(annotation.shape.values)[1:], annotation.dtype)


def _has_rows(kind: _Folded) -> bool:
    annotation = kind.expression.ty
    if not isinstance(annotation, TensorType) or annotation.shape is None:
        return kind.depends
    return not all(isinstance(extent, tirx.IntImm) for extent in annotation.shape.values)

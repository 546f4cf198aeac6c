"""Pass: a split of a result becomes several smaller results, so that each can be laid out by itself."""

from __future__ import annotations

from typing import Any

import tvm
from tvm import IRModule, relax
from tvm.relax import op as R

from edbatch_tvm.tvm_compat import GenericConst, tirx
from relay_ext.dead_code import without_dead_code
from relay_ext.op_table import JOINED_BINARY, JOINED_UNARY
from relay_ext.signature import cell_functions, input_attrs, weight_params


@tvm.transform.module_pass(opt_level=0, name="PushSplits")
class PushSplits:
    """Move ``R.split`` from results to the weights they were computed with.

    Before::

        g = R.split(R.add(R.matmul(x, W), b), 2, axis=-1)       # W: [K, 2 H]
        h = R.multiply(g[0], g[1])

    After::

        W_0, W_1 = W[:, 0:H], W[:, H : 2 * H]                   # of weights alone: computed at load
        g_0 = R.add(R.matmul(x, W_0), b_0)
        g_1 = R.add(R.matmul(x, W_1), b_1)
        h = R.multiply(g_0, g_1)

    Users fuse gates by hand in one order; grouping (:class:`relay_ext.group_ops.GroupOps`) joins the products again, in
    the order the plan finds. Splits of a vector into equal parts are moved through products with weights and
    element-wise operators; a split of anything else stays, as slices.
    """

    def transform_module(self, mod: IRModule, _context: tvm.transform.PassContext) -> IRModule:
        """Run the pass."""
        mod = relax.transform.CanonicalizeBindings()(relax.transform.Normalize()(mod))
        functions = dict(mod.functions.items())
        for name, function in cell_functions(mod).items():
            if _has_even_split(function):
                functions[mod.get_global_var(name)] = _Pusher(name, function).run()
        return without_dead_code(relax.transform.CanonicalizeBindings()(IRModule(functions, attrs=mod.attrs)))


class _Pusher:
    def __init__(self, name: str, function: relax.Function) -> None:
        self.name = name
        self.function = function
        self.weights = set(weight_params(function))
        self.builder = relax.BlockBuilder()
        self.values: dict[Any, Any] = {}
        self.calls: dict[Any, Any] = {}
        self.parts: dict[tuple[Any, int, int], Any] = {}

    def run(self) -> relax.Function:
        attrs = input_attrs(self.function)
        with self.builder.function(self.name, list(self.function.params), attrs=attrs):
            with self.builder.dataflow():
                for block in self.function.body.blocks:
                    for binding in block.bindings:
                        self._bind(binding)
                result = self._mapped(self.function.body.body)
                fields = list(result.fields) if isinstance(result, relax.Tuple) else [result]
                outputs = [self.builder.emit_output(field) for field in fields]
            self.builder.emit_func_output(relax.Tuple(outputs) if isinstance(result, relax.Tuple) else outputs[0])
        return self.builder.finalize()[self.name]

    def _mapped(self, expression: Any) -> Any:
        if isinstance(expression, relax.Var):
            return self.values.get(expression, expression)
        if isinstance(expression, relax.Tuple):
            return relax.Tuple([self._mapped(field) for field in expression.fields])
        return expression

    def _bind(self, binding: Any) -> None:
        value = binding.value
        if isinstance(value, relax.TupleGetItem):
            pieces = self.values[value.tuple_value]
            if isinstance(pieces, tuple):
                whole, count = pieces
                self.values[binding.var] = self._part(whole, count, int(value.index))
            elif isinstance(pieces, relax.Tuple):
                self.values[binding.var] = pieces.fields[int(value.index)]
            else:
                self.values[binding.var] = self.builder.emit(relax.TupleGetItem(pieces, int(value.index)))
        elif isinstance(value, relax.Call):
            self.calls[binding.var] = value
            count = _even_parts(value)
            if count:
                # Nothing is emitted for the split itself; its parts are made when they are read.
                self.values[binding.var] = (value.args[0], count)
                return
            call = relax.Call(value.op, [self._mapped(a) for a in value.args], value.attrs, value.ty_args)
            self.values[binding.var] = self.builder.emit(call)
        else:
            self.values[binding.var] = self._mapped(value)

    def _part(self, whole: Any, count: int, index: int) -> Any:
        """Part `index` of `count` of the vector `whole` (an expression of the original cell)."""
        key = (whole, count, index)
        if key not in self.parts:
            self.parts[key] = self.builder.emit(self._make_part(whole, count, index))
        return self.parts[key]

    def _make_part(self, whole: Any, count: int, index: int) -> Any:
        call = self.calls.get(whole)
        if call is None or not isinstance(call.op, tvm.ir.Op):
            return _slice(self._mapped(whole), 0, count, index)
        kind = call.op.name.removeprefix("relax.")
        if kind in JOINED_UNARY or (kind in JOINED_BINARY and all(_fits(argument, whole) for argument in call.args)):
            parts = [self._argument(argument, count, index) for argument in call.args]
            return relax.Call(call.op, parts, call.attrs)
        if kind == "matmul" and call.args[1] in self.weights and len(call.args[0].ty.shape.values) == 1:
            columns = _slice(call.args[1], 1, count, index)
            return R.matmul(self._mapped(call.args[0]), self.builder.emit(columns))
        return _slice(self._mapped(whole), 0, count, index)

    def _argument(self, argument: Any, count: int, index: int) -> Any:
        if isinstance(argument, GenericConst) and not len(argument.ty.shape.values):
            return argument
        return self._part(argument, count, index)


def _has_even_split(function: relax.Function) -> bool:
    blocks = function.body.blocks if isinstance(function.body, relax.SeqExpr) else []
    values = [binding.value for block in blocks for binding in block.bindings]
    return any(isinstance(value, relax.Call) and _even_parts(value) for value in values)


def _fits(argument: Any, whole: Any) -> bool:
    """Whether an argument splits as the result does: a scalar constant, or of the shape of the result."""
    shape = list(argument.ty.shape.values)
    if isinstance(argument, GenericConst):
        return not shape
    return [int(e) for e in shape] == [int(e) for e in whole.ty.shape.values]


def _even_parts(call: Any) -> int:
    """Number of parts of a split of a vector into equal parts, else 0."""
    if getattr(call.op, "name", "") != "relax.split" or len(call.args[0].ty.shape.values) != 1:
        return 0
    count = call.attrs.indices_or_sections
    extent = call.args[0].ty.shape.values[0]
    if not isinstance(count, tirx.IntImm) or not isinstance(extent, tirx.IntImm) or int(extent) % int(count):
        return 0
    return int(count)


def _slice(value: Any, axis: int, count: int, index: int) -> Any:
    width = int(value.ty.shape.values[axis]) // count
    return R.strided_slice(value, [axis], [index * width], [(index + 1) * width])

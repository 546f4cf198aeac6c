"""Pass: values of a cell lose their leading dimensions of 1, and the views between them go away.

Frameworks write a vector as a matrix of one row and reshape around every product. Stage detection reads products of
vectors, so the views are pushed through the operators to the cell's boundary, where most of them vanish.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tvm
from tvm import IRModule, relax
from tvm.relax import op as R

from edbatch_tvm.tvm_compat import GenericConst, TensorType, TupleType, structural_equal, tirx
from relay_ext.block_reader import is_one
from relay_ext.dead_code import without_dead_code
from relay_ext.op_table import ELEMENTWISE, ORDERED_VIEWS, REDUCTIONS
from relay_ext.signature import cell_functions, input_attrs, output_vars


@tvm.transform.module_pass(opt_level=0, name="DropUnitDims")
class DropUnitDims:
    """Rewrite every cell over values without leading dimensions of 1.

    Before::

        x1 = R.reshape(x, (1, 16))
        y1 = R.matmul(x1, R.permute_dims(W))
        y = R.reshape(R.tanh(y1), (16,))

    After::

        y1 = R.matmul(x, R.permute_dims(W))
        y = R.tanh(y1)

    Parameters and results keep their shapes. A broadcast to the shape of the other argument of an element-wise
    operator goes away too, as does the cast of an index; a table indexed by an attribute becomes ``R.take``, and a
    ``R.take`` of a constant index a slice. An operator without a rule keeps the shapes it was written with.
    """

    def transform_module(self, mod: IRModule, _context: tvm.transform.PassContext) -> IRModule:
        """Run the pass."""
        functions = dict(mod.functions.items())
        for name, function in cell_functions(mod).items():
            functions[mod.get_global_var(name)] = _Rewriter(name, function).run()
        mod = relax.transform.CanonicalizeBindings()(IRModule(functions, attrs=mod.attrs))
        return without_dead_code(mod)


class _Value:
    """One value of the cell: in its full shape, without leading ones, or both; the missing form is made on demand.

    ``narrow`` is a value that broadcasts to this one, ``index`` the integer tensor that this one is a cast of.
    """

    def __init__(self, shape: list[Any], full: Any = None, bare: Any = None, narrow: Any = None, index: Any = None):
        self.shape = shape
        self.full = full
        self.bare = bare
        self.narrow = narrow
        self.index = index

    @property
    def ones(self) -> int:
        """Number of leading dimensions of 1."""
        return next((i for i, extent in enumerate(self.shape) if not is_one(extent)), len(self.shape))


class _Rewriter:
    def __init__(self, name: str, function: relax.Function) -> None:
        self.name = name
        self.function = function
        self.builder = relax.BlockBuilder()
        self.values: dict[Any, Any] = {param: self._given(param) for param in function.params}

    def run(self) -> relax.Function:
        attrs = input_attrs(self.function)
        with self.builder.function(self.name, list(self.function.params), attrs=attrs):
            with self.builder.dataflow():
                body = self.function.body
                for block in body.blocks if isinstance(body, relax.SeqExpr) else []:
                    for binding in block.bindings:
                        self.values[binding.var] = self._binding(binding)
                results = [self._full(self._value(out)) for out in output_vars(self.function)]
                outputs = [self.builder.emit_output(result) for result in results]
            self.builder.emit_func_output(outputs[0] if len(outputs) == 1 else relax.Tuple(outputs))
        return self.builder.finalize()[self.name]

    # Forms of a value -------------------------------------------------------------------------------------------

    def _given(self, expression: Any) -> Any:
        """An expression of the rewritten cell as a value; a tuple as a list of values."""
        if isinstance(expression.ty, TupleType):
            count = len(expression.ty.fields)
            return [self._given(self._emit(relax.TupleGetItem(expression, i))) for i in range(count)]
        if not isinstance(expression.ty, TensorType) or expression.ty.shape is None:
            return _Value([], full=expression, bare=expression)
        return _Value(list(expression.ty.shape.values), full=expression)

    def _emit(self, expression: Any) -> Any:
        return self.builder.emit(self.builder.normalize(expression))

    def _value(self, expression: Any) -> Any:
        """What an expression of the original cell is in the rewritten one."""
        if isinstance(expression, relax.Var):
            return self.values[expression]
        if isinstance(expression, relax.Tuple):
            return [self._value(field) for field in expression.fields]
        return self._given(expression)

    def _full(self, value: _Value) -> Any:
        if value.full is None:
            value.full = self._reshaped(value.bare, value.shape)
        return value.full

    def _bare(self, value: _Value) -> Any:
        if value.bare is None:
            value.bare = self._reshaped(value.full, value.shape[value.ones :])
        return value.bare

    def _without(self, value: _Value, ones: int) -> Any:
        """The value without its first `ones` dimensions."""
        return self._reshaped(self._bare(value), value.shape[ones:])

    def _reshaped(self, expression: Any, shape: list[Any]) -> Any:
        return expression if _same_shape(expression, shape) else self._emit(R.reshape(expression, shape))

    def _result(self, call: Any, expression: Any) -> _Value:
        """The value of `call`, computed as `expression` but for leading dimensions of 1."""
        value = _Value(list(call.ty.shape.values))
        value.bare = self._reshaped(self._emit(expression), value.shape[value.ones :])
        return value

    # Rules ------------------------------------------------------------------------------------------------------

    def _binding(self, binding: Any) -> Any:
        value = binding.value
        if isinstance(value, relax.TupleGetItem):
            return self._value(value.tuple_value)[value.index]
        if isinstance(value, relax.Var | relax.Tuple | GenericConst):
            return self._value(value)
        if isinstance(value, relax.Call) and isinstance(value.op, tvm.ir.Op):
            rewritten = self._call(value)
            if rewritten is not None:
                return rewritten
            arguments = [self._argument(argument) for argument in value.args]
            return self._given(self._emit(relax.Call(value.op, arguments, value.attrs, value.ty_args)))
        return self._given(self._emit(value))

    def _argument(self, argument: Any) -> Any:
        if isinstance(argument, relax.Tuple):
            return relax.Tuple([self._argument(field) for field in argument.fields])
        return self._full(self._value(argument)) if isinstance(argument, relax.Var) else argument

    def _call(self, call: relax.Call) -> Any | None:
        """`call` by a rule; None where no rule fits."""
        name = call.op.name
        if name in ORDERED_VIEWS:
            return self._view(call)
        if name in ELEMENTWISE:
            return self._elementwise(call)
        if name in REDUCTIONS:
            return self._reduction(call, getattr(R, name.removeprefix("relax.")))
        rule = _RULES.get(name)
        return rule(self, call) if rule is not None else None

    def _view(self, call: relax.Call) -> Any:
        source = self._value(call.args[0])
        shape = list(call.ty.shape.values)
        result = _Value(shape, index=source.index)
        bare = self._bare(source)
        result.bare = self._reshaped(bare, shape[result.ones :])
        return result

    def _elementwise(self, call: relax.Call) -> Any | None:
        values = [self._value(argument) for argument in call.args]
        if not all(isinstance(value, _Value) for value in values):
            return None
        # An argument that was broadcast need not be where another has the shape of the result by itself.
        plain = any(value.narrow is None and _same_extents(value.shape, call.ty.shape.values) for value in values)
        arguments = [v.narrow if plain and v.narrow is not None else self._bare(v) for v in values]
        return self._result(call, relax.Call(call.op, arguments, call.attrs))

    def _broadcast(self, call: relax.Call) -> Any:
        source = self._value(call.args[0])
        result = self._result(call, R.broadcast_to(self._bare(source), _bare_shape(call)))
        result.narrow = self._bare(source)
        return result

    def _reduction(self, call: relax.Call, build: Callable[..., Any]) -> Any | None:
        if call.attrs.axis is None:
            return None
        source = self._value(call.args[0])
        rank, ones = len(source.shape), source.ones
        axes = [int(axis) % rank - ones for axis in call.attrs.axis]
        inner = [axis for axis in axes if axis >= 0]
        bare = self._bare(source)
        return self._result(call, build(bare, inner, False) if inner else bare)

    def _matmul(self, call: relax.Call) -> Any | None:
        left, right = (self._value(argument) for argument in call.args)
        if len(right.shape) != 2 or left.ones == len(left.shape):
            return None
        return self._result(call, R.matmul(self._bare(left), self._full(right)))

    def _take(self, call: relax.Call) -> Any | None:
        table, index = (self._value(argument) for argument in call.args)
        if call.attrs.axis is None:
            return None
        axis = int(call.attrs.axis) % len(table.shape)
        given = call.args[1]
        if isinstance(given, GenericConst) and not given.ty.shape.values:
            if is_one(table.shape[axis]):
                return self._result(call, self._bare(table))
            ones = min(axis, table.ones)
            position = int(given.value.numpy()) % int(table.shape[axis])
            part = R.strided_slice(self._without(table, ones), [axis - ones], [position], [position + 1])
            return self._result(call, part)
        if axis != 0:
            return None
        return self._result(call, R.take(self._full(table), self._index(index), axis=0, mode=call.attrs.mode))

    def _index_tensor(self, call: relax.Call) -> Any | None:
        table, indices = (self._value(argument) for argument in call.args)
        if len(indices) != 1 or not _is_parameter(self._index(indices[0]), self.function):
            return None
        return self._result(call, R.take(self._full(table), self._index(indices[0]), axis=0, mode="fast"))

    def _index(self, value: _Value) -> Any:
        return value.index if value.index is not None else self._bare(value)

    def _cast(self, call: relax.Call) -> Any | None:
        source = self._value(call.args[0])
        result = self._result(call, R.astype(self._bare(source), call.attrs.dtype))
        if _is_integer(call) and _is_integer(call.args[0]):
            result.index = self._index(source)
        return result

    def _concat(self, call: relax.Call) -> Any | None:
        values = self._value(call.args[0])
        if not isinstance(values, list) or call.attrs.axis is None:
            return None
        if len(values) == 1:
            return values[0]
        axis = int(call.attrs.axis) % len(values[0].shape)
        ones = min(axis, *(value.ones for value in values))
        return self._result(call, R.concat([self._without(value, ones) for value in values], axis - ones))

    def _split(self, call: relax.Call) -> Any:
        source = self._value(call.args[0])
        if not isinstance(call.ty, TupleType):  # one part
            return source
        axis = int(call.attrs.axis) % len(source.shape)
        ones = min(axis, source.ones)
        sections = call.attrs.indices_or_sections
        given = int(sections) if isinstance(sections, tirx.IntImm | int) else [int(index) for index in sections]
        return self._parts(call, R.split(self._without(source, ones), given, axis - ones))

    def _parts(self, call: relax.Call, expression: Any) -> list[Any]:
        """The fields of a tuple-valued call, computed as `expression` but for leading dimensions of 1."""
        parts = self._given(self._emit(expression))
        fields = []
        for part, field in zip(parts, call.ty.fields, strict=True):
            value = _Value(list(field.shape.values))
            value.bare = self._reshaped(part.full, value.shape[value.ones :])
            fields.append(value)
        return fields

    def _softmax(self, call: relax.Call) -> Any | None:
        source = self._value(call.args[0])
        axis = int(call.attrs.axis) % len(source.shape) - source.ones
        build = R.nn.softmax if call.op.name == "relax.nn.softmax" else R.nn.log_softmax
        return self._result(call, build(self._bare(source), axis)) if axis >= 0 else None


_RULES: dict[str, Callable[[_Rewriter, relax.Call], Any | None]] = {
    "relax.matmul": _Rewriter._matmul,
    "relax.take": _Rewriter._take,
    "relax.index_tensor": _Rewriter._index_tensor,
    "relax.astype": _Rewriter._cast,
    "relax.broadcast_to": _Rewriter._broadcast,
    "relax.concat": _Rewriter._concat,
    "relax.split": _Rewriter._split,
    "relax.nn.softmax": _Rewriter._softmax,
    "relax.nn.log_softmax": _Rewriter._softmax,
}


def _is_integer(expression: Any) -> bool:
    return str(expression.ty.dtype).startswith(("int", "uint"))


def _is_parameter(expression: Any, function: relax.Function) -> bool:
    return any(expression.same_as(param) for param in function.params)


def _bare_shape(call: relax.Call) -> list[Any]:
    shape = list(call.ty.shape.values)
    return shape[_Value(shape).ones :]


def _same_extents(one: Any, other: Any) -> bool:
    return len(one) == len(other) and all(structural_equal(a, b) for a, b in zip(one, other, strict=True))


def _same_shape(expression: Any, shape: list[Any]) -> bool:
    return _same_extents(list(expression.ty.shape.values), shape)

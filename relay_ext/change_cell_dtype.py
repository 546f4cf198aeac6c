"""Pass 0: cells written in float32 computed in another dtype."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tvm
from tvm import IRModule, relax

from edbatch_tvm.errors import CellError
from edbatch_tvm.tvm_compat import Call, GenericConst, TensorType
from relay_ext.signature import cell_functions, input_attrs, output_vars

_GIVEN = "float32"


@tvm.transform.module_pass(opt_level=0, name="ChangeCellDtype")
@dataclass(frozen=True)
class ChangeCellDtype:
    """Replace float32 by `dtype` in every cell: in parameters, constants, casts and results.

    Before, with ``dtype="float64"``::

        def node(h: R.Tensor((8,), "float32"), mask: R.Tensor((8,), "bool")):
            return R.multiply(R.add(h, R.const(1.0, "float32")), R.astype(mask, "float32"))

    After::

        def node(h: R.Tensor((8,), "float64"), mask: R.Tensor((8,), "bool")):
            return R.multiply(R.add(h, R.const(1.0, "float64")), R.astype(mask, "float64"))

    Raises
    ------
    CellError
        If a cell calls TIR of its own, which says its dtypes itself.
    """

    dtype: str

    def transform_module(self, mod: IRModule, _context: tvm.transform.PassContext) -> IRModule:
        """Run the pass."""
        cells = cell_functions(mod)
        functions = {
            var: _Converter(var.name_hint, function, self.dtype).function() if var.name_hint in cells else function
            for var, function in mod.functions.items()
        }
        return IRModule(functions, attrs=mod.attrs)


class _Converter:
    def __init__(self, cell: str, function: relax.Function, dtype: str) -> None:
        self.cell = cell
        self.source = function
        self.dtype = dtype
        self.builder = relax.BlockBuilder()
        self.values: dict[Any, Any] = {}

    def function(self) -> relax.Function:
        """The cell in the other dtype."""
        params = [relax.Var(param.name, self._type(param.ty)) for param in self.source.params]
        self.values = dict(zip(self.source.params, params, strict=True))
        body, attrs = self.source.body, input_attrs(self.source)
        with self.builder.function(self.cell, params, attrs=attrs):
            with self.builder.dataflow():
                for block in body.blocks if isinstance(body, relax.SeqExpr) else []:
                    for binding in block.bindings:
                        value = self.builder.normalize(self._expression(binding.value))
                        self.values[binding.var] = self.builder.emit(value, binding.var.name)
                outputs = [self.builder.emit_output(self._expression(out)) for out in output_vars(self.source)]
            self.builder.emit_func_output(outputs[0] if len(outputs) == 1 else relax.Tuple(outputs))
        return self.builder.finalize()[self.cell]

    def _type(self, given: Any) -> Any:
        if isinstance(given, TensorType) and str(given.dtype) == _GIVEN:
            return TensorType(given.shape, self.dtype)
        return given

    def _expression(self, given: Any) -> Any:
        match given:
            case relax.Var():
                return self.values.get(given, given)
            case relax.Tuple():
                return relax.Tuple([self._expression(field) for field in given.fields])
            case relax.TupleGetItem():
                return relax.TupleGetItem(self._expression(given.tuple_value), given.index)
            case GenericConst():
                array = given.value.numpy()
                return relax.const(array.astype(self.dtype), self.dtype) if str(array.dtype) == _GIVEN else given
            case Call():
                return self._call(given)
        return given

    def _call(self, call: Any) -> Any:
        if call.op == tvm.ir.Op.get("relax.call_tir"):
            raise CellError(
                f"dtype {self.dtype!r} for cell {self.cell!r}, which calls TIR of its own",
                "cells of operators",
                f"write the cell in {self.dtype}",
            )
        arguments = [self._expression(argument) for argument in call.args]
        return Call(call.op, arguments, self._attributes(call.attrs), call.ty_args)

    def _attributes(self, attributes: Any) -> Any:
        """Attributes of an operator; those of some have the dtype of the result."""
        if attributes is None:
            return None
        values = {field.name: getattr(attributes, field.name) for field in _fields(type(attributes))}
        changed = {name: self.dtype for name, value in values.items() if str(value) == _GIVEN}
        return type(attributes)(**(values | changed)) if changed else attributes


def _fields(kind: Any) -> list[Any]:
    """The fields of a class of attributes, inherited ones included."""
    info, found = kind.__tvm_ffi_type_info__, []
    while info is not None:
        found += list(info.fields)
        info = info.parent_type_info
    return found

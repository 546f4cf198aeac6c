"""Softmax over variadic rows as reductions over the rows, and what follows row by row."""

from __future__ import annotations

from typing import Any

from tvm import relax
from tvm.relax import op as R

from edbatch_tvm.tvm_compat import Call, structural_map
from relay_ext.gradients.reverse import bindings_of
from relay_ext.gradients.rules import Emitter, short_name
from relay_ext.signature import output_vars


def without_row_softmax(function: relax.Function) -> relax.Function:
    """A function of variadic rows with no softmax, or logarithm of one, along them.

    Before::

        w = R.nn.softmax(scores, axis=0)           # (k,)

    After::

        powers = R.exp(scores - R.max(scores, axis=[0], keepdims=True))
        w = powers / R.sum(powers, axis=[0], keepdims=True)
    """
    if not any(_is_row_softmax(value) for _, value in bindings_of(function)):
        return function
    builder = relax.BlockBuilder()
    emit = Emitter(builder)
    function = relax.utils.copy_with_new_vars(function)
    known: dict[Any, Any] = {}

    def new(expression: Any) -> Any:
        return structural_map(expression, (relax.Var, lambda variable: known.get(variable, variable)))

    with builder.function("adjoint", list(function.params), dict(function.attrs.items())):
        with builder.dataflow():
            for variable, value in bindings_of(function):
                value = new(value)
                if _is_row_softmax(value):
                    value = _by_reductions(emit, value)
                known[variable] = value if isinstance(value, relax.Var | relax.Tuple) else emit(value)
            results = [builder.emit_output(known.get(one, one)) for one in output_vars(function)]
        builder.emit_func_output(results[0] if len(results) == 1 else relax.Tuple(results))
    return builder.finalize()["adjoint"]


def _is_row_softmax(value: Any) -> bool:
    if not isinstance(value, Call) or short_name(value) not in ("nn.softmax", "nn.log_softmax"):
        return False
    shape = value.args[0].ty.shape.values
    return int(value.attrs.axis) % len(shape) == 0 and not hasattr(shape[0], "value")


def _by_reductions(emit: Emitter, call: Any) -> Any:
    apart = emit(call.args[0] - R.max(call.args[0], axis=[0], keepdims=True))
    powers = emit(R.exp(apart))
    total = emit(R.sum(powers, axis=[0], keepdims=True))
    return R.divide(powers, total) if short_name(call) == "nn.softmax" else apart - R.log(total)

"""Pass: floating-point arithmetic in forms that no later pass simplifies.

TVM simplifies floats by rules that hold for numbers, but neither for NaN and infinities nor under rounding: ``x - x``
and ``0 * x`` become 0, ``(x + y) - y`` becomes x, ``x == x`` becomes True, ``not x < y`` becomes ``y <= x``. This pass
writes each of them in a form that the rules do not match and that LLVM and the CUDA compiler turn into the same
instruction.
"""

from __future__ import annotations

import math
from typing import Any

import tvm
from tvm import IRModule

from edbatch_tvm.tvm_compat import SBlock, TensorLoad, structural_map, structural_walk, tirx

_LARGEST = {"float16": 65504.0, "bfloat16": 3.3895313892515355e38, "float32": 3.4028234663852886e38}
_LARGEST["float64"] = 1.7976931348623157e308
_BITS = {"float16": "int16", "bfloat16": "int16", "float32": "int32", "float64": "int64"}
_ONE = {"float16": 0x3C00, "bfloat16": 0x3F80, "float32": 0x3F800000, "float64": 0x3FF0000000000000}


@tvm.transform.module_pass(opt_level=0, name="StrictFloats")
class StrictFloats:
    """Write floating-point arithmetic in forms that TVM's simplifier leaves alone.

    ======================== ==========================================
    before                   after
    ======================== ==========================================
    ``x - y``                ``x + y * -1.0``
    ``x * 0.0``, ``0.0 / x`` ``x * (one + -1.0)``, ``(one + -1.0) / x``
    ``x == y``, ``x != y``   ``x == y * one``, ``x != y * one``
    ``not x < y``            ``T.Cast("int32", x < y) < 1``
    ``x < y or y <= x``      ``0 < T.Cast("int32", x < y) | ...``
    ======================== ==========================================

    ``one`` is 1.0 as ``T.reinterpret`` of its bits.

    Maxima start at minus infinity and minima at plus infinity, so that they are right for infinite elements, too.
    """

    def transform_module(self, mod: IRModule, _context: tvm.transform.PassContext) -> IRModule:
        """Run the pass."""
        functions = {
            var: function.with_body(strict_floats(function.body)) if isinstance(function, tirx.PrimFunc) else function
            for var, function in mod.functions.items()
        }
        return IRModule(functions, attrs=mod.attrs)


def strict_floats(body: Any) -> Any:
    """`body`, a statement or an expression, with all floating-point arithmetic in those forms."""
    rules = [
        (tirx.Sub, _difference),
        (tirx.Add, _with_hidden_zeros),
        (tirx.Mul, _with_hidden_zeros),
        (tirx.Div, _with_hidden_zeros),
        (tirx.EQ, _equality),
        (tirx.NE, _equality),
        (tirx.Not, _negation),
        (tirx.Or, _disjunction),
        (tirx.BufferStore, _stored),
        (SBlock, _reduction),
    ]
    return structural_map(body, rules, order="post")


def hidden(value: float, dtype: str) -> Any:
    """0.0, -0.0 or 1.0 as an expression that TVM does not see through; a compiler does."""
    one = tirx.reinterpret(dtype, tirx.const(_ONE[dtype], _BITS[dtype]))
    # Not the bits of 0: TVM takes them for a null pointer.
    if value:
        return one
    zero = tirx.Add(one, tirx.const(-1.0, dtype))
    return tirx.Mul(zero, tirx.const(-1.0, dtype)) if math.copysign(1.0, value) < 0 else zero


def _dtype(value: Any) -> str:
    """The dtype of an expression if it is a float that this pass knows, else an empty text."""
    dtype = str(value.ty.dtype)
    return dtype if dtype in _BITS else ""


def _is_zero(value: Any) -> bool:
    return isinstance(value, tirx.FloatImm) and value.value == 0


def _difference(node: Any) -> Any:
    dtype = _dtype(node)
    if not dtype:
        return node
    if isinstance(node.b, tirx.FloatImm):
        return tirx.Add(_shown(node.a), tirx.const(-node.b.value, dtype))
    return tirx.Add(_shown(node.a), tirx.Mul(_shown(node.b), tirx.const(-1.0, dtype)))


def _shown(value: Any) -> Any:
    return hidden(float(value.value), _dtype(value)) if _is_zero(value) and _dtype(value) else value


def _with_hidden_zeros(node: Any) -> Any:
    if not _dtype(node) or not (_is_zero(node.a) or _is_zero(node.b)):
        return node
    return type(node)(_shown(node.a), _shown(node.b))


def _equality(node: Any) -> Any:
    dtype = _dtype(node.a)
    return type(node)(node.a, tirx.Mul(node.b, hidden(1.0, dtype))) if dtype else node


def _about_floats(condition: Any) -> bool:
    """Whether a condition may be about floats: it compares some, or reads a flag that may have been."""
    found = []
    for kind in (tirx.LT, tirx.LE, tirx.GT, tirx.GE, tirx.EQ, tirx.NE):
        structural_walk(condition, (kind, lambda node: found.append(bool(_dtype(node.a)))))
    for kind in (TensorLoad, tirx.Var):
        structural_walk(condition, (kind, lambda node: found.append(str(node.ty.dtype) == "bool")))
    return any(found)


def _negation(node: Any) -> Any:
    return tirx.LT(tirx.Cast("int32", node.a), tirx.const(1, "int32")) if _about_floats(node.a) else node


def _disjunction(node: Any) -> Any:
    if not _about_floats(node):
        return node
    either = tirx.bitwise_or(tirx.Cast("int32", node.a), tirx.Cast("int32", node.b))
    return tirx.LT(tirx.const(0, "int32"), either)


def _stored(node: Any) -> Any:
    """A zero that is stored may be inlined into a product."""
    value = _shown(node.value)
    return node if value is node.value else tirx.BufferStore(node.buffer, value, list(node.indices))


def _reduction(block: Any) -> Any:
    """A reduction's own start: 0, or an infinity for a maximum or minimum."""
    init = block.init
    if not isinstance(init, tirx.BufferStore) or not _dtype(init.value):
        return block
    dtype = _dtype(init.value)
    start: float | None = None
    if isinstance(init.value, tirx.Add | tirx.Mul):  # what _stored made of the 0
        start = 0.0
    elif isinstance(init.value, tirx.FloatImm) and isinstance(block.body, tirx.BufferStore):
        value, largest = float(init.value.value), _LARGEST[dtype]
        if isinstance(block.body.value, tirx.Max) and value <= -largest:
            start = -math.inf
        elif isinstance(block.body.value, tirx.Min) and value >= largest:
            start = math.inf
    if start is None:
        return block
    return SBlock(
        block.iter_vars,
        block.reads,
        block.writes,
        block.name_hint,
        block.body,
        tirx.BufferStore(init.buffer, tirx.const(start, dtype), list(init.indices)),
        block.alloc_buffers,
        block.match_buffers,
        block.annotations,
    )

"""TIR for Relax operators that order or accumulate along an axis, for LegalizeCells.

TVM's own forms call functions of the runtime on whole buffers, which a batch has none of. These are loops over pairs of
elements: sorted, n elements take n * n comparisons. Sums and products so far take n log n operations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import relax, te, topi

from edbatch_tvm.errors import CellError
from edbatch_tvm.tvm_compat import tirx
from relay_ext.call_tvm_rule import tvm_rule

_BITS = {"float32": ("int32", 0x7F800000, 2**31 - 1), "float64": ("int64", 0x7FF0000000000000, 2**63 - 1)}
"""The integer of the size of a float, the bits of its infinity, and the greatest of these integers."""


def _key(value: Any) -> Any:
    """An integer that is ordered as `value` is: NaN is the greatest, -0 equals 0."""
    dtype = str(value.ty.dtype)
    if dtype == "bool":
        return tirx.Cast("int32", value)
    if dtype.startswith(("int", "uint")):
        return tirx.Cast("int64", value)
    integer, infinity, last = _BITS[dtype]
    bits = tirx.reinterpret(integer, value)
    size = bits & tirx.const(last, integer)
    signed = tirx.Select(bits < tirx.const(0, integer), tirx.const(0, integer) - size, size)
    return tirx.Select(size > tirx.const(infinity, integer), tirx.const(last, integer), signed)


def _argsort(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """The places of the elements in their order; those of equal ones stay in order."""
    (given,) = call.args
    if str(given.ty.dtype) in ("float16", "bfloat16"):
        raise CellError(f"the order of {given.ty.dtype} numbers", "float32, float64 or integers")
    axis = int(call.attrs.axis) % given.ty.ndim
    descending, dtype = bool(call.attrs.descending), str(call.attrs.dtype)

    def argsort(x: te.Tensor) -> te.Tensor:
        extent, shape = x.shape[axis], list(x.shape)
        key = te.compute(shape, lambda *at: _key(x(*at)), name="key")
        other = te.reduce_axis((0, extent), name="other")

        def before(*at: Any) -> Any:
            there = key(*_at(at, axis, other))
            here = key(*at)
            less = there > here if descending else there < here
            first = tirx.Or(less, tirx.And(tirx.EQ(there, here), other < at[axis]))
            return te.sum(tirx.Select(first, tirx.const(1, "int32"), tirx.const(0, "int32")), axis=other)

        rank = te.compute(shape, before, name="rank")
        place = te.reduce_axis((0, extent), name="place")

        def element(*at: Any) -> Any:
            here = tirx.EQ(rank(*_at(at, axis, place)), tirx.Cast("int32", at[axis]))
            return te.sum(tirx.Select(here, tirx.Cast(dtype, place), tirx.const(0, dtype)), axis=place)

        return te.compute(shape, element, name="argsort")

    return builder.call_te(argsort, given, primfunc_name_hint="argsort")


def _at(at: Any, axis: int, index: Any) -> list[Any]:
    return [*at[:axis], index, *at[axis + 1 :]]


_product = te.comm_reducer(lambda x, y: x * y, lambda dtype: tirx.const(1, dtype), name="product")


def _accumulated(
    name: str, reduce: Any, neutral: int, join: Callable[[Any, Any], Any]
) -> Callable[[relax.BlockBuilder, relax.Call], relax.Expr]:
    """The rule of ``cumsum`` (``cumprod``): n elements take log2(n) rounds, each joins parts that are twice as long.

    After round s an element is the sum of the 2^s elements up to it. Along an axis of unknown extent, each element is a
    sum of its own.
    """

    def rule(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
        (given,) = call.args
        if bool(call.attrs.exclusive) or call.attrs.axis is None:
            raise CellError(f"{name} that is exclusive, or over all axes", "one axis, each element included")
        axis = int(call.attrs.axis) % given.ty.ndim
        dtype = str(call.ty.dtype)
        extent = given.ty.shape.values[axis]

        def cast(value: Any) -> Any:
            return value if str(value.ty.dtype) == dtype else tirx.Cast(dtype, value)

        def in_rounds(x: te.Tensor) -> te.Tensor:
            shape, parts = list(x.shape), te.compute(list(x.shape), lambda *at: cast(x(*at)), name=f"{name}_0")
            for number in range((int(extent) - 1).bit_length()):
                parts = te.compute(shape, _joined(parts, axis, 1 << number, join), name=f"{name}_{number + 1}")
            return parts

        def one_by_one(x: te.Tensor) -> te.Tensor:
            other = te.reduce_axis((0, x.shape[axis]), name="other")

            def element(*at: Any) -> Any:
                there = cast(x(*_at(at, axis, other)))
                return reduce(tirx.Select(other <= at[axis], there, tirx.const(neutral, dtype)), axis=other)

            return te.compute(list(x.shape), element, name=name)

        form = in_rounds if isinstance(extent, tirx.IntImm) else one_by_one
        return builder.call_te(form, given, primfunc_name_hint=name)

    return rule


def _joined(parts: te.Tensor, axis: int, step: int, join: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    def element(*at: Any) -> Any:
        here = parts(*at)
        before = parts(*_at(at, axis, tirx.max(at[axis] - step, 0)))
        return tirx.if_then_else(at[axis] >= step, join(before, here), here)

    return element


def _scatter(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """Every element of the result looks for the updates that are meant for it: nothing is stored at an index."""
    data, index, updates = call.args
    axis, how = int(call.attrs.axis) % data.ty.ndim, str(call.attrs.reduction)
    dtype = str(data.ty.dtype)
    if how not in _REDUCTIONS and how != "update":
        raise CellError(f"scatter_elements with reduction {how!r}", f"update or one of {', '.join(_REDUCTIONS)}")

    def scatter(data: te.Tensor, index: te.Tensor, updates: te.Tensor) -> te.Tensor:
        shape, extent = list(data.shape), index.shape[axis]
        # Read at the index, so that those of attributes are bounded like any other.
        places = te.compute((shape[axis],), lambda at: tirx.Cast("int64", at), name="places")
        place = te.compute(list(index.shape), lambda *at: places(index(*at)), name="place")
        k = te.reduce_axis((0, extent), name="k")
        smaller = [d for d in range(len(shape)) if d != axis and int(index.shape[d]) < int(shape[d])]

        def there(at: Any, k: Any) -> list[Any]:
            inner = [tirx.min(one, index.shape[d] - 1) if d in smaller else one for d, one in enumerate(at)]
            return _at(inner, axis, k)

        def meant(at: Any) -> Any:
            hit = tirx.EQ(place(*there(at, k)), tirx.Cast("int64", at[axis]))
            for d in smaller:
                hit = tirx.And(hit, at[d] < index.shape[d])
            return hit

        if how == "update":

            def find(*at: Any) -> Any:
                return te.max(tirx.Select(meant(at), tirx.Cast("int32", k), tirx.const(-1, "int32")), axis=k)

            last = te.compute(shape, find, name="last")

            def chosen(*at: Any) -> Any:
                zero, most = tirx.const(0, "int32"), tirx.const(int(extent) - 1, "int32")
                found = updates(*there(at, tirx.max(tirx.min(last(*at), most), zero)))
                return tirx.Select(last(*at) >= zero, found, data(*at))

            return te.compute(shape, chosen, name="scatter")
        reduce, neutral, join = _REDUCTIONS[how]

        def gather(*at: Any) -> Any:
            return reduce(tirx.Select(meant(at), updates(*there(at, k)), neutral(dtype)), axis=k)

        joined = te.compute(shape, gather, name="joined")
        return te.compute(shape, lambda *at: join(data(*at), joined(*at)), name="scatter")

    return builder.call_te(scatter, data, index, updates, primfunc_name_hint="scatter")


def _limit(sign: int) -> Callable[[str], Any]:
    def neutral(dtype: str) -> Any:
        if dtype.startswith("float"):
            return tirx.const(sign * float("inf"), dtype)
        return tirx.max_value(dtype) if sign > 0 else tirx.min_value(dtype)

    return neutral


MOST_PLACES = 2**24
"""Places that float32 holds exactly."""


def has_exact_places(of: Any, axis: Any) -> bool:
    """Whether ``argmax`` and ``argmin`` along this axis of a tensor of type `of` treat NaN as PyTorch does."""
    extent = None if axis is None else of.shape.values[int(axis)]
    static = isinstance(extent, tirx.IntImm) and 0 < int(extent) <= MOST_PLACES
    return static and str(of.dtype) in ("float32", "float64")


def _place_of(extreme: Callable[..., te.Tensor], before: Callable[[Any, Any], Any]) -> Callable[..., relax.Expr]:
    """The rule of ``argmax`` (``argmin``): the first place of the extreme, or of NaN where there is one.

    Before::

        i = argmax(x)

    After::

        m = max over j: x[j]
        i = min over j: j if x[j] is NaN or m <= x[j], else infinity

    The number of the place is a float until the minimum is known: so it can be a line of a stage.
    """

    def rule(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
        (given,) = call.args
        axis, keep, dtype = call.attrs.axis, bool(call.attrs.keepdims), str(given.ty.dtype)
        if not has_exact_places(given.ty, axis):
            return tvm_rule(builder, call)
        extent = given.ty.shape.values[int(axis)]
        at_axis, infinity = int(axis) % given.ty.ndim, tirx.const(float("inf"), dtype)

        def place(x: te.Tensor) -> te.Tensor:
            most = extreme(x, axis=at_axis, keepdims=True)
            j = te.reduce_axis((0, int(extent)), name="j")

            def first(*at: Any) -> Any:
                outer = at[:at_axis], at[at_axis + keep :]
                one, other = x(*outer[0], j, *outer[1]), most(*outer[0], 0, *outer[1])
                number = tirx.Cast(dtype, j)
                # A comparison with NaN is false, and the negation of one is not safe from TVM's simplifier.
                chosen = tirx.Select(one <= infinity, tirx.Select(before(other, one), number, infinity), number)
                return te.min(chosen, axis=j)

            shape = [*x.shape[:at_axis], *([1] if keep else []), *x.shape[at_axis + 1 :]]
            found = te.compute(shape, first, name="place")
            return te.compute(shape, lambda *at: tirx.Cast(str(call.ty.dtype), found(*at)), name="place_number")

        return builder.call_te(place, given, primfunc_name_hint=call.op.name.rpartition(".")[2])

    return rule


_REDUCTIONS: dict[str, tuple[Any, Callable[[str], Any], Callable[[Any, Any], Any]]] = {
    "add": (te.sum, lambda dtype: tirx.const(0, dtype), lambda one, other: one + other),
    "mul": (_product, lambda dtype: tirx.const(1, dtype), lambda one, other: one * other),
    "max": (te.max, _limit(-1), tirx.max),
    "min": (te.min, _limit(1), tirx.min),
}
"""How updates are joined, what stands for none, and how they are joined with the element before."""

ORDER_RULES: dict[str, Any] = {
    "relax.argmax": _place_of(topi.max, lambda most, one: most <= one),
    "relax.argmin": _place_of(topi.min, lambda least, one: one <= least),
    "relax.argsort": _argsort,
    "relax.cumsum": _accumulated("cumsum", te.sum, 0, lambda one, other: one + other),
    "relax.cumprod": _accumulated("cumprod", _product, 1, lambda one, other: one * other),
    "relax.scatter_elements": _scatter,
}
"""Rules by operator."""

"""Conversions of PyTorch's products of matrices; TVM's own give float32 whatever the factors are."""

from __future__ import annotations

from typing import Any

from tvm import relax

from edbatch_tvm.tvm_compat import Call, TensorType


def _matmul(importer: Any, left: Any, right: Any) -> Any:
    dtype = "float64" if str(left.ty.dtype) == "float64" else "float32"
    return importer.block_builder.emit(relax.op.matmul(left, right, out_dtype=dtype))


def _product(node: Any, importer: Any) -> Any:
    """``mm``, ``bmm`` and ``matmul``."""
    return _matmul(importer, *importer.retrieve_args(node))


def _sum_and_product(node: Any, importer: Any) -> Any:
    """``addmm`` and ``baddbmm``: beta * x + alpha * (y @ z)."""
    x, y, z = (importer.env[one] for one in node.args[:3])
    if "float64" not in (str(y.ty.dtype), str(x.ty.dtype)):
        return getattr(importer, "_baddbmm" if "baddbmm" in str(node.target) else "_addmm")(node)
    emit, op = importer.block_builder.emit, relax.op
    result = _matmul(importer, y, z)
    alpha, beta = node.kwargs.get("alpha", 1), node.kwargs.get("beta", 1)
    if alpha != 1:
        result = emit(op.multiply(result, relax.const(alpha, "float64")))
    if beta == 0:  # NaN in x does not count then
        return result
    scaled = x if beta == 1 else emit(op.multiply(x, relax.const(beta, "float64")))
    return emit(op.add(scaled, result))


def narrowing_call(function: relax.Function) -> str:
    """The name of an operator other than a cast that makes float32 of float64; empty where there is none."""
    found: list[str] = []

    def visit(node: Any) -> None:
        if isinstance(node, Call) and getattr(node.op, "name", "") != "relax.astype":
            # A bound of `clip`, which is no tensor, is always given as float64.
            given = {str(argument.ty.dtype) for argument in node.args if isinstance(argument.ty, TensorType)}
            if "float64" in given and str(getattr(node.ty, "dtype", "")) == "float32":
                found.append(str(node.op.name))

    relax.analysis.post_order_visit(function.body, visit)
    return found[0] if found else ""


PRODUCTS: dict[str, Any] = {
    "mm.default": _product,
    "bmm.default": _product,
    "matmul.default": _product,
    "addmm.default": _sum_and_product,
    "baddbmm.default": _sum_and_product,
}
"""Converters by the name of the ATen operator, as ``custom_convert_map`` takes them."""

"""Pass: refuse what cannot be a cell, by name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import tvm
from tvm import IRModule, relax

from edbatch_tvm.errors import CellError
from edbatch_tvm.tvm_compat import TensorType, TupleType, tirx
from relay_ext.signature import cell_functions, signature_of, weights_of

KERNEL_SUFFIX = re.compile(r"(_stage\d+|_pack|_loop\d+)+$")
"""What the pipeline appends to the name of a cell for what it makes of it."""


@tvm.transform.module_pass(opt_level=0, name="CheckCells")
class CheckCells:
    """Check that every public Relax function of a module is a cell; the module is unchanged.

    Raises
    ------
    CellError
        If a signature or a weight is not of the form :mod:`relay_ext.signature` describes, a cell calls another
        Relax function, an external function or has control flow of its own, or has the name of another one's kernel.
    """

    def transform_module(self, mod: IRModule, _context: tvm.transform.PassContext) -> IRModule:
        """Run the pass."""
        signature_of(mod)
        weights_of(mod)
        _check_names(cell_functions(mod))
        for name, function in cell_functions(mod).items():
            for param in function.params:
                _check_size(name, f"parameter {param.name!r}", param.ty)
            relax.analysis.post_order_visit(function.body, lambda node, cell=name: _check_node(mod, cell, node))
        return mod


def _check_names(names: Iterable[str]) -> None:
    known = set(names)
    for name in known:
        for underscore in re.finditer("_", name):
            cell, suffix = name[: underscore.start()], name[underscore.start() :]
            if cell in known and KERNEL_SUFFIX.fullmatch(suffix):
                raise CellError(
                    f"cell {name!r} has the name of a kernel of cell {cell!r}", "another name for one of the two"
                )


def check_shapes(name: str, function: relax.Function) -> None:
    """Refuse a function in which a tensor has no elements, or a shape that depends on values.

    Raises
    ------
    CellError
    """

    def check(node: Any) -> None:
        if isinstance(node, relax.Var | relax.Call):
            fields = node.ty.fields if isinstance(node.ty, TupleType) else [node.ty]
            for field in fields:
                _check_size(name, "a value", field)
                if isinstance(field, TensorType) and field.shape is None:
                    raise CellError(f"the shape of a value in cell {name!r} depends on values", "one that is fixed")

    for param in function.params:
        _check_size(name, f"parameter {param.name!r}", param.ty)
    relax.analysis.post_order_visit(function.body, check)


def _check_size(cell: str, what: str, annotation: Any) -> None:
    """Refuse a tensor without elements: kernels divide by its sizes."""
    if isinstance(annotation, TensorType) and isinstance(annotation.shape, relax.ShapeExpr):
        shape = list(annotation.shape.values)
        if any(isinstance(extent, tirx.IntImm) and int(extent) == 0 for extent in shape):
            numbers = ", ".join(str(int(e)) if isinstance(e, tirx.IntImm) else str(e) for e in shape)
            raise CellError(
                f"{what} of cell {cell!r} has shape ({numbers}), no elements",
                "sizes of 1 or more",
                "leave it out",
            )


def _check_node(mod: IRModule, cell: str, node: Any) -> None:
    if isinstance(node, relax.Call | relax.Var):
        _check_size(cell, "a value", node.ty)
    if isinstance(node, relax.If):
        raise CellError(
            f"cell {cell!r} has an If", "straight-line code", "choose between cells when the instance graph is built"
        )
    if isinstance(node, relax.Function):
        raise CellError(f"cell {cell!r} defines a function inside", "straight-line code")
    if isinstance(node, relax.Call) and isinstance(node.op, tvm.ir.GlobalVar):
        if isinstance(mod[node.op], relax.Function):
            raise CellError(
                f"cell {cell!r} calls the function {node.op.name_hint!r}",
                "operators and R.call_tir",
                "inline it with relax.transform.InlinePrivateFunctions, or call both cells when building the graph",
            )
    elif isinstance(node, relax.Call) and isinstance(node.op, relax.ExternFunc):
        raise CellError(
            f"cell {cell!r} calls the external function {node.op.global_symbol!r}, which cannot be batched",
            "operators and R.call_tir",
        )

"""The cells that backward graphs consist of: the sections of adjoint cells, and sums of cotangents."""

from __future__ import annotations

from typing import Any

from tvm import relax
from tvm.relax import op as R

from edbatch_tvm.graph.spec import Signature, ValueSpec
from edbatch_tvm.tvm_compat import TensorType, tirx
from relay_ext.gradients.sections import BackwardCell


def section_functions(cells: dict[int, BackwardCell]) -> dict[str, Any]:
    """The sections of all adjoints, by name."""
    return {
        section_name(cell, number): section.function
        for cell in cells.values()
        for number, section in enumerate(cell.sections)
    }


def section_name(cell: BackwardCell, number: int) -> str:
    """The name of a section of an adjoint."""
    return f"{cell.name}_adjoint{number or ''}"


def sum_cell(spec: ValueSpec) -> relax.Function:
    """A cell that adds any number of values of `spec`."""
    parts = relax.Var("parts", TensorType((tirx.Var("k", "int64"), *spec.shape), spec.dtype))
    builder = relax.BlockBuilder()
    with builder.function("sum", [parts], {"num_input": 1}):
        with builder.dataflow():
            total = builder.emit_output(R.sum(parts, axis=[0]))
        builder.emit_func_output(total)
    return builder.finalize()["sum"]


def sum_name(arena: int) -> str:
    """The name of the cell that adds values of an arena of the forward signature."""
    return f"sum_of_cotangents{arena}"


def float_arenas(signature: Signature, cells: Signature) -> list[int]:
    """The arenas that outputs of `cells` lie in, which all have cotangents: `signature` is of cells that save more."""
    return sorted({signature.arena(spec) for cell in cells for spec in cell.outputs})

"""What the kernels of a cell have to know of the model around it."""

from __future__ import annotations

from edbatch_tvm.graph.spec import Signature
from schedules import abi


def bind_cell(signature: Signature, name: str) -> abi.CellBinding:
    """Arenas and attributes of the cell called `name`."""
    cell = signature[name]
    specs = signature.value_specs
    return abi.CellBinding(
        signature.type_id(name),
        tuple(signature.arena(spec) for spec in cell.outputs),
        tuple(signature.arena(operand.spec) for operand in cell.operands),
        tuple(abi.padded(spec.size) for spec in specs),
        tuple(spec.dtype for spec in specs),
        tuple(attribute.spec.size for attribute in cell.attributes),
        tuple(attribute.spec.dtype for attribute in cell.attributes),
    )

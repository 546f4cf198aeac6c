"""Cells for a GPU: what its kernels are made of, cell by cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from tvm import IRModule

from edbatch_tvm.errors import TargetError
from edbatch_tvm.graph.spec import Signature
from edbatch_tvm.tvm_compat import tirx
from relay_ext.bind_cell import bind_cell
from relay_ext.block_reader import NotReadable
from relay_ext.fuse_cells import cell_params
from relay_ext.gpu_general import GeneralPart
from relay_ext.share_cells import members_of
from relay_ext.stage_cells import stages_of
from schedules import abi
from schedules import stage as ir
from schedules.cuda.execution_model import EmulatedThreads
from schedules.cuda.kernel_arguments import (
    ATTRIBUTES,
    TYPE_WORDS,
    elements_of_place,
    has_weights,
    packed_shape,
    stacked,
)
from schedules.cuda.kernels import (
    MatrixPart,
    Occupancy,
    Part,
    Shapes,
    SharedPart,
    StagePart,
    batch_kernel,
    schedule_kernel,
)
from schedules.cuda.matrix_code import is_by_instance
from schedules.cuda.matrix_stage_packing import MatrixPacking, matrix_pack_kernel
from schedules.cuda.product_precision import FLOAT32, Products
from schedules.cuda.tiles import is_tiled
from schedules.cuda.weight_packing import pack_kernel

Members = list[tuple[str, dict[str, str]]]


@dataclass(frozen=True, eq=False)
class GpuProgram:
    """A model for a GPU, before its kernels are built.

    Attributes
    ----------
    parts : tuple of Part
        The stages and general cells; the parts of a cell in the order they run.
    shapes : dict
        Shapes and dtypes of weights, tables, packed weights and scratch, by argument.
    packs : IRModule
        Functions for the CPU that pack the weights of stages at load.
    scratch : dict from name to (width, domain)
        Rows that pass from stage to stage of a cell.
    paths : dict
        For each cell ``stage``, or ``general (reason)``.
    machine : Occupancy
    members : dict
        By the first of equal cells: each of them, and what it calls the weights of the first.
    types : int32 array of shape [types, 3]
        The table of types of :mod:`schedules.cuda.kernel_arguments`; without rows where no cells are equal.
    """

    parts: tuple[Part, ...]
    shapes: Shapes
    packs: IRModule
    scratch: dict[str, tuple[int, str]]
    paths: dict[str, str]
    machine: Occupancy
    members: dict[str, Members]
    types: np.ndarray

    def cells_of(self, part: Part, signature: Signature) -> list[str]:
        """The cells that run `part`."""
        return [name for name, _ in self.members[signature[part.type_id].name]]

    def batch_kernels(self, emulate: EmulatedThreads | None = None) -> IRModule:
        """One kernel for each part."""
        return IRModule({part.name: batch_kernel(part, self.shapes, self.machine, emulate) for part in self.parts})

    def schedule_kernels(self, emulate: EmulatedThreads | None = None) -> IRModule:
        """The kernel that runs a whole schedule."""
        kernel = schedule_kernel(self.parts, self.shapes, self.machine, emulate)
        return IRModule({str(kernel.attrs["global_symbol"]): kernel})


def gpu_program(
    module: IRModule, signature: Signature, machine: Occupancy | None = None, products: Products = FLOAT32
) -> GpuProgram:
    """The program of a module of fused cells.

    Parameters
    ----------
    module : IRModule
        Cells as FuseCells leaves them.
    products : Products
        What products of stages are computed in; general cells compute in float32.
    """
    parts: list[Part] = []
    shapes: Shapes = {}
    packs: dict[str, tirx.PrimFunc] = {}
    scratch: dict[str, tuple[int, str]] = {}
    paths: dict[str, str] = {}
    functions = {var.name_hint: function for var, function in module.functions.items()}
    members = {name: members_of(functions[name], name) for name in signature.names if name in functions}
    types = _types(signature, members)
    for cell in (signature[name] for name in members):
        function, binding = functions[cell.name], bind_cell(signature, cell.name)
        attributes = int(types[binding.type_id, 2])
        for buffer, name in cell_params(function).weights.items():
            shape, dtype = tuple(map(int, buffer.shape)), str(buffer.dtype)
            shapes[f"weight:{name}"] = shape, dtype
            if len(shape) > 1:
                shapes[f"table:{name}"] = abi.table_shape(shape), dtype
        try:
            stages = _tiled_stages(function, signature, products)
            paths[cell.name] = "stage"
        except NotReadable as reason:
            paths[cell.name] = f"general ({reason})"
            stages = []
            parts.append(GeneralPart(function, cell, binding, attributes))
        for stage in stages:
            buffers = cell_params(function).weights
            if is_tiled(stage, products):
                parts.append(StagePart(stage, binding, attributes, products))
                shapes[f"packed:{stage.name}"] = packed_shape(stage, products), "float32"
                pack = pack_kernel(stage, buffers, products)
            else:
                parts.append(MatrixPart(stage, binding, attributes))
                shapes[f"packed:{stage.name}"] = (MatrixPacking(stage).size,), "float32"
                pack = matrix_pack_kernel(stage, buffers)
            if has_weights(stage):
                packs[f"{stage.name}_pack"] = pack
            for output in stage.outputs:
                if output.scratch:
                    width = stage.rows * stage.columns
                    scratch[output.scratch] = abi.padded(width), stage.domain
                    shapes[f"scratch:{output.scratch}"] = (width,), "float32"
        paths |= dict.fromkeys((name for name, _ in members[cell.name]), paths[cell.name])
    shared = any(len(ones) > 1 for ones in members.values())
    return GpuProgram(
        tuple(_shared(part, signature, members, shapes) for part in parts),
        shapes,
        IRModule(packs),
        scratch,
        paths,
        machine or Occupancy(),
        members,
        types if shared else np.empty((0, TYPE_WORDS), np.int32),
    )


def _types(signature: Signature, members: Mapping[str, Members]) -> np.ndarray:
    """The table of types; see :mod:`schedules.cuda.kernel_arguments`."""
    types = np.zeros((len(signature.names), TYPE_WORDS), np.int32)
    for first, ones in members.items():
        for place, (name, _) in enumerate(ones):
            types[signature.type_id(name), :2] = signature.type_id(first), place
    types[1:, 2] = np.cumsum([len(cell.attributes) for cell in signature])[:-1]
    return types


def _shared(part: Part, signature: Signature, members: Mapping[str, Members], shapes: Shapes) -> Part:
    """`part` for all cells that are equal to its own; `shapes` are extended by those of its weights.

    Raises
    ------
    TargetError
        If these have 2³¹ elements or more.
    """
    cell = signature[part.type_id].name
    count = len(members[cell])
    if count == 1:
        return part
    for text in part.arguments():
        whole = stacked(text, part.type_id)
        if whole != text:
            shape, dtype = shapes[text]
            size = count * elements_of_place(shape)
            if size >= 2**31:
                raise TargetError(f"{count} cells like {cell!r} with {size} elements of {text}", "less than 2**31")
            shapes[whole] = (size,), dtype
    return SharedPart(part, ATTRIBUTES + len(signature.attribute_columns))


def _tiled_stages(function: tirx.PrimFunc, signature: Signature, products: Products) -> list[ir.Stage]:
    stages = stages_of(function, signature, ("float32",), whole_rows=False)
    for stage in stages:
        if not is_tiled(stage, products) and not is_by_instance(stage):
            raise NotReadable(f"stage {stage.name!r} has more gates than shared memory holds, or matrices in rows")
    return stages

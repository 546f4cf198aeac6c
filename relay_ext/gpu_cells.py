"""Cells for a GPU: what its kernels are made of, cell by cell."""

from __future__ import annotations

from dataclasses import dataclass

from tvm import IRModule

from edbatch_tvm.graph.spec import Signature
from edbatch_tvm.tvm_compat import tirx
from relay_ext.bind_cell import bind_cell
from relay_ext.block_reader import NotReadable
from relay_ext.fuse_cells import cell_params
from relay_ext.gpu_general import GeneralPart
from relay_ext.stage_cells import stages_of
from schedules import abi
from schedules import stage as ir
from schedules.cuda.kernel_arguments import has_weights, packed_shape
from schedules.cuda.kernels import MatrixPart, Occupancy, Part, Shapes, StagePart, batch_kernel, schedule_kernel
from schedules.cuda.matrix_code import is_by_instance
from schedules.cuda.matrix_packing import MatrixPacking, matrix_pack_kernel
from schedules.cuda.product_precision import FLOAT32, Products
from schedules.cuda.thread_grid import EmulatedThreads
from schedules.cuda.tiles import is_tiled
from schedules.cuda.weight_packing import pack_kernel


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
    """

    parts: tuple[Part, ...]
    shapes: Shapes
    packs: IRModule
    scratch: dict[str, tuple[int, str]]
    paths: dict[str, str]
    machine: Occupancy

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
    attributes = 0
    for cell in signature:
        function, binding = module[cell.name], bind_cell(signature, cell.name)
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
        attributes += len(cell.attributes)
    return GpuProgram(tuple(parts), shapes, IRModule(packs), scratch, paths, machine or Occupancy())


def _tiled_stages(function: tirx.PrimFunc, signature: Signature, products: Products) -> list[ir.Stage]:
    stages = stages_of(function, signature, ("float32",))
    for stage in stages:
        if not is_tiled(stage, products) and not is_by_instance(stage):
            raise NotReadable(f"stage {stage.name!r} has more gates than shared memory holds, or matrices in rows")
    return stages

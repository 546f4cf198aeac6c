"""The kernels of a module as subjects of tuning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvm import IRModule

from edbatch_tvm.graph import CellSignature, Signature
from edbatch_tvm.tuning.kernels.general_cell_search import TileSubject
from edbatch_tvm.tuning.kernels.stage_search import StageSubject
from edbatch_tvm.tuning.kernels.timing import Candidate
from edbatch_tvm.tuning.kernels.timing_inputs import timing_inputs
from edbatch_tvm.tvm_compat import tirx
from relay_ext.batch_cells import batched_kernel, own_params
from relay_ext.bind_cell import bind_cell
from relay_ext.block_reader import NotReadable
from relay_ext.index_bounds import with_index_bounds
from relay_ext.pipeline import cell_passes, run_passes
from relay_ext.signature import signature_of
from relay_ext.stage_cells import stage_kernel_of, stages_of
from schedules import abi
from schedules.cpu.instance_tiles import NotTileable, TunedTile, tile_cell
from schedules.cpu.machine import Machine
from schedules.cpu.stage_config import StageConfig
from schedules.stage import Stage


@dataclass(frozen=True, eq=False)
class Subjects:
    """What can be tuned of a module.

    Attributes
    ----------
    signature : Signature
    stages, tiles : dict
        Subjects by the name of their kernel.
    cell_of : dict
        The cell of each.
    multiply_adds : dict
        Of one instance, by kernel: roughly, to share trials by.
    untunable : dict
        For the other cells, why not.
    """

    signature: Signature
    stages: dict[str, StageSubject]
    tiles: dict[str, TileSubject]
    cell_of: dict[str, str]
    multiply_adds: dict[str, int]
    untunable: dict[str, str]


def find_subjects(mod: IRModule, machine: Machine) -> Subjects:
    """The kernels of the cells `mod` on `machine`.

    Raises
    ------
    CellError
        If a cell cannot be batched.
    """
    fused = run_passes(mod, cell_passes())
    signature = with_index_bounds(signature_of(mod), fused)
    found = Subjects(signature, {}, {}, {}, {}, {})
    for function in fused.functions.values():
        name = str(function.attrs["edbatch.cell"])
        try:
            stages = stages_of(function, signature)
        except NotReadable:
            _add_tiles(found, function, name, machine)
            continue
        widths = {o.scratch: abi.padded(s.rows * s.columns) for s in stages for o in s.outputs if o.scratch}
        for stage in stages:
            found.stages[stage.name] = _stage_subject(function, stage, signature, machine, widths)
            found.cell_of[stage.name] = name
            found.multiply_adds[stage.name] = _multiply_adds(stage)
    return found


def _stage_subject(
    function: tirx.PrimFunc, stage: Stage, signature: Signature, machine: Machine, widths: dict[str, int]
) -> StageSubject:
    cell: CellSignature = signature[stage.cell]
    layout = bind_cell(signature, stage.cell).layout

    def candidate(config: StageConfig, count: int) -> Candidate:
        kernel = stage_kernel_of(function, stage, signature, machine, config)
        return Candidate.of(kernel, timing_inputs(kernel, cell, layout, count, widths))

    return StageSubject(stage.name, stage, machine, candidate)


def _add_tiles(found: Subjects, function: tirx.PrimFunc, name: str, machine: Machine) -> None:
    try:
        tile_cell(function, own_params(function), 1)
    except NotTileable as reason:
        found.untunable[name] = str(reason)
        return
    cell, layout = found.signature[name], bind_cell(found.signature, name).layout

    def candidate(tiles: Sequence[TunedTile], count: int) -> Candidate:
        kernel = batched_kernel(function, cell, found.signature, tiles)
        return Candidate.of(kernel, timing_inputs(kernel, cell, layout, count))

    found.tiles[name] = TileSubject(name, function, own_params(function), candidate)
    found.cell_of[name] = name
    found.multiply_adds[name] = _weights(function)


def _multiply_adds(stage: Stage) -> int:
    lengths = [one.length for gate in stage.gates for one in gate.passes]
    return stage.rows * stage.columns * max(1, sum(lengths))


def _weights(function: Any) -> int:
    """Elements of the matrices of a cell: as a product reads each once, its multiply-adds."""
    shapes = [[int(extent) for extent in param.shape] for param in function.params if len(param.shape) >= 2]
    return sum(shape[-1] * shape[-2] for shape in shapes) or 1

"""Pass: cells made of stages become stage kernels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import tvm
from tvm import IRModule

from edbatch_tvm.graph.spec import Signature
from edbatch_tvm.tvm_compat import tirx
from relay_ext.bind_cell import bind_cell
from relay_ext.block_reader import NotReadable
from relay_ext.find_stages import find_stages
from relay_ext.fuse_cells import CELL, cell_params
from relay_ext.share_cells import member_attribute
from relay_ext.stage_inputs import STAGE_DTYPES
from schedules.cpu.machine import Machine
from schedules.cpu.stage_config import StageConfig
from schedules.cpu.stage_kernel import stage_kernel
from schedules.cpu.weight_packing import pack_kernel, packing_of
from schedules.stage import Stage
from schedules.tuning_records import Records

ORDER = "edbatch.order"
"""Attribute of a kernel: its place among the kernels of its cell."""

PATH = "edbatch.path"
"""Attribute of a kernel: ``stage``, ``general``, or ``pack`` for a function that packs weights at load."""

PACKED_SHAPE = "edbatch.packed_shape"
"""Attribute of a stage kernel: shape of its packed weights."""

DTYPE = "edbatch.dtype"
"""Attribute of a stage kernel: the dtype of its packed weights and of the scratch rows it writes."""

SCRATCH = "edbatch.scratch"
"""Attribute of a stage kernel: the scratch rows it writes, as texts ``name:domain:width``."""

WORK = "edbatch.work"
"""Attribute of a kernel that runs nodes: about how many multiplications one takes; one variadic row is counted."""

REASON = "edbatch.reason"
"""Attribute of a cell that keeps the general path: why."""


@tvm.transform.module_pass(opt_level=0, name="StageCells")
@dataclass(frozen=True)
class StageCells:
    """Replace every cell made of stages by its kernels and the functions that pack their weights.

    Before::

        cell "internal": h1, c1, h2, c2, U_iou, ... -> h, c       # one instance

    After::

        internal_stage0(step, steps, index, arena0, packed)       # one batch, gathers inside
        internal_stage0_pack(U_iou, ..., packed)                  # once, at load

    A cell of another form is left as it is, with the reason in its attribute :data:`REASON`. `configs` has the tiling
    of stages by name; the others are tiled as `records` of tuning say, or by default. `narrow` says that values and
    weights will be kept in fewer bits.
    """

    signature: Signature
    machine: Machine
    configs: Mapping[str, StageConfig] = field(default_factory=dict)
    records: Records | None = None
    narrow: bool = False

    def transform_module(self, mod: IRModule, _context: tvm.transform.PassContext) -> IRModule:
        """Run the pass."""
        functions: dict[str, tirx.PrimFunc] = {}
        for var, function in mod.functions.items():
            try:
                stages = stages_of(function, self.signature)
            except NotReadable as reason:
                functions[var.name_hint] = function.with_attr(REASON, str(reason))
                continue
            for order, stage in enumerate(stages):
                functions.update(self._kernels(function, stage, order))
        return IRModule(functions)

    def _kernels(self, function: tirx.PrimFunc, stage: Stage, order: int) -> dict[str, tirx.PrimFunc]:
        config = self.configs.get(stage.name)
        if config is None and self.records is not None:
            config = self.records.stage_config(stage, self.machine)
        kernel = stage_kernel_of(function, stage, self.signature, self.machine, config, self.narrow).with_attr(
            ORDER, order
        )
        kernels = {stage.name: kernel}
        if packing_of(stage, self.machine).size:
            pack = pack_kernel(stage, self.machine, cell_params(function).weights)
            kernels[f"{stage.name}_pack"] = pack.with_attrs({CELL: stage.cell, ORDER: order, PATH: "pack"})
        return kernels


def stage_kernel_of(
    function: tirx.PrimFunc,
    stage: Stage,
    signature: Signature,
    machine: Machine,
    config: StageConfig | None = None,
    narrow: bool = False,
) -> tirx.PrimFunc:
    """The kernel of a stage of the fused cell `function`, tiled by `config` or else by default."""
    tables = {
        name: (tuple(map(int, buffer.shape)), str(buffer.dtype))
        for buffer, name in cell_params(function).weights.items()
    }
    kernel = stage_kernel(stage, bind_cell(signature, stage.cell), machine, tables, config, narrow)
    scratch = [
        f"{o.scratch}:{stage.domain}:{stage.rows * (1 if o.narrow else stage.columns)}"
        for o in stage.outputs
        if o.scratch
    ] + [f"{line.scratch}:rows:{stage.rows}" for line in stage.row_values]
    shape = [packing_of(stage, machine).size]
    attributes = {CELL: stage.cell, PATH: "stage", PACKED_SHAPE: shape, DTYPE: stage.dtype, SCRATCH: scratch}
    return kernel.with_attrs(attributes | member_attribute(function) | {WORK: stage.work})


def stages_of(
    function: tirx.PrimFunc, signature: Signature, dtypes: tuple[str, ...] = STAGE_DTYPES, whole_rows: bool = True
) -> list[Stage]:
    """The stages of a fused cell of `signature`; see :func:`relay_ext.find_stages.find_stages`."""
    cell = signature[str(function.attrs[CELL])]
    params = cell_params(function).inputs
    variadic = {operand.name: operand.variadic for operand in cell.operands}
    return find_stages(
        function,
        tuple(variadic.get(param.name, False) for param in params),
        tuple(param.name in variadic for param in params),
        dtypes,
        whole_rows,
    )

"""The lowering of cells, in order; each phase is a pass of its own file, and can be dumped."""

from __future__ import annotations

from pathlib import Path

import tvm
from tvm import IRModule
from tvm.target import Target

from edbatch_tvm.graph.spec import Signature
from relay_ext.batch_cells import BatchCells
from relay_ext.check_cells import CheckCells
from relay_ext.fast_math import FastMath
from relay_ext.fuse_cells import FuseCells
from relay_ext.join_kernels import JoinKernels
from relay_ext.legalize_cells import LegalizeCells
from relay_ext.share_cells import ShareCells
from relay_ext.share_loops import ShareLoops
from relay_ext.stage_cells import StageCells
from schedules.cpu.machine import Machine, machine_of
from schedules.cpu.sharing import sharing_ir
from schedules.tuning.records import Records


def cell_passes(fast_math: bool = True, share: bool = False) -> list[tvm.transform.Pass]:
    """From TVMScript cells to one TIR function a cell, still for one instance.

    Parameters
    ----------
    fast_math : bool
        GPUs have fast math of their own.
    share : bool
        Whether equal cells become one function: :class:`~relay_ext.join_kernels.JoinKernels` finds the weights of each.
    """
    shared = [ShareCells()] if share else []
    return [CheckCells(), *shared, LegalizeCells(), FuseCells(), *([FastMath()] if fast_math else [])]


def kernel_passes(signature: Signature, machine: Machine, records: Records | None = None) -> list[tvm.transform.Pass]:
    """From TIR functions for one instance to kernels for a batch, tuned where there are `records`."""
    return [StageCells(signature, machine, records=records), BatchCells(signature, machine, records)]


def program_passes(signature: Signature, target: Target) -> list[tvm.transform.Pass]:
    """From kernels to one function that runs a schedule."""
    return [ShareLoops(), JoinKernels(signature, sharing_ir(target))]


def lowering(signature: Signature, target: Target) -> tvm.transform.Sequential:
    """All passes from cells to the function that runs a schedule on a CPU as one pass, for cells of `signature`.

    Examples
    --------
    >>> lowering(signature_of(mod), host_target())(mod)       # doctest: +SKIP
    """
    passes = [
        *cell_passes(share=True),
        *kernel_passes(signature, machine_of(target)),
        *program_passes(signature, target),
    ]
    return tvm.transform.Sequential(passes, name="edbatch.lowering")


def run_passes(
    mod: IRModule, passes: list[tvm.transform.Pass], dump_dir: str | Path | None = None, first: int = 0
) -> IRModule:
    """Run `passes` over `mod`; with `dump_dir`, write the module after each as ``<number>_<pass>.py``."""
    for number, one in enumerate(passes, first):
        mod = one(mod)
        if dump_dir is not None:
            folder = Path(dump_dir)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number:02d}_{one.info.name}.py").write_text(mod.script())
    return mod

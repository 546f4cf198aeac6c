"""The lowering of cells, in order; each phase is a pass in a file of its own and can be dumped.

:func:`pipeline` is the whole list. Finding the bounds of indices (:mod:`relay_ext.index_bounds`) is not a pass: it
reads what GuardIndices leaves and changes no module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import tvm
from tvm import IRModule
from tvm.target import Target

from edbatch_tvm.argument_checks import as_path
from edbatch_tvm.errors import CellError
from edbatch_tvm.graph.spec import Signature
from relay_ext.batch_cells import BatchCells
from relay_ext.bind_sizes import BindSizes
from relay_ext.change_cell_dtype import ChangeCellDtype
from relay_ext.check_cells import CheckCells
from relay_ext.fuse_cells import FuseCells
from relay_ext.group_ops import GroupOps
from relay_ext.guard_indices import GuardIndices
from relay_ext.join_model_kernels import JoinModelKernels
from relay_ext.legalize_cells import LegalizeCells
from relay_ext.lift_weights import LiftWeights
from relay_ext.narrow_storage import NarrowStorage
from relay_ext.share_cells import ShareCells
from relay_ext.split_cells import SplitCells
from relay_ext.stage_cells import StageCells
from relay_ext.strict_floats import StrictFloats
from relay_ext.workshare_loops import WorkshareLoops
from schedules.cpu.machine import Machine, machine_of
from schedules.cpu.work_sharing import sharing_ir
from schedules.tuning_records import Records


def pipeline(
    granularity: str,
    of_backend: Sequence[tvm.transform.Pass],
    sizes: Mapping[str, int] | None = None,
    dtype: str = "float32",
) -> list[tvm.transform.Pass]:
    """All passes of a compilation in order.

    Parameters
    ----------
    granularity : {"cell", "group", "group-declared", "op"}
    of_backend : sequence of Pass
        ``backend.passes(signature, options)``: those from cells that are the nodes of graphs to kernels.
    sizes : mapping of str to int, optional
        Numbers for symbolic sizes; see :func:`relay_ext.bind_sizes.find_sizes`.
    dtype : str
        ``"float64"``: cells written in float32 become cells of float64.
    """
    return [*source_passes(sizes, dtype), *node_passes(granularity), *of_backend]


def source_passes(sizes: Mapping[str, int] | None = None, dtype: str = "float32") -> list[tvm.transform.Pass]:
    """What makes the sizes and dtypes of cells those that they are compiled for."""
    converted: list[tvm.transform.Pass] = [ChangeCellDtype(dtype)] if dtype == "float64" else []
    return [*converted, BindSizes(sizes or {})]


def node_passes(granularity: str) -> list[tvm.transform.Pass]:
    """From cells as users write them, of known sizes, to cells that are the nodes of graphs."""
    passes: list[tvm.transform.Pass] = []
    if granularity == "op":
        passes = [SplitCells()]
    elif granularity != "cell":
        passes = [CheckCells(), GroupOps(granularity == "group"), LiftWeights(), SplitCells(fold_views=True)]
    return passes


def cell_passes(share: bool = False) -> list[tvm.transform.Pass]:
    """From TVMScript cells to one TIR function per cell, still for one instance.

    Parameters
    ----------
    share : bool
        Whether equal cells become one function: :class:`~relay_ext.join_model_kernels.JoinModelKernels` finds the
        weights of each.
    """
    return [*module_passes(share), *lone_cell_passes()]


def module_passes(share: bool) -> list[tvm.transform.Pass]:
    """Those of :func:`cell_passes` that look at all cells of a module together."""
    return [CheckCells(), ShareCells()] if share else [CheckCells()]


def lone_cell_passes() -> list[tvm.transform.Pass]:
    """Those of :func:`cell_passes` whose result for a cell depends on that cell alone."""
    return [LegalizeCells(), FuseCells(), GuardIndices(), StrictFloats()]


def kernel_passes(
    signature: Signature, machine: Machine, records: Records | None = None, storage: str = "float32"
) -> list[tvm.transform.Pass]:
    """From TIR functions for one instance to kernels for a batch, tuned where there are `records`."""
    narrow = storage != "float32"
    stages = StageCells(signature, machine, records=records, narrow=narrow)
    return [stages, BatchCells(signature, records), *([NarrowStorage(storage)] if narrow else [])]


def program_passes(signature: Signature, target: Target) -> list[tvm.transform.Pass]:
    """From kernels to one function that runs a schedule."""
    return [WorkshareLoops(), JoinModelKernels(signature, sharing_ir(target))]


def lowering(signature: Signature, target: Target) -> tvm.transform.Sequential:
    """The pipeline for a CPU, from cells to the function that runs a schedule, as one pass for cells of `signature`.

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


class PassRun:
    """Runs passes over a module, list after list.

    Parameters
    ----------
    mod : IRModule
    dump_dir : path, optional
        Where the module is written after each pass, as ``<number>_<pass>.py``.
    begins : callable, optional
        Called with the name of each pass before it runs.

    Attributes
    ----------
    module : IRModule
        After the last pass.
    after : dict of str to IRModule
        After each pass, by its name; the last one of a name.
    """

    def __init__(
        self, mod: IRModule, dump_dir: str | Path | None = None, begins: Callable[[str], None] | None = None
    ) -> None:
        self.module = mod
        self._begins = begins
        self.after: dict[str, IRModule] = {}
        self._folder = None if dump_dir is None else as_path("dump_dir", dump_dir, CellError)
        self._number = 0

    def __call__(self, passes: Sequence[tvm.transform.Pass]) -> IRModule:
        """Run more passes; the module after them."""
        for one in passes:
            if self._begins is not None:
                self._begins(str(one.info.name))
            self.module = self.after[one.info.name] = one(self.module)
            if self._folder is not None:
                self._write(self._folder, f"{self._number:02d}_{one.info.name}.py")
            self._number += 1
        return self.module

    def _write(self, folder: Path, name: str) -> None:
        text = self.module.script()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        except OSError as error:
            raise CellError(
                f"dump_dir {str(folder)!r} cannot be written: {error.strerror}", "a folder that takes files"
            ) from error


def run_passes(mod: IRModule, passes: Sequence[tvm.transform.Pass], dump_dir: str | Path | None = None) -> IRModule:
    """Run `passes` over `mod`; see :class:`PassRun`."""
    return PassRun(mod, dump_dir)(passes)

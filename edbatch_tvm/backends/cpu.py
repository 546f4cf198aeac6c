"""CPUs: LLVM compiles all kernels of a model into one program."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

import numpy as np
from tvm import IRModule
from tvm.ir.transform import Pass

from edbatch_tvm.backends.backend import Backend, Progress, TargetLike
from edbatch_tvm.backends.check_llvm_target import check_llvm
from edbatch_tvm.backends.cpu_cells import CellCompiler
from edbatch_tvm.backends.cpu_kernel_cache import kernel_library
from edbatch_tvm.backends.cpu_records import find_records, records_digest
from edbatch_tvm.backends.options import CompileOptions, Database
from edbatch_tvm.backends.registry import as_target
from edbatch_tvm.errors import EnvironmentMismatch, TargetError, WeightError
from edbatch_tvm.graph.spec import Signature
from edbatch_tvm.runtime.artifact import Artifact, Attributes, HeldWeights, attributes_of, with_symbols
from edbatch_tvm.runtime.compilation_cache import KeptCells, passes_are_watched
from edbatch_tvm.runtime.cpu_executor import CpuExecutor
from edbatch_tvm.runtime.cpu_features import instruction_sets, missing_sets
from edbatch_tvm.runtime.kernels import KernelSet
from edbatch_tvm.runtime.threads import get_num_threads
from relay_ext.add_gather_kernels import AddGatherKernels
from relay_ext.narrow_storage import STORAGES
from relay_ext.pipeline import (
    cell_passes,
    kernel_passes,
    lone_cell_passes,
    module_passes,
    program_passes,
    run_passes,
)
from relay_ext.stage_inputs import STAGE_DTYPES
from relay_ext.workshare_loops import WorkshareLoops
from schedules.cpu.machine import host_target, machine_of
from schedules.cpu.tir_pipeline import KERNEL_PIPELINE, LIBM_PIPELINE, compiled
from schedules.cuda.kernels import Occupancy
from schedules.device_names import device_name
from schedules.tuning_records import Records


class CpuBackend(Backend):
    """``"llvm"`` is this machine's CPU with all its features, ``{"kind": "llvm", "mcpu": "haswell"}`` another."""

    name = "cpu"
    kinds = ("llvm",)
    dtypes = STAGE_DTYPES
    storages = ("float32", *STORAGES)
    can_gather = True

    def __init__(self, given: TargetLike) -> None:
        super().__init__(given)
        self.target = host_target() if isinstance(given, str) and given == "llvm" else as_target(given)
        if self.target.kind.name == "llvm":
            check_llvm(self.target)

    @property
    def device(self) -> str:
        """See :attr:`Backend.device`."""
        return device_name(self.target, get_num_threads())

    def records(self, database: Database) -> Records | None:
        """See :meth:`Backend.records`."""
        if isinstance(database, Occupancy):
            raise TargetError(f"settings of a GPU for target {self.given!r}", "a folder of records")
        return find_records(database, self.target, get_num_threads())

    def choices(self, options: CompileOptions) -> dict[str, Any] | None:
        """See :meth:`Backend.choices`."""
        if isinstance(options.database, Occupancy):
            return None  # refused by `records`
        records = records_digest(options.database, self.target, get_num_threads())
        code = {"fused": options.fused, "fast_math": options.fast_math, "records": records}
        if options.storage != "float32":
            code["storage"] = options.storage
        return {"backend": self.name, "target": str(self.target), **code}

    def passes(self, signature: Signature, options: CompileOptions) -> list[Pass]:
        """See :meth:`Backend.passes`."""
        gathers = [] if options.fused else [AddGatherKernels(signature)]
        return [
            *cell_passes(share=True),
            *kernel_passes(signature, machine_of(self.target), self.records(options.database), options.storage),
            *gathers,
            *program_passes(signature, self.target),
        ]

    def compile_cells(
        self, nodes: IRModule, signature: Signature, options: CompileOptions, progress: Progress | None = None
    ) -> KeptCells | None:
        """See :meth:`Backend.compile_cells`."""
        choices = self.choices(options)
        if choices is None or not options.fused or passes_are_watched() or not self._links_here():
            return None
        machine, records = machine_of(self.target), self.records(options.database)

        def passes(alone: Signature) -> list[Pass]:
            return [*lone_cell_passes(), *kernel_passes(alone, machine, records, options.storage), WorkshareLoops()]

        cells = run_passes(nodes, module_passes(share=True))
        try:
            return CellCompiler(choices, passes, self.target, _pipeline(options), progress).compile(cells, signature)
        except OSError:
            return None

    def build(
        self, module: IRModule, signature: Signature, weights: Mapping[str, np.ndarray], options: CompileOptions
    ) -> CpuExecutor:
        """See :meth:`Backend.build`."""
        try:
            kernels, artifact = self._built(module, _pipeline(options))
            kernels.load(weights)
        except RuntimeError as error:
            if not self._is_foreign():
                raise
            # What TVM says of a library for another architecture.
            reason = str(error).strip().splitlines()[-1]
            raise TargetError(
                f"kernels for {self.given!r} do not run here ({reason})", "a target of this machine"
            ) from None
        return CpuExecutor(signature, kernels, artifact)

    def _links_here(self) -> bool:
        """Whether kernels become a shared library."""
        return platform.system() == "Linux" and not self._is_foreign()

    def _is_foreign(self) -> bool:
        """Whether the target is another CPU than this machine's, as far as its name says."""
        return "mtriple" in self.target.attrs or bool(missing_sets(instruction_sets(self.target)))

    def _built(self, module: IRModule, pipeline: str) -> tuple[KernelSet, Artifact]:
        """The compiled kernels of `module`, and what of them can be saved."""
        attributes = attributes_of(module)
        artifact = self._linked(module, attributes, pipeline)
        if artifact is not None:
            try:
                return KernelSet(artifact.declarations, artifact.functions()), artifact
            except (EnvironmentMismatch, OSError, RuntimeError):  # a folder that is full, or runs nothing
                pass
        library = compiled(module, self.target, pipeline)
        whole = Artifact(library, attributes, self.target)
        return KernelSet(whole.declarations, library), whole if artifact is None else artifact

    def _linked(self, module: IRModule, attributes: Attributes, pipeline: str) -> Artifact | None:
        """The kernels as a shared library; None where it cannot be linked, and for a CPU that is not this one."""
        if not self._links_here():
            return None
        try:
            library, symbols = kernel_library(module, self.target, pipeline)
        except OSError:
            return None
        return Artifact(library, with_symbols(attributes, symbols), self.target)

    def load_kept(self, kept: KeptCells, signature: Signature, weights: Mapping[str, np.ndarray]) -> CpuExecutor:
        """See :meth:`Backend.load_kept`."""
        return self.load(Artifact(kept.library, kept.attributes, self.target), signature, weights)

    def load(
        self, artifact: Artifact, signature: Signature, weights: Mapping[str, np.ndarray] | HeldWeights
    ) -> CpuExecutor:
        """See :meth:`Backend.load`."""
        kernels = KernelSet(artifact.declarations, artifact.functions())
        if not isinstance(weights, HeldWeights):
            kernels.load(weights)
            return CpuExecutor(signature, kernels, artifact)
        try:
            kernels.hold(weights.arrays, weights.specs)
        except (KeyError, ValueError) as error:
            raise WeightError(str(error)) from None
        return CpuExecutor(signature, kernels, artifact)


def _pipeline(options: CompileOptions) -> str:
    return KERNEL_PIPELINE if options.fast_math else LIBM_PIPELINE

"""The cells of a model for a CPU, compiled one by one: one that was compiled before is taken over.

All that depends on the whole model is the program that calls the kernels, and the library that both are linked to. A
cell is found by its structure, in this process or among the files that earlier ones kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import IRModule
from tvm.ir.transform import Pass
from tvm.target import Target

from edbatch_tvm.backends.backend import Progress
from edbatch_tvm.backends.compiled_cell import CellNames, CompiledCell, unpacked_cell
from edbatch_tvm.backends.cpu_kernel_cache import KernelCompilation, forget_kernels, program_objects
from edbatch_tvm.bounded_cache import BoundedCache
from edbatch_tvm.graph.spec import CellSignature, Signature
from edbatch_tvm.runtime.artifact import SYMBOL, attributes_of, with_symbols
from edbatch_tvm.runtime.compilation_cache import CELL_SUFFIX, KeptCells, digest_of, find_file, keep_files
from relay_ext.fuse_cells import cell_constants
from relay_ext.index_bounds import bounds_of, with_index_bounds
from relay_ext.join_model_kernels import JoinModelKernels
from relay_ext.lone_cell import cell_content, cell_module
from relay_ext.pipeline import PassRun, run_passes
from relay_ext.share_cells import member_attribute, members_of
from relay_ext.signature import cell_functions, weight_params
from relay_ext.split_program import KernelCode, kernels_of, symbols_of, without_kernels
from schedules.cpu.link import linked
from schedules.cpu.work_sharing import sharing_ir

MOST_BYTES = 64 << 20
"""Of compiled cells that a process holds."""

_CELLS: BoundedCache[str, CompiledCell] = BoundedCache(MOST_BYTES, lambda cell: cell.size)


def forget_cells() -> None:
    """Compile everything anew from now on."""
    _CELLS.clear()
    forget_kernels()


@dataclass(frozen=True, eq=False)
class CellCompiler:
    """How cells are compiled.

    Attributes
    ----------
    choices : mapping
        All that decides the code beside the cell; see :meth:`edbatch_tvm.backends.Backend.choices`.
    passes : callable
        From the signature of a cell alone to the passes that make kernels of it.
    target : Target
    pipeline : str
        What TVM lowers functions with.
    progress : Progress, optional
        Told of each step before it begins.
    """

    choices: Mapping[str, Any]
    passes: Callable[[Signature], list[Pass]]
    target: Target
    pipeline: str
    progress: Progress | None = None

    def compile(self, cells: IRModule, signature: Signature) -> KeptCells:
        """The compiled cells of a model.

        Parameters
        ----------
        cells : IRModule
            As :class:`~relay_ext.share_cells.ShareCells` leaves them.
        signature : Signature

        Raises
        ------
        CellError
            If a cell cannot be batched.
        OSError
            If the library cannot be linked here.
        """
        functions = cell_functions(cells)
        compiled = {name: cell for name in functions if (cell := self._found(cells, name)) is not None}
        missing = [name for name in functions if name not in compiled]
        if self.progress is not None:
            self.progress.expect(len(missing) + 1)
        made = self._made(cells, signature, missing)
        _hold({self._key(cells, name, cell.says_names): cell for name, cell in made.items()})
        compiled |= made
        return self._joined(cells, signature, {name: compiled[name] for name in functions})

    def _key(self, cells: IRModule, name: str, names: bool) -> str:
        """What a cell is kept under; `names`: with its names, as it says some."""
        return digest_of({"cell": cell_content(cells, name, names), "choices": dict(self.choices)})

    def _found(self, cells: IRModule, name: str) -> CompiledCell | None:
        """The cell that this process, or an earlier one, compiled."""
        for names in (False, True):
            key = self._key(cells, name, names)
            cell = _CELLS.get(key)
            if cell is None and (content := find_file(key + CELL_SUFFIX)) is not None:
                with suppress(ValueError, KeyError, TypeError):
                    cell = unpacked_cell(content, key)
                    _CELLS.put(key, cell)
            if cell is not None:
                return cell
        return None

    def _made(self, cells: IRModule, signature: Signature, names: Iterable[str]) -> dict[str, CompiledCell]:
        """The cells that nobody has compiled; kernels of one are compiled while the next is lowered."""
        lowered = {}
        with KernelCompilation(self.target, self.pipeline) as compilation:
            for name in names:
                lowered[name] = self._lowered(cells, signature[name])
                compilation.begin(lowered[name].kernels)
            self._begin("code")
            objects = compilation.objects()
        made = {}
        for name, one in lowered.items():
            own = {kernel.digest: objects[kernel.digest] for kernel in one.kernels}
            functions = one.names.functions_of(one.module, symbols_of(one.kernels))
            made[name] = CompiledCell(functions, own, one.bounds, one.constants)
        return made

    def _lowered(self, cells: IRModule, cell: CellSignature) -> _Lowered:
        self._begin(cell.name)
        alone = Signature([cell])
        run = PassRun(cell_module(cells, cell.name))
        module = run(self.passes(alone))
        constants = cell_constants(run.after["LegalizeCells"])
        names = CellNames(cell, [*_weights(cells, cell.name), *constants])
        bounds = bounds_of(with_index_bounds(alone, run.after["GuardIndices"]))[cell.name]
        kernels = kernels_of(module, sharing_ir(self.target))
        return _Lowered(module, names, kernels, bounds, [one.numpy() for one in constants.values()])

    def _joined(self, cells: IRModule, signature: Signature, compiled: Mapping[str, CompiledCell]) -> KeptCells:
        """The library of cells and of the program that calls their kernels."""
        declared: dict[str, Any] = {}
        objects: dict[str, bytes] = {}
        bounds: dict[str, list[int | None]] = {}
        constants: dict[str, np.ndarray] = {}
        for name, cell in compiled.items():
            function = cells[name]
            own = [f"{name}.constant{number}" for number in range(len(cell.constants))]
            names = CellNames(signature[name], [*_weights(cells, name), *own])
            declared |= names.declared(cell, signature, member_attribute(function))
            objects |= cell.objects
            bounds |= {member: cell.bounds for member, _ in members_of(function, name)}
            constants |= dict(zip(own, cell.constants, strict=True))
        self._begin("program")
        module = run_passes(IRModule(declared), [JoinModelKernels(signature, sharing_ir(self.target))])
        every = attributes_of(module)
        symbols = {name: str(own.pop(SYMBOL)) for name, own in every.items() if SYMBOL in own}
        program = program_objects(without_kernels(module, symbols), self.target, self.pipeline)
        attributes = {name: dict(own) for name, own in with_symbols(every, symbols).items()}
        return KeptCells(linked([*objects.values(), *program]), attributes, bounds, constants)

    def _begin(self, step: str) -> None:
        if self.progress is not None:
            self.progress(step)


@dataclass(frozen=True, eq=False)
class _Lowered:
    """A cell after all passes."""

    module: IRModule
    names: CellNames
    kernels: Sequence[KernelCode]
    bounds: list[int | None]
    constants: list[np.ndarray]


def _weights(cells: IRModule, name: str) -> list[str]:
    return [param.name for param in weight_params(cells[name])]


def _hold(cells: Mapping[str, CompiledCell]) -> None:
    """Keep cells by their keys, for this process and later ones."""
    for key, cell in cells.items():
        _CELLS.put(key, cell)
    keep_files({key + CELL_SUFFIX: cell.packed(key) for key, cell in cells.items()})

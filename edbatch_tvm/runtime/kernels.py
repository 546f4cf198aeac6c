"""A compiled module as callables: which kernels a cell runs, and the arguments that do not change."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from tvm import IRModule

from edbatch_tvm.errors import WeightError
from edbatch_tvm.graph.spec import ValueSpec
from relay_ext.add_gathers import ARENA
from relay_ext.fuse_cells import CELL
from relay_ext.join_kernels import PROGRAM
from relay_ext.stage_cells import ORDER, PACKED_SHAPE, PATH, REASON, SCRATCH
from schedules.abi import ALIGNMENT, ARGUMENTS, padded, table_shape


@dataclass(frozen=True)
class Kernel:
    """One kernel of a cell and its arguments after (step, steps, index), each a kind and a name.

    ``function`` runs it for one batch; None where only the program runs kernels.
    """

    name: str
    cell: str
    arguments: tuple[tuple[str, str], ...]
    function: Any = None


def check_weights(wanted: Mapping[str, ValueSpec], given: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The weights as contiguous arrays: those of torch share its memory, others are copies.

    Raises
    ------
    WeightError
        Naming weights that are missing, extra, or of another shape or dtype.
    """
    if not isinstance(given, Mapping):
        raise WeightError(f"weights in a {type(given).__name__}", "a dict of names and arrays")
    missing = [name for name in wanted if name not in given]
    extra = [name for name in given if name not in wanted]
    if missing:
        raise WeightError(f"missing weights {missing}", f"the {len(wanted)} weights {list(wanted)}")
    if extra:
        raise WeightError(f"extra weights {extra}", f"the {len(wanted)} weights {list(wanted)}")
    weights = {}
    for name, spec in wanted.items():
        array = _as_numpy(name, given[name])
        if array.shape != spec.shape or array.dtype != np.dtype(spec.dtype):
            raise WeightError(
                f"weight {name!r} is {ValueSpec(array.shape, str(array.dtype))}",
                str(spec),
                f"convert it with .astype({spec.dtype!r})" if array.shape == spec.shape else "",
            )
        weights[name] = np.asarray(array, order="C") if hasattr(given[name], "detach") else array.copy()
    return weights


def _as_numpy(name: str, weight: Any) -> np.ndarray:
    if hasattr(weight, "detach"):
        weight = weight.detach().cpu()
    try:
        array = np.asarray(weight.numpy() if hasattr(weight, "numpy") else weight)
    except (TypeError, ValueError) as error:
        raise WeightError(f"weight {name!r} is a {type(weight).__name__} ({error})", "an array") from None
    if array.dtype.kind == "O":
        raise WeightError(f"weight {name!r} is a {type(weight).__name__}", "an array of numbers")
    return array


class KernelSet:
    """All kernels of a model with its packed weights.

    Nothing is compiled here: the attributes of `module` and the functions of `library` are all it takes, so that a
    model that was saved needs the attributes :data:`~relay_ext.stage_cells.PATH`, ``CELL``, ``ORDER``, ``REASON``,
    ``SCRATCH``, ``PACKED_SHAPE`` and :data:`~schedules.abi.ARGUMENTS` by function, the library and the weights.

    Parameters
    ----------
    module : IRModule
        Parts, packing functions and the program as the pipeline leaves them.
    library : tvm.runtime.Executable or tvm.runtime.Module
        The same, compiled: it has the program and the packing functions.
    weights : mapping of str to array, optional
        Without, :meth:`hold` has to follow.

    Attributes
    ----------
    program : callable
        See :class:`relay_ext.join_kernels.JoinKernels`.
    arguments : tuple of (kind, name)
        What the program takes after ``copy_ptr``.
    by_cell : dict from cell name to list of Kernel
    gathers : bool
        Whether operands are copied by kernels of their own.
    """

    def __init__(self, module: IRModule, library: Any, weights: Mapping[str, np.ndarray] | None = None) -> None:
        self.by_cell: dict[str, list[Kernel]] = {}
        self.paths: dict[str, str] = {}
        self.scratch_width: dict[str, dict[str, int]] = {"instances": {}, "rows": {}}
        self.weight_tensors: dict[tuple[str, str], Any] = {}
        self._packs: dict[str, tuple[Any, tuple[str, ...], tuple[int, ...]]] = {}
        every = {var.name_hint: function for var, function in module.functions.items()}
        functions = {name: function for name, function in every.items() if CELL in function.attrs}
        self.gathers = any(ARENA in function.attrs for function in every.values())
        self.program = library[PROGRAM]
        self.arguments = _arguments(every[PROGRAM])
        for name, function in sorted(functions.items(), key=lambda item: int(item[1].attrs[ORDER])):
            cell, path = str(function.attrs[CELL]), str(function.attrs[PATH])
            if path == "pack":
                continue
            reason = f" ({function.attrs[REASON]})" if REASON in function.attrs else ""
            self.paths[cell] = path + reason
            self.by_cell.setdefault(cell, []).append(Kernel(name, cell, _arguments(function)))
            for text in function.attrs.get(SCRATCH, []):
                scratch, domain, width = str(text).rsplit(":", 2)
                self.scratch_width[domain][scratch] = padded(int(width))
            if f"{name}_pack" in functions:
                sources = [source for _, source in _arguments(functions[f"{name}_pack"])[:-1]]
                shape = tuple(int(extent) for extent in function.attrs[PACKED_SHAPE])
                self._packs[name] = library[f"{name}_pack"], tuple(sources), shape
        if weights is not None:
            self.load(weights)

    def load(self, weights: Mapping[str, np.ndarray]) -> None:
        """Take `weights` from now on: pack those of stages; the others are shared where they lie aligned."""
        tensors = {}
        for name, (pack, sources, shape) in self._packs.items():
            packed = tvm.runtime.empty(shape, "float32")
            pack(*(_aligned(weights[source]) for source in sources), packed)
            tensors["packed", name] = packed
        for kernel in (kernel for kernels in self.by_cell.values() for kernel in kernels):
            for kind, name in kernel.arguments:
                if kind in ("table", "weight"):
                    array = weights[name]
                    tensors[kind, name] = _aligned(as_table(array) if kind == "table" else array)
        self.weight_tensors = tensors

    def held(self) -> dict[str, np.ndarray]:
        """What kernels read at this moment, by ``kind:name``: packed weights, and the others as they lie; no copies."""
        return {f"{kind}:{name}": np.from_dlpack(tensor) for (kind, name), tensor in self.weight_tensors.items()}

    def hold(self, held: Mapping[str, Any], specs: Mapping[str, ValueSpec]) -> None:
        """Take what :meth:`held` gave, as aligned tensors, from now on.

        Parameters
        ----------
        held : mapping of str to tensor
        specs : mapping of str to ValueSpec
            Of all weights and constants.

        Raises
        ------
        ValueError
            If it is not all that kernels read, in the shapes they read it in.
        """
        tensors = {}
        for kind, name in {
            pair for kernels in self.by_cell.values() for kernel in kernels for pair in kernel.arguments
        }:
            if kind == "packed":
                shape, dtype = self._packs[name][2], "float32"
            elif kind in ("table", "weight"):
                spec = specs[name]
                shape, dtype = table_shape(spec.shape) if kind == "table" else spec.shape, spec.dtype
            else:
                continue
            tensor = tensors[kind, name] = held[f"{kind}:{name}"]
            if (tuple(tensor.shape), str(tensor.dtype)) != (shape, dtype):
                raise ValueError(f"{kind}:{name} is {dtype}{list(tensor.shape)}")
        self.weight_tensors = tensors

    def multiplies(self, cell: str) -> int:
        """About how many multiplications a node of `cell` takes: one for each element of its weights."""
        used = {argument for kernel in self.by_cell.get(cell, ()) for argument in kernel.arguments}
        return sum(
            math.prod(tensor.shape)
            for argument, tensor in self.weight_tensors.items()
            if argument in used and argument[0] != "table"
        )


def _arguments(function: Any) -> tuple[tuple[str, str], ...]:
    """The arguments that `function` lists, each a kind and a name."""
    pairs = (str(text).partition(":") for text in function.attrs[ARGUMENTS])
    return tuple((kind, name) for kind, _, name in pairs)


def _aligned(array: np.ndarray) -> Any:
    """`array` as a tensor: the same memory if that is aligned as kernels assume, else a copy."""
    if array.ctypes.data % ALIGNMENT or not array.flags.writeable:
        return tvm.runtime.tensor(array)
    return tvm.runtime.from_dlpack(array)


def as_table(array: np.ndarray) -> np.ndarray:
    """A weight as kernels look rows up in it: two-dimensional, rows padded."""
    rows, width = table_shape(array.shape)
    array = array.reshape(rows, -1)
    return np.pad(array, ((0, 0), (0, width - array.shape[1]))) if width > array.shape[1] else array

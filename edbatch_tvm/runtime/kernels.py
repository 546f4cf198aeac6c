"""A compiled module as callables: which kernels a cell runs, and the arguments that do not change."""

from __future__ import annotations

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
from relay_ext.stage_cells import ORDER, PACKED_SHAPE, PATH, REASON, SCRATCH
from schedules.abi import ALIGNMENT, ARGUMENTS, padded, table_shape


@dataclass(frozen=True)
class Kernel:
    """One kernel of a cell and its arguments after (step, steps, index), each a kind and a name."""

    name: str
    cell: str
    function: Any
    arguments: tuple[tuple[str, str], ...]


def check_weights(wanted: Mapping[str, ValueSpec], given: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The weights as contiguous arrays: those of torch share its memory, others are copies.

    Raises
    ------
    WeightError
        Naming weights that are missing, extra, or of another shape or dtype.
    """
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
        weights[name] = np.ascontiguousarray(array) if hasattr(given[name], "detach") else array.copy()
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
    """All kernels of a model with its packed weights; ``gathers`` are those that copy rows, by arena.

    Parameters
    ----------
    module : IRModule
        Kernels as the pipeline leaves them: their attributes say how to call them.
    library : tvm.runtime.Executable
        The same, compiled.
    weights : mapping of str to array
    """

    def __init__(self, module: IRModule, library: Any, weights: Mapping[str, np.ndarray]) -> None:
        self.by_cell: dict[str, list[Kernel]] = {}
        self.paths: dict[str, str] = {}
        self.scratch_width: dict[str, dict[str, int]] = {"instances": {}, "rows": {}}
        self.weight_tensors: dict[tuple[str, str], Any] = {}
        self._packs: dict[str, tuple[Any, tuple[str, ...], tuple[int, ...]]] = {}
        every = {var.name_hint: function for var, function in module.functions.items()}
        functions = {name: function for name, function in every.items() if function.attrs[PATH] != "gather"}
        self.gathers = {
            int(function.attrs[ARENA]): library[name] for name, function in every.items() if name not in functions
        }
        for name, function in sorted(functions.items(), key=lambda item: int(item[1].attrs[ORDER])):
            arguments = tuple(tuple(str(text).split(":", 1)) for text in function.attrs[ARGUMENTS])
            cell, path = str(function.attrs[CELL]), str(function.attrs[PATH])
            if path == "pack":
                continue
            reason = f" ({function.attrs[REASON]})" if REASON in function.attrs else ""
            self.paths[cell] = path + reason
            self.by_cell.setdefault(cell, []).append(Kernel(name, cell, library[name], arguments))  # type: ignore[arg-type]
            for text in function.attrs.get(SCRATCH, []):
                scratch, domain, width = str(text).rsplit(":", 2)
                self.scratch_width[domain][scratch] = padded(int(width))
            if f"{name}_pack" in functions:
                sources = [str(text).split(":", 1)[1] for text in functions[f"{name}_pack"].attrs[ARGUMENTS]][:-1]
                shape = tuple(int(extent) for extent in function.attrs[PACKED_SHAPE])
                self._packs[name] = library[f"{name}_pack"], tuple(sources), shape
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

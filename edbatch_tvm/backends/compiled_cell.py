"""One cell compiled for a CPU, without its names: what cells of equal structure have in common, in any model.

The cell's name and those of its weights stand in attributes of its kernels, and so do the numbers of the model's
arenas. Here a kernel is called by what follows the cell's name, a weight by its place among the weights, and an arena
by its number in a model of this cell alone. :class:`CellNames` translates both ways.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import IRModule

from edbatch_tvm.graph.spec import CellSignature, Signature
from edbatch_tvm.runtime.artifact import SYMBOL, attributes_of
from edbatch_tvm.runtime.compilation_cache import describe_arrays, pack_file, read_arrays, unpack_file
from edbatch_tvm.tvm_compat import tirx
from relay_ext.fuse_cells import CELL
from relay_ext.stage_cells import PATH, REASON, SCRATCH
from relay_ext.workshare_loops import DIMENSIONS, buffers_of, pointer
from schedules.abi import ARGUMENTS

_NOTHING = [tirx.Evaluate(0), tirx.Evaluate(0)]
"""A sequence has two statements or more."""

Buffer = tuple[list[int | None], str, int]
"""Shape, with None for an extent that a minibatch decides; dtype; and alignment."""


@dataclass(frozen=True, eq=False)
class CompiledFunction:
    """A kernel, or the function that packs its weights.

    Attributes
    ----------
    name : str
        What follows the cell's name.
    symbol : str
        What it is called in the object file.
    attributes : dict
    buffers : list
        Of a kernel: what it takes after its numbers.
    """

    name: str
    symbol: str
    attributes: dict[str, Any]
    buffers: list[Buffer]


@dataclass(frozen=True, eq=False)
class CompiledCell:
    """The kernels of a cell.

    Attributes
    ----------
    functions : list of CompiledFunction
    objects : dict of str to bytes
        Object files by the digest of their code.
    bounds : list of int or None
        Of the cell's attributes.
    constants : list of array
        The constants of the cell, which kernels read like weights.
    """

    functions: list[CompiledFunction]
    objects: dict[str, bytes]
    bounds: list[int | None]
    constants: list[np.ndarray]

    @property
    def size(self) -> int:
        """Bytes of the object files and the constants."""
        return sum(map(len, self.objects.values())) + sum(one.nbytes for one in self.constants)

    @property
    def says_names(self) -> bool:
        """Whether it says why the cell is not made of stages: in words with names of this cell."""
        return any(REASON in one.attributes for one in self.functions)

    def packed(self, key: str) -> bytes:
        """The content of a file."""
        described, arrays = describe_arrays(self.constants)
        header = {
            "functions": [vars(one) for one in self.functions],
            "objects": list(self.objects),
            "bounds": self.bounds,
            "constants": described,
        }
        return pack_file(key, header, [*self.objects.values(), *arrays])


def unpacked_cell(content: bytes, key: str) -> CompiledCell:
    """What :meth:`CompiledCell.packed` packed.

    Raises
    ------
    ValueError, KeyError, TypeError
        If it is something else.
    """
    header, parts = unpack_file(key, content)
    count = len(header["objects"])
    return CompiledCell(
        [CompiledFunction(**one) for one in header["functions"]],
        dict(zip(header["objects"], parts[:count], strict=True)),
        header["bounds"],
        read_arrays(header["constants"], parts[count:]),
    )


@dataclass(frozen=True, eq=False)
class CellNames:
    """What a cell, its weights and its arenas are called in a model.

    Attributes
    ----------
    cell : CellSignature
    weights : list of str
        In the order of the parameters; then the constants.
    """

    cell: CellSignature
    weights: Sequence[str]

    def functions_of(self, module: IRModule, symbols: Mapping[str, str]) -> list[CompiledFunction]:
        """The kernels in the module of this cell alone that :class:`~relay_ext.workshare_loops.WorkshareLoops` left.

        Parameters
        ----------
        symbols : mapping of str to str
            What its functions are called in object files.
        """
        attributes = attributes_of(module)
        functions = []
        for var, function in module.functions.items():
            name = var.name_hint
            if str(function.attrs[PATH]) != "loop":
                own = {key: value for key, value in attributes[name].items() if key not in (CELL, "global_symbol")}
                buffers = [_described(one) for one in buffers_of(function)] if DIMENSIONS in function.attrs else []
                translated = _translated(own, self._without_cell, self._number_of)
                functions.append(CompiledFunction(self._without_cell(name), symbols[name], translated, buffers))
        return functions

    def declared(self, cell: CompiledCell, signature: Signature, members: Mapping[str, Any]) -> dict[str, Any]:
        """Functions that :class:`~relay_ext.join_model_kernels.JoinModelKernels` takes for kernels; they do nothing.

        Each has the attribute :data:`~edbatch_tvm.runtime.artifact.SYMBOL`, as the pass may give it another name.

        Parameters
        ----------
        signature : Signature
            Of the model.
        members : mapping
            The attribute :data:`~relay_ext.share_cells.MEMBERS`, if the cell stands for several.
        """
        arenas = [signature.arena(spec) for spec in Signature([self.cell]).value_specs]

        def with_cell(name: str) -> str:
            return self.cell.name + name

        def name_of(kind: str, number: str) -> str:
            return str(arenas[int(number)]) if kind == "arena" else self.weights[int(number)]

        functions = {}
        for one in cell.functions:
            attributes = _translated(one.attributes, with_cell, name_of) | {CELL: self.cell.name, SYMBOL: one.symbol}
            if DIMENSIONS in attributes:
                attributes |= members
            function = tirx.PrimFunc([], tirx.SeqStmt([*map(_declaration, one.buffers), *_NOTHING]))
            functions[with_cell(one.name)] = function.with_attrs(attributes)
        return functions

    def _without_cell(self, name: str) -> str:
        if not name.startswith(self.cell.name):
            raise ValueError(f"{name!r} in cell {self.cell.name!r}")
        return name[len(self.cell.name) :]

    def _number_of(self, kind: str, name: str) -> str:
        return name if kind == "arena" else str(self.weights.index(name))


def _translated(attributes: Mapping[str, Any], name: Any, number: Any) -> dict[str, Any]:
    """Attributes with the names of kernels, and numbers or names of weights and arenas, translated."""

    def argument(text: str) -> str:
        kind, _, rest = text.partition(":")
        if kind in ("packed", "scratch"):
            return f"{kind}:{name(rest)}"
        return f"{kind}:{number(kind, rest)}" if kind in ("arena", "table", "weight") else text

    translated = dict(attributes)
    if ARGUMENTS in attributes:
        translated[ARGUMENTS] = [argument(text) for text in attributes[ARGUMENTS]]
    if SCRATCH in attributes:
        translated[SCRATCH] = [name(text) for text in attributes[SCRATCH]]
    return translated


def _described(buffer: Any) -> Buffer:
    shape = [int(extent) if isinstance(extent, tirx.IntImm) else None for extent in buffer.shape]
    return shape, str(buffer.dtype), int(buffer.ty.data_alignment)


def _declaration(described: Buffer) -> Any:
    shape, dtype, alignment = described
    extents = [tirx.Var("extent", "int32") if extent is None else extent for extent in shape]
    buffer = tirx.decl_buffer(extents, dtype, data_alignment=alignment)
    return tirx.DeclBuffer(buffer, data=pointer("data", dtype))

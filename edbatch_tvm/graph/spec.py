"""What a cell looks like from outside: the shapes of its operands, attributes and outputs.

The compiler derives a :class:`Signature` from an IRModule; graphs, policies and plans need no more than this.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from edbatch_tvm.argument_checks import require_type
from edbatch_tvm.cached_property import cached_property
from edbatch_tvm.errors import CellError


@dataclass(frozen=True, slots=True)
class ValueSpec:
    """Shape and dtype of one value; values of equal spec share an arena.

    Examples
    --------
    >>> str(ValueSpec((256,), "float32"))
    'float32[256]'
    """

    shape: tuple[int, ...]
    dtype: str = "float32"

    @property
    def size(self) -> int:
        """Number of elements of one value."""
        size = 1
        for extent in self.shape:
            size *= extent
        return size

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


def can_widen(given: np.dtype, wanted: np.dtype) -> bool:
    """Whether floating-point numbers of dtype `given` may stand for those of `wanted`: nothing is lost.

    >>> can_widen(np.dtype("float32"), np.dtype("float64")), can_widen(np.dtype("float64"), np.dtype("float32"))
    (True, False)
    """
    return given.kind == "f" and wanted.kind == "f" and given.itemsize < wanted.itemsize


def is_attribute_dtype(dtype: str) -> bool:
    """Whether a cell input of this dtype is an attribute unless declared otherwise: integers and booleans are.

    Printed signatures mark only the exceptions: ``x: attribute float32[4]``, ``i: operand int32[]``.
    """
    return dtype.startswith(("int", "uint", "bool"))


@dataclass(frozen=True, slots=True)
class Operand:
    """One input of a cell that another node produces.

    A *variadic* operand takes any number of values, zero included; every variadic operand of a cell takes equally
    many.
    """

    name: str
    spec: ValueSpec
    variadic: bool = False

    def __str__(self) -> str:
        marker = "k*" if self.variadic else "operand " if is_attribute_dtype(self.spec.dtype) else ""
        return f"{self.name}: {marker}{self.spec}"


@dataclass(frozen=True, slots=True)
class Attribute:
    """One input of a cell that is data of the node itself, such as a word id.

    ``bound`` is the number of valid values of an index attribute (the rows of the table it looks up), or None.
    """

    name: str
    spec: ValueSpec
    bound: int | None = None

    def __str__(self) -> str:
        marker = "" if is_attribute_dtype(self.spec.dtype) else "attribute "
        bound = f" < {self.bound}" if self.bound is not None else ""
        return f"{self.name}: {marker}{self.spec}{bound}"


@dataclass(frozen=True)
class CellSignature:
    """The interface of one cell (operation type)."""

    name: str
    operands: tuple[Operand, ...]
    attributes: tuple[Attribute, ...]
    outputs: tuple[ValueSpec, ...]

    @cached_property
    def fixed_arity(self) -> int:
        """Number of operands that take exactly one value."""
        return sum(not operand.variadic for operand in self.operands)

    @cached_property
    def variadic_count(self) -> int:
        """Number of variadic operands (they share one ``k`` per node)."""
        return len(self.operands) - self.fixed_arity

    def __str__(self) -> str:
        inputs = ", ".join(map(str, (*self.operands, *self.attributes)))
        return f"{self.name}({inputs}) -> ({', '.join(map(str, self.outputs))})"


class Signature:
    """The cells of a model in the order of their type ids.

    Parameters
    ----------
    cells : iterable of CellSignature
        Names must differ.

    Attributes
    ----------
    stride : int
        Largest number of outputs of a cell. Output ``slot`` of ``node`` is the value ``node * stride + slot``.
    value_specs : tuple of ValueSpec
        The distinct specs of all outputs and operands: one arena each.
    """

    def __init__(self, cells: Iterable[CellSignature]) -> None:
        if not hasattr(type(cells), "__iter__") or (isinstance(cells, np.ndarray) and not cells.ndim):
            raise CellError(f"a {type(cells).__name__}", "a list of CellSignature")
        self.cells = tuple(cells)
        for cell in self.cells:
            require_type(cell, CellSignature, "a CellSignature", CellError)
        if len(self.cells) > np.iinfo(np.int16).max:
            raise CellError(f"{len(self.cells)} cells", f"at most {np.iinfo(np.int16).max}")
        self._type_of = {cell.name: type_id for type_id, cell in enumerate(self.cells)}
        if len(self._type_of) != len(self.cells):
            raise CellError("two cells have one name", "different names", f"cells: {[c.name for c in self.cells]}")
        for cell in self.cells:
            inputs = [operand.name for operand in cell.operands] + [attribute.name for attribute in cell.attributes]
            if len(set(inputs)) != len(inputs):
                raise CellError(f"two inputs of {cell.name!r} have one name", "different names", str(cell))
        self.stride = max((len(cell.outputs) for cell in self.cells), default=1) or 1
        specs: dict[ValueSpec, int] = {}
        for cell in self.cells:
            for spec in (*cell.outputs, *(operand.spec for operand in cell.operands)):
                specs.setdefault(spec, len(specs))
        self.value_specs = tuple(specs)
        self._arena_of = specs

    def __len__(self) -> int:
        return len(self.cells)

    def __iter__(self) -> Iterator[CellSignature]:
        return iter(self.cells)

    def __getitem__(self, cell: int | str) -> CellSignature:
        return self.cells[self.type_id(cell) if isinstance(cell, str) else cell]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Signature) and self.cells == other.cells

    def __hash__(self) -> int:
        return hash(self.cells)

    def __getstate__(self) -> dict[str, Any]:
        # What the native builder keeps of it is of this process.
        return {name: value for name, value in self.__dict__.items() if name != "native_cells"}

    def __str__(self) -> str:
        return "\n".join(map(str, self.cells))

    def __repr__(self) -> str:
        return f"Signature({', '.join(cell.name for cell in self.cells)})"

    @property
    def names(self) -> tuple[str, ...]:
        """Cell names by type id."""
        return tuple(cell.name for cell in self.cells)

    def type_id(self, name: str) -> int:
        """Type id of the cell called `name`.

        Raises
        ------
        CellError
            If there is no such cell.
        """
        try:
            return self._type_of[name]
        except KeyError:
            raise CellError(f"unknown cell {name!r}", f"one of {', '.join(self.names)}") from None

    def arena(self, spec: ValueSpec) -> int:
        """Index of the arena that holds values of `spec`.

        Raises
        ------
        CellError
            If no cell takes or returns such values.
        """
        try:
            return self._arena_of[spec]
        except KeyError:
            raise CellError(f"a value of {spec}", f"one of {', '.join(map(str, self.value_specs))}") from None

    def find_arena(self, spec: ValueSpec) -> int:
        """The same; -1 if no cell takes or returns such values."""
        return self._arena_of.get(spec, -1)

    @cached_property
    def attribute_columns(self) -> tuple[tuple[tuple[int, str], np.dtype, tuple[int, ...]], ...]:
        """All attributes: the key in ``InstanceGraph.attributes``, the dtype and the shape of a row."""
        return tuple(
            ((type_id, attribute.name), np.dtype(attribute.spec.dtype), attribute.spec.shape)
            for type_id, cell in enumerate(self.cells)
            for attribute in cell.attributes
        )

    @cached_property
    def slot_end(self) -> tuple[np.ndarray, np.ndarray]:
        """Where the values of each operand slot end among the operands of a node.

        Two int32[cells, slots] arrays ``fixed`` and ``variadic``: with k values for each variadic operand, slot s of a
        node of cell t ends before position ``fixed[t, s] + k * variadic[t, s]``. Slots a cell does not have are empty,
        so the last column holds the cells' ``fixed_arity`` and ``variadic_count``.
        """
        width = max((len(cell.operands) for cell in self.cells), default=0) or 1
        counts = np.zeros((2, len(self.cells), width), np.int32)
        for type_id, cell in enumerate(self.cells):
            for slot, operand in enumerate(cell.operands):
                counts[int(operand.variadic), type_id, slot] = 1
        fixed, variadic = np.cumsum(counts, axis=2, dtype=np.int32)
        return fixed, variadic

    @cached_property
    def operand_arena(self) -> np.ndarray:
        """Arena of each operand: int32[cells, slots], -1 where a cell has fewer operands."""
        width = max((len(cell.operands) for cell in self.cells), default=0) or 1
        table = np.full((len(self.cells), width), -1, np.int32)
        for type_id, cell in enumerate(self.cells):
            for slot, operand in enumerate(cell.operands):
                table[type_id, slot] = self.arena(operand.spec)
        return table

    @cached_property
    def output_arena(self) -> np.ndarray:
        """Arena of each output: int32[cells, stride], -1 where a cell has fewer outputs."""
        table = np.full((len(self.cells), self.stride), -1, np.int32)
        for type_id, cell in enumerate(self.cells):
            for slot, spec in enumerate(cell.outputs):
                table[type_id, slot] = self.arena(spec)
        return table


def first_difference(given: Signature | None, wanted: Signature) -> tuple[str, str]:
    """The first cells in which two different signatures differ, as text."""
    if given is None:
        return "none (a bare graph)", str(wanted[0]) if len(wanted) else "none"
    cells = [str(cell) for cell in given]
    names = [str(cell) for cell in wanted]
    count = max(len(cells), len(names))
    pairs = zip(cells + ["none"] * (count - len(cells)), names + ["none"] * (count - len(names)), strict=True)
    return next((pair for pair in pairs if pair[0] != pair[1]), ("none", "none"))

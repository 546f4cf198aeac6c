"""What kernels for GPUs are called with.

``kernel(tables, ...)``: `tables` is one int32 vector, so that a minibatch needs one upload. It begins with a header:

================================ ===================================================================================
word                             content
================================ ===================================================================================
``STEPS_AT``, ``COLUMNS``        where the steps table begins, and its columns (:mod:`edbatch_tvm.memory.steps_table`)
``INDEX_AT``                     where the index vector begins
``BATCHES``                      number of batches
``WORKSPACE``                    elements of workspace that a block has
``ATTRIBUTES + a``               where the rows of attribute number `a` of the model begin, in schedule order
the following ones               where cells share kernels, for each type: the first type that is equal to it, its place
                                 among these, and the number of its first attribute
================================ ===================================================================================

The further arguments are listed as texts ``kind:name``, as :mod:`schedules.abi` has them; ``workspace:dtype`` is memory
for the values inside general cells.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import Any

from edbatch_tvm.tvm_compat import builder_tirx as T
from edbatch_tvm.tvm_compat import tirx
from schedules import abi
from schedules import stage as ir
from schedules.cuda.execution_model import bind
from schedules.cuda.product_precision import FLOAT32, Products
from schedules.cuda.tiles import PACK_LANES, sweeps_of, widest_columns

STEPS_AT, COLUMNS, INDEX_AT, BATCHES, WORKSPACE, ATTRIBUTES = range(6)

TYPE_WORDS = 3
"""Words of a type in the table of types."""

_INT = "int32"


class Tables:
    """The int32 vector of a minibatch, as kernels read it."""

    def __init__(self, buffer: Any) -> None:
        self.buffer = buffer
        self._steps = self._columns = self._index = None

    def open(self) -> None:
        """Read the parts of the header that every kernel needs."""
        self._steps = bind("steps_at", self.buffer[STEPS_AT])
        self._columns = bind("columns", self.buffer[COLUMNS])
        self._index = bind("index_at", self.buffer[INDEX_AT])

    def __getitem__(self, position: Any) -> Any:
        """Element `position` of the index vector."""
        return self.buffer[self._index + position]

    def step(self, step: Any, column: int) -> Any:
        """An element of the steps table."""
        return self.buffer[self._steps + step * self._columns + column]

    def attribute(self, number: int, size: int, dtype: str, row: Any, position: int) -> Any:
        """Element `position` of row `row` of attribute number `number` of the model, which has the dtype `dtype`."""
        found = self.buffer[self.buffer[ATTRIBUTES + number] + row * size + position]
        return T.reinterpret("float32", found) if dtype == "float32" else found


def packed_shape(stage: ir.Stage, products: Products = FLOAT32) -> tuple[int, int]:
    """Chunks, and elements of packed weights a chunk; the second is 0 for a stage without weights."""
    size = sum(sweep.size for sweep in sweeps_of(stage, products)) + len(stage.vectors) * PACK_LANES
    return widest_columns(stage, products) // PACK_LANES, size


def has_weights(stage: ir.Stage) -> bool:
    """Whether weights are packed for `stage`."""
    passes = [one for gate in stage.gates for one in gate.passes]
    return bool(stage.vectors) or any(isinstance(one, ir.Pass) or not isinstance(one.left, ir.Read) for one in passes)


def stage_arguments(stage: ir.Stage, binding: abi.CellBinding) -> list[str]:
    """The arguments of a stage's kernel after `tables`."""
    arenas = [binding.output_arena[o.slot] for o in stage.outputs if o.slot >= 0]
    arenas += [binding.operand_arena[s.index] for s in stage.sources if isinstance(s, ir.StageOperand | ir.Variadic)]
    tables = [f"table:{s.weight}" for s in stage.sources if isinstance(s, ir.Lookup)]
    scratch = [f"scratch:{o.scratch}" for o in stage.outputs if o.scratch]
    scratch += [f"scratch:{s.name}" for s in stage.sources if isinstance(s, ir.Scratch)]
    packed = [f"packed:{stage.name}"] if has_weights(stage) else []
    return list(dict.fromkeys([f"arena:{a}" for a in arenas] + tables + scratch + packed))


def stacked(text: str, type_id: int) -> str:
    """The argument that has what `text` is of all cells that are equal to the type `type_id`; `text`, if it is shared.

    It is one vector; what belongs to a cell begins at a multiple of :data:`~schedules.abi.LANES` elements.
    """
    return f"{text}@{type_id}" if text.partition(":")[0] in ("weight", "table", "packed") else text


def elements_of_place(shape: tuple[int, ...]) -> int:
    """Elements from what belongs to a cell to what belongs to the next one in a :func:`stacked` argument."""
    return abi.padded(prod(shape))


class Arguments:
    """The buffers of a kernel, by their texts.

    Parameters
    ----------
    shapes : dict from text to (shape, dtype)
        What does not follow from the text: ``table``, ``weight`` and ``packed`` arguments.
    """

    def __init__(self, binding: abi.CellBinding, shapes: dict[str, tuple[tuple[int, ...], str]]) -> None:
        self.binding = binding
        self.shapes = shapes
        self.buffers: dict[str, Any] = {}

    def declare(self, texts: Iterable[str]) -> list[str]:
        """Make each a parameter of the function that is built, once."""
        texts = list(dict.fromkeys(texts))
        for text in texts:
            kind, _, name = text.partition(":")
            self.buffers[text] = T.arg(_identifier(kind, name), self._buffer(kind, name, text))
        return texts

    def __getitem__(self, text: str) -> Any:
        return self.buffers[text]

    def of_place(self, texts: Iterable[str], type_id: int, place: Any) -> Arguments:
        """The arguments of the cell at `place` among those that are equal to the type `type_id`."""
        found = Arguments(self.binding, self.shapes)
        for text in texts:
            whole = self.buffers[stacked(text, type_id)]
            if stacked(text, type_id) != text:
                shape, dtype = self.shapes[text]
                offset = place * elements_of_place(shape)
                whole = T.decl_buffer(shape, dtype, data=whole.data, elem_offset=offset, align=abi.ALIGNMENT)
            found.buffers[text] = whole
        return found

    def _buffer(self, kind: str, name: str, text: str) -> Any:
        if kind == "arena":
            number = int(name)
            shape = (tirx.Var(f"rows{number}", _INT), self.binding.arena_width[number])
            return T.buffer(shape, self.binding.arena_dtype[number], align=abi.ALIGNMENT)
        if kind == "workspace":
            return T.buffer((tirx.Var(f"{name}_elements", _INT),), name, align=abi.ALIGNMENT)
        if kind == "scratch":
            room = tirx.Var(f"{_identifier(kind, name)}_rows", _INT)
            return T.buffer((room, abi.padded(self.shapes[text][0][0])), "float32", align=abi.ALIGNMENT)
        return T.buffer(*self.shapes[text], align=abi.ALIGNMENT)


def _identifier(kind: str, name: str) -> str:
    return f"{kind}_{''.join(c if c.isalnum() else '_' for c in name)}" if not name.isdigit() else f"{kind}{name}"

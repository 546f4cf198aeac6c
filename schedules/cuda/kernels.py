"""Kernels for GPUs from the code of stages and general cells: one per batch, or one for a whole schedule.

``batch_kernel`` makes ``kernel(tables, step, count, ...)``, which runs one stage of one batch. ``schedule_kernel``
makes ``kernel(tables, blocks, ...)``, which runs all batches: a grid that stays, steps through the steps table, and
waits at a barrier of the grid after every stage. It needs a cooperative launch of at most as many blocks as the machine
holds at once. Both are made of the same code, for a GPU or emulated; see :mod:`schedules.cuda.execution_model`.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, Protocol

from tvm.script.ir_builder import IRBuilder

from edbatch_tvm.tvm_compat import builder_tirx as T
from edbatch_tvm.tvm_compat import tirx
from schedules import abi
from schedules import stage as ir
from schedules.cuda.execution_model import EmulatedThreads, GpuThreads, Threads, bind, loop
from schedules.cuda.kernel_arguments import BATCHES, TYPE_WORDS, Arguments, Tables, stacked, stage_arguments
from schedules.cuda.matrix_code import SHARED_ELEMENTS, MatrixCode, is_matrix_product, tiles_of_instance
from schedules.cuda.product_precision import FLOAT32, Products
from schedules.cuda.stage_code import StageCode
from schedules.cuda.tiles import least_rows, tiles_of

_INT = "int32"

COOPERATIVE = "tirx.use_cooperative_launch"
"""TVM's launch tag of kernels whose blocks wait for each other."""

LAUNCH_PARAMETERS = "tirx.kernel_launch_params"
"""TVM's attribute of a function: tags its kernels are launched with."""

SCHEDULE = "edbatch_schedule"
"""Name of the kernel that runs a whole schedule."""


@dataclass(frozen=True)
class Occupancy:
    """What the kernels know of a GPU.

    Attributes
    ----------
    fill : int
        Number of blocks that fill it: smaller tiles are used where larger ones would give fewer.
    blocks_per_unit : int
        Blocks of a kernel that a multiprocessor must be able to hold; bounds the registers of a thread.
    """

    fill: int = 128
    blocks_per_unit: int = 2


Shapes = dict[str, tuple[tuple[int, ...], str]]


class Part(Protocol):
    """The code that runs one stage, or a general cell, for one batch."""

    @property
    def name(self) -> str:
        """Name of its kernel."""

    @property
    def type_id(self) -> int:
        """Type of the cell."""

    @property
    def binding(self) -> abi.CellBinding:
        """Where the cell's values lie."""

    def arguments(self) -> list[str]:
        """Its arguments after `tables`."""

    def shared(self) -> tuple[int, int]:
        """Elements of shared memory: numbers, and rows."""

    def blocks(self, count: Any, machine: Occupancy) -> Any:
        """Number of blocks that have work in a batch of `count` instances."""

    def emit(self, context: Context, step: Any) -> None:
        """Its code, inside a region."""


@dataclass(frozen=True)
class Context:
    """What the code of a part is emitted into."""

    threads: Threads
    tables: Tables
    arguments: Arguments
    machine: Occupancy
    pool: Any
    row_table: Any


@dataclass(frozen=True)
class StagePart:
    """One stage of a cell; see :class:`Part`."""

    stage: ir.Stage
    binding: abi.CellBinding
    first_attribute: int
    products: Products = FLOAT32

    @property
    def name(self) -> str:
        """See :meth:`Part.name`."""
        return self.stage.name

    @property
    def type_id(self) -> int:
        """See :meth:`Part.type_id`."""
        return self.binding.type_id

    def arguments(self) -> list[str]:
        """See :meth:`Part.arguments`."""
        return stage_arguments(self.stage, self.binding)

    def shared(self) -> tuple[int, int]:
        """See :meth:`Part.shared`."""
        pool = max(tile.shared_elements(self.stage) for tile in tiles_of(self.stage, self.products))
        return pool, StageCode.row_table_elements(self.stage, self.products)

    def blocks(self, count: Any, machine: Occupancy) -> Any:
        """See :meth:`Part.blocks`."""
        result: Any = None
        for tile in reversed(tiles_of(self.stage, self.products)):
            chunks = -(-self.stage.columns // tile.columns)
            blocks = tirx.truncdiv(count + (tile.rows - 1), tile.rows) * chunks
            least = least_rows(self.stage, tile, machine.fill)
            result = blocks if result is None else tirx.Select(count >= least, blocks, result)
        return result

    def emit(self, context: Context, step: Any) -> None:
        """See :meth:`Part.emit`."""
        code = StageCode(
            context.threads,
            self.stage,
            self.binding,
            self.first_attribute,
            context.tables,
            context.arguments,
            context.machine.fill,
            self.products,
        )
        code.emit(step, context.pool, context.row_table)


@dataclass(frozen=True)
class MatrixPart:
    """A stage of matrices, or of products of values; see :class:`Part`."""

    stage: ir.Stage
    binding: abi.CellBinding
    first_attribute: int

    @property
    def name(self) -> str:
        """See :meth:`Part.name`."""
        return self.stage.name

    @property
    def type_id(self) -> int:
        """See :meth:`Part.type_id`."""
        return self.binding.type_id

    def arguments(self) -> list[str]:
        """See :meth:`Part.arguments`."""
        return stage_arguments(self.stage, self.binding)

    def shared(self) -> tuple[int, int]:
        """See :meth:`Part.shared`."""
        return SHARED_ELEMENTS if is_matrix_product(self.stage) else 0, 0

    def blocks(self, count: Any, machine: Occupancy) -> Any:
        """See :meth:`Part.blocks`."""
        return count * tiles_of_instance(self.stage)

    def emit(self, context: Context, step: Any) -> None:
        """See :meth:`Part.emit`."""
        code = MatrixCode(
            context.threads,
            self.stage,
            self.binding,
            self.first_attribute,
            context.tables,
            context.arguments,
            context.machine.fill,
        )
        code.emit(step, context.pool, context.row_table)


@dataclass(frozen=True)
class SharedPart:
    """A part that several equal cells run, each with weights of its own; see :class:`Part`.

    The weights of all of them lie in one buffer for each argument, one cell after the other. The table of types says
    which place is a type's, and which is its first attribute.

    Attributes
    ----------
    part : Part
        That of the first cell.
    table : int
        Where the table of types begins in `tables`: for each type :data:`~schedules.cuda.kernel_arguments.TYPE_WORDS`
        words.
    """

    part: Any
    table: int

    @property
    def name(self) -> str:
        """See :meth:`Part.name`."""
        return str(self.part.name)

    @property
    def type_id(self) -> int:
        """See :meth:`Part.type_id`."""
        return int(self.part.type_id)

    @property
    def binding(self) -> abi.CellBinding:
        """See :meth:`Part.binding`."""
        binding: abi.CellBinding = self.part.binding
        return binding

    def arguments(self) -> list[str]:
        """See :meth:`Part.arguments`."""
        return [stacked(text, self.type_id) for text in self.part.arguments()]

    def shared(self) -> tuple[int, int]:
        """See :meth:`Part.shared`."""
        pool, rows = self.part.shared()
        return pool, rows

    def blocks(self, count: Any, machine: Occupancy) -> Any:
        """See :meth:`Part.blocks`."""
        return self.part.blocks(count, machine)

    def emit(self, context: Context, step: Any) -> None:
        """See :meth:`Part.emit`."""
        tables = context.tables
        row = bind("row", self.table + TYPE_WORDS * tables.step(step, abi.TYPE))
        place, first_attribute = bind("place", tables.buffer[row + 1]), bind("first_attribute", tables.buffer[row + 2])
        part = copy(self.part)
        object.__setattr__(part, "first_attribute", first_attribute)
        arguments = context.arguments.of_place(self.part.arguments(), self.type_id, place)
        part.emit(replace(context, arguments=arguments), step)


def batch_kernel(
    part: Part, shapes: Shapes, machine: Occupancy, emulate: EmulatedThreads | None = None
) -> tirx.PrimFunc:
    """The kernel ``kernel(tables, step, count, ...)`` of one part.

    Parameters
    ----------
    shapes : dict
        See :class:`~schedules.cuda.kernel_arguments.Arguments`.
    emulate : EmulatedThreads, optional
        Build it for LLVM, with these loops.
    """
    threads = GpuThreads(cooperative=False) if emulate is None else emulate
    with IRBuilder() as builder, T.prim_func():
        T.func_name(part.name)
        tables, arguments = _tables(), Arguments(part.binding, shapes)
        step, count = T.arg("step", tirx.Var("step", _INT)), T.arg("count", tirx.Var("count", _INT))
        texts = arguments.declare(part.arguments())
        T.func_attr(_attributes(part.name, texts))
        blocks = bind("blocks", part.blocks(count, machine))
        with threads.launch(blocks), _Bounds(machine, emulate):
            context = _context([part], threads, tables, arguments, machine)
            with threads.region():
                tables.open()
                part.emit(context, step)
    return builder.get()


def schedule_kernel(
    parts: Sequence[Part], shapes: Shapes, machine: Occupancy, emulate: EmulatedThreads | None = None
) -> tirx.PrimFunc:
    """The kernel ``kernel(tables, blocks, ...)`` that runs a whole schedule; see :func:`batch_kernel`."""
    threads = GpuThreads(cooperative=True) if emulate is None else emulate
    with IRBuilder() as builder, T.prim_func():
        T.func_name(SCHEDULE)
        tables, arguments = _tables(), Arguments(parts[0].binding, shapes)
        blocks = T.arg("blocks", tirx.Var("blocks", _INT))
        texts = arguments.declare([text for part in parts for text in part.arguments()])
        attributes = _attributes(SCHEDULE, texts)
        if emulate is None:
            attributes[LAUNCH_PARAMETERS] = [COOPERATIVE]
        T.func_attr(attributes)
        with threads.launch(blocks), _Bounds(machine, emulate):
            context = _context(parts, threads, tables, arguments, machine)
            tables.open()
            batches = bind("batches", tables.buffer[BATCHES])
            with loop("step", batches) as step:
                kind = bind("kind", tables.step(step, abi.TYPE))
                shared = [part for part in parts if isinstance(part, SharedPart)]
                if shared:
                    kind = bind("first_type", tables.buffer[shared[0].table + TYPE_WORDS * kind])
                for type_id in sorted({part.type_id for part in parts}):
                    with T.If(kind == type_id), T.Then():
                        for part in parts:
                            if part.type_id == type_id:
                                with threads.region():
                                    part.emit(context, step)
    return builder.get()


def _tables() -> Tables:
    return Tables(T.arg("tables", T.buffer((tirx.Var("words", _INT),), _INT, align=abi.ALIGNMENT)))


def _attributes(name: str, texts: list[str]) -> dict[str, Any]:
    return {"global_symbol": name, "tirx.noalias": True, abi.ARGUMENTS: texts}


def _context(
    parts: Sequence[Part], threads: Threads, tables: Tables, arguments: Arguments, machine: Occupancy
) -> Context:
    needs = [part.shared() for part in parts]
    pool, rows = (max(1, *column) if len(needs) > 1 else max(1, column[0]) for column in zip(*needs, strict=True))
    return Context(
        threads,
        tables,
        arguments,
        machine,
        threads.shared("pool", pool, "float32"),
        threads.shared("rows", rows, _INT),
    )


class _Bounds:
    """Context: a GPU kernel with a bound on the blocks that a multiprocessor holds."""

    def __init__(self, machine: Occupancy, emulate: EmulatedThreads | None) -> None:
        self.frame = None
        if emulate is None:
            value = tirx.const(machine.blocks_per_unit, _INT)
            self.frame = T.attr(tirx.const(0, _INT), "tirx.launch_bounds_min_blocks_per_sm", value)

    def __enter__(self) -> None:
        if self.frame is not None:
            self.frame.__enter__()

    def __exit__(self, *error: Any) -> None:
        if self.frame is not None:
            self.frame.__exit__(*error)

"""The code of stages of matrices, and of products of two values: one instance at a time.

A product of a weight with a value's matrix, ``W [M_l; M_r]``, is computed in tiles of 64 rows by 64 columns of one
instance's result: both factors go through shared memory, each thread sums 4 rows by 4 columns in registers. In any
other stage of this kind, such as ``M v``, a thread computes one element.
"""

from __future__ import annotations

from typing import Any

from edbatch_tvm.tvm_compat import builder_tirx as T
from edbatch_tvm.tvm_compat import tirx
from schedules import stage as ir
from schedules.cuda.epilogue_code import ElementCode
from schedules.cuda.execution_model import BLOCK, Registers, bind, loop
from schedules.cuda.matrix_stage_packing import MatrixPacking
from schedules.cuda.stage_code import StageCode
from schedules.cuda.tile_code import Each
from schedules.cuda.tiles import ACROSS, VECTOR

SIDE, DEPTH, BUFFERS = 64, 16, 2
"""Rows and columns of a tile; k that lie in shared memory at once, and how often."""

_LEFT = SIDE * (DEPTH + VECTOR)
_RIGHT = DEPTH * (SIDE + VECTOR)
SHARED_ELEMENTS = BUFFERS * (_LEFT + _RIGHT)

_FLOAT = "float32"


def is_by_instance(stage: ir.Stage) -> bool:
    """Whether this module computes `stage`: of instances, and nothing over their variadic rows."""
    plain = all(isinstance(s, ir.StageOperand | ir.Lookup) or s == ir.Scratch(_name(s)) for s in stage.sources)
    return stage.domain == "instances" and plain and not stage.reductions and len(stage.gates) <= 4


def _name(source: ir.Source) -> str:
    return source.name if isinstance(source, ir.Scratch) else ""


def is_matrix_product(stage: ir.Stage) -> bool:
    """Whether all contractions multiply a matrix of weights from the left with rows that lie side by side."""
    passes = [one for gate in stage.gates for one in gate.passes]
    return bool(passes) and stage.rows > 1 and all(isinstance(p, ir.Product) and _is_left(p) for p in passes)


def _is_left(one: ir.Product) -> bool:
    return not isinstance(one.left, ir.Read) and one.right.column == 1 and one.right.row == 0


def tiles_of_instance(stage: ir.Stage) -> int:
    """Pieces of work that an instance has."""
    if is_matrix_product(stage):
        return -(-stage.rows // SIDE) * -(-stage.columns // SIDE)
    return -(-stage.rows * stage.columns // BLOCK)


class MatrixCode(StageCode):
    """Emits the code of such a stage; see :class:`~schedules.cuda.stage_code.StageCode`."""

    def loops(self) -> None:
        """Every block takes one tile of one instance after another."""
        stage, threads = self.stage, self.threads
        self.packing = MatrixPacking(stage)
        pieces = tiles_of_instance(stage)
        turns = tirx.truncdiv(self.count * pieces + threads.blocks - 1 - threads.block, threads.blocks)
        with loop("turn", turns) as turn:
            work = bind("work", threads.block + turn * threads.blocks)
            self.instance = bind("instance", tirx.truncdiv(work, pieces))
            piece = bind("piece_of_instance", work - self.instance * pieces)
            self.rows = {s: bind("row", self.row(s, self.instance)) for s in stage.sources}
            if is_matrix_product(stage):
                across = -(-stage.columns // SIDE)
                self._tile(tirx.truncdiv(piece, across) * SIDE, tirx.truncmod(piece, across) * SIDE)
            else:
                self._elements(piece)

    # One element a thread ----------------------------------------------------------------------------------------

    def _elements(self, piece: Any) -> None:
        stage = self.stage
        with self.threads.phase():
            element = bind("element", piece * BLOCK + self.threads.thread)
            with T.If(element < stage.rows * stage.columns), T.Then():
                i = bind("i", tirx.truncdiv(element, stage.columns))
                j = bind("j", tirx.truncmod(element, stage.columns))
                sums = self.threads.registers("acc", max(1, len(stage.gates)))
                for number, gate in enumerate(stage.gates):
                    sums.store(tirx.const(0, _FLOAT), number)
                    for place, one in enumerate(gate.passes):
                        with loop("k", one.length) as k:
                            value = self._left(number, place, one, i, k) * self._right(number, place, one, i, k, j)
                            sums.store(sums.load(number) + value, number)
                self._write(i, j, sums.load)

    def _left(self, gate: int, place: int, one: ir.Pass | ir.Product, i: Any, k: Any) -> Any:
        if isinstance(one, ir.Pass):
            return self.buffer(one.source)[self.rows[one.source], one.offset + one.row * i + k]
        if isinstance(one.left, ir.Read):
            return self._read(one.left, i, k, 0)
        return self._packed()[self.packing.factors[gate, place] + i * one.length + k]

    def _right(self, gate: int, place: int, one: ir.Pass | ir.Product, i: Any, k: Any, j: Any) -> Any:
        if isinstance(one, ir.Pass):
            return self._packed()[self.packing.factors[gate, place] + k * self.stage.columns + j]
        return self._read(one.right, i, k, j)

    def _read(self, read: ir.Read, i: Any, k: Any, j: Any) -> Any:
        at = read.offset + read.row * i + read.step * k + read.column * j
        return self.buffer(read.source)[self.rows[read.source], at]

    def _packed(self) -> Any:
        return self.arguments[f"packed:{self.stage.name}"]

    # Tiles -------------------------------------------------------------------------------------------------------

    def _tile(self, first_i: Any, first_j: Any) -> None:
        stage, threads = self.stage, self.threads
        self.first_i, self.first_j = bind("first_i", first_i), bind("first_j", first_j)
        sums = threads.registers("acc", len(stage.gates) * VECTOR * VECTOR)
        with threads.phase(), threads.unrolled("e", len(stage.gates) * VECTOR * VECTOR) as e:
            sums.store(tirx.const(0, _FLOAT), e)
        for number, gate in enumerate(stage.gates):
            for place, one in enumerate(gate.passes):
                assert isinstance(one, ir.Product)
                self._sum(number, self.packing.factors[number, place], one, sums)
        with threads.phase(), threads.unrolled("e", VECTOR * VECTOR) as e:
            i = bind("i", self.first_i + tirx.truncdiv(threads.thread, ACROSS) * VECTOR + tirx.truncdiv(e, VECTOR))
            j = bind("j", self.first_j + tirx.truncmod(threads.thread, ACROSS) * VECTOR + tirx.truncmod(e, VECTOR))
            with T.If(tirx.And(i < stage.rows, j < stage.columns)), T.Then():
                self._write(i, j, lambda gate: sums.load(gate * (VECTOR * VECTOR) + e))

    def _sum(self, gate: int, factor: int, one: ir.Product, sums: Registers) -> None:
        """Add one product to the sums of its gate."""
        threads, depths = self.threads, -(-one.length // DEPTH)
        with threads.phase():
            self._fetch(factor, one, tirx.const(0, "int32"), tirx.const(0, "int32"))
            threads.commit()
            threads.wait(0)
        with loop("depth", depths) as depth, threads.phase():
            if depths > 1:
                with T.If(depth + 1 < depths), T.Then():
                    self._fetch(factor, one, depth + 1, tirx.truncmod(depth + 1, BUFFERS))
            threads.commit()
            self._multiply(tirx.truncmod(depth, BUFFERS), gate, sums)
            threads.wait(0)

    def _fetch(self, factor: int, one: ir.Product, depth: Any, buffer: Any) -> None:
        """Copy 64 rows of weights and 64 columns of the value, 16 k deep, to shared memory."""
        threads, stage, pool = self.threads, self.stage, self.pool
        read, packed = one.right, self._packed()
        whole = one.length % DEPTH == 0 and stage.rows % SIDE == 0 and stage.columns % SIDE == 0
        aligned = one.length % VECTOR == 0 and read.offset % VECTOR == 0 and read.step % VECTOR == 0
        with Each(threads, SIDE * DEPTH // VECTOR) as e:
            row = bind("row", tirx.truncdiv(e, DEPTH // VECTOR))
            k = bind("k", tirx.truncmod(e, DEPTH // VECTOR) * VECTOR)
            i, at_k = self.first_i + row, depth * DEPTH + k
            to = buffer * _LEFT + row * (DEPTH + VECTOR) + k
            if whole and aligned:
                threads.copy(pool, to, packed, [factor + i * one.length + at_k], VECTOR)
            else:
                with threads.unrolled("u", VECTOR) as u:
                    inside = tirx.And(i < stage.rows, at_k + u < one.length)
                    self._store(to + u, inside, packed[factor + i * one.length + at_k + u])
        with Each(threads, DEPTH * SIDE // VECTOR) as e:
            row = bind("row", tirx.truncdiv(e, SIDE // VECTOR))
            column = bind("column", tirx.truncmod(e, SIDE // VECTOR) * VECTOR)
            k, j = depth * DEPTH + row, self.first_j + column
            to = BUFFERS * _LEFT + buffer * _RIGHT + row * (SIDE + VECTOR) + column
            at = [self.rows[read.source], read.offset + read.step * k + j]
            if whole and aligned:
                threads.copy(pool, to, self.buffer(read.source), at, VECTOR)
            else:
                with threads.unrolled("u", VECTOR) as u:
                    inside = tirx.And(k < one.length, j + u < stage.columns)
                    self._store(to + u, inside, self.buffer(read.source)[at[0], at[1] + u])

    def _store(self, to: Any, inside: Any, value: Any) -> None:
        T.buffer_store(self.pool, tirx.if_then_else(inside, value, tirx.const(0, _FLOAT)), [to])

    def _multiply(self, buffer: Any, gate: int, sums: Registers) -> None:
        threads, pool, area = self.threads, self.pool, VECTOR * VECTOR
        x, y = threads.registers("x", area), threads.registers("y", VECTOR)
        along, across = tirx.truncdiv(threads.thread, ACROSS), tirx.truncmod(threads.thread, ACROSS)
        # In fours, so that the compiler sees that four elements lie aligned.
        pitch, width = DEPTH // VECTOR + 1, SIDE // VECTOR + 1
        left = bind("left", buffer * (_LEFT // VECTOR) + along * (VECTOR * pitch))
        right = bind("right", BUFFERS * (_LEFT // VECTOR) + buffer * (_RIGHT // VECTOR) + across)
        with loop("k", DEPTH // VECTOR) as k:
            with threads.unrolled("m", VECTOR) as m:
                x.store(pool[tirx.Ramp((left + m * pitch + k) * VECTOR, 1, VECTOR)], m * VECTOR, VECTOR)
            with threads.unrolled("u", VECTOR) as u:
                y.store(pool[tirx.Ramp((right + (k * VECTOR + u) * width) * VECTOR, 1, VECTOR)], 0, VECTOR)
                with threads.unrolled("m", VECTOR) as m, threads.unrolled("c", VECTOR) as c:
                    at = gate * area + m * VECTOR + c
                    sums.store(sums.load(at) + x.load(m * VECTOR + u) * y.load(c), at)

    # The epilogue ------------------------------------------------------------------------------------------------

    def _write(self, i: Any, j: Any, total: Any) -> None:
        element = _MatrixElement(_OneInstance(self), self.instance, self.instance, j, total)  # type: ignore[arg-type]
        element.matrix_row = i
        element.outputs()


class _OneInstance:
    """Stands for a tile: every element reads the rows of the same instance."""

    def __init__(self, code: MatrixCode) -> None:
        self.code = code

    def row(self, source: ir.Source, _: Any) -> Any:
        """The row that the instance reads."""
        return self.code.rows[source]


class _MatrixElement(ElementCode):
    def vector(self, index: int) -> Any:
        """The element of a packed vector."""
        code: Any = self.code
        base, by_row = code.packing.vectors[index]
        return code._packed()[base + by_row * self.matrix_row + self.column]

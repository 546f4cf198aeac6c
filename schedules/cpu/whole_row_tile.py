"""The code of one tile of a stage with column reductions: contractions of whole rows, then the epilogue in phases.

The results of contractions go to buffers of whole rows, a group of column chunks at a time. A phase of the epilogue is
one loop over the columns of a row. It computes what depends on no later column reduction and adds to those that end
it; what a later phase reads, it keeps in a row buffer::

    x[:] = results + b;   t0 = max over j: x[j]          # phase 0 of a soft-max
    y[:] = exp(x - t0);   t1 = sum over j: y[j]          # phase 1
    output[:] = y / t1                                   # phase 2
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from edbatch_tvm.tvm_compat import builder_tirx as T
from edbatch_tvm.tvm_compat import structural_walk, tirx
from schedules import stage as ir
from schedules.cpu.row_arithmetic import is_row_constant, row_constants, variables_in, with_cheap_arithmetic
from schedules.cpu.stage_config import first_column
from schedules.cpu.stage_tile import COMBINE, Tile
from schedules.cpu.stage_tile_values import At

_ZERO = tirx.const(0, "int32")

_TOTALS = 4
"""Totals of a column reduction under way at once: they hide the latency of an addition."""


@dataclass
class Phase:
    """One loop over columns: its lines, and the outputs that it writes; `scalars` are computed once, before it."""

    scalars: list[ir.Let] = field(default_factory=list)
    lines: list[ir.Line] = field(default_factory=list)
    same: set[Any] = field(default_factory=set)
    outputs: list[ir.Output] = field(default_factory=list)


class WholeRowTile(Tile):
    """A tile of all columns of its rows; see the module's docstring."""

    def write(self) -> None:
        """Write the code."""
        stage, bucket = self.stage, self.bucket
        self.find_owners()
        self.width = self.packing.chunks * self.lanes
        self.rows_of_results = [self._row_buffer(self.rows) for _ in stage.gates]
        if stage.gates:
            groups = -(-self.packing.chunks // bucket.chunks)
            with T.serial(0, groups) as group:
                first = tirx.min(group * bucket.chunks, self.packing.chunks - bucket.chunks)
                self._contract_group(self.kernel.bind("chunk", first))
        self._epilogue_of_rows(with_cheap_arithmetic(stage))

    def _row_buffer(self, rows: int) -> Any:
        return T.alloc_buffer((rows * self.width,), self.dtype, scope="global")

    def _contract_group(self, chunk: Any) -> None:
        """The contractions of a group of chunks, copied to the buffers of whole rows."""
        part = Tile(self.kernel, self.bucket, self.rows, chunk, self.start, self.element, self.short, self.panels)
        part.owners = self.owners
        part.contract()
        for number, buffer in enumerate(self.rows_of_results):
            for column, result in zip(part.columns, part.results[number], strict=True):
                with T.serial(0, self.rows) as row:
                    lanes = self.lanes_at(row * self.lanes)
                    T.buffer_store(buffer, result[lanes], [self.lanes_at(row * self.width + column)])

    def result(self, gate: int, at: At, lane: Any) -> Any:
        """The result of a contraction at one place."""
        return self.rows_of_results[gate][at.row * self.width + at.column + lane]

    def _epilogue_of_rows(self, stage: ir.Stage) -> None:
        """Phase after phase, each for all rows of the tile: the next row need not wait for the end of a reduction."""
        phases = phases_of(stage)
        self.kept = {variable: self._row_buffer(self.rows) for variable in read_later(stage, phases)}
        constants = [line for phase in phases for line in (*phase.scalars, *phase.lines) if line.variable in phase.same]
        self.of_rows = {
            line.variable: T.alloc_buffer((self.rows,), str(line.variable.ty.dtype), scope="global")
            for line in constants
        }
        for phase in phases:
            with T.serial(0, self.rows) as row:
                here, begin, position = self._at_row(row)
                for line in phase.scalars:
                    T.buffer_store(self.of_rows[line.variable], here.value(line.expression, _ZERO), [row])
                if phase.lines or phase.outputs:
                    self._loop(phase, here, begin, position)
        narrow = [output for output in stage.outputs if output.narrow]
        if narrow:
            with T.serial(0, self.rows) as row:
                here, _, position = self._at_row(row)
                for output in narrow:
                    self.store(output, here, position)

    def _at_row(self, row: Any) -> tuple[At, Any, Any]:
        """The place of row `row` of the tile, the first variadic row of its instance, and its element of the domain."""
        position, instance = self.position(row), self.instance(row)
        rows, count, begin = self.element_rows(position, instance)
        here = At(self, row, _ZERO, _ZERO, instance, rows, count)
        here.lets.update({variable: partial(_scalar, buffer) for variable, buffer in self.of_rows.items()})
        here.lets.update({variable: partial(_element, buffer, self.width) for variable, buffer in self.kept.items()})
        return here, begin, position

    def _loop(self, phase: Phase, before: At, begin: Any, position: Any) -> None:
        """The loop over columns of one phase for one row.

        Chunks whose columns all count come first, several in a turn where there is a reduction: each has a total of
        its own, so that additions need not wait for one another. The last chunk of other widths follows by itself.
        """
        reductions = [line for line in phase.lines if isinstance(line, ir.ColumnReduction)]
        whole = self.stage.columns // self.lanes
        together = min(whole, _TOTALS) if reductions else 1
        totals = {line.variable: [self._identity(line) for _ in range(max(1, together))] for line in reductions}

        def chunks(first: Any, count: int, masked: bool = False) -> None:
            for number in range(count):
                chunk = first + number
                column = self.kernel.bind("column", first_column(self.stage, self.kernel.machine, chunk))
                at = before.moved(chunk, column)
                own = {variable: parts[number] for variable, parts in totals.items()}
                self._chunk(phase, at, own, begin, position, masked)

        turns = whole // together if together else 0
        if turns:
            with T.serial(0, turns) as turn:
                chunks(turn * together, together)
        if together and whole % together:
            with T.serial(turns * together, whole) as chunk:
                chunks(chunk, 1)
        if self.packing.chunks > whole:
            chunks(tirx.const(whole, "int32"), 1, masked=True)
        for line in reductions:
            total = self._folded(totals[line.variable], line)
            T.buffer_store(self.of_rows[line.variable], total[0], [before.row])

    def _chunk(self, phase: Phase, at: At, totals: dict[Any, Any], begin: Any, position: Any, masked: bool) -> None:
        """The lines and outputs of a phase for one chunk."""
        for line in phase.lines:
            if isinstance(line, ir.ColumnReduction):
                self._add(totals[line.variable], line, at, masked)
                continue
            self.compute(line, at, begin)
            if line.variable in self.kept:
                base = at.row * self.width + at.column
                with self.each_lane() as lane:
                    T.buffer_store(self.kept[line.variable], at.lets[line.variable](at, lane), [base + lane])
        for output in phase.outputs:
            self.store(output, at, position)

    # Column reductions -----------------------------------------------------------------------------------------

    def _identity(self, line: ir.ColumnReduction) -> Any:
        total = T.alloc_buffer((self.lanes,), self.dtype, scope="global")
        T.buffer_store(total, self.broadcast(tirx.const(line.identity, self.dtype)), [self.lanes_at(0)])
        return total

    def _add(self, total: Any, line: ir.ColumnReduction, at: At, masked: bool) -> None:
        """Combine the elements of a chunk with `total`; what is beyond the columns, or came before, does not count."""
        columns = self.stage.columns
        with self.each_lane() as lane:
            value = at.value(line.expression, lane)
            if masked:
                place = at.column + lane
                inside = tirx.And(place >= at.chunk * self.lanes, place < columns)
                value = tirx.Select(inside, value, tirx.const(line.identity, self.dtype))
            T.buffer_store(total, self._combined(line, total[lane], value), [lane])

    def _combined(self, line: ir.ColumnReduction, total: Any, value: Any) -> Any:
        """`total` and one more element; for a maximum (minimum) in three instructions, NaN if one of them is."""
        if line.combine == "sum":
            return total + value
        v = tirx.Var("v", self.dtype)
        chosen = tirx.Select(v < total if line.combine == "max" else total < v, total, v)
        infinity = tirx.const(float("inf"), self.dtype)
        return tirx.Let(v, value, tirx.Select(total <= infinity, chosen, total))

    def _folded(self, totals: list[Any], line: ir.ColumnReduction) -> Any:
        """The first of `totals`, with the combination of all in its first lane: halves on halves, then what is left."""
        combine, count = COMBINE[line.combine], self.lanes
        every = self.lanes_at(0)
        while len(totals) > 1:
            half = (len(totals) + 1) // 2
            for total, other in zip(totals[: len(totals) - half], totals[half:], strict=True):
                T.buffer_store(total, combine(total[every], other[every]), [every])
            totals = totals[:half]
        (total,) = totals
        while count > 1:
            half = count // 2
            low, high = (tirx.Ramp(start, 1, half) if half > 1 else start for start in (0, count - half))
            T.buffer_store(total, combine(total[low], total[high]), [low])
            count -= half
        return total


def phases_of(stage: ir.Stage) -> list[Phase]:
    """The lines of the body and the outputs that are not narrow, by phase."""
    number_of: dict[Any, int] = {}
    constant = row_constants(stage)
    phases = [Phase()]

    def phase_of(expression: Any) -> int:
        number = max((number_of.get(variable, 0) for variable in variables_in(expression)), default=0)
        phases.extend(Phase() for _ in range(number + 1 - len(phases)))
        return number

    for line in stage.body:
        number = phase_of(line.expression)
        number_of[line.variable] = number + isinstance(line, ir.ColumnReduction)
        same = is_row_constant(line, constant)
        if same:
            constant.add(line.variable)
            phases[number].same.add(line.variable)
        if isinstance(line, ir.Let) and same:
            phases[number].scalars.append(line)
        else:
            phases[number].lines.append(line)
    for output in stage.outputs:
        if not output.narrow:
            phases[phase_of(output.expression)].outputs.append(output)
    cheap = _cheap_lines(stage)
    for number, phase in enumerate(phases):
        needed = {v for one in (*phase.lines, *phase.outputs) for v in variables_in(one.expression)}
        copies: list[ir.Line] = []
        for line in reversed(stage.body):
            if line.variable in needed and line.variable in cheap and number_of[line.variable] < number:
                copies.insert(0, line)
                needed.update(variables_in(line.expression))
        phase.lines[:0] = copies
    return phases


_CHEAP = 2
"""Additions and multiplications that are as cheap as a number that is stored in one phase and read in another."""


def _cheap_lines(stage: ir.Stage) -> set[Any]:
    """The variables of lines that a later phase computes again from what the row consists of."""
    costs: dict[Any, int] = {}
    for line in stage.body:
        if isinstance(line, ir.Let):
            nodes: list[Any] = []
            keep: Callable[[Any], None] = nodes.append
            structural_walk(line.expression, (object, keep))
            simple = all(isinstance(node, _SIMPLE) for node in nodes)
            own = sum(isinstance(node, tirx.Add | tirx.Sub | tirx.Mul) and not _is_negation(node) for node in nodes)
            costs[line.variable] = own + sum(costs.get(node, 0) for node in nodes) if simple else _CHEAP + 1
        elif isinstance(line, ir.Reduction):
            costs[line.variable] = _CHEAP + 1
    return {line.variable for line in stage.body if costs.get(line.variable, 0) <= _CHEAP}


def _is_negation(node: Any) -> bool:
    return isinstance(node, tirx.Mul) and isinstance(node.b, tirx.FloatImm) and float(node.b.value) == -1


_SIMPLE = (tirx.Add, tirx.Sub, tirx.Mul, tirx.Var, tirx.FloatImm)


def read_later(stage: ir.Stage, phases: list[Phase]) -> list[Any]:
    """The variables that a phase after their own reads, or a narrow output: they have an element for each column."""
    later = {v for output in stage.outputs if output.narrow for v in variables_in(output.expression)}
    kept = []
    for phase in reversed(phases):
        lines = [line for line in phase.lines if not isinstance(line, ir.ColumnReduction)]
        kept += [line.variable for line in lines if line.variable in later]
        for one in (*phase.scalars, *phase.lines, *phase.outputs):
            later.update(variables_in(one.expression))
    return kept


def _scalar(buffer: Any, at: At, _lane: Any) -> Any:
    return buffer[at.row]


def _element(buffer: Any, width: int, at: At, lane: Any) -> Any:
    return buffer[at.row * width + at.column + lane]

"""The code of one tile of a stage with column reductions: contractions of whole rows, then the epilogue in phases.

The results of contractions go to buffers of whole rows, a group of column chunks at a time. A phase of the epilogue is
one loop over the columns of a row. It computes what depends on no later column reduction and adds to those that end
it; what a later phase reads, it keeps in a row buffer::

    x[:] = results + b;   t0 = max over j: x[j]          # phase 0 of a soft-max
    y[:] = exp(x - t0);   t1 = sum over j: y[j]          # phase 1
    output[:] = y / t1                                   # phase 2
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

from edbatch_tvm.tvm_compat import builder_tirx as T
from edbatch_tvm.tvm_compat import structural_walk, tirx
from schedules import stage as ir
from schedules.cpu.stage_config import first_column
from schedules.cpu.stage_tile import COMBINE, Tile
from schedules.cpu.stage_tile_values import At
from schedules.weight_packing import uses

_ZERO = tirx.const(0, "int32")


@dataclass
class Phase:
    """One loop over columns: its lines, and the outputs that it writes; `scalars` are computed once, before it."""

    scalars: list[ir.Let] = field(default_factory=list)
    lines: list[ir.Line] = field(default_factory=list)
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
        phases = phases_of(stage)
        self.kept = {variable: self._row_buffer(1) for variable in read_later(stage, phases)}
        with T.serial(0, self.rows) as row:
            self._epilogue_of_row(row, phases)

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

    def _epilogue_of_row(self, row: Any, phases: list[Phase]) -> None:
        position, instance = self.position(row), self.instance(row)
        rows, count, begin = self.element_rows(position, instance)
        here = At(self, row, _ZERO, _ZERO, instance, rows, count)
        for phase in phases:
            for line in phase.scalars:
                value = T.alloc_buffer((1,), str(line.variable.ty.dtype), scope="global")
                T.buffer_store(value, here.value(line.expression, _ZERO), [0])
                here.lets[line.variable] = partial(_scalar, value)
            self._loop(phase, here, begin, position)
        for output in self.stage.outputs:
            if output.narrow:
                self.store(output, here, position)

    def _loop(self, phase: Phase, before: At, begin: Any, position: Any) -> None:
        """The loop over columns of one phase; its results go to ``before.lets``."""
        if not (phase.lines or phase.outputs):
            return
        totals = {line.variable: self._identity(line) for line in phase.lines if isinstance(line, ir.ColumnReduction)}
        with T.serial(0, self.packing.chunks) as chunk:
            column = self.kernel.bind("column", first_column(self.stage, self.kernel.machine, chunk))
            at = before.moved(chunk, column)
            for line in phase.lines:
                if isinstance(line, ir.ColumnReduction):
                    self._add(totals[line.variable], line, at)
                    continue
                self.compute(line, at, begin)
                if line.variable in self.kept:
                    with self.each_lane() as lane:
                        T.buffer_store(self.kept[line.variable], at.lets[line.variable](at, lane), [column + lane])
            for output in phase.outputs:
                self.store(output, at, position)
        for line in phase.lines:
            if isinstance(line, ir.ColumnReduction):
                before.lets[line.variable] = partial(_scalar, self._folded(totals[line.variable], line))
            elif line.variable in self.kept:
                before.lets[line.variable] = partial(_element, self.kept[line.variable])

    # Column reductions -----------------------------------------------------------------------------------------

    def _identity(self, line: ir.ColumnReduction) -> Any:
        total = T.alloc_buffer((self.lanes,), self.dtype, scope="global")
        T.buffer_store(total, self.broadcast(tirx.const(line.identity, self.dtype)), [self.lanes_at(0)])
        return total

    def _add(self, total: Any, line: ir.ColumnReduction, at: At) -> None:
        """Combine the elements of a chunk with `total`; what is beyond the columns, or came before, does not count."""
        combine, columns = COMBINE[line.combine], self.stage.columns
        with self.each_lane() as lane:
            value = at.value(line.expression, lane)
            if columns % self.lanes:
                place = at.column + lane
                inside = tirx.And(place >= at.chunk * self.lanes, place < columns)
                value = tirx.Select(inside, value, tirx.const(line.identity, self.dtype))
            T.buffer_store(total, combine(total[lane], value), [lane])

    def _folded(self, total: Any, line: ir.ColumnReduction) -> Any:
        """`total` with the combination of all its lanes in the first one: halves on halves, then what is left."""
        combine, count = COMBINE[line.combine], self.lanes
        while count > 1:
            half = count // 2
            low, high = (tirx.Ramp(start, 1, half) if half > 1 else start for start in (0, count - half))
            T.buffer_store(total, combine(total[low], total[high]), [low])
            count -= half
        return total


def phases_of(stage: ir.Stage) -> list[Phase]:
    """The lines of the body and the outputs that are not narrow, by phase."""
    number_of: dict[Any, int] = {}
    constant = {variable for variable, leaf in stage.leaves.items() if _is_constant(stage, leaf)}
    phases = [Phase()]

    def phase_of(expression: Any) -> int:
        number = max((number_of.get(variable, 0) for variable in variables_in(expression)), default=0)
        phases.extend(Phase() for _ in range(number + 1 - len(phases)))
        return number

    for line in stage.body:
        number = phase_of(line.expression)
        number_of[line.variable] = number + isinstance(line, ir.ColumnReduction)
        if isinstance(line, ir.Let) and constant.issuperset(variables_in(line.expression)):
            phases[number].scalars.append(line)
            constant.add(line.variable)
            continue
        phases[number].lines.append(line)
        if isinstance(line, ir.ColumnReduction):
            constant.add(line.variable)
    for output in stage.outputs:
        if not output.narrow:
            phases[phase_of(output.expression)].outputs.append(output)
    return phases


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


def variables_in(expression: Any) -> list[Any]:
    """The variables of an expression."""
    found: list[Any] = []
    structural_walk(expression, (tirx.Var, found.append))
    return found


def _is_constant(stage: ir.Stage, leaf: ir.Leaf) -> bool:
    """Whether a leaf is the same in all columns."""
    match leaf:
        case ir.Element():
            return not leaf.moving
        case ir.Vector(index):
            return not uses(stage.vectors[index], stage.column)
        case ir.RowCount() | ir.AttributeValue():
            return True
    return False


def _scalar(buffer: Any, _at: At, _lane: Any) -> Any:
    return buffer[0]


def _element(buffer: Any, at: At, lane: Any) -> Any:
    return buffer[at.column + lane]

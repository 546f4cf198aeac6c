"""The epilogue of one stage: the outputs of a cell as expressions over leaves (see :mod:`schedules.stage`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import prod
from typing import Any

import tvm

from edbatch_tvm.tvm_compat import Call, TensorLoad, structural_map, sym, tirx
from relay_ext.block_reader import Compute, NotReadable, Reduce, is_one
from relay_ext.stage_inputs import Segment, StageInputs
from relay_ext.tir_expressions import (
    as_affine,
    as_condition,
    below,
    buffers_read,
    calls_in,
    depends_on,
    indices_at,
    outer_loads,
    substitute,
)
from schedules import stage as ir
from schedules.column_constants import constant_leaves, is_constant_line, variables_in


@dataclass(frozen=True)
class Target:
    """A buffer, the output slot it is (or -1), the name of the scratch rows it is (or ""), and where a part begins."""

    buffer: Any
    slot: int
    scratch: str
    begin: int | None = None


@dataclass
class Group:
    """The outputs of one stage: what is written at one level over one domain with one shape and dtype."""

    level: int
    domain: ir.Domain
    rows: int
    columns: int
    dtype: str
    targets: list[Target] = field(default_factory=list)


class StageTracer:
    """Writes the epilogue of one stage as expressions over leaves."""

    def __init__(self, inputs: StageInputs, group: Group, name: str) -> None:
        self.inputs = inputs
        self.group = group
        self.name = name
        self.column = tirx.Var(ir.COLUMN, "int64")
        self.matrix_row = tirx.Var(ir.ROW, "int64")
        self.row = tirx.Var("p", "int64")
        self.analyzer = sym.Analyzer()
        self.analyzer.bind(self.column, tvm.ir.Range(0, group.columns))
        self.analyzer.bind(self.matrix_row, tvm.ir.Range(0, group.rows))
        self.gates: list[ir.Gate] = []
        self.vectors: list[Any] = []
        self.body: list[ir.Line] = []
        self.leaves: dict[Any, ir.Leaf] = {}
        self._leaf_of: dict[ir.Leaf, Any] = {}
        self._memo: dict[tuple[Any, str, bool], Any] = {}
        self._in_row_value = False

    def stage(self) -> ir.Stage:
        """The stage that writes the group's targets."""
        group, outputs = self.group, []
        row = self.matrix_row if group.rows > 1 else tirx.const(0, "int64")
        flat = row * group.columns + self.column
        for target in group.targets:
            extents = self.inputs.extents(target.buffer)
            narrow = target.begin is None and prod(extents) != group.rows * group.columns
            indices = indices_at(extents, row if narrow else flat + (target.begin or 0))
            axis = self.inputs.row_axis(target.buffer)
            if axis is not None:
                indices.insert(axis, self.row)
            value = self.at(target.buffer, indices)
            outputs.append(ir.Output(value, target.slot, target.scratch, narrow, target.begin))
        return ir.Stage(
            self.inputs.cell,
            self.name,
            group.columns,
            self.column,
            tuple(self.gates),
            tuple(self.vectors),
            tuple(self.body),
            tuple(outputs),
            self.leaves,
            group.domain,
            group.rows,
            self.matrix_row,
            group.dtype,
        )

    def leaf(self, kind: ir.Leaf, dtype: str) -> Any:
        """The variable that stands for a leaf."""
        if kind not in self._leaf_of:
            variable = tirx.Var(f"x{len(self._leaf_of)}", dtype)
            self._leaf_of[kind] = variable
            self.leaves[variable] = kind
        return self._leaf_of[kind]

    def at(self, buffer: Any, indices: list[Any]) -> Any:
        """The element of `buffer` at `indices` (functions of the column and row variables)."""
        indices = [self.analyzer.simplify(index) for index in indices]
        if self.inputs.row_count is not None:
            indices = [below(index, self.row, self.inputs.row_count) for index in indices]
        key = (buffer, str(indices), self._in_row_value)
        if key not in self._memo:
            self._memo[key] = self._at(buffer, indices)
        return self._memo[key]

    def _at(self, buffer: Any, indices: list[Any]) -> Any:
        inputs = self.inputs
        if buffer in inputs.scratch and inputs.level(buffer) < self.group.level:
            position = inputs.position(buffer, indices, self.row)
            return self.element(inputs.scratch_source(buffer), position, str(buffer.dtype))
        if buffer in inputs.operands:
            position = inputs.position(buffer, indices, self.row)
            return self.element(inputs.operands[buffer], position, str(buffer.dtype))
        if buffer in inputs.attributes:
            attribute, position = inputs.attribute(self.analyzer, tirx.BufferLoad(buffer, indices))
            return self.leaf(ir.AttributeValue(attribute, position), str(buffer.dtype))
        if buffer in inputs.weights:
            return self.weight(buffer, indices)
        definition = inputs.definitions.get(buffer)
        if isinstance(definition, Compute):
            value = self.expression(substitute(definition.value, dict(zip(definition.iters, indices, strict=True))))
            if str(value.ty.dtype) != self.group.dtype:
                return value
            if self._in_reduction(indices):
                own = inputs.row_values.domain(buffer) == "instances"
                return self.row_value(value) if own and self._is_one_number(value) else value
            return value if self._in_row_value else self.let(value)
        if isinstance(definition, Reduce):
            if inputs.is_row_reduction(definition):
                return self.reduction(definition, indices)
            if inputs.is_column_reduction(buffer):
                if self._in_reduction(indices):
                    return self.row_total(buffer, definition, indices)
                return self.column_reduction(buffer, definition, indices)
            return self.gate(buffer, definition, indices)
        raise NotReadable(f"{buffer.name!r} is read before it is written")

    def _in_reduction(self, indices: list[Any]) -> bool:
        """Whether these are the indices of something that a reduction takes for every variadic row."""
        return self.group.domain == "instances" and any(depends_on(index, self.row) for index in indices)

    def let(self, value: Any) -> Any:
        """`value` as a variable, so that it is computed once."""
        if isinstance(value, tirx.Var | tirx.FloatImm | tirx.IntImm):
            return value
        text = str(value)  # leaves and lines have names of their own
        for line in self.body:
            if isinstance(line, ir.Let) and str(line.expression) == text and line.expression.ty.dtype == value.ty.dtype:
                return line.variable
        variable = tirx.Var(f"y{self._count(ir.Let)}", str(value.ty.dtype))
        self.body.append(ir.Let(variable, value))
        return variable

    def element(self, source: ir.Source, index: Any, dtype: str) -> Any:
        """The element of a row at a position that moves with the column, or does not."""
        affine = as_affine(self.analyzer, index, [self.matrix_row, self.column])
        if affine is None or affine[1][1] not in (0, 1):
            raise NotReadable(f"elements are read at {index}")
        offset, (row, column) = affine
        return self.leaf(ir.Element(source, offset, bool(column), row), dtype)

    def weight(self, buffer: Any, indices: list[Any]) -> Any:
        """An element of a weight: of a looked-up row, or of a vector that is packed with the stage's weights."""
        load = tirx.BufferLoad(buffer, indices)
        if any(True for index in indices for _ in buffers_read(index)):
            return self.element(*self.inputs.lookup(self.analyzer, load), str(load.ty.dtype))
        if any(depends_on(index, self.row) for index in indices):
            raise NotReadable(f"weight {buffer.name!r} depends on the position among variadic rows")
        dtype = self.group.dtype
        if str(load.ty.dtype) != dtype:
            raise NotReadable(f"weight {buffer.name!r} is of {load.ty.dtype}, packed weights are of {dtype}")
        self.vectors.append(load)
        return self.leaf(ir.Vector(len(self.vectors) - 1), dtype)

    def expression(self, value: Any) -> Any:
        """`value` with every load replaced by a leaf or let variable, and conditions on the column decided."""
        value = self._decide(value)
        loads = {load: self.at(load.source, list(load.indices)) for load in outer_loads(value)}

        def replace(node: Any) -> Any:
            for load, leaf in loads.items():
                if node.same_as(load):
                    return leaf
            return node

        value = structural_map(value, (TensorLoad, replace), order="pre") if loads else value
        count = self.inputs.row_count
        if count is not None and depends_on(value, count):
            value = substitute(value, {count: tirx.Cast("int64", self.leaf(ir.RowCount(), self.group.dtype))})
        if self.inputs.whole_rows and depends_on(value, self.column):
            value = structural_map(value, (tirx.Cast, self._column_number))
        if any(depends_on(value, variable) for variable in (self.column, self.matrix_row, self.row)):
            raise NotReadable(f"the position itself enters the expression {value}")
        return value

    def _column_number(self, cast: Any) -> Any:
        """The leaf that stands for the number of the column, where `cast` is that."""
        value = cast.value
        while isinstance(value, tirx.Cast):
            value = value.value
        is_column = value.same_as(self.column) and str(cast.ty.dtype) == self.group.dtype
        return self.leaf(ir.Column(), self.group.dtype) if is_column else cast

    def _decide(self, value: Any) -> Any:
        condition = as_condition(value)
        if condition is None:
            if not any(as_condition(node) is not None for node in calls_in(value)):
                return value
            return structural_map(value, (Call, self._decide_call), order="pre")
        return self._decide_call(value)

    def _decide_call(self, value: Any) -> Any:
        condition = as_condition(value)
        if condition is None:
            return value
        test, then, otherwise = condition
        if any(True for _ in buffers_read(test)):
            return value
        if self.analyzer.can_prove(test):
            return self._decide(then)
        if self.analyzer.can_prove(tirx.Not(test)):
            return self._decide(otherwise)
        raise NotReadable(f"an expression depends on {test}")

    def reduction(self, definition: Reduce, indices: list[Any]) -> Any:
        """A reduction over the rows of the variadic operands."""
        if self.group.domain == "rows":
            raise NotReadable("a reduction over variadic rows stands inside another stage over them")
        values = dict(zip(definition.iters, indices, strict=True))
        for variable, extent in definition.reduce_iters:
            values[variable] = tirx.const(0, variable.ty.dtype) if is_one(extent) else self.row
        return self._reduced(ir.Reduction, "s", definition, values)

    def column_reduction(self, buffer: Any, definition: Reduce, indices: list[Any]) -> Any:
        """A reduction over the columns of the stage."""
        span = self.inputs.span(buffer)
        if (prod(span[:-1]), prod(span[-1:])) != (self.group.rows, self.group.columns):
            raise NotReadable(f"{buffer.name!r} is a {definition.combine} over the axes {span} inside another stage")
        if any(depends_on(index, self.column) for index in indices):
            raise NotReadable(f"{buffer.name!r} is a {definition.combine} along an axis that is not the last")
        values = dict(zip(definition.iters, indices, strict=True))
        for variable, extent in definition.reduce_iters:
            at = tirx.const(0, "int64") if is_one(extent) else self.column
            values[variable] = tirx.Cast(variable.ty.dtype, at)
        return self._reduced(ir.ColumnReduction, "t", definition, values)

    def _reduced(
        self, kind: type[ir.Reduction | ir.ColumnReduction], name: str, definition: Reduce, values: dict[Any, Any]
    ) -> Any:
        """The variable of a new line of the body, a reduction of what `definition` sums at `values` of its axes."""
        value = self.expression(substitute(definition.source, values))
        if str(value.ty.dtype) != self.group.dtype:
            raise NotReadable(f"a reduction of {value.ty.dtype} in a stage of {self.group.dtype}")
        variable = tirx.Var(f"{name}{self._count(kind)}", self.group.dtype)
        self.body.append(kind(variable, value, definition.combine, definition.identity))
        return variable

    # Row values ------------------------------------------------------------------------------------------------

    def _is_one_number(self, value: Any) -> bool:
        """Whether `value`, in a reduction over variadic rows, is the same in all columns."""
        constant = constant_leaves(self.leaves, self.vectors, self.column)
        for line in self.body:
            if is_constant_line(line, constant):
                constant.add(line.variable)
        return constant.issuperset(variables_in(value))

    def row_value(self, value: Any, combine: ir.Combine | None = None, identity: float = 0.0, columns: int = 1) -> Any:
        """A number of each variadic row as a variable, so that it is computed once."""
        if combine is None and isinstance(value, tirx.Var | tirx.FloatImm):
            return value
        count = self._count(ir.RowValue)
        variable = tirx.Var(f"w{count}", self.group.dtype)
        scratch = f"{self.inputs.cell}.{self.name.rpartition('_')[2]}.{count}"
        self.body.append(ir.RowValue(variable, value, scratch, combine, identity, columns))
        return variable

    def row_total(self, buffer: Any, definition: Reduce, indices: list[Any]) -> Any:
        """A reduction along the columns of each variadic row, such as a score."""
        if self.inputs.row_values.domain(buffer) != "instances":
            raise NotReadable(f"{buffer.name!r} is a {definition.combine} along an axis of variadic rows")
        if any(depends_on(index, self.column) for index in indices):
            raise NotReadable(f"{buffer.name!r} has another element for each column")
        ((variable, extent),) = [(v, e) for v, e in definition.reduce_iters if not is_one(e)]
        outer, within, width = self.column, self._in_row_value, int(extent)
        if width != self.group.columns:
            self.column = tirx.Var(f"{ir.COLUMN}{width}", "int64")
            self.analyzer.bind(self.column, tvm.ir.Range(0, width))
        values = dict(zip(definition.iters, indices, strict=True))
        values |= {v: tirx.const(0, v.ty.dtype) for v, e in definition.reduce_iters if is_one(e)}
        values[variable] = tirx.Cast(variable.ty.dtype, self.column)
        self._in_row_value = True
        before = len(self.vectors), len(self.gates)
        try:
            value = self.expression(substitute(definition.source, values))
        finally:
            self._in_row_value, inner, self.column = within, self.column, outer
        if not inner.same_as(outer) and before != (len(self.vectors), len(self.gates)):
            raise NotReadable(f"{buffer.name!r} reads weights in another width than that of its stage")
        if str(value.ty.dtype) != self.group.dtype:
            raise NotReadable(f"a reduction of {value.ty.dtype} in a stage of {self.group.dtype}")
        return self.row_value(value, definition.combine, definition.identity, width)

    def _count(self, kind: type) -> int:
        return sum(isinstance(line, kind) for line in self.body)

    def gate(self, buffer: Any, definition: Reduce, indices: list[Any]) -> Any:
        """The accumulator of a contraction at `indices`."""
        if str(buffer.dtype) != self.group.dtype:
            raise NotReadable(f"{buffer.name!r} is a product of {buffer.dtype} in a stage of {self.group.dtype}")
        if self._in_reduction(indices):
            raise NotReadable(f"{buffer.name!r} is a product over variadic rows")
        inputs = self.inputs
        inputs.level(buffer)
        found = inputs.contraction(buffer, definition)
        at = dict(zip(definition.iters, indices, strict=True))
        passes = []
        for low, high, values in _common(found.values):
            k = tirx.Var("k", "int64")
            inside = {**at, found.k: tirx.Cast(found.k.ty.dtype, k + low)}
            reads = [self._read(value, substitute(value.position, inside), k) for value in values]
            weight = None
            if found.weight is not None:
                weight = self._inline_weights(substitute(found.weight, inside))
                if not all(read in inputs.weights for read in buffers_read(weight)):
                    raise NotReadable(f"a value of the instance chooses among the weights of {buffer.name!r}")
            passes.append(self._pass(buffer, high - low, k, weight, reads))
        self.gates.append(ir.Gate(tuple(passes)))
        return self.leaf(ir.Accumulator(len(self.gates) - 1), self.group.dtype)

    def _read(self, segment: Segment, position: Any, k: Any) -> ir.Read:
        affine = as_affine(self.analyzer, position, [self.matrix_row, k, self.column])
        if affine is None:
            raise NotReadable(f"the input of a product is read at {self.analyzer.simplify(position)}")
        offset, (row, step, column) = affine
        assert segment.source is not None
        return ir.Read(segment.source, offset, row, step, column)

    def _pass(self, buffer: Any, length: int, k: Any, weight: Any, reads: list[ir.Read]) -> ir.Pass | ir.Product:
        """One pass of a gate in the form that fits how its factors lie in memory."""
        moving = [read for read in reads if read.column]
        if len(moving) > 1:
            raise NotReadable(f"both factors of the product {buffer.name!r} move with the column")
        if weight is not None:
            (read,) = reads
            if not moving and read.step == 1 and not depends_on(weight, self.matrix_row):
                return ir.Pass(read.source, read.offset, length, k, weight, read.row)
            left, right = weight, read
            if depends_on(weight, self.column):
                raise NotReadable(f"weights and values of the product {buffer.name!r} are not aligned")
        else:
            right = moving[0] if moving else reads[1]
            left = reads[0] if right is reads[1] else reads[1]
        along = right.step == 1 and not (isinstance(left, ir.Read) and left.step != 1)
        if right.column != 1 and not along:
            raise NotReadable(f"the factors of the product {buffer.name!r} do not lie side by side in memory")
        return ir.Product(length, k, left, right)

    def _inline_weights(self, expression: Any) -> Any:
        """`expression` over weight parameters alone: element-wise blocks on weights are inlined."""

        def inline(load: Any) -> Any:
            definition = self.inputs.definitions.get(load.source)
            if not isinstance(definition, Compute):
                return load
            inner = substitute(definition.value, dict(zip(definition.iters, load.indices, strict=True)))
            return self._inline_weights(inner)

        return self.analyzer.simplify(structural_map(expression, (TensorLoad, inline), order="post"))


def _common(values: Sequence[list[Segment]]) -> Iterator[tuple[int, int, list[Segment]]]:
    """The parts of a contraction in which every factor reads one source."""
    borders = sorted({border for segments in values for one in segments for border in (one.low, one.high)})
    for low, high in pairwise(borders):
        yield low, high, [next(one for one in segments if one.low <= low < one.high) for segments in values]

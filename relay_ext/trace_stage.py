"""The epilogue of one stage: the outputs of a cell as expressions over leaves (see :mod:`schedules.stage`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import tvm
import tvm_ffi
from tvm import sym, tirx

from relay_ext.block_reader import Compute, NotReadable, Reduce
from relay_ext.expressions import (
    as_affine,
    as_condition,
    buffers_read,
    calls_in,
    depends_on,
    flat_index,
    indices_of,
    is_one,
    outer_loads,
    substitute,
)
from relay_ext.stage_inputs import StageInputs
from schedules import stage as ir

_FLOAT = "float32"


@dataclass
class Group:
    """The outputs of one stage: what is written at one level with one number of columns.

    ``targets`` are a buffer, the output slot it is (or -1) and the name of the scratch rows it is (or "").
    """

    level: int
    columns: int
    targets: list[tuple[Any, int, str]] = field(default_factory=list)


class StageTracer:
    """Writes the epilogue of one stage as expressions over leaves."""

    def __init__(self, finder: StageInputs, group: Group, name: str) -> None:
        self.finder = finder
        self.group = group
        self.name = name
        self.column = tirx.Var(ir.COLUMN, "int64")
        self.row = tirx.Var("p", "int64")
        self.analyzer = sym.Analyzer()
        self.analyzer.bind(self.column, tvm.ir.Range(0, group.columns))
        self.gates: list[ir.Gate] = []
        self.vectors: list[Any] = []
        self.body: list[ir.Let | ir.Reduction] = []
        self.leaves: dict[Any, ir.Leaf] = {}
        self._leaf_of: dict[ir.Leaf, Any] = {}
        self._memo: dict[tuple[Any, str], Any] = {}

    def stage(self) -> ir.Stage:
        """The stage that writes the group's targets."""
        outputs = []
        for buffer, slot, scratch in self.group.targets:
            outputs.append(ir.Output(self.at(buffer, indices_of(buffer, self.column)), slot, scratch))
        return ir.Stage(
            self.finder.cell,
            self.name,
            self.group.columns,
            self.column,
            tuple(self.gates),
            tuple(self.vectors),
            tuple(self.body),
            tuple(outputs),
            self.leaves,
        )

    def leaf(self, kind: ir.Leaf) -> Any:
        """The variable that stands for a leaf."""
        if kind not in self._leaf_of:
            variable = tirx.Var(f"x{len(self._leaf_of)}", _FLOAT)
            self._leaf_of[kind] = variable
            self.leaves[variable] = kind
        return self._leaf_of[kind]

    def at(self, buffer: Any, indices: list[Any]) -> Any:
        """The element of `buffer` at `indices` (functions of the column and row variables)."""
        indices = [self.analyzer.simplify(index) for index in indices]
        key = (buffer, str(indices))
        if key not in self._memo:
            self._memo[key] = self._at(buffer, indices)
        return self._memo[key]

    def _at(self, buffer: Any, indices: list[Any]) -> Any:
        finder = self.finder
        if buffer in finder.scratch and finder.level(buffer) < self.group.level:
            return self.element(ir.Scratch(finder.scratch[buffer]), flat_index(buffer, indices))
        if buffer in finder.operands:
            source = finder.operands[buffer]
            if isinstance(source, ir.Variadic):
                if not indices[0].same_as(self.row):
                    raise NotReadable(f"a row of {buffer.name!r} is read at {indices[0]}")
                return self.element(source, flat_index(buffer, [tirx.const(0, "int64"), *indices[1:]]))
            return self.element(source, flat_index(buffer, indices))
        if buffer in finder.attributes:
            attribute, position = finder.attribute(self.analyzer, tvm.tirx.BufferLoad(buffer, indices))
            return self.leaf(ir.AttributeValue(attribute, position))
        if buffer in finder.weights:
            return self.weight(buffer, indices)
        definition = finder.definitions.get(buffer)
        if isinstance(definition, Compute):
            value = self.expression(substitute(definition.value, dict(zip(definition.iters, indices, strict=True))))
            return value if self._uses_row(indices) else self.let(value)
        if isinstance(definition, Reduce):
            if finder.is_row_sum(definition):
                return self.row_sum(definition, indices)
            return self.gate(buffer, definition, indices)
        raise NotReadable(f"{buffer.name!r} is read before it is written")

    def _uses_row(self, indices: list[Any]) -> bool:
        return any(depends_on(index, self.row) for index in indices)

    def let(self, value: Any) -> Any:
        """`value` as a variable, so that it is computed once."""
        if isinstance(value, tirx.Var | tirx.FloatImm | tirx.IntImm):
            return value
        variable = tirx.Var(f"y{self._count(ir.Let)}", str(value.ty.dtype))
        self.body.append(ir.Let(variable, value))
        return variable

    def element(self, source: ir.Source, index: Any) -> Any:
        """The element of a row at a position that moves with the column, or is constant."""
        affine = as_affine(self.analyzer, index, self.column)
        if affine is None:
            raise NotReadable(f"elements are read at {index}")
        return self.leaf(ir.Element(source, affine[1], bool(affine[0])))

    def weight(self, buffer: Any, indices: list[Any]) -> Any:
        """An element of a weight: of a looked-up row, or of a vector that is packed with the stage's weights."""
        load = tirx.BufferLoad(buffer, indices)
        if any(True for index in indices for _ in buffers_read(index)):
            affine = as_affine(self.analyzer, indices[-1], self.column)
            if affine is not None and affine[0] == 0 and len(indices) == 2:
                attribute, position = self.finder.attribute(self.analyzer, indices[0])
                return self.leaf(
                    ir.Element(ir.Lookup(self.finder.weights[buffer], attribute, position), affine[1], False)
                )
            source, offset = self.finder.lookup(self.analyzer, load, self.column, 0)
            return self.leaf(ir.Element(source, offset, True))
        if self._uses_row(indices):
            raise NotReadable(f"weight {buffer.name!r} depends on the position among variadic rows")
        self.vectors.append(load)
        return self.leaf(ir.Vector(len(self.vectors) - 1))

    def expression(self, value: Any) -> Any:
        """`value` with every load replaced by a leaf or let variable, and conditions on the column decided."""
        value = self._decide(value)
        loads = {load: self.at(load.source, list(load.indices)) for load in outer_loads(value)}

        def replace(node: Any) -> Any:
            for load, leaf in loads.items():
                if node.same_as(load):
                    return leaf
            return node

        value = tvm_ffi.structural_map(value, (tvm.ir.TensorLoad, replace), order="pre") if loads else value
        count = self.finder.row_count
        if count is not None and depends_on(value, count):
            value = substitute(value, {count: tirx.Cast("int64", self.leaf(ir.RowCount()))})
        if depends_on(value, self.column) or depends_on(value, self.row):
            raise NotReadable(f"the position itself enters the expression {value}")
        return value

    def _decide(self, value: Any) -> Any:
        condition = as_condition(value)
        if condition is None:
            if not any(as_condition(node) is not None for node in calls_in(value)):
                return value
            return tvm_ffi.structural_map(value, (tvm.ir.Call, self._decide_call), order="pre")
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

    def row_sum(self, definition: Reduce, indices: list[Any]) -> Any:
        """The sum over the rows of the variadic operands."""
        values = dict(zip(definition.iters, indices, strict=True))
        for variable, extent in definition.reduce_iters:
            values[variable] = tirx.const(0, variable.ty.dtype) if is_one(extent) else self.row
        value = self.expression(substitute(definition.source, values))
        variable = tirx.Var(f"s{self._count(ir.Reduction)}", _FLOAT)
        self.body.append(ir.Reduction(variable, value))
        return variable

    def _count(self, kind: type) -> int:
        return sum(isinstance(line, kind) for line in self.body)

    def gate(self, buffer: Any, definition: Reduce, indices: list[Any]) -> Any:
        """The accumulator of a contraction at `indices`."""
        if self._uses_row(indices):
            raise NotReadable(f"{buffer.name!r} is a product over variadic rows")
        finder = self.finder
        finder.level(buffer)
        k, _, input_factor, weight = finder.contraction(buffer, definition)
        if any(depends_on(input_factor, variable) for variable in definition.iters):
            moving = [v for v, i in zip(definition.iters, indices, strict=True) if depends_on(i, self.column)]
            if any(depends_on(input_factor, variable) for variable in moving):
                raise NotReadable(f"both factors of {buffer.name!r} depend on the column")
        at = dict(zip(definition.iters, indices, strict=True))
        passes = []
        for segment in finder.segments[buffer]:
            step = tirx.Var("k", "int64")
            inside = {**at, k: tirx.Cast(k.ty.dtype, step + segment.low)}
            expression = self._inline_weights(substitute(weight, inside))
            passes.append(ir.Pass(segment.source, segment.offset, segment.high - segment.low, step, expression))
        self.gates.append(ir.Gate(tuple(passes)))
        return self.leaf(ir.Accumulator(len(self.gates) - 1))

    def _inline_weights(self, expression: Any) -> Any:
        """`expression` over weight parameters alone: element-wise blocks on weights are inlined."""

        def inline(load: Any) -> Any:
            definition = self.finder.definitions.get(load.source)
            if not isinstance(definition, Compute):
                return load
            inner = substitute(definition.value, dict(zip(definition.iters, load.indices, strict=True)))
            return self._inline_weights(inner)

        return self.analyzer.simplify(tvm_ffi.structural_map(expression, (tvm.ir.TensorLoad, inline), order="post"))

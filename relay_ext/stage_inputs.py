"""What the contractions of a cell read: rows of operands, rows of tables, or rows an earlier stage has to write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tvm
from tvm import sym, tirx

from relay_ext.block_reader import Compute, NotReadable, Reduce, read_blocks
from relay_ext.expressions import (
    as_affine,
    as_condition,
    buffers_read,
    change_point,
    first_position,
    flat_index,
    is_one,
    substitute,
)
from relay_ext.fuse_cells import CELL, NUM_INPUT, WEIGHTS
from schedules import stage as ir

_FLOAT = "float32"


@dataclass(frozen=True)
class Segment:
    """Elements [low, high) of a contraction's input: consecutive elements of one row, from `offset` on."""

    source: Any
    buffer: Any
    offset: int
    low: int
    high: int


class StageInputs:
    """The buffers of a fused cell: what they are, how deep they lie, and what rows contractions read."""

    def __init__(self, function: tirx.PrimFunc, variadic: tuple[bool, ...], is_operand: tuple[bool, ...]) -> None:
        self.cell = str(function.attrs[CELL])
        params = list(function.params)
        inputs = int(function.attrs[NUM_INPUT])
        names = [str(name) for name in function.attrs[WEIGHTS]]
        self.weights = dict(zip(params[inputs : inputs + len(names)], names, strict=True))
        self.outputs = params[inputs + len(names) :]
        self.operands: dict[Any, ir.Operand | ir.Variadic] = {}
        self.attributes: dict[Any, int] = {}
        for position, param in enumerate(params[:inputs]):
            if is_operand[position]:
                number = sum(is_operand[:position])
                self.operands[param] = ir.Variadic(number) if variadic[position] else ir.Operand(number)
            else:
                self.attributes[param] = position - sum(is_operand[:position])
        for param in params:
            if param in self.operands and str(param.dtype) != _FLOAT:
                raise NotReadable(f"operand {param.name!r} is {param.dtype}, not {_FLOAT}")
        self.row_count = next(
            (p.shape[0] for p in params[:inputs] if isinstance(self.operands.get(p), ir.Variadic)), None
        )
        self.definitions = read_blocks(function)
        self.scratch: dict[Any, str] = {}
        self.levels: dict[Any, int] = {}
        self.segments: dict[Any, list[Segment]] = {}

    # Levels: how many contractions stand before a buffer on one path -------------------------------------------

    def level(self, buffer: Any) -> int:
        """Number of contractions on the longest path to `buffer` that had to end before it can be computed."""
        if buffer in self.levels:
            return self.levels[buffer]
        definition = self.definitions.get(buffer)
        if definition is None:
            result = 0
        elif isinstance(definition, Compute):
            result = max((self.level(other) for other in buffers_read(definition.value)), default=0)
        elif self.is_row_sum(definition):
            result = max((self.level(other) for other in buffers_read(definition.source)), default=0)
        else:
            result = self._contraction_level(buffer, definition)
        self.levels[buffer] = result
        return result

    def is_row_sum(self, definition: Reduce) -> bool:
        """True for a sum over the rows of the variadic operands."""
        extents = [extent for _, extent in definition.reduce_iters if not is_one(extent)]
        return len(extents) == 1 and self.row_count is not None and extents[0].same_as(self.row_count)

    def _contraction_level(self, buffer: Any, definition: Reduce) -> int:
        k, extent, input_factor, _ = self.contraction(buffer, definition)
        if buffer not in self.segments:
            self.segments[buffer] = self.cut(input_factor, k, 0, extent)
        deepest = 0
        for segment in self.segments[buffer]:
            if segment.buffer is not None:
                deepest = max(deepest, self.level(segment.buffer))
        return deepest + 1

    # Contractions ----------------------------------------------------------------------------------------------

    def contraction(self, buffer: Any, definition: Reduce) -> tuple[Any, int, Any, Any]:
        """Reduction variable, its extent, the factor from the instance, the factor from the weights."""
        loops = [(var, extent) for var, extent in definition.reduce_iters if not is_one(extent)]
        if len(loops) != 1 or not isinstance(loops[0][1], tirx.IntImm):
            raise NotReadable(f"{buffer.name!r} is a reduction over {len(loops)} axes or a symbolic one")
        source = definition.source
        if not isinstance(source, tirx.Mul):
            raise NotReadable(f"{buffer.name!r} is a reduction of something other than a product")
        factors = [source.a, source.b]
        constant = [self._weights_only(factor) for factor in factors]
        if constant[0] == constant[1]:
            what = "weights" if constant[0] else "values of the instance"
            raise NotReadable(f"both factors of the product {buffer.name!r} are {what}")
        (k, extent), weight = loops[0], constant.index(True)
        ones = {var: tirx.const(0, var.ty.dtype) for var, other in definition.reduce_iters if is_one(other)}
        return k, int(extent), substitute(factors[1 - weight], ones), substitute(factors[weight], ones)

    def _weights_only(self, expression: Any) -> bool:
        for buffer in buffers_read(expression):
            definition = self.definitions.get(buffer)
            if definition is None:
                if buffer not in self.weights:
                    return False
            elif isinstance(definition, Reduce) or not self._weights_only(definition.value):
                return False
        return True

    def cut(self, expression: Any, k: Any, low: int, high: int) -> list[Segment]:
        """Rows that `expression`, a function of k in [low, high), reads one element after another."""
        analyzer = sym.Analyzer()
        analyzer.bind(k, tvm.ir.Range(low, high))
        expression = analyzer.simplify(expression)
        condition = as_condition(expression)
        if condition is not None:
            test, then, otherwise = condition
            middle = change_point(test, k, low, high)
            if middle is None:
                raise NotReadable(f"the input of a product depends on {test}")
            first, second, border = middle
            pieces: list[Segment] = []
            for taken, start, stop in ((first, low, border), (second, border, high)):
                if start < stop:
                    pieces += self.cut(then if taken else otherwise, k, start, stop)
            return pieces
        if not isinstance(expression, tvm.ir.TensorLoad):
            raise NotReadable(f"the input of a product is the expression {expression}, not a value")
        buffer = expression.source
        if buffer in self.operands:
            if isinstance(self.operands[buffer], ir.Variadic):
                raise NotReadable(f"{buffer.name!r} enters a product over variadic rows")
            return [
                Segment(self.operands[buffer], None, first_position(analyzer, buffer, expression, k, low), low, high)
            ]
        if buffer in self.weights:
            table, offset = self.lookup(analyzer, expression, k, low)
            return [Segment(table, None, offset, low, high)]
        definition = self.definitions.get(buffer)
        if isinstance(definition, Compute):
            inner = substitute(definition.value, dict(zip(definition.iters, expression.indices, strict=True)))
            try:
                if not isinstance(inner, tvm.ir.TensorLoad) and as_condition(inner) is None:
                    raise NotReadable("computed")
                return self.cut(inner, k, low, high)
            except NotReadable:
                pass
        elif definition is None:
            raise NotReadable(f"the input of a product reads {buffer.name!r}")
        self.scratch.setdefault(buffer, f"{self.cell}.{len(self.scratch)}")
        source = ir.Scratch(self.scratch[buffer])
        return [Segment(source, buffer, first_position(analyzer, buffer, expression, k, low), low, high)]

    def lookup(self, analyzer: sym.Analyzer, load: Any, moving: Any, low: int) -> tuple[ir.Lookup, int]:
        """A load ``table[attribute, column]`` as a source and the column at ``moving = low``."""
        if len(load.indices) != 2:
            raise NotReadable(f"a value of the instance indexes {load.source.name!r}, which is not two-dimensional")
        attribute, position = self.attribute(analyzer, load.indices[0])
        column = as_affine(analyzer, load.indices[1], moving)
        if column is None or column[0] != 1:
            raise NotReadable(f"the row of {load.source.name!r} is not read one element after another")
        return ir.Lookup(self.weights[load.source], attribute, position), column[1] + low

    def attribute(self, analyzer: sym.Analyzer, index: Any) -> tuple[int, int]:
        """The attribute element that `index` is, casts removed."""
        while isinstance(index, tirx.Cast):
            index = index.value
        if not isinstance(index, tvm.ir.TensorLoad) or index.source not in self.attributes:
            raise NotReadable(f"a table is indexed by {index}, not by an attribute")
        position = analyzer.simplify(flat_index(index.source, index.indices))
        if not isinstance(position, tirx.IntImm):
            raise NotReadable("an attribute is read at a position that is no constant")
        return self.attributes[index.source], int(position)

"""The buffers of a cell: what they are, what contractions read, and what an earlier stage has to write as scratch rows.

A value is written to scratch rows where a contraction reads what was computed, and where a value that needs a loop of
its own passes from an instance to its variadic rows or back: those are stages over different domains.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from edbatch_tvm.tvm_compat import TensorLoad, sym, tirx
from relay_ext.block_reader import Compute, NotReadable, Reduce, is_one, read_blocks
from relay_ext.fuse_cells import CELL, cell_params
from relay_ext.join_partial_sums import join_partial_sums
from relay_ext.row_value_inputs import RowValueInputs
from relay_ext.tir_expressions import (
    as_affine,
    as_condition,
    buffers_read,
    change_point,
    depends_on,
    flat_index,
    range_of,
    static_extents,
    substitute,
)
from relay_ext.unroll_reductions import unroll_reductions
from schedules import stage as ir

STAGE_DTYPES = ("float32", "float64")
"""What stages compute in on CPUs."""


@dataclass(frozen=True)
class Segment:
    """A factor of a contraction for k in [low, high): the element of `source` at `position`.

    `position` is an expression of k and the axes of the contraction's result. `buffer` is what has to be written to
    scratch rows first, or None; `source` is known for the others from the start.
    """

    source: ir.Source | None
    buffer: Any
    position: Any
    low: int
    high: int


@dataclass(frozen=True)
class Contraction:
    """A sum of products over ``k < extent``.

    Attributes
    ----------
    weight : expression or None
        The factor that is made of weights.
    values : tuple of lists of Segment
        The factors that are values: one, or two where there is no weight.
    """

    k: Any
    extent: int
    weight: Any
    values: tuple[list[Segment], ...]


class StageInputs:
    """The buffers of a fused cell: what they are, how deep they lie, and what rows contractions read."""

    def __init__(
        self,
        function: tirx.PrimFunc,
        variadic: tuple[bool, ...],
        is_operand: tuple[bool, ...],
        dtypes: tuple[str, ...] = STAGE_DTYPES,
        whole_rows: bool = True,
        row_values: bool = True,
        unrolled: tuple[str, ...] = (),
    ) -> None:
        self.dtypes = dtypes
        self.whole_rows = whole_rows
        self.row_values = RowValueInputs(self, row_values and whole_rows)
        self.cell = str(function.attrs[CELL])
        inputs, self.weights, self.outputs = cell_params(function)
        self.operands: dict[Any, ir.StageOperand | ir.Variadic] = {}
        self.attributes: dict[Any, int] = {}
        for position, param in enumerate(inputs):
            if is_operand[position]:
                number = sum(is_operand[:position])
                self.operands[param] = ir.Variadic(number) if variadic[position] else ir.StageOperand(number)
            else:
                self.attributes[param] = position - sum(is_operand[:position])
        for param in inputs:
            if param in self.operands and str(param.dtype) not in dtypes:
                raise NotReadable(f"operand {param.name!r} is {param.dtype}, not {' or '.join(dtypes)}")
        self.row_count = next((p.shape[0] for p in inputs if isinstance(self.operands.get(p), ir.Variadic)), None)
        self.definitions = join_partial_sums(read_blocks(function)) if whole_rows else read_blocks(function)
        if unrolled:
            self.definitions = unroll_reductions(self.definitions, self._factors, unrolled)
        self.scratch: dict[Any, str] = {}
        self.levels: dict[Any, int] = {}
        self.contractions: dict[Any, Contraction] = {}
        self.along_columns: dict[Any, bool] = {}
        self.spans: dict[Any, tuple[int, ...]] = {}

    # What a buffer is ------------------------------------------------------------------------------------------

    def domain(self, buffer: Any) -> ir.Domain:
        """``rows`` for what has a row for each variadic row."""
        return "instances" if self.row_axis(buffer) is None else "rows"

    def row_axis(self, buffer: Any) -> int | None:
        """The axis of `buffer` that has the variadic rows; the first one of an operand."""
        if self.row_count is None:
            return None
        return next((axis for axis, extent in enumerate(buffer.shape) if self.row_count.same_as(extent)), None)

    def without_row(self, buffer: Any, of_axes: Iterable[Any]) -> list[Any]:
        """What belongs to the axes of `buffer`, less that of the variadic rows."""
        return [one for axis, one in enumerate(of_axes) if axis != self.row_axis(buffer)]

    def extents(self, buffer: Any) -> tuple[int, ...]:
        """The extents of `buffer` for one element of its domain."""
        return static_extents(buffer, self.without_row(buffer, buffer.shape))

    def position(self, buffer: Any, indices: Any, row: Any) -> Any:
        """Position of an element within a row of `buffer`; `row` is the variadic row that may be read."""
        axis = self.row_axis(buffer)
        if axis is not None and (row is None or not self.is_row(indices[axis], row)):
            raise NotReadable(f"a row of {buffer.name!r} is read at {indices[axis]}")
        return flat_index(self.extents(buffer), self.without_row(buffer, indices))

    def is_row(self, index: Any, row: Any) -> bool:
        """Whether `index` is `row`; a reshape of rows leaves it modulo their number."""
        while isinstance(index, tirx.FloorMod) and index.b.same_as(self.row_count):
            index = index.a
        return bool(index.same_as(row))

    def is_row_reduction(self, definition: Reduce) -> bool:
        """True for a reduction over the rows of the variadic operands."""
        extents = [extent for _, extent in definition.reduce_iters if not is_one(extent)]
        return len(extents) == 1 and self.row_count is not None and extents[0].same_as(self.row_count)

    # Column reductions: what makes a stage compute whole rows --------------------------------------------------

    def is_column_reduction(self, buffer: Any) -> bool:
        """True for a reduction along the columns of the stage that computes `buffer`.

        That is a maximum, minimum or product along an axis, or a sum that reads nothing twice: the others are products.
        """
        if buffer not in self.along_columns:
            self.along_columns[buffer] = self._is_column_reduction(buffer)
        return self.along_columns[buffer]

    def _is_column_reduction(self, buffer: Any) -> bool:
        definition = self.definitions.get(buffer)
        if not self.whole_rows or not isinstance(definition, Reduce) or self.is_row_reduction(definition):
            return False
        extents = [extent for _, extent in definition.reduce_iters if not is_one(extent)]
        if len(extents) != 1 or not isinstance(extents[0], tirx.IntImm) or int(extents[0]) < 1:
            return False
        if definition.combine != "sum":
            return True
        axes = zip(self.without_row(buffer, definition.iters), self.extents(buffer), strict=True)
        outer = [axis for axis, extent in axes if extent > 1]
        factors = [factor for factor in self._factors(definition.source) if not isinstance(factor, tirx.FloatImm)]
        return all(depends_on(factor, axis) for factor in factors for axis in outer)

    def span(self, buffer: Any) -> tuple[int, ...]:
        """The extents that a stage has to run over to compute `buffer`, ones left out.

        These are its own, and where it is computed from column reductions of a larger span, all of theirs.
        """
        if buffer not in self.spans:
            self.spans[buffer] = self._span(buffer)
        return self.spans[buffer]

    def _span(self, buffer: Any) -> tuple[int, ...]:
        own = tuple(extent for extent in self.extents(buffer) if extent != 1)
        definition = self.definitions.get(buffer)
        if isinstance(definition, Reduce) and self.is_column_reduction(buffer):
            return (*own, *(int(extent) for _, extent in definition.reduce_iters if not is_one(extent)))
        if isinstance(definition, Compute):
            for other in buffers_read(definition.value):
                if self.domain(other) == self.domain(buffer) and self.is_reduced(other):
                    span = self.span(other)
                    if len(span) > len(own) and span[: len(own)] == own:
                        return span
        return own

    def is_reduced(self, buffer: Any) -> bool:
        """Whether the stage that computes `buffer` takes a column reduction for it."""
        definition = self.definitions.get(buffer)
        if isinstance(definition, Compute):
            return any(
                self.domain(other) == self.domain(buffer)
                and self.is_reduced(other)
                and self.span(other) == self.span(buffer)
                for other in buffers_read(definition.value)
            )
        return self.is_column_reduction(buffer)

    def is_looped(self, buffer: Any) -> bool:
        """True for what needs a loop of its own in the domain of `buffer`: a contraction or a reduction."""
        definition = self.definitions.get(buffer)
        if definition is None or isinstance(definition, Reduce):
            return definition is not None
        domain = self.domain(buffer)
        return any(self.domain(b) == domain and self.is_looped(b) for b in buffers_read(definition.value))

    def is_row_value(self, buffer: Any) -> bool:
        """Whether a stage over instances computes `buffer`, a reduction along the columns of each variadic row."""
        by_row = self.domain(buffer) == "rows" and self.row_values.domain(buffer) == "instances"
        return by_row and self.is_column_reduction(buffer)

    def scratch_source(self, buffer: Any) -> ir.Scratch:
        """The scratch rows that `buffer` is written to from now on."""
        self.scratch.setdefault(buffer, f"{self.cell}.{len(self.scratch)}")
        return ir.Scratch(self.scratch[buffer], self.domain(buffer), str(buffer.dtype))

    # Levels: which stage can compute a buffer -------------------------------------------------------------------

    def level(self, buffer: Any) -> int:
        """The first stage that can compute `buffer`: all scratch rows it needs are written by earlier ones."""
        if buffer not in self.levels:
            self.levels[buffer] = self._level(buffer)
        return self.levels[buffer]

    def _passes_by_memory(self, value: Any, reader: Any) -> bool:
        """Whether `reader` reads `value`, of the same domain, from scratch rows.

        So it does with what runs over other columns, and over the rows of a matrix with products: those are long rows.
        """
        if self.is_reduced(value):
            return self.span(value) != self.span(reader)
        if self.domain(reader) == "rows" and self.row_values.reads_rows(value):
            return False
        return len(self.span(reader)) > 1 and self.is_reduced(reader) and self.is_looped(value)

    def _level(self, buffer: Any) -> int:
        definition = self.definitions.get(buffer)
        if definition is None:
            return 0
        if isinstance(definition, Compute):
            return self._deepest(buffer, definition.value, self.row_values.domain(buffer))
        if self.is_row_reduction(definition):
            return self._deepest(buffer, definition.source, "instances")
        if self.is_column_reduction(buffer):
            return self._deepest(buffer, definition.source, self.row_values.domain(buffer))
        found = self.contraction(buffer, definition)
        needed = [segment.buffer for segments in found.values for segment in segments if segment.buffer is not None]
        return 1 + max((self.level(other) for other in needed), default=0)

    def _deepest(self, buffer: Any, expression: Any, domain: ir.Domain) -> int:
        """The first stage over `domain` that can compute `expression` for `buffer`."""
        deepest = 0
        for other in buffers_read(expression):
            if self.domain(other) == domain:
                crosses = self._passes_by_memory(other, buffer)
            else:
                crosses = self.row_values.needs_rows(other) if domain == "instances" else self.is_looped(other)
            if crosses:
                self.scratch_source(other)
            deepest = max(deepest, self.level(other) + crosses)
        return deepest

    # Contractions ----------------------------------------------------------------------------------------------

    def contraction(self, buffer: Any, definition: Reduce) -> Contraction:
        """The contraction that `buffer` is."""
        if buffer not in self.contractions:
            found = self._contraction(buffer, definition)
            values = tuple([self._sourced(segment) for segment in segments] for segments in found.values)
            self.contractions[buffer] = replace(found, values=values)
        return self.contractions[buffer]

    def _contraction(self, buffer: Any, definition: Reduce) -> Contraction:
        loops = [(var, extent) for var, extent in definition.reduce_iters if not is_one(extent)]
        if definition.combine != "sum":
            kind = {"max": "maximum", "min": "minimum", "prod": "product"}[definition.combine]
            raise NotReadable(f"{buffer.name!r} is a {kind} over elements of a value")
        if len(loops) != 1 or not isinstance(loops[0][1], tirx.IntImm):
            raise NotReadable(f"{buffer.name!r} is a reduction over {len(loops)} axes or a symbolic one")
        k, extent = loops[0][0], int(loops[0][1])
        ones = {var: tirx.const(0, var.ty.dtype) for var, other in definition.reduce_iters if is_one(other)}
        factors = [substitute(factor, ones) for factor in self._factors(definition.source)]
        weights = [factor for factor in factors if self._weights_only(factor)]
        values = [factor for factor in factors if not self._weights_only(factor)]
        if not values:
            # Where one of them is computed, it can go through scratch rows like a value.
            values, weights = weights[:1], weights[1:]
        cut = _Cut(self, buffer, definition, k)
        segments = tuple(cut.segments(factor, 0, extent) for factor in values)
        return Contraction(k, extent, weights[0] if weights else None, segments)

    def _sourced(self, segment: Segment) -> Segment:
        return segment if segment.buffer is None else replace(segment, source=self.scratch_source(segment.buffer))

    def _factors(self, source: Any) -> list[Any]:
        """The factors of what is summed; element-wise blocks that multiply are seen through."""
        if isinstance(source, tirx.Mul):
            return [source.a, source.b]
        if isinstance(source, TensorLoad):
            definition = self.definitions.get(source.source)
            if isinstance(definition, Compute):
                inner = substitute(definition.value, dict(zip(definition.iters, source.indices, strict=True)))
                if isinstance(inner, tirx.Mul):
                    return [inner.a, inner.b]
        return [source, tirx.const(1, source.ty.dtype)]

    def _weights_only(self, expression: Any) -> bool:
        for buffer in buffers_read(expression):
            definition = self.definitions.get(buffer)
            if definition is None:
                if buffer not in self.weights:
                    return False
            elif isinstance(definition, Reduce) or not self._weights_only(definition.value):
                return False
        return True

    def lookup(self, analyzer: sym.Analyzer, load: Any) -> tuple[ir.Lookup, Any]:
        """A load ``table[attribute, ...]`` as a source and the position in its row."""
        attribute, position = self.attribute(analyzer, load.indices[0])
        if any(buffers_read(index) for index in load.indices[1:]):
            raise NotReadable(f"values of the instance index {load.source.name!r} at more than its first axis")
        extents = static_extents(load.source, load.source.shape[1:])
        return ir.Lookup(self.weights[load.source], attribute, position), flat_index(extents, load.indices[1:])

    def attribute(self, analyzer: sym.Analyzer, index: Any) -> tuple[int, int]:
        """The attribute element that `index` is, casts removed."""
        while isinstance(index, tirx.Cast):
            index = index.value
        if not isinstance(index, TensorLoad) or index.source not in self.attributes:
            raise NotReadable(f"a table is indexed by {index}, not by an attribute")
        position = analyzer.simplify(flat_index(static_extents(index.source, index.source.shape), index.indices))
        if not isinstance(position, tirx.IntImm):
            raise NotReadable("an attribute is read at a position that is no constant")
        return self.attributes[index.source], int(position)


class _Cut:
    """Cuts the factors of one contraction into segments."""

    def __init__(self, inputs: StageInputs, buffer: Any, definition: Reduce, k: Any) -> None:
        self.inputs = inputs
        self.k = k
        axis = inputs.row_axis(buffer)
        self.row = None if axis is None else definition.iters[axis]
        self.axes = list(zip(inputs.without_row(buffer, definition.iters), inputs.extents(buffer), strict=True))

    def segments(self, factor: Any, low: int, high: int) -> list[Segment]:
        """The rows that `factor`, a function of k in [low, high) and the axes of the result, reads."""
        inputs, analyzer = self.inputs, sym.Analyzer()
        for variable, extent in self.axes:
            analyzer.bind(variable, range_of(variable, 0, extent))
        analyzer.bind(self.k, range_of(self.k, low, high))
        factor = analyzer.simplify(factor)
        condition = as_condition(factor)
        if condition is not None:
            return self._pieces(condition, low, high)
        if not isinstance(factor, TensorLoad):
            raise NotReadable(f"the input of a product is the expression {factor}, not a value")
        buffer = factor.source
        if buffer in inputs.weights:
            table, position = inputs.lookup(analyzer, factor)
            return [Segment(table, None, self._readable(analyzer, buffer, position), low, high)]
        definition = inputs.definitions.get(buffer)
        if isinstance(definition, Compute):
            inner = substitute(definition.value, dict(zip(definition.iters, factor.indices, strict=True)))
            if isinstance(inner, TensorLoad) or as_condition(inner) is not None:
                try:
                    return self.segments(inner, low, high)
                except NotReadable:
                    # As scratch rows, in the order of its own axes, it may be readable yet.
                    pass
        elif definition is None and buffer not in inputs.operands:
            raise NotReadable(f"the input of a product reads {buffer.name!r}")
        position = self._readable(analyzer, buffer, inputs.position(buffer, factor.indices, self.row))
        if buffer in inputs.operands:
            return [Segment(inputs.operands[buffer], None, position, low, high)]
        return [Segment(None, buffer, position, low, high)]

    def _pieces(self, condition: tuple[Any, Any, Any], low: int, high: int) -> list[Segment]:
        test, then, otherwise = condition
        middle = change_point(test, self.k, low, high)
        if middle is None:
            raise NotReadable(f"the input of a product depends on {test}")
        first, second, border = middle
        pieces: list[Segment] = []
        for taken, start, stop in ((first, low, border), (second, border, high)):
            if start < stop:
                pieces += self.segments(then if taken else otherwise, start, stop)
        return pieces

    def _readable(self, analyzer: sym.Analyzer, buffer: Any, position: Any) -> Any:
        """`position`, if elements that follow each other in k or in the last axis lie side by side."""
        variables = [self.k, *(variable for variable, _ in self.axes)]
        affine = as_affine(analyzer, position, variables)
        if affine is None or 1 not in (affine[1][0], affine[1][-1]):
            raise NotReadable(f"the input of a product reads {buffer.name!r} at {position}")
        return position

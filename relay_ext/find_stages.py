"""Stage detection: cut a fused cell where a contraction consumes the result of another (design, section 6).

A cell whose blocks are element-wise code, contractions of an instance's vectors with weights, and sums over variadic
rows becomes a list of :class:`schedules.stage.Stage`. LSTM and TreeLSTM cells are one stage; a GRU, whose second
product reads ``r * h``, is two. A cell outside this form is :class:`~relay_ext.block_reader.NotReadable` with the
reason, and takes the general path.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import tvm
import tvm_ffi
from tvm import sym, tirx

from relay_ext.block_reader import Compute, NotReadable, Reduce, read_blocks
from relay_ext.fuse_cells import CELL, NUM_INPUT, NUM_OUTPUT, WEIGHTS
from schedules import stage as ir

_FLOAT = "float32"


@dataclass
class _Group:
    """The outputs of one stage: what is written at one level with one number of columns."""

    level: int
    columns: int
    targets: list[tuple[Any, int, str]] = field(default_factory=list)


def find_stages(function: tirx.PrimFunc, variadic: tuple[bool, ...], is_operand: tuple[bool, ...]) -> list[ir.Stage]:
    """The stages of a fused cell, in the order they run.

    Parameters
    ----------
    function : PrimFunc
        A cell as FuseCells leaves it.
    variadic, is_operand : tuple of bool
        For each per-instance parameter.

    Raises
    ------
    NotReadable
        If the cell is not made of stages; the message says why.
    """
    return _Finder(function, variadic, is_operand).run()


class _Finder:
    def __init__(self, function: tirx.PrimFunc, variadic: tuple[bool, ...], is_operand: tuple[bool, ...]) -> None:
        self.cell = str(function.attrs[CELL])
        params = list(function.params)
        inputs, outputs = int(function.attrs[NUM_INPUT]), int(function.attrs[NUM_OUTPUT])
        names = [str(name) for name in function.attrs[WEIGHTS]]
        if len(params) != inputs + len(names) + outputs:
            raise NotReadable("a parameter is unused")
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
        self.segments: dict[Any, list[_Segment]] = {}

    def run(self) -> list[ir.Stage]:
        groups: dict[tuple[int, int], _Group] = {}

        def place(buffer: Any, slot: int, scratch: str) -> None:
            key = (self.level(buffer), _size(buffer))
            groups.setdefault(key, _Group(*key)).targets.append((buffer, slot, scratch))

        for slot, buffer in enumerate(self.outputs):
            place(buffer, slot, "")
        for buffer, name in self.scratch.items():
            place(buffer, -1, name)
        ordered = [groups[key] for key in sorted(groups)]
        return [_Tracer(self, group, f"{self.cell}_stage{n}").stage() for n, group in enumerate(ordered)]

    # Levels: how many contractions stand before a buffer on one path -------------------------------------------

    def level(self, buffer: Any) -> int:
        if buffer in self.levels:
            return self.levels[buffer]
        definition = self.definitions.get(buffer)
        if definition is None:
            result = 0
        elif isinstance(definition, Compute):
            result = max((self.level(other) for other in _loads(definition.value)), default=0)
        elif self.is_row_sum(definition):
            result = max((self.level(other) for other in _loads(definition.source)), default=0)
        else:
            result = self._contraction_level(buffer, definition)
        self.levels[buffer] = result
        return result

    def is_row_sum(self, definition: Reduce) -> bool:
        """True for a sum over the rows of the variadic operands."""
        extents = [extent for _, extent in definition.reduce_iters if not _is_one(extent)]
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
        loops = [(var, extent) for var, extent in definition.reduce_iters if not _is_one(extent)]
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
        ones = {var: tirx.const(0, var.ty.dtype) for var, other in definition.reduce_iters if _is_one(other)}
        return k, int(extent), _substitute(factors[1 - weight], ones), _substitute(factors[weight], ones)

    def _weights_only(self, expression: Any) -> bool:
        for buffer in _loads(expression):
            definition = self.definitions.get(buffer)
            if definition is None:
                if buffer not in self.weights:
                    return False
            elif isinstance(definition, Reduce) or not self._weights_only(definition.value):
                return False
        return True

    def cut(self, expression: Any, k: Any, low: int, high: int) -> list[_Segment]:
        """Rows that `expression`, a function of k in [low, high), reads one element after another."""
        analyzer = sym.Analyzer()
        analyzer.bind(k, tvm.ir.Range(low, high))
        expression = analyzer.simplify(expression)
        condition = _condition(expression)
        if condition is not None:
            test, then, otherwise = condition
            middle = _boundary(test, k, low, high)
            if middle is None:
                raise NotReadable(f"the input of a product depends on {test}")
            first, second, border = middle
            pieces: list[_Segment] = []
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
            return [_Segment(self.operands[buffer], None, _start(analyzer, buffer, expression, k, low), low, high)]
        if buffer in self.weights:
            table, offset = self.lookup(analyzer, expression, k, low)
            return [_Segment(table, None, offset, low, high)]
        definition = self.definitions.get(buffer)
        if isinstance(definition, Compute):
            inner = _substitute(definition.value, dict(zip(definition.iters, expression.indices, strict=True)))
            try:
                if not isinstance(inner, tvm.ir.TensorLoad) and _condition(inner) is None:
                    raise NotReadable("computed")
                return self.cut(inner, k, low, high)
            except NotReadable:
                pass
        elif definition is None:
            raise NotReadable(f"the input of a product reads {buffer.name!r}")
        self.scratch.setdefault(buffer, f"{self.cell}.{len(self.scratch)}")
        source = ir.Scratch(self.scratch[buffer])
        return [_Segment(source, buffer, _start(analyzer, buffer, expression, k, low), low, high)]

    def lookup(self, analyzer: sym.Analyzer, load: Any, moving: Any, low: int) -> tuple[ir.Lookup, int]:
        """A load ``table[attribute, column]`` as a source and the column at ``moving = low``."""
        if len(load.indices) != 2:
            raise NotReadable(f"a value of the instance indexes {load.source.name!r}, which is not two-dimensional")
        attribute, position = self.attribute(analyzer, load.indices[0])
        column = _affine(analyzer, load.indices[1], moving)
        if column is None or column[0] != 1:
            raise NotReadable(f"the row of {load.source.name!r} is not read one element after another")
        return ir.Lookup(self.weights[load.source], attribute, position), column[1] + low

    def attribute(self, analyzer: sym.Analyzer, index: Any) -> tuple[int, int]:
        """The attribute element that `index` is, casts removed."""
        while isinstance(index, tirx.Cast):
            index = index.value
        if not isinstance(index, tvm.ir.TensorLoad) or index.source not in self.attributes:
            raise NotReadable(f"a table is indexed by {index}, not by an attribute")
        position = analyzer.simplify(_flat(index.source, index.indices))
        if not isinstance(position, tirx.IntImm):
            raise NotReadable("an attribute is read at a position that is no constant")
        return self.attributes[index.source], int(position)


@dataclass(frozen=True)
class _Segment:
    """Elements [low, high) of a contraction's input: consecutive elements of one row, from `offset` on."""

    source: Any
    buffer: Any
    offset: int
    low: int
    high: int


class _Tracer:
    """Writes the epilogue of one stage as expressions over leaves."""

    def __init__(self, finder: _Finder, group: _Group, name: str) -> None:
        self.finder = finder
        self.group = group
        self.name = name
        self.column = tirx.Var(ir.COLUMN, "int64")
        self.row = tirx.Var("p", "int64")
        self.analyzer = sym.Analyzer()
        self.analyzer.bind(self.column, tvm.ir.Range(0, group.columns))
        self.gates: list[ir.Gate] = []
        self.vectors: list[Any] = []
        self.row_sums: list[tuple[Any, Any]] = []
        self.lets: list[tuple[Any, Any]] = []
        self.leaves: dict[Any, ir.Leaf] = {}
        self._leaf_of: dict[ir.Leaf, Any] = {}
        self._memo: dict[tuple[Any, str], Any] = {}

    def stage(self) -> ir.Stage:
        outputs = []
        for buffer, slot, scratch in self.group.targets:
            outputs.append(ir.Output(self.at(buffer, _unflatten(buffer, self.column)), slot, scratch))
        return ir.Stage(
            self.finder.cell,
            self.name,
            self.group.columns,
            self.column,
            tuple(self.gates),
            tuple(self.vectors),
            tuple(self.row_sums),
            tuple(self.lets),
            tuple(outputs),
            self.leaves,
        )

    def leaf(self, kind: ir.Leaf) -> Any:
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
            return self.element(ir.Scratch(finder.scratch[buffer]), _flat(buffer, indices))
        if buffer in finder.operands:
            source = finder.operands[buffer]
            if isinstance(source, ir.Variadic):
                if not indices[0].same_as(self.row):
                    raise NotReadable(f"a row of {buffer.name!r} is read at {indices[0]}")
                return self.element(source, _flat(buffer, [tirx.const(0, "int64"), *indices[1:]]))
            return self.element(source, _flat(buffer, indices))
        if buffer in finder.attributes:
            attribute, position = finder.attribute(self.analyzer, tvm.tirx.BufferLoad(buffer, indices))
            return self.leaf(ir.AttributeValue(attribute, position))
        if buffer in finder.weights:
            return self.weight(buffer, indices)
        definition = finder.definitions.get(buffer)
        if isinstance(definition, Compute):
            value = self.expression(_substitute(definition.value, dict(zip(definition.iters, indices, strict=True))))
            return value if self._uses_row(indices) else self.let(value)
        if isinstance(definition, Reduce):
            if finder.is_row_sum(definition):
                return self.row_sum(definition, indices)
            return self.gate(buffer, definition, indices)
        raise NotReadable(f"{buffer.name!r} is read before it is written")

    def _uses_row(self, indices: list[Any]) -> bool:
        return any(_uses(index, self.row) for index in indices)

    def let(self, value: Any) -> Any:
        """`value` as a variable, so that it is computed once."""
        if isinstance(value, tirx.Var | tirx.FloatImm | tirx.IntImm):
            return value
        variable = tirx.Var(f"y{len(self.lets)}", str(value.ty.dtype))
        self.lets.append((variable, value))
        return variable

    def element(self, source: ir.Source, index: Any) -> Any:
        affine = _affine(self.analyzer, index, self.column)
        if affine is None:
            raise NotReadable(f"elements are read at {index}")
        return self.leaf(ir.Element(source, affine[1], bool(affine[0])))

    def weight(self, buffer: Any, indices: list[Any]) -> Any:
        load = tirx.BufferLoad(buffer, indices)
        if any(True for index in indices for _ in _loads(index)):
            affine = _affine(self.analyzer, indices[-1], self.column)
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
        loads = {load: self.at(load.source, list(load.indices)) for load in _outer_loads(value)}

        def replace(node: Any) -> Any:
            for load, leaf in loads.items():
                if node.same_as(load):
                    return leaf
            return node

        value = tvm_ffi.structural_map(value, (tvm.ir.TensorLoad, replace), order="pre") if loads else value
        count = self.finder.row_count
        if count is not None and _uses(value, count):
            value = _substitute(value, {count: tirx.Cast("int64", self.leaf(ir.RowCount()))})
        if _uses(value, self.column) or _uses(value, self.row):
            raise NotReadable(f"the position itself enters the expression {value}")
        return value

    def _decide(self, value: Any) -> Any:
        condition = _condition(value)
        if condition is None:
            if not any(_condition(node) is not None for node in _nodes(value)):
                return value
            return tvm_ffi.structural_map(value, (tvm.ir.Call, self._decide_call), order="pre")
        return self._decide_call(value)

    def _decide_call(self, value: Any) -> Any:
        condition = _condition(value)
        if condition is None:
            return value
        test, then, otherwise = condition
        if any(True for _ in _loads(test)):
            return value
        if self.analyzer.can_prove(test):
            return self._decide(then)
        if self.analyzer.can_prove(tirx.Not(test)):
            return self._decide(otherwise)
        raise NotReadable(f"an expression depends on {test}")

    def row_sum(self, definition: Reduce, indices: list[Any]) -> Any:
        values = dict(zip(definition.iters, indices, strict=True))
        for variable, extent in definition.reduce_iters:
            values[variable] = tirx.const(0, variable.ty.dtype) if _is_one(extent) else self.row
        variable = tirx.Var(f"s{len(self.row_sums)}", _FLOAT)
        self.row_sums.append((variable, self.expression(_substitute(definition.source, values))))
        self.leaves[variable] = ir.RowSum(len(self.row_sums) - 1)
        return variable

    def gate(self, buffer: Any, definition: Reduce, indices: list[Any]) -> Any:
        """The accumulator of a contraction at `indices`."""
        if self._uses_row(indices):
            raise NotReadable(f"{buffer.name!r} is a product over variadic rows")
        finder = self.finder
        finder.level(buffer)
        k, _, input_factor, weight = finder.contraction(buffer, definition)
        if any(_uses(input_factor, variable) for variable in definition.iters):
            moving = [v for v, i in zip(definition.iters, indices, strict=True) if _uses(i, self.column)]
            if any(_uses(input_factor, variable) for variable in moving):
                raise NotReadable(f"both factors of {buffer.name!r} depend on the column")
        at = dict(zip(definition.iters, indices, strict=True))
        passes = []
        for segment in finder.segments[buffer]:
            step = tirx.Var("k", "int64")
            inside = {**at, k: tirx.Cast(k.ty.dtype, step + segment.low)}
            expression = self._inline_weights(_substitute(weight, inside))
            passes.append(ir.Pass(segment.source, segment.offset, segment.high - segment.low, step, expression))
        self.gates.append(ir.Gate(tuple(passes)))
        return self.leaf(ir.Accumulator(len(self.gates) - 1))

    def _inline_weights(self, expression: Any) -> Any:
        """`expression` over weight parameters alone: element-wise blocks on weights are inlined."""

        def inline(load: Any) -> Any:
            definition = self.finder.definitions.get(load.source)
            if not isinstance(definition, Compute):
                return load
            inner = _substitute(definition.value, dict(zip(definition.iters, load.indices, strict=True)))
            return self._inline_weights(inner)

        return self.analyzer.simplify(tvm_ffi.structural_map(expression, (tvm.ir.TensorLoad, inline), order="post"))


# Expressions ------------------------------------------------------------------------------------------------------


def _is_one(extent: Any) -> bool:
    return isinstance(extent, tirx.IntImm) and int(extent) == 1


def _size(buffer: Any) -> int:
    size = 1
    for extent in buffer.shape:
        if not isinstance(extent, tirx.IntImm):
            raise NotReadable(f"{buffer.name!r} has a row for each variadic operand and is the input of a product")
        size *= int(extent)
    return size


def _flat(buffer: Any, indices: Any) -> Any:
    index: Any = tirx.const(0, "int64")
    for position, (extent, at) in enumerate(zip(buffer.shape, indices, strict=True)):
        index = at if position == 0 else index * extent + at
    return index


def _unflatten(buffer: Any, column: Any) -> list[Any]:
    indices: list[Any] = []
    rest = column
    for extent in reversed(list(buffer.shape)):
        indices.append(tirx.floormod(rest, extent))
        rest = tirx.floordiv(rest, extent)
    return indices[::-1]


def _affine(analyzer: sym.Analyzer, index: Any, variable: Any) -> tuple[int, int] | None:
    """``(1, c)`` if index is variable + c, ``(0, c)`` if it is the constant c, else None."""
    for coefficient in (1, 0):
        rest = analyzer.simplify(index - variable * coefficient)
        if isinstance(rest, tirx.IntImm):
            return coefficient, int(rest)
    return None


def _start(analyzer: sym.Analyzer, buffer: Any, load: Any, k: Any, low: int) -> int:
    """Position in `buffer` that `load` reads at k = low, if it reads one element after another."""
    affine = _affine(analyzer, _flat(buffer, load.indices), k)
    if affine is None or affine[0] != 1:
        raise NotReadable(f"the input of a product reads {buffer.name!r} at {load.indices}")
    return affine[1] + low


def _condition(value: Any) -> tuple[Any, Any, Any] | None:
    if isinstance(value, tirx.Select):
        return value.condition, value.true_value, value.false_value
    if isinstance(value, tvm.ir.Call) and getattr(value.op, "name", "") == "prim.if_then_else":
        return value.args[0], value.args[1], value.args[2]
    return None


def _boundary(test: Any, k: Any, low: int, high: int) -> tuple[bool, bool, int] | None:
    """Where `test`, a function of k that changes once in [low, high), changes: (before, after, first k after)."""

    def holds(start: int, stop: int, expected: bool) -> bool:
        analyzer = sym.Analyzer()
        analyzer.bind(k, tvm.ir.Range(start, stop))
        return bool(analyzer.can_prove(test if expected else tirx.Not(test)))

    first, last = holds(low, low + 1, True), holds(high - 1, high, True)
    if first == last:
        return (first, first, high) if holds(low, high, first) else None
    left, right = low, high - 1
    while right - left > 1:
        middle = (left + right) // 2
        if holds(middle, middle + 1, True) == first:
            left = middle
        else:
            right = middle
    proved = holds(low, right, first) and holds(right, high, last)
    return (first, last, right) if proved else None


def _substitute(expression: Any, values: dict[Any, Any]) -> Any:
    if not values:
        return expression

    def replace(variable: Any) -> Any:
        return values.get(variable, variable)

    return tvm_ffi.structural_map(expression, (tirx.Var, replace))


def _nodes(expression: Any) -> list[Any]:
    found: list[Any] = []
    tvm_ffi.structural_walk(expression, (tvm.ir.Call, _keep(found)))
    return found


def _keep(found: list[Any]) -> Callable[[Any], None]:
    def keep(node: Any) -> None:
        found.append(node)

    return keep


def _loads(expression: Any) -> list[Any]:
    """Buffers read by `expression`, those read for an index included."""
    found: list[Any] = []
    tvm_ffi.structural_walk(expression, (tvm.ir.TensorLoad, _keep(found)))
    return list(dict.fromkeys(load.source for load in found))


def _outer_loads(expression: Any) -> list[Any]:
    """Loads of `expression` that do not stand in the index of another load."""
    found: list[Any] = []
    tvm_ffi.structural_walk(expression, (tvm.ir.TensorLoad, _keep(found)))
    inner: list[Any] = []
    for load in found:
        for index in load.indices:
            tvm_ffi.structural_walk(index, (tvm.ir.TensorLoad, _keep(inner)))
    return [load for load in found if not any(load.same_as(other) for other in inner)]


def _uses(expression: Any, variable: Any) -> bool:
    found: list[Any] = []
    tvm_ffi.structural_walk(expression, (tirx.Var, _keep(found)))
    return any(other.same_as(variable) for other in found)

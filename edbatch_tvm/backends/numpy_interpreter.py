"""A plain interpreter of cells in NumPy, in float64: slow, and independent of everything that makes kernels fast."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any

import numpy as np
from tvm import IRModule
from tvm.ir.transform import Pass

from edbatch_tvm.backends.backend import Backend
from edbatch_tvm.backends.independent_loops import nest_of
from edbatch_tvm.backends.options import CompileOptions
from edbatch_tvm.batching import ScheduleInfo
from edbatch_tvm.errors import CellError
from edbatch_tvm.graph import CellSignature, InstanceGraph, Signature
from edbatch_tvm.memory import Plan
from edbatch_tvm.memory.steps_table import COUNT, FIRST, POINTER, TYPE
from edbatch_tvm.runtime.artifact import Artifact
from edbatch_tvm.runtime.executor import run_parts
from edbatch_tvm.runtime.report import Report
from edbatch_tvm.runtime.result import Result
from edbatch_tvm.tvm_compat import SBlockRealize, TensorLoad, structural_walk, tirx
from relay_ext.bind_cell import bind_cell
from relay_ext.fuse_cells import cell_params
from relay_ext.pipeline import cell_passes

_BINARY: dict[str, Callable[..., Any]] = {
    "Add": operator.add,
    "Sub": operator.sub,
    "Mul": operator.mul,
    "Div": np.true_divide,
    "FloorDiv": operator.floordiv,
    "FloorMod": operator.mod,
    "Min": np.minimum,
    "Max": np.maximum,
    "EQ": operator.eq,
    "NE": operator.ne,
    "LT": operator.lt,
    "LE": operator.le,
    "GT": operator.gt,
    "GE": operator.ge,
    "And": np.logical_and,
    "Or": np.logical_or,
    "BitwiseAnd": operator.and_,
    "BitwiseOr": operator.or_,
    "BitwiseXor": operator.xor,
}

_CALLS: dict[str, Callable[..., Any]] = {
    "exp": np.exp,
    "log": np.log,
    "log1p": np.log1p,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "sin": np.sin,
    "cos": np.cos,
    "tanh": np.tanh,
    "sigmoid": lambda x: 0.5 + 0.5 * np.tanh(0.5 * x),
    "erf": np.vectorize(math.erf, otypes=[np.float64]),
    "pow": np.power,
    "fabs": np.abs,
    "floor": np.floor,
    "ceil": np.ceil,
    "trunc": np.trunc,
    "isnan": np.isnan,
    "isinf": np.isinf,
    "isfinite": np.isfinite,
}


_AXES = "axes"
"""The key of a frame under which is how many loops run at once."""

_EMPTY = "empty"
"""The key of a frame under which is whether blocks only begin their reductions, which are over nothing."""


class NumpyBackend(Backend):
    """``"numpy"``: each cell's TIR is walked once per batch; its scalars are vectors over the nodes of the batch."""

    name = "numpy"
    kinds = ("numpy",)
    dtypes = ("float32", "float64")

    def passes(self, signature: Signature, options: CompileOptions) -> list[Pass]:
        """See :meth:`Backend.passes`."""
        return cell_passes()

    def build(
        self, module: IRModule, signature: Signature, weights: Mapping[str, np.ndarray], options: CompileOptions
    ) -> NumpyExecutor:
        """See :meth:`Backend.build`."""
        return NumpyExecutor(module, signature, weights)


class NumpyExecutor:
    """See :class:`~edbatch_tvm.runtime.executor.Executor`."""

    fused = True
    threads = 1
    tuning_key = ""
    artifact: Artifact | None = None

    def __init__(self, module: IRModule, signature: Signature, weights: Mapping[str, np.ndarray]) -> None:
        self.signature = signature
        self.paths = {cell.name: "interpreter" for cell in signature}
        self.kernel_names: dict[str, tuple[str, ...]] = {cell.name: (cell.name,) for cell in signature}
        self._cells = [_Cell(module[cell.name], cell, signature) for cell in signature]
        self.load(weights)

    def load(self, weights: Mapping[str, np.ndarray], rows: Mapping[str, np.ndarray] = MappingProxyType({})) -> None:
        """See :meth:`~edbatch_tvm.runtime.executor.Executor.load`."""
        self._weights = {name: _wide(array) for name, array in weights.items()}

    def held(self) -> dict[str, np.ndarray]:
        """See :meth:`~edbatch_tvm.runtime.executor.Executor.held`."""
        return {}

    def run(self, graph: InstanceGraph, plan: Plan, info: ScheduleInfo | None = None) -> Result:
        """See :meth:`~edbatch_tvm.runtime.executor.Executor.run`."""
        specs = self.signature.value_specs
        arenas = [np.zeros((rows, spec.size)) for rows, spec in zip(plan.arena_rows, specs, strict=True)]
        for arena, rows in enumerate(graph.external_data):
            if len(rows):
                arenas[arena][1 : 1 + len(rows)] = rows.reshape(len(rows), -1)
        with np.errstate(all="ignore"):  # kernels say nothing of NaN and infinities either
            for step in plan.steps.tolist():
                self._cells[step[TYPE]].run(step, graph, plan, arenas, self._weights)
        return Result(graph, plan, Report(graph, plan, info, self.paths, lambda: len(plan.steps)), arenas)

    def parts(self, graph: InstanceGraph, plan: Plan) -> AbstractContextManager[Callable[[int, int], None]]:
        """See :meth:`~edbatch_tvm.runtime.executor.Executor.parts`."""
        return run_parts(self, graph, plan)


class _Cell:
    """A fused cell over the batches of a plan."""

    def __init__(self, function: tirx.PrimFunc, cell: CellSignature, signature: Signature) -> None:
        self.cell = cell
        self.binding = bind_cell(signature, cell.name)
        self.inputs, self.weights, self.outputs = cell_params(function)
        self.body = _Code(cell.name, self.weights).statement(function.body)

    def run(
        self,
        step: list[int],
        graph: InstanceGraph,
        plan: Plan,
        arenas: list[np.ndarray],
        weights: Mapping[str, np.ndarray],
    ) -> None:
        count, offsets = step[COUNT], np.zeros(1, np.int64)
        if self.cell.variadic_count:
            offsets = plan.index[step[POINTER] : step[POINTER] + count + 1].astype(np.int64)
        lengths = np.diff(offsets) if self.cell.variadic_count else np.zeros(count, np.int64)
        shared = {param: weights[name] for param, name in self.weights.items()}
        for length in np.unique(lengths).tolist():  # instances of one number of rows at a time
            chosen = np.flatnonzero(lengths == length)
            frame: dict[Any, Any] = {**shared, None: len(chosen), _AXES: 0, _EMPTY: False}
            for param in self.inputs:
                frame[param] = self._input(param, step, graph, plan, arenas, chosen, offsets, length)
                sizes = zip(param.shape, frame[param].shape[1:], strict=True)
                frame |= {extent: size for extent, size in sizes if isinstance(extent, tirx.Var)}
            for param, spec in zip(self.outputs, self.cell.outputs, strict=True):
                frame[param] = np.zeros((len(chosen), *spec.shape))
            self.body(frame)
            for slot, (param, arena) in enumerate(zip(self.outputs, self.binding.output_arena, strict=True)):
                rows = step[self.binding.layout.output(slot)] + chosen
                arenas[arena][rows] = frame[param].reshape(len(chosen), -1)

    def _input(
        self,
        param: Any,
        step: list[int],
        graph: InstanceGraph,
        plan: Plan,
        arenas: list[np.ndarray],
        chosen: np.ndarray,
        offsets: np.ndarray,
        length: int,
    ) -> np.ndarray:
        """An input of the chosen instances of a batch, stacked."""
        for number, operand in enumerate(self.cell.operands):
            if operand.name != param.name:
                continue
            base, stride = step[self.binding.layout.base(number)], step[self.binding.layout.stride(number)]
            position = offsets[chosen, None] + np.arange(length) if operand.variadic else chosen
            rows = plan.index[base + position] if stride < 0 else base + position * stride
            return arenas[self.binding.operand_arena[number]][rows].reshape(*position.shape, *operand.spec.shape)
        type_id = self.binding.type_id
        order = plan.attribute_order[type_id][step[FIRST] + chosen]
        return _wide(graph.attributes[type_id, param.name][order])


class _Code:
    """TIR as Python functions over a frame: what variables and buffers are, and under None the number of instances."""

    def __init__(self, cell: str, weights: Mapping[Any, str]) -> None:
        self.cell = cell
        self.weights = weights

    def statement(self, node: Any) -> Callable[[dict[Any, Any]], None]:
        """A function that runs a statement."""
        if isinstance(node, tirx.SeqStmt):
            parts = [self.statement(part) for part in node.seq]

            def sequence(frame: dict[Any, Any]) -> None:
                for part in parts:
                    part(frame)

            return sequence
        if isinstance(node, tirx.For):
            return self._element_by_element(node) or self._loop(node)
        if isinstance(node, SBlockRealize):
            return self._block(node)
        if isinstance(node, tirx.BufferStore):
            buffer, at, value = node.buffer, self._index(node.indices), self.expression(node.value)

            def store(frame: dict[Any, Any]) -> None:
                array = frame[buffer]
                array[at(frame, array)] = value(frame)

            return store
        raise CellError(f"a {type(node).__name__} in cell {self.cell!r}", "code that target 'numpy' interprets")

    def _loop(self, node: Any) -> Callable[[dict[Any, Any]], None]:
        return self._repeat(node, self.statement(node.body))

    def _repeat(self, node: Any, body: Callable[[dict[Any, Any]], None]) -> Callable[[dict[Any, Any]], None]:
        variable = node.loop_var
        first, extent = self.expression(node.min), self.expression(node.extent)
        reduces = _reduces(node)

        def loop(frame: dict[Any, Any]) -> None:
            begin, count = first(frame), extent(frame)
            if reduces and not count:
                frame[variable], outside, frame[_EMPTY] = begin, frame[_EMPTY], True
                body(frame)
                frame[_EMPTY] = outside
            for value in range(begin, begin + count):
                frame[variable] = value
                body(frame)

        return loop

    def _element_by_element(self, node: Any) -> Callable[[dict[Any, Any]], None] | None:
        """Loops around one block, those over independent elements at once; None if there are none.

        Each of these is an axis after that of the instances. The loops of a reduction stay loops, in their order, so
        that sums have the same bits.
        """
        nest = nest_of(node)
        if nest is None:
            return None
        own, others, realize = nest
        first = [(self.expression(one.min), self.expression(one.extent)) for one in own]
        body = self._block(realize)
        for one in reversed(others):
            body = self._repeat(one, body)

        def run(frame: dict[Any, Any]) -> None:
            for axis, (one, (begin, extent)) in enumerate(zip(own, first, strict=True)):
                shape = [1] * (1 + len(own))
                shape[1 + axis] = -1
                start = begin(frame)
                frame[one.loop_var] = np.arange(start, start + extent(frame)).reshape(shape)
            frame[_AXES] = len(own)
            body(frame)
            frame[_AXES] = 0

        return run

    def _block(self, node: Any) -> Callable[[dict[Any, Any]], None]:
        block, body = node.block, self.statement(node.block.body)
        values = [self.expression(value) for value in node.iter_values]
        variables = [one.var for one in block.iter_vars]
        reduced = [(one.var, self.expression(one.dom.min)) for one in block.iter_vars if int(one.iter_type) == 2]
        begin = None if block.init is None else self.statement(block.init)
        made = [
            (one, [self.expression(extent) for extent in one.shape], _dtype(one.dtype)) for one in block.alloc_buffers
        ]

        def run(frame: dict[Any, Any]) -> None:
            for buffer, shape, dtype in made:
                frame[buffer] = np.zeros((frame[None], *(extent(frame) for extent in shape)), dtype)
            for variable, value in zip(variables, values, strict=True):
                frame[variable] = value(frame)
            if begin is not None and all(frame[variable] == least(frame) for variable, least in reduced):
                begin(frame)
            if not frame[_EMPTY]:
                body(frame)

        return run

    def expression(self, node: Any) -> Callable[[dict[Any, Any]], Any]:
        """A function that computes an expression: a number, or one for each instance."""
        kind = type(node).__name__
        if isinstance(node, tirx.IntImm | tirx.FloatImm):
            number = node.value
            return lambda frame: number
        if isinstance(node, tirx.Var):
            return lambda frame: frame[node]
        if isinstance(node, TensorLoad):
            buffer, at = node.source, self._index(node.indices, batched=node.source not in self.weights)
            return lambda frame: frame[buffer][at(frame, frame[buffer])]
        if isinstance(node, tirx.Cast):
            value, dtype = self.expression(node.value), _dtype(node.ty.dtype)
            return lambda frame: np.asarray(value(frame)).astype(dtype)[()]
        if kind in _BINARY:
            function, a, b = _BINARY[kind], self.expression(node.a), self.expression(node.b)
            return lambda frame: function(a(frame), b(frame))
        if isinstance(node, tirx.Not):
            value = self.expression(node.a)
            return lambda frame: np.logical_not(value(frame))
        if isinstance(node, tirx.Select):
            return self._choice(node.condition, node.true_value, node.false_value)
        name = getattr(getattr(node, "op", None), "name", kind).rpartition(".")[2]
        if name == "if_then_else":
            return self._choice(*node.args)
        if name == "reinterpret" and isinstance(node.args[0], tirx.IntImm):  # of StrictFloats: a number by its bits
            bits = np.array(int(node.args[0].value), f"i{np.dtype(str(node.ty.dtype)).itemsize}")
            float_of_bits = float(bits.view(str(node.ty.dtype)))
            return lambda frame: float_of_bits
        if name not in _CALLS:
            raise CellError(f"operator {name!r} in cell {self.cell!r}", "one that target 'numpy' interprets")
        call, arguments = _CALLS[name], [self.expression(argument) for argument in node.args]
        return lambda frame: call(*(argument(frame) for argument in arguments))

    def _choice(self, *parts: Any) -> Callable[[dict[Any, Any]], Any]:
        condition, yes, no = (self.expression(part) for part in parts)

        def choose(frame: dict[Any, Any]) -> Any:
            found = condition(frame)
            if np.ndim(found):
                return np.where(found, yes(frame), no(frame))
            return yes(frame) if found else no(frame)

        return choose

    def _index(self, indices: Any, batched: bool = True) -> Callable[[dict[Any, Any], np.ndarray], Any]:
        """A function that gives where an element lies: in the array of each instance, or in one for all."""
        parts = [self.expression(index) for index in indices]

        def at(frame: dict[Any, Any], array: np.ndarray) -> tuple[Any, ...]:
            found = [part(frame) for part in parts]
            axes = frame[_AXES]
            if axes or any(map(np.ndim, found)):
                # Both sides of a choice are computed: the one that is not taken may lie outside.
                own = array.shape[len(array.shape) - len(found) :]
                found = [np.clip(one, 0, extent - 1) for one, extent in zip(found, own, strict=True)]
                return (np.arange(frame[None]).reshape(-1, *[1] * axes), *found) if batched else tuple(found)
            return (slice(None), *found) if batched else tuple(found)

        return at


def _reduces(loop: Any) -> bool:
    """Whether a block in a loop has a reduction over its variable."""
    found: list[Any] = []

    def visit(realize: Any) -> None:
        for one, value in zip(realize.block.iter_vars, realize.iter_values, strict=True):
            if int(one.iter_type) == 2 and realize.block.init is not None:
                structural_walk(value, (tirx.Var, lambda variable: found.append(variable.same_as(loop.loop_var))))

    structural_walk(loop.body, (SBlockRealize, visit))
    return any(found)


def _dtype(dtype: Any) -> Any:
    return np.float64 if "float" in str(dtype) else np.int64 if "int" in str(dtype) else np.bool_


def _wide(array: np.ndarray) -> np.ndarray:
    return array.astype(_dtype(array.dtype))

"""Random cells for a signature, as an IRModule and as NumPy functions in float64.

One function, :func:`_body`, makes the decisions and is interpreted twice: over Relax, through a BlockBuilder, and over
NumPy. So the two agree by construction in what they compute, and share nothing in how.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
from tvm import IRModule, relax
from tvm.relax import op as R
from tvm.script import tirx as T

from edbatch_tvm.graph import CellSignature, Signature, ValueSpec

ATTRIBUTE_WIDTH = 5


def cells_for(signature: Signature, seed: int, general: bool) -> IRModule:
    """Cells of `signature`; with `general`, some have operators outside the stage form."""
    builder = relax.BlockBuilder()
    for cell in signature:
        _RelaxOps(builder, cell, seed, general).function()
    return builder.finalize()


def reference_for(
    signature: Signature, seed: int, general: bool, weights: dict[str, np.ndarray]
) -> dict[str, Callable[..., tuple[np.ndarray, ...]]]:
    """The same cells as functions of float64 operands and of attributes, by name."""
    wide = {name: array.astype(np.float64) for name, array in weights.items()}

    def function(cell: CellSignature) -> Callable[..., tuple[np.ndarray, ...]]:
        def call(**arguments: Any) -> tuple[np.ndarray, ...]:
            ops = _NumpyOps(cell, wide)
            rng = random.Random(f"{seed} {cell.name}")
            operands = [arguments[operand.name] for operand in cell.operands]
            return tuple(_body(ops, rng, cell, operands, [arguments[a.name] for a in cell.attributes], general))

        return call

    return {cell.name: function(cell) for cell in signature}


def _body(
    ops: Any, rng: random.Random, cell: CellSignature, operands: Any, attributes: Any, general: bool
) -> list[Any]:
    vectors: list[tuple[Any, int]] = []
    for operand, value in zip(cell.operands, operands, strict=True):
        size = operand.spec.size
        if not operand.variadic:
            vectors.append(_vector(ops, rng, operand.spec, value))
            continue
        rows = ops.reshape_rows(value, size)
        kind = rng.choice(["sum", "gated", "product", "forget"])
        if kind == "gated":
            rows = ops.mul(ops.sigmoid(rows), rows)
        elif kind == "product":
            rows = ops.tanh(ops.matmul(rows, ops.weight((size, size))))
        elif kind == "forget":
            gate = ops.matmul(rows, ops.weight((size, size)))
            if vectors and rng.random() < 0.6:
                vector, width = rng.choice(vectors)
                gate = ops.add(gate, ops.matmul(vector, ops.weight((width, size))))
            rows = ops.mul(ops.sigmoid(gate), rows)
        vectors.append((ops.sum_rows(rows), size))
    for attribute, value in zip(cell.attributes, attributes, strict=True):
        vectors.append((ops.take(ops.weight((attribute.bound, ATTRIBUTE_WIDTH)), value), ATTRIBUTE_WIDTH))
    return [_output(ops, rng, vectors, spec.size, spec.shape, general) for spec in cell.outputs]


def _vector(ops: Any, rng: random.Random, spec: ValueSpec, value: Any) -> tuple[Any, int]:
    """An operand as a vector; a matrix may be multiplied by weights, on either side, or by itself first."""
    size = spec.size
    if len(spec.shape) != 2:
        return ops.reshape(value, (size,)), size
    rows, columns = spec.shape
    kind = rng.choice(["flat", "left", "right", "square", "vector"])
    if kind == "left":
        value, rows = ops.matmul(ops.weight((3, rows)), value), 3
    elif kind == "right":
        value, columns = ops.tanh(ops.matmul(value, ops.weight((columns, 5)))), 5
    elif kind == "square":
        value, columns = ops.matmul(value, ops.transpose(value)), rows
    elif kind == "vector":
        return ops.matmul(ops.matmul(value, ops.weight((columns,))), value), columns
    return ops.reshape(value, (rows * columns,)), rows * columns


def _output(ops: Any, rng: random.Random, vectors: Any, size: int, shape: Any, general: bool) -> Any:
    total = ops.weight((size,))
    remaining = list(vectors)
    while remaining:
        vector, width = remaining.pop()
        if remaining and rng.random() < 0.3:
            other, more = remaining.pop()
            vector, width = ops.concat(vector, other), width + more
        if width == size and rng.random() < 0.4:
            term = ops.mul(ops.sigmoid(total), vector)
        else:
            term = ops.matmul(vector, ops.weight((width, size)))
        total = ops.add(total, term)
    if rng.random() < 0.4:
        total = ops.add(ops.matmul(ops.tanh(total), ops.weight((size, size))), total)
    kind = rng.choice(["softmax", "sums", "", ""])
    if kind:
        total = ops.softmax(total)
    if kind == "sums" and general:
        total = ops.cumsum(total)
    return ops.reshape(ops.tanh(total), shape)


class _RelaxOps:
    def __init__(self, builder: relax.BlockBuilder, cell: CellSignature, seed: int, general: bool) -> None:
        self.builder = builder
        self.cell = cell
        self.seed = seed
        self.general = general
        self.weights: list[relax.Var] = []

    def function(self) -> None:
        count = T.int64()
        operands = []
        for operand in self.cell.operands:
            shape = (count, *operand.spec.shape) if operand.variadic else operand.spec.shape
            operands.append(relax.Var(operand.name, relax.TensorType(shape, operand.spec.dtype)))
        attributes = [relax.Var(a.name, relax.TensorType((), a.spec.dtype)) for a in self.cell.attributes]
        # Weights are parameters too, but are known only once the body was walked: a dry run on shapes collects them.
        dry = _ShapeOps(self.cell.name)
        rng = random.Random(f"{self.seed} {self.cell.name}")
        _body(dry, rng, self.cell, [None] * len(operands), [None] * len(attributes), self.general)
        dtype = self.cell.outputs[0].dtype
        self.weights = [relax.Var(name, relax.TensorType(shape, dtype)) for name, shape in dry.weights]
        self.used = 0
        inputs = [*operands, *attributes]
        attrs = {"num_input": len(inputs)}
        with self.builder.function(self.cell.name, [*inputs, *self.weights], attrs=attrs):
            with self.builder.dataflow():
                rng = random.Random(f"{self.seed} {self.cell.name}")
                outputs = _body(self, rng, self.cell, operands, attributes, self.general)
                outputs = [self.builder.emit_output(out) for out in outputs]
            self.builder.emit_func_output(outputs[0] if len(outputs) == 1 else relax.Tuple(outputs))

    def weight(self, shape: tuple[int, ...]) -> Any:
        self.used += 1
        return self.weights[self.used - 1]

    def _emit(self, call: Any) -> Any:
        return self.builder.emit(call)

    def reshape(self, x: Any, shape: Any) -> Any:
        return self._emit(R.reshape(x, shape))

    def reshape_rows(self, x: Any, size: int) -> Any:
        return self._emit(R.reshape(x, (x.ty.shape.values[0], size)))

    def sum_rows(self, x: Any) -> Any:
        return self._emit(R.sum(x, axis=0))

    def take(self, table: Any, index: Any) -> Any:
        return self._emit(R.take(table, index, axis=0))

    def concat(self, a: Any, b: Any) -> Any:
        return self._emit(R.concat([a, b], axis=0))

    def matmul(self, a: Any, b: Any) -> Any:
        return self._emit(R.matmul(a, b))

    def transpose(self, a: Any) -> Any:
        return self._emit(R.permute_dims(a))

    def add(self, a: Any, b: Any) -> Any:
        return self._emit(R.add(a, b))

    def mul(self, a: Any, b: Any) -> Any:
        return self._emit(R.multiply(a, b))

    def sigmoid(self, a: Any) -> Any:
        return self._emit(R.sigmoid(a))

    def tanh(self, a: Any) -> Any:
        return self._emit(R.tanh(a))

    def softmax(self, a: Any) -> Any:
        return self._emit(R.nn.softmax(a, axis=-1))

    def cumsum(self, a: Any) -> Any:
        return self._emit(R.cumsum(a, axis=0))


class _ShapeOps:
    """Interprets a body without values: only the weights it asks for count."""

    def __init__(self, cell: str) -> None:
        self.cell = cell
        self.weights: list[tuple[str, tuple[int, ...]]] = []

    def weight(self, shape: tuple[int, ...]) -> None:
        self.weights.append((f"{self.cell}_w{len(self.weights)}", shape))

    def __getattr__(self, _name: str) -> Callable[..., None]:
        return lambda *_: None


class _NumpyOps:
    def __init__(self, cell: CellSignature, weights: dict[str, np.ndarray]) -> None:
        self.cell = cell
        self.weights = weights
        self.used = 0

    def weight(self, shape: tuple[int, ...]) -> np.ndarray:
        self.used += 1
        return self.weights[f"{self.cell.name}_w{self.used - 1}"]

    def reshape(self, x: Any, shape: Any) -> Any:
        return np.reshape(x, shape)

    def reshape_rows(self, x: Any, size: int) -> Any:
        return np.reshape(x, (len(x), size))

    def sum_rows(self, x: Any) -> Any:
        return x.sum(axis=0)

    def take(self, table: Any, index: Any) -> Any:
        return table[int(index)]

    def concat(self, a: Any, b: Any) -> Any:
        return np.concatenate([a, b])

    def matmul(self, a: Any, b: Any) -> Any:
        return a @ b

    def transpose(self, a: Any) -> Any:
        return a.T

    def add(self, a: Any, b: Any) -> Any:
        return a + b

    def mul(self, a: Any, b: Any) -> Any:
        return a * b

    def sigmoid(self, a: Any) -> Any:
        return 1 / (1 + np.exp(-a))

    def tanh(self, a: Any) -> Any:
        return np.tanh(a)

    def softmax(self, a: Any) -> Any:
        powers = np.exp(a - a.max())
        return powers / powers.sum()

    def cumsum(self, a: Any) -> Any:
        return np.cumsum(a)

"""One batch to time a kernel on: sizes and places of everything that the kernel's arguments hold.

A bench is plain data, so that it can be sent to the process or machine that measures. Operands are indexed, in random
order: what a kernel meets most often, and the slowest case.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edbatch_tvm.graph.spec import CellSignature
from edbatch_tvm.tvm_compat import tirx
from schedules import abi

VARIADIC_ROWS = 2
"""Rows of each variadic operand of an instance."""


@dataclass(frozen=True)
class Argument:
    """An array that a kernel is given: numbers from a normal distribution, or integers below `bound`.

    Attributes
    ----------
    shape : tuple of int
    dtype : str
    bound : int
        Integers are drawn from [0, bound).
    """

    shape: tuple[int, ...]
    dtype: str
    bound: int = 1


@dataclass(frozen=True)
class TimingInputs:
    """A batch of `count` instances of one cell, for the kernel called `name`.

    Attributes
    ----------
    name : str
    count : int
    step : tuple of int
        The row of the steps table.
    operands : tuple of (int, int)
        For each operand its first row in its arena, and its number of rows.
    variadic : bool
        Whether offsets of variadic operands stand at the end of the index.
    arguments : tuple of Argument
        After (step, steps, index).
    """

    name: str
    count: int
    step: tuple[int, ...]
    operands: tuple[tuple[int, int], ...]
    variadic: bool
    arguments: tuple[Argument, ...]

    def arrays(self, seed: int = 0) -> list[np.ndarray]:
        """The steps table, the index, and the further arguments."""
        rng = np.random.default_rng(seed)
        index = [first + rng.permutation(rows) for first, rows in self.operands]
        if self.variadic:
            index.append(VARIADIC_ROWS * np.arange(self.count + 1))
        arrays = [
            np.array([self.step], np.int32),
            np.concatenate([*index, [0]]).astype(np.int32),
        ]
        for argument in self.arguments:
            if np.dtype(argument.dtype).kind == "f":
                arrays.append((0.1 * rng.standard_normal(argument.shape)).astype(argument.dtype))
            else:
                arrays.append(rng.integers(0, argument.bound, argument.shape).astype(argument.dtype))
        return arrays


def timing_inputs(
    kernel: tirx.PrimFunc,
    cell: CellSignature,
    layout: abi.CellLayout,
    count: int,
    scratch_width: dict[str, int] | None = None,
) -> TimingInputs:
    """The bench of a kernel of `cell` on a batch of `count` instances.

    Parameters
    ----------
    kernel : PrimFunc
        As the pipeline leaves it: its attributes name its arguments.
    cell : CellSignature
        With the bounds of its attributes.
    layout : CellLayout
    count : int
        1 or more.
    scratch_width : dict, optional
        Width of the scratch rows, by name.
    """
    rows = [VARIADIC_ROWS * count if operand.variadic else count for operand in cell.operands]
    outputs = len(cell.outputs)
    first = [1 + outputs * count + sum(rows[:number]) for number in range(len(rows))]
    step = [0] * layout.width
    step[abi.COUNT] = count
    step[abi.POINTER] = sum(rows)
    for slot in range(outputs):
        step[layout.output(slot)] = 1 + slot * count
    for number in range(len(rows)):
        step[layout.base(number)] = sum(rows[:number])
        step[layout.stride(number)] = -1
    room = 1 + outputs * count + sum(rows)
    arguments = []
    texts = [str(text).split(":", 1) for text in kernel.attrs[abi.ARGUMENTS]]
    for (kind, name), buffer in zip(texts, list(kernel.params)[3:], strict=True):
        known = [int(extent) if isinstance(extent, tirx.IntImm) else None for extent in buffer.shape]
        size, bound = room, 1
        if kind == "attribute":
            size, bound = count, cell.attributes[int(name)].bound or 1
        shape = [size if extent is None else extent for extent in known]
        if kind == "scratch":
            shape[-1] = (scratch_width or {}).get(name, shape[-1])
        arguments.append(Argument(tuple(shape), str(buffer.dtype), bound))
    return TimingInputs(
        str(kernel.attrs["global_symbol"]),
        count,
        tuple(step),
        tuple(zip(first, rows, strict=True)),
        cell.variadic_count > 0,
        tuple(arguments),
    )

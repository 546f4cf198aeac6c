"""Weights that are taken over again and again: memory is used again, and nobody sees a change that is not his."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import edbatch_tvm as eb
from edbatch_tvm.errors import WeightError
from schedules.abi import ALIGNMENT
from tests.runtime.test_weight_updates import Cells, H, close, made, run


def addresses(model: Any) -> set[int]:
    """Of what was copied: what lies well, constants of cells for instance, is read where it lies."""
    return {tensor.data_ptr() for tensor in model.executor.kernels.loaded._own.values()}


def to_copy(seed: int) -> dict[str, np.ndarray]:
    """Weights at addresses that kernels cannot read them at."""
    found = {}
    for name, array in made(seed).items():
        memory = np.empty(array.nbytes + 2 * ALIGNMENT, np.uint8)
        begin = -memory.ctypes.data % ALIGNMENT + array.itemsize
        found[name] = memory[begin : begin + array.nbytes].view(array.dtype).reshape(array.shape)
        found[name][...] = array
    return found


def test_two_memories_take_turns() -> None:
    model = eb.compile(Cells, made(0))
    seen = []
    for seed in range(1, 7):
        model.refresh(to_copy(seed))
        close(model, made(seed))
        seen.append(addresses(model))
    assert seen[0]
    assert not seen[1] & seen[2]
    assert seen[1] == seen[3] == seen[5]
    assert seen[2] == seen[4]


def test_weights_that_somebody_reads_stay() -> None:
    model: Any = eb.compile(Cells, made(0))
    model.refresh(made(1))
    read = model.executor.kernels.loaded  # as a minibatch in another thread has it
    before = {key: np.from_dlpack(tensor).copy() for key, tensor in read.tensors.items()}
    for seed in range(2, 6):
        model.refresh(made(seed))
        close(model, made(seed))
    for key, array in before.items():
        np.testing.assert_array_equal(np.from_dlpack(read.tensors[key]), array)


def test_held_weights_stay() -> None:
    model = eb.compile(Cells, made(0))
    held = model.held_weights()
    before = {name: array.copy() for name, array in held.items()}
    for seed in range(1, 5):
        model.refresh(made(seed))
    for name, array in before.items():
        np.testing.assert_array_equal(held[name], array)


@pytest.mark.parametrize("target", ["llvm", "numpy", "cuda-emulated"])
@pytest.mark.parametrize("form", ["numpy", "torch"])
def test_rows_of_tables(target: str, form: str) -> None:
    """Word 3 is read; that other rows, which are said to stay, are not read shows that no more than that is copied."""
    convert: Any = np.copy if form == "numpy" else pytest.importorskip("torch").tensor
    model = eb.compile(Cells, {name: convert(one) for name, one in made(0).items()}, target=target)
    current = made(0)
    rng = np.random.default_rng(0)
    for step in range(12):
        changed = rng.permutation(7)[: int(rng.integers(0, 7))]
        current["table"][changed] = rng.uniform(-1, 1, (len(changed), H))
        current["W"] = made(step)["W"]
        own = {name: convert(one) for name, one in current.items()}
        if step == 5:
            model.refresh(own)
        else:
            model.refresh(own, rows={"table": changed.tolist()})
        close(model, current)
        if target == "llvm":
            table = np.from_dlpack(model.executor.kernels.loaded.tensors["table", "table"])
            np.testing.assert_array_equal(table[:, :H], current["table"])


def test_rows_that_are_said_to_stay_are_not_read() -> None:
    model = eb.compile(Cells, made(0))
    for seed in (1, 2):
        model.refresh(made(seed), rows={"table": range(7)})
    other = made(2)
    other["table"] += 1
    model.refresh(other, rows={"table": [2]})
    close(model, made(2))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"E": [0]}, "rows of 'E'"),
        ({"s": [0]}, "rows of 's'"),
        ({"table": [7]}, "row 7 of weight 'table'; expected rows from 0 to 6"),
        ({"table": [-1]}, "row -1 of weight 'table'"),
        ({"table": [0.5]}, "rows of 'table' as float64"),
        ({"table": 3}, "rows of 'table' as int64"),
    ],
)
def test_errors(rows: Any, message: str) -> None:
    model = eb.compile(Cells, made(0))
    with pytest.raises(WeightError, match=message):
        model.refresh(made(1), rows=rows)
    close(model, made(0))
    np.testing.assert_array_equal(run(model), run(eb.compile(Cells, made(0))))

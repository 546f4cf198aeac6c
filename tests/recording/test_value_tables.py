"""Values of a minibatch in tables, by compiled code: the same as one value after the other."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch

from edbatch_tvm.graph import FIRST_EXTERNAL, ZERO, CellSignature, Operand, Signature, ValueSpec
from edbatch_tvm.recording import random_state
from edbatch_tvm.recording.computed import Computed, Round
from edbatch_tvm.recording.outside import Outside
from edbatch_tvm.recording.random_state import Drawn, NumpyState
from edbatch_tvm.recording.value_tables import Tables, numbered

SIZES = (1, 3, 8)
SPECS = tuple(ValueSpec((size,)) for size in SIZES)
SIGNATURE = Signature(
    (
        CellSignature("one", (Operand("x", SPECS[0]),), (), (SPECS[1],)),
        CellSignature("two", (Operand("x", SPECS[1]), Operand("y", SPECS[2])), (), (SPECS[2], SPECS[0])),
    )
)


@pytest.mark.parametrize("count", [0, 1, 300])
def test_values_of_rounds_are_kept_and_found(count: int) -> None:
    rng = np.random.default_rng(count)
    tables = Tables(torch.float32)
    outside, computed = Outside(tables), Computed(tables)
    expected: dict[int, np.ndarray] = {}
    done = 0
    for _ in range(3):
        # The last array is a view whose rows are apart, and one array has no values.
        arrays = [rng.normal(size=(count + 1, size)).astype(np.float32) for size in (*SIZES, 5)]
        arrays[2] = rng.normal(size=(count + 1, 11)).astype(np.float32)[:, :8]
        group, row = rng.integers(0, 3, count), rng.integers(0, count + 1, count)
        for value in range(count):
            expected[done + value] = arrays[group[value]][row[value]].copy()
        computed.finish(Round(done, group.astype(np.int32), row.astype(np.int32), arrays.__getitem__))
        done += count
        for size in SIZES:
            for numbers in (torch.randn(size), torch.zeros(size), torch.full((size,), -0.0)):
                expected[outside.number(numbers)] = numbers.numpy().copy()
    computed.keep()
    for value, numbers in expected.items():
        found = outside.flat(value) if value < 0 else computed.tensor(value)
        assert found.numpy().tobytes() == numbers.tobytes()

    ids = np.arange(100, 100 + count, dtype=np.int32)
    wanted = rng.permutation([*expected, *expected, *range(done, done + count)])
    found, external = tables.operands(SIGNATURE, wanted, done, ids, outside.places(), computed.places())
    names: dict[int, int] = {}
    for value, operand in zip(wanted.tolist(), found.tolist(), strict=True):
        assert names.setdefault(value, operand) == operand
        if value >= done:
            assert operand == 100 + value - done
        elif not expected[value].view(np.int32).any():
            assert operand == ZERO
        else:
            number = FIRST_EXTERNAL - operand
            rows = external["external_data"][external["external_spec"][number]]
            assert rows[external["external_row"][number]].tobytes() == expected[value].tobytes()
    rows = external["external_data"]
    assert sum(map(len, rows)) == len({one for one in names.values() if one <= FIRST_EXTERNAL})


def test_nodes_are_numbered_by_the_outputs_of_their_types() -> None:
    types = np.array([1, -1, 0], np.int16)  # of three cells; one could not be compiled
    calls = [2, 0, 0, 2]
    node_type, ids, arenas = numbered(calls, types, SIGNATURE)
    assert node_type.tolist() == [0, 1, 1, 0]
    assert ids.tolist() == [0, 2, 3, 4, 5, 6]
    order = [SIGNATURE.arena(spec) for spec in SPECS]
    assert arenas.tolist() == [order[one] for one in (1, 2, 0, 2, 0, 1)]
    assert [len(part) for part in numbered([], types, SIGNATURE)] == [0, 0, 0]


def test_tensors_of_equal_numbers_are_one_row() -> None:
    outside = Outside(Tables(torch.float32))
    zero = outside.number(torch.zeros(4))
    assert outside.number(torch.zeros(4)) == zero
    assert outside.number(torch.zeros(2, 2)) != zero  # another shape is another kind of call
    assert outside.number(-torch.zeros(4)) != zero
    assert outside.number(torch.zeros(4, dtype=torch.bool)) != zero
    nan = torch.full((4,), torch.nan)
    assert outside.number(nan) == outside.number(nan.clone())


@pytest.mark.parametrize("size", [4, 1024, 1025, 5000])
@pytest.mark.parametrize("change", ["in place", "data", "numpy", "another"])
def test_a_tensor_is_what_it_is_when_it_is_passed(size: int, change: str) -> None:
    outside = Outside(Tables(torch.float32))
    tensor = torch.zeros(size)
    before = outside.number(tensor)
    changed = tensor
    if change == "in place":
        tensor[-1] = 1
    elif change == "data":
        tensor.data.add_(1)
    elif change == "numpy":
        tensor.numpy()[-1] = 1
    else:
        changed = torch.ones(size)
    after = outside.number(changed)
    assert outside.flat(before).sum() == 0
    assert outside.flat(after)[-1] == 1
    assert outside.number(changed) == after


def _draw(what: str) -> Any:
    if what == "gauss":
        return random.gauss(0, 1)
    if what == "state":
        return random.setstate(random.Random(5).getstate())
    return random.random() if what == "python" else torch.rand(1)


_NUMPY_DRAWS = {
    "numbers": lambda generator: generator.random_sample(),
    "normal": lambda generator: generator.standard_normal(),
    "seed": lambda generator: generator.seed(generator.randint(1000)),
    "state": lambda generator: generator.set_state(np.random.RandomState(generator.randint(1000)).get_state()),
    "nothing": lambda generator: generator.get_state(),
}


@pytest.mark.parametrize("by_memory", [True, False])
@pytest.mark.parametrize("what", list(_NUMPY_DRAWS))
def test_drawing_from_numpy_is_seen(what: str, by_memory: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    assert random_state._NUMPY_KNOWN
    monkeypatch.setattr(random_state, "_NUMPY_KNOWN", by_memory)
    generator = np.random.RandomState(3)
    state = NumpyState(generator)
    for _ in range(4):  # normal numbers come in pairs, of which the second is kept
        before = state.read()
        assert state.read() == before
        _NUMPY_DRAWS[what](generator)
        assert (state.read() == before) == (what == "nothing")


@pytest.mark.parametrize("what", ["python", "torch", "gauss", "state"])
def test_drawing_is_seen(what: str) -> None:
    random.seed(1)
    drawn = Drawn()
    for rounds in range(1, 4):
        drawn.look()
        assert drawn.rounds == rounds - 1
        _draw(what)
        if what == "state":
            random.random()
            random.random()
            random.seed(rounds + 7)
        drawn.look()
        assert drawn.rounds == rounds

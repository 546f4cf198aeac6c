"""What elements share and change while they wait: seen in whatever it is, and then they run in order."""

from __future__ import annotations

import contextvars
import copy
import threading
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import edbatch_tvm as eb
from edbatch_tvm.errors import BreakWarning
from edbatch_tvm.recording import watched_objects
from edbatch_tvm.recording.watched_objects import Watched, WatchedObjects

H = 4
CONTEXT = contextvars.ContextVar("CONTEXT", default=0)
OF_THREAD = threading.local()


class Counter:
    def __init__(self, count: int) -> None:
        self.counts = [count]


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.Linear(H, H)
        self.use: Callable[[Any, Any], Any] = lambda model, x: model.cell(x)
        self.array = np.zeros((200, 100), np.float32)
        self.of_thread: Any = None

    def forward(self, x: torch.Tensor) -> Any:
        return self.use(self, x)


def _context_without_waiting(m: Any, x: Any) -> Any:
    CONTEXT.set(CONTEXT.get() + 1)
    return m.cell(x) * CONTEXT.get()


def _context_while_waiting(m: Any, x: Any) -> Any:
    h = m.cell(x)
    if h.sum() > -100:
        CONTEXT.set(CONTEXT.get() + 1)
    return h * CONTEXT.get()


def _context_put_back(m: Any, x: Any) -> Any:
    token = CONTEXT.set(CONTEXT.get() + 1)
    h = m.cell(x)
    h = h * 2 if h.sum() > 0 else h
    h = h * CONTEXT.get()
    CONTEXT.reset(token)
    return h


def _thread_without_waiting(m: Any, x: Any) -> Any:
    OF_THREAD.count += 1
    return m.cell(x) * OF_THREAD.count


def _thread_while_waiting(m: Any, x: Any) -> Any:
    OF_THREAD.last = m.cell(x)
    return OF_THREAD.last * (2 if OF_THREAD.last.sum() > 0 else 1)


def _thread_of_the_model(m: Any, x: Any) -> Any:
    m.of_thread.last = m.cell(x)
    return m.of_thread.last * (2 if m.of_thread.last.sum() > 0 else 1)


def _large_array(m: Any, x: Any) -> Any:
    h = m.cell(x)
    if h.sum() > -100:
        m.array[150, 50] += 1
    return h * float(m.array[150, 50])


USES: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "context variable": (_context_without_waiting, ""),
    "context variable, while others wait": (_context_while_waiting, "the context variable 'CONTEXT'"),
    "context variable that is put back": (_context_put_back, ""),
    "local to threads": (_thread_without_waiting, ""),
    "local to threads, while others wait": (_thread_while_waiting, "OF_THREAD"),
    "local to threads and the model's": (_thread_of_the_model, "of_thread"),
    "a large array": (_large_array, "array, a ndarray"),
}


@pytest.mark.parametrize("name", USES)
def test_what_elements_change_is_as_in_pytorch(name: str) -> None:
    use, told = USES[name]
    torch.manual_seed(0)
    model = Model()
    eager = copy.deepcopy(model)
    for one in (model, eager):
        one.use, one.of_thread = use, threading.local()
    xs = [torch.randn(H) for _ in range(5)]
    results, left = [], []
    fast = eb.autobatch(model, cells=["cell"])
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for run in (fast, lambda xs: [eager(x) for x in xs]):
            token = CONTEXT.set(0)
            OF_THREAD.count = 0
            results.append(torch.stack([*run(xs), *run(xs)]))
            left.append((CONTEXT.get(), OF_THREAD.count))
            CONTEXT.reset(token)
    assert torch.allclose(*results, atol=1e-6)
    assert left[0] == left[1]
    told_of = [str(one.message) for one in seen if issubclass(one.category, BreakWarning)]
    assert len(told_of) == bool(told)
    assert all(told in one for one in told_of)


@pytest.mark.parametrize("where", ["context", "thread", "thread of the model"])
def test_what_cells_read_there_is_followed(where: str) -> None:
    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(H, H)

        def cell(self, x: torch.Tensor) -> torch.Tensor:
            factor = (
                CONTEXT.get() if where == "context" else self.of_thread.count if "model" in where else OF_THREAD.count
            )
            return self.linear(x) * factor

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.cell(x)

    model = Reads()
    model.of_thread = threading.local()
    fast = eb.autobatch(model, cells=["cell"])
    xs = [torch.randn(H) for _ in range(3)]
    for factor in (2, 3):
        token = CONTEXT.set(factor)
        OF_THREAD.count = model.of_thread.count = factor
        found = fast(xs)
        assert torch.allclose(torch.stack(found), torch.stack([model(x) for x in xs]), atol=1e-6)
        assert not fast.breaks
        CONTEXT.reset(token)


def test_a_cell_that_sets_a_context_variable_is_none() -> None:
    class Sets(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(H, H)

        def cell(self, x: torch.Tensor) -> torch.Tensor:
            CONTEXT.set(CONTEXT.get() + 1)
            return self.linear(x)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.cell(x) * CONTEXT.get()

    model = Sets()
    xs = [torch.randn(H) for _ in range(3)]
    token = CONTEXT.set(0)
    with pytest.warns(BreakWarning, match="the code of cell 'cell' changes the ContextVar 'CONTEXT'"):
        found = eb.autobatch(model, cells=["cell"])(xs)
    assert CONTEXT.get() == len(xs)
    CONTEXT.set(0)
    assert torch.allclose(torch.stack(found), torch.stack([model(x) for x in xs]), atol=1e-6)
    CONTEXT.reset(token)


def test_more_objects_than_are_watched_run_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched_objects, "MOST", 100)
    model = Model()
    model.counters = [Counter(0) for _ in range(200)]

    def use(m: Any, x: Any) -> Any:
        h = m.cell(x)
        if h.sum() > -100:
            m.counters[-1].counts[0] += 1
        return h * m.counters[-1].counts[0]

    model.use = use
    eager = copy.deepcopy(model)
    xs = [torch.randn(H) for _ in range(5)]
    fast = eb.autobatch(model, cells=["cell"])
    with pytest.warns(BreakWarning, match="share more than 100,000 objects, among them counters"):
        found = fast(xs)
    assert torch.allclose(torch.stack(found), torch.stack([eager(x) for x in xs]), atol=1e-6)


@pytest.mark.parametrize("dtype", ["f4", "f8", "u1", "M8[s]", [("a", "f4"), ("b", "i2")]])
@pytest.mark.parametrize("shape", [(3,), (100, 333)])
@pytest.mark.parametrize("layout", ["C", "F", "strided"])
def test_a_change_of_any_array_is_seen(dtype: Any, shape: tuple[int, ...], layout: str) -> None:
    rng = np.random.default_rng(0)
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    array = rng.integers(1, 100, size, np.uint8).view(dtype).reshape(shape)
    array = array[::2] if layout == "strided" else np.asarray(array, order=layout)  # type: ignore[call-overload]
    for _ in range(20):
        seen = Watched("array", "array", array)
        assert not seen.is_changed
        place = tuple(rng.integers(0, array.shape))
        array[place] = np.roll(np.frombuffer(array[place].tobytes(), np.uint8) + 1, 1).view(dtype)[0]
        assert seen.is_changed


@pytest.mark.parametrize("pair", [(0, 8), (0, 1), (5, 4000)])
def test_changes_that_undo_each_other_in_sums_are_seen(pair: tuple[int, int]) -> None:
    array = np.arange(1, 10_001, dtype=np.float64)
    for change in (np.negative, np.flip):  # of signs alone, and of places
        seen = Watched("array", "ndarray", array)
        array[list(pair)] = change(array[list(pair)])
        assert seen.is_changed


def test_memory_that_nobody_writes_is_not_read() -> None:
    constant = np.frombuffer(bytes(1 << 16), np.uint8)
    assert WatchedObjects([("constant", constant[5:])]).changed() is None
    frozen = np.zeros(1 << 16, np.uint8)
    frozen.flags.writeable = False  # its owner may change that
    seen = WatchedObjects([("frozen", frozen)])
    frozen.flags.writeable = True
    frozen[7] = 1
    assert seen.changed() is not None


def test_a_list_of_what_was_computed_keeps_elements_in_order_in_a_first_call() -> None:
    """The model has a buffer, so that its first elements compute every call at once, and wait for nothing."""
    torch.manual_seed(0)
    model = Model()
    model.register_buffer("scale", torch.ones(1))
    seen: list[Any] = []

    def use(m: Any, x: Any) -> Any:
        h = m.cell(x)
        seen.append(h.sum())
        if h.tolist()[0] > -100:
            seen.append(h * m.scale)
        return h

    model.use = use
    fast = eb.autobatch(model, cells=["cell"])
    xs = [torch.randn(H) for _ in range(6)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BreakWarning)
        for _ in range(2):
            expected = [model(x) for x in xs]
            wanted = list(map(torch.Tensor.sum, seen))
            seen.clear()
            results = fast(xs)
            assert all(map(torch.allclose, results, expected))
            assert all(torch.allclose(one.sum(), other) for one, other in zip(seen, wanted, strict=True))
            seen.clear()

"""The compiled core records functions of PyTorch, views and rows as Python does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import edbatch_tvm as eb
from edbatch_tvm.recording import recorder
from edbatch_tvm.recording.cell_call import CellCall
from edbatch_tvm.recording.core import core
from edbatch_tvm.recording.lazy import LazyTensor
from edbatch_tvm.recording.recorder import Recorder
from tests.recording.checks import assert_equal
from tests.recording.test_core import described

H = 7

pytestmark = pytest.mark.skipif(bool(core.reason), reason=core.reason)

ONES = torch.arange(1.0, H + 1)

OPERATORS: dict[str, Any] = {
    "sum of two": lambda a, b, s: a + b,
    "an alias": lambda a, b, s: torch.add(a, b),
    "by name": lambda a, b, s: torch.add(a, b, alpha=2),
    "a float": lambda a, b, s: a * 0.5,
    "no float": lambda a, b, s: (a * 0.0, a * -0.0, a * 0, a * False),
    "the other way round": lambda a, b, s: 1.0 - a,
    "an ordinary tensor": lambda a, b, s: (a * ONES, ONES * a),
    "one not in order": lambda a, b, s: a * torch.stack([ONES, ONES], 1)[:, 1],
    "an option that is off": lambda a, b, s: F.relu(a, inplace=False),
    "one that is on": lambda a, b, s: F.relu(a.clone(), inplace=True),
    "rows": lambda a, b, s: (s * 2.0, torch.tanh(s), s + s, s + ONES, s * ONES.reshape(1, H), s + a),
    "rows of rows": lambda a, b, s: torch.tanh(s.unsqueeze(0)),
    "rows that are chosen": lambda a, b, s: (torch.tanh(s[1:]), torch.tanh(s[::2]), torch.tanh(s[1:2])),
    "parts of rows": lambda a, b, s: torch.tanh(s[:, 2:5]),
    "a sum of rows": lambda a, b, s: torch.sum(s, dim=0, keepdim=True),
    "an operator of no name": lambda a, b, s: torch.tanh(input=a),
    "nothing that fits": lambda a, b, s: torch.tanh(a, a),
    "shapes that do not fit": lambda a, b, s: a + torch.ones(H + 1),
}

VIEWS: dict[str, Any] = {
    "a number": lambda t: t[0],
    "from the end": lambda t: t[-1],
    "beyond the end": lambda t: t[99],
    "True is no number": lambda t: t[True],
    "a slice": lambda t: t[1:3],
    "a slice with a step": lambda t: t[::2],
    "a slice of whole numbers of NumPy": lambda t: t[torch.tensor(1) : torch.tensor(3)],
    "none": lambda t: t[None],
    "an ellipsis": lambda t: t[..., 1],
    "several": lambda t: t[0, ..., 1:3] if t.dim() > 1 else t[None, 0],
    "unsqueeze": lambda t: (t.unsqueeze(0), torch.unsqueeze(t, -1), t.unsqueeze(dim=0)),
    "squeeze": lambda t: (t.unsqueeze(0).squeeze(0), t.squeeze()),
    "view": lambda t: (t.view(-1), t.view(1, -1), t.view((1, -1)), t.view(size=(-1,))),
    "view of another dtype": lambda t: t.view(torch.int32),
    "transpose": lambda t: (t.transpose(0, -1), t.unsqueeze(0).transpose(0, 1)),
    "expand": lambda t: t.unsqueeze(0).expand(3, *t.shape),
    "split": lambda t: (t.split(2), torch.split(t, 2), t.chunk(2), torch.chunk(t, 2, -1), t.unbind()),
    "narrow": lambda t: t.narrow(0, 1, 1),
    "a view of a view": lambda t: t[1:][1:][0],
}


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, H)
        self.join = nn.Linear(H, H)

    def leaf(self, word: int) -> torch.Tensor:
        return self.table.weight[word].sin()

    def two(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.join(x) + y, self.join(y)

    def forward(self, word: int) -> torch.Tensor:
        return self.two(self.leaf(word), self.leaf(word))[0]


@pytest.fixture(scope="module")
def made() -> eb.AutoBatched:
    torch.manual_seed(0)
    fast = eb.autobatch(Model().requires_grad_(False), ["leaf", "two"])
    with torch.no_grad():
        fast([0, 1])
    return fast


def _recorded(fast: eb.AutoBatched, code: Any) -> Any:
    """What code records, and what it returns."""
    own = Recorder(fast._library, lambda: None)
    own.at_once = True  # Python records no operators together, see test_fused_rows.py
    fast._library.told.clear()
    model = fast.model
    leaf = CellCall(own, fast._sites["leaf"], model.leaf, model)
    two = CellCall(own, fast._sites["two"], model.two, model)
    a, b = leaf(0), leaf(2)
    try:
        results = described(code(a, b, torch.stack([a, b, leaf(3)]), two))
    except Exception as error:
        results = type(error), str(error)
    attributes = {key: list(entries) for key, entries in own.attributes.items()}
    memory = [None if one.held is None else (one.held.rows, one.held.row, one.held.listed) for one in (a, b)]
    return own.types, own.ends, own.operands, attributes, own.recorded, memory, str(results)


def _assert_recorded_alike(fast: eb.AutoBatched, code: Any) -> None:
    _recorded(fast, code)  # what is met first is Python's
    compiled = _recorded(fast, code)
    core.use(False)
    try:
        assert _recorded(fast, code) == compiled
    finally:
        core.use(True)


@pytest.mark.parametrize("name", OPERATORS)
def test_operators(made: eb.AutoBatched, name: str) -> None:
    _assert_recorded_alike(made, lambda a, b, s, two: OPERATORS[name](a, b, s))


@pytest.mark.parametrize("name", VIEWS)
def test_views(made: eb.AutoBatched, name: str) -> None:
    function = VIEWS[name]
    _assert_recorded_alike(made, lambda a, b, s, two: (function(a), function(s), function(s.view(1, 3, H))))


def test_views_are_operands_as_by_python(made: eb.AutoBatched) -> None:
    def calls(a: Any, b: Any, s: Any, two: Any) -> Any:
        rows = s.view(1, 3, H)
        yield two(s[0], a)
        yield two(s[1].view(1, H), a)
        yield two(a.view(1, H), b.view(H))
        yield two(torch.cat([a, b])[H - 2 : 2 * H - 2], a)
        yield two(s, s)
        yield two(s[1:], s[:2])
        yield two(rows, rows)
        yield two(rows[:, 1:], ONES.expand(1, 2, H).contiguous())
        yield two(s.t()[:, 1], a)
        yield two(s[1:2], ONES.view(1, H))

    _assert_recorded_alike(made, lambda a, b, s, two: list(calls(a, b, s, two)))


def test_rows_of_known_cells_are_compiled_code(made: eb.AutoBatched, monkeypatch: pytest.MonkeyPatch) -> None:
    def code(a: Any, b: Any, s: Any, two: Any) -> Any:
        return two(s, s), torch.cat([s[1:], s[:2]], 1), two(s.unsqueeze(0), s.view(1, 3, H)), s + s

    for _ in range(3):  # what is met first is Python's
        wanted = _recorded(made, code)
    monkeypatch.setattr(recorder, "row_by_row", lambda *_: pytest.fail("recorded by Python"))
    assert _recorded(made, code) == wanted


class Viewing(nn.Module):
    """Views, writes through views, and rows, from values of its elements."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.Linear(H, H)
        self.table = nn.Embedding(9, H)

    def step(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.cell(x))

    def forward(self, words: list[int]) -> list[torch.Tensor]:
        states = torch.stack([self.step(self.table.weight[word]) for word in words])
        last = states[-1].clone()
        part = last[2:5]
        last.mul_(2.0)
        part.add_(1.0)
        states[0] = last
        wide = self.step(states.unsqueeze(0)).squeeze(0)
        return [states[0], part, wide[1:] * 0.5, wide.chunk(2, 1)[0].sum(0), states.view(-1)[3:9].sigmoid()]


def test_results_are_those_of_pytorch() -> None:
    torch.manual_seed(0)
    model = Viewing().requires_grad_(False)
    fast = eb.autobatch(model, ["step"])
    batch = [[1, 2, 3], [4, 5], [6, 7, 8, 1]]
    wanted = [model(words) for words in batch]
    try:
        for compiled in (True, True, False, True):
            core.use(compiled)
            assert_equal(fast(batch), wanted)
    finally:
        core.use(True)
    assert not fast.breaks


def test_views_are_used_again_and_are_where_they_should_be(made: eb.AutoBatched) -> None:
    own = Recorder(made._library, lambda: None)
    leaf = CellCall(own, made._sites["leaf"], made.model.leaf, made.model)

    def views() -> Iterator[Any]:
        for word in (0, 1, 2):
            value = leaf(word)
            yield value, value[2:5]
            yield value, value[2:5].unsqueeze(0)

    core.minibatch_ended()
    known = {id(view) for _, view in list(views())}
    core.minibatch_ended()
    later = list(views())
    assert known & {id(view) for _, view in later}
    for value, view in later:
        assert type(view) is LazyTensor
        assert view.held is value.held
        assert view.geometry is not None
        assert view.geometry[2] == 2
        with torch._C.DisableTorchFunctionSubclass():
            base = torch._C.TensorBase
            assert (tuple(base.size(view)), base.stride(view), base.storage_offset(view)) == view.geometry


def test_wrong_arguments_are_errors() -> None:
    function = core._compiled["torch_function"]
    for given in ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4, 5), (torch.tanh, (), [1]), (torch.tanh, (), (), 3)):
        with pytest.raises((TypeError, AttributeError, RuntimeError)):
            function(*given)

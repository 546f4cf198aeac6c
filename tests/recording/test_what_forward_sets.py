"""What ``forward`` sets is what the model's own code leaves, and what cells compute with, however it is set."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cached_property
from itertools import count
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import edbatch_tvm as eb
from edbatch_tvm.errors import RecordingError
from tests.recording.checks import assert_equal

H = 4
pytestmark = pytest.mark.filterwarnings("ignore::edbatch_tvm.errors.BreakWarning")


class Dropped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)
        self.scale = 1.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.drop(x) * self.scale


class Slots:
    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class Model(nn.Module):
    total = 0
    calls: list[int] = []  # noqa: RUF012  (shared by models, as users have it)
    of_class: float = 1

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.other, self.dropped = nn.Linear(H, H), nn.Linear(H, H), Dropped()
        self.lstm = nn.LSTM(H, H)
        self.register_buffer("seen", torch.zeros(()))
        self.late: Any = None
        self.use: Callable[[Any, Any, Any], Any] = lambda model, h, x: (model.dropped(h), model.other(h), model.lstm(h))
        self.state = SimpleNamespace(count=0, inner=SimpleNamespace(of=[0]))
        self.slots, self.array, self.numbers = Slots(), np.zeros(1), count(1)
        self.python, self.numpy = random.Random(0), np.random.default_rng(0)

    @property
    def doubled(self) -> float:
        return self.of_class * 2

    @doubled.setter
    def doubled(self, value: float) -> None:
        self.of_class = value

    @cached_property
    def noise(self) -> torch.Tensor:
        return torch.ones(H) * 3

    def forward(self, x: torch.Tensor) -> Any:
        h = self.cell(x[:1])
        return self.use(self, h, x)


def waits(h: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Long elements wait for a value, others do not."""
    return h * 2 if len(x) > 1 and h.sum().item() > 0 else h


@pytest.fixture(scope="module")
def made() -> tuple[Model, eb.AutoBatched]:
    torch.manual_seed(0)
    model = Model().eval()
    fast = eb.autobatch(model, ["cell", "other", "dropped"])
    with torch.no_grad():
        fast([torch.randn(1, H), torch.randn(2, H)])
    return model, fast


def _sets_buffer(m: Any, h: Any, x: Any) -> Any:
    h = waits(h, x)
    m.seen = m.seen + 1
    return h * m.seen


def _sets_class_default(m: Any, h: Any, x: Any) -> Any:
    h = waits(h, x)
    m.of_class += 1
    return h * m.of_class


def _sets_by_property(m: Any, h: Any, x: Any) -> Any:
    h = waits(h, x)
    m.doubled = m.doubled + 1
    return h * m.doubled


def _deletes(m: Any, h: Any, x: Any) -> Any:
    h = waits(h, x)
    if hasattr(m, "kept"):
        h = h + m.kept
        del m.kept
    else:
        m.kept = h
    return h


def _caches(m: Any, h: Any, x: Any) -> Any:
    return waits(h, x) * m.noise


def _sets_in_cell(m: Any, h: Any, x: Any) -> Any:
    m.dropped.scale = float(len(x))
    return m.dropped(h)


SETS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "buffer": _sets_buffer,
    "default of the class": _sets_class_default,
    "property": _sets_by_property,
    "deleted": _deletes,
    "cached property": _caches,
    "attribute of a cell": _sets_in_cell,
}


def _left(model: Model) -> Any:
    own = {name: value for name, value in vars(model).items() if name in ("raw", "kept", "of_class", "noise")}
    return own, model.seen.clone(), model.dropped.scale


def _reset(model: Model) -> None:
    for name in ("raw", "kept", "of_class", "noise"):
        model.__dict__.pop(name, None)
    model.seen = torch.zeros(())
    model.dropped.scale = 1.0


@pytest.mark.parametrize("name", SETS)
def test_attributes_set_in_every_way(made: tuple[Model, eb.AutoBatched], name: str) -> None:
    model, fast = made
    model.use = SETS[name]
    elements = [torch.randn(n, H) for n in (1, 3, 1, 2)]
    wanted = [model(x) for x in elements]
    left = _left(model)
    _reset(model)
    fast(elements[:1])  # finds out what is set
    for _ in range(2):
        _reset(model)
        found = fast(elements)
        assert_equal(found, wanted)
        assert_equal(_left(model), left)
    _reset(model)


def test_attributes_written_into_the_dictionary(made: tuple[Model, eb.AutoBatched]) -> None:
    model, fast = made
    model.use = lambda m, h, x: (m.__dict__.__setitem__("raw", len(x)), h)[1]
    elements = [torch.randn(n, H) for n in (1, 3, 2)]
    assert_equal(fast(elements), [model(x) for x in elements])
    fast(elements[:2])
    assert model.__dict__.pop("raw") == 3


def _switches(m: Any, h: Any, x: Any) -> Any:
    m.dropped.train()
    return m.dropped(h)


def _calls_with_others(m: Any, h: Any, x: Any) -> Any:
    return torch.func.functional_call(m.other, {"weight": m.other.weight * 2}, (h,))


def _drops_weights(m: Any, h: Any, x: Any) -> Any:
    weight = m.lstm._parameters["weight_hh_l0"]
    del m.lstm._parameters["weight_hh_l0"]
    m.lstm.weight_hh_l0 = weight * 0.5
    result = m.lstm(torch.cat([h, h]))[0]
    del m.lstm.weight_hh_l0
    m.lstm.weight_hh_l0 = weight
    return result


COMPUTES: dict[str, Callable[[Any, Any, Any], Any]] = {
    "mode of a module in a cell": _switches,
    "functional_call of a cell": _calls_with_others,
    "weights of a recurrent layer": _drops_weights,
}


@pytest.mark.parametrize("name", COMPUTES)
def test_cells_follow_what_is_set_before_they_are_called(made: tuple[Model, eb.AutoBatched], name: str) -> None:
    model, fast = made
    model.use = COMPUTES[name]
    elements = [torch.randn(n, H) for n in (1, 3, 2)]
    torch.manual_seed(1)
    wanted = [model(x) for x in elements]
    model.eval()
    for _ in range(2):
        torch.manual_seed(1)
        assert_equal(fast(elements), wanted)
        model.eval()


def test_a_layer_made_by_the_first_element_is_the_models() -> None:
    def use(m: Any, h: Any, x: Any) -> Any:
        if m.late is None:
            m.late = nn.Linear(H, 2)
        return m.late(h)

    elements = [torch.randn(n, H) for n in (1, 3, 2)]
    wanted_model, model = Model(), Model()
    model.load_state_dict(wanted_model.state_dict())
    wanted_model.use = model.use = use
    torch.manual_seed(1)
    wanted = [wanted_model(x) for x in elements]
    torch.manual_seed(1)
    fast = eb.autobatch(model, ["cell"])
    for _ in range(2):
        assert_equal(fast(elements), wanted)
        assert_equal(model.state_dict(), wanted_model.state_dict())


def test_classes_of_modules_are_the_users() -> None:
    made_kinds = []

    class Registered(nn.Module):
        def __init_subclass__(cls, **named: Any) -> None:
            made_kinds.append(cls)

    class Own(Registered):
        count = 0

        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.Linear(H, H)

        def forward(self, x: torch.Tensor) -> Any:
            type(self).count += 1
            same = type(self) == Own  # noqa: E721
            return self.cell(x) * type(self).count, same, {Own: 1}[type(self)]

    own = Own()
    elements = [torch.randn(1, H) for _ in range(3)]
    wanted = [own(x) for x in elements]
    fast = eb.autobatch(own, ["cell"])
    for _ in range(2):
        Own.count = 0
        assert_equal(fast(elements), wanted)
        assert Own.count == 3
    assert made_kinds == [Own]


def _class_list(m: Any) -> float:
    m.calls.append(1)
    return float(len(m.calls))


def _class_total(m: Any) -> float:
    type(m).total += 1
    return float(Model.total)


def _attribute(value: Any) -> float:
    value.count += 1
    return float(value.count)


def _item(value: Any) -> float:
    value[0] += 1
    return float(value[0])


NOTED: list[int] = []
TOTAL = 0


def _global_list(m: Any) -> float:
    NOTED.append(1)
    return float(len(NOTED))


def _global(m: Any) -> float:
    global TOTAL
    TOTAL += 1
    return float(TOTAL)


CHANGES: dict[str, Callable[[Any], float]] = {
    "object": lambda m: _attribute(m.state),
    "deep in an object": lambda m: _item(m.state.inner.of),
    "object with slots": lambda m: _attribute(m.slots),
    "array": lambda m: _item(m.array),
    "iterator": lambda m: float(next(m.numbers)),
    "generator of Python": lambda m: m.python.random(),
    "generator of NumPy": lambda m: float(m.numpy.random()),
    "NumPy": lambda m: float(np.random.random()),  # noqa: NPY002
    "list of the class": _class_list,
    "variable of the class": _class_total,
    "global list": _global_list,
    "global variable": _global,
}


@pytest.mark.parametrize("name", CHANGES)
def test_objects_changed_while_elements_wait_are_an_error(made: tuple[Model, eb.AutoBatched], name: str) -> None:
    model, fast = made
    change = CHANGES[name]
    model.use = lambda m, h, x: waits(h, x) * change(m)
    fast.refresh()
    with pytest.raises(RecordingError, match="one after the other"):
        fast([torch.randn(n, H) for n in (3, 1, 2)])
    fast.refresh()


@pytest.mark.parametrize("shared", ["keyword", "element", "in elements"])
def test_arguments_that_elements_share_and_change(made: tuple[Model, eb.AutoBatched], shared: str) -> None:
    class Notes(Model):
        def forward(self, box: Any, log: Any = None) -> Any:
            h = waits(self.cell(box["x"][:1]), box["x"])
            into = log if log is not None else box["log"]
            into.append(1)
            return h * len(into)

    model = Notes().eval()
    fast = eb.autobatch(model, ["cell"])

    def minibatch() -> tuple[list[Any], dict[str, Any]]:
        log: list[int] = []
        boxes: list[Any] = [{"x": torch.randn(n, H), "log": log if shared == "in elements" else []} for n in (1, 3, 1)]
        return boxes + (boxes if shared == "element" else []), {"log": log} if shared == "keyword" else {}

    fast([{"x": torch.randn(1, H), "log": []}])
    elements, named = minibatch()
    with pytest.raises(RecordingError, match="one after the other"):
        fast(elements, **named)


def test_objects_of_one_element_may_change() -> None:
    class Notes(Model):
        def forward(self, box: Any) -> Any:
            h = waits(self.cell(box.x[:1]), box.x)
            box.h = h
            box.log.append(1)
            return h * len(box.log) * self.state.count

    model = Notes().eval()
    fast = eb.autobatch(model, ["cell"])
    for lengths in ((1,), (1, 3, 2, 1)):
        boxes = [SimpleNamespace(x=torch.randn(n, H), log=[]) for n in lengths]
        again = [SimpleNamespace(x=one.x, log=[]) for one in boxes]
        assert_equal(fast(boxes), [model(one) for one in again])
    assert not fast.breaks


SCALE = 1.0


class Config:
    scale = 1.0


def test_cells_follow_globals_classes_and_closures() -> None:
    box = {"scale": 1.0}

    class Reader(Model):
        def scaled(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tanh(x) * box["scale"]

        def step(self, x: torch.Tensor) -> torch.Tensor:
            return self.scaled(x) * SCALE * Config.scale

        def forward(self, x: torch.Tensor) -> Any:
            return self.step(self.cell(x[:1]))

    def change(number: int) -> None:
        global SCALE
        SCALE = 2.0 if number == 1 else 1.0
        Config.scale = 3.0 if number == 2 else 1.0
        box["scale"] = 5.0 if number == 3 else 1.0

    model = Reader().double()
    fast = eb.autobatch(model, ["cell", "step"], target="numpy")
    elements = [torch.randn(n, H, dtype=torch.float64) for n in (1, 3)]
    for number in range(4):
        change(number)
        assert_equal(fast(elements), [model(x) for x in elements])
        assert not fast.breaks
    for number in (0, 1, 2):  # what changes in every call is no constant
        change(number)
        found = fast(elements)
        assert_equal(found, [model(x) for x in elements])
    assert "which changes between calls" in fast.breaks[0].reason
    change(0)

"""What the code of a cell finds besides its arguments: attributes that are not there, functions, hooks, objects."""

from __future__ import annotations

import argparse
import copy
import datetime
import random
import types
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import edbatch_tvm as eb
from edbatch_tvm.errors import BreakWarning, CellError
from edbatch_tvm.recording import compiled_cells

pytestmark = pytest.mark.filterwarnings("ignore::edbatch_tvm.errors.BreakWarning")

ELEMENTS = [torch.linspace(-1, 1, 4 * rows).reshape(rows, 4) for rows in (2, 3, 1)]


class Settings:
    """An object of the user's, with one in it."""

    def __init__(self, scale: float) -> None:
        self.scale = scale
        self.inner = [scale]


class Slots:
    __slots__ = ("scale",)

    def __init__(self, scale: float) -> None:
        self.scale = scale


class Day(datetime.date):
    """An object that has more than its attributes."""


class Scaled(Settings):
    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale


ACTIVATION: Any = torch.tanh
NAMESPACE = types.SimpleNamespace(scale=1.0)
SCALED = Scaled(1.0)
NUMBERS = random.Random(0)


def helper(x: torch.Tensor) -> torch.Tensor:
    return x * 2


class Model(torch.nn.Module):
    scale = 1.0

    def __init__(self, step: Callable[..., Any], run: Callable[..., Any]) -> None:
        super().__init__()
        self.lin = torch.nn.Linear(4, 4)
        self.tanh = torch.nn.Tanh()
        self.activation: Any = torch.tanh
        self.settings, self.scaled, self.arguments = Settings(1.0), Scaled(1.0), argparse.Namespace(scale=1.0)
        self.seen = {1}
        self.namespaces, self.slots = [types.SimpleNamespace(scale=1.0)], Slots(1.0)
        self.day = Day(2026, 12, 1)
        self.numbers = random.Random(0)
        self.of_numpy = np.random.default_rng(0)
        object.__setattr__(self, "code", (step, run))

    def step(self, *given: Any) -> torch.Tensor:
        result: torch.Tensor = self.code[0](self, *given)
        return result

    def forward(self, x: torch.Tensor) -> Any:
        return self.code[1](self, x)

    def double(self, x: Any) -> Any:  # type: ignore[override]
        return x * 2


def compared(model: Model, change: Callable[[Model], Any] = lambda m: None, seed: int = 0) -> list[str]:
    """Check calls before and after a change of the model against the model's own; what breaks."""

    def calls(run: Callable[[], Any]) -> Any:
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        return [run(), run()]

    own = copy.deepcopy(model)
    fast = eb.autobatch(model, cells=["step"], target="numpy")
    breaks: list[str] = []
    for changes in (False, True):
        if changes:
            change(own)
        wanted = calls(lambda: [own(x) for x in ELEMENTS])
        if changes:
            change(model)
        found = calls(lambda: fast(ELEMENTS))
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
        breaks += [one.operation for one in fast.breaks]
    return breaks


# Attributes that are not there ----------------------------------------------------------------------------------------


def _caught(model: Any) -> Any:
    try:
        return model.memory
    except AttributeError:
        return 0


READ = {
    "hasattr": lambda m: m.memory if hasattr(m, "memory") else 0,
    "getattr": lambda m: getattr(m, "memory", 0),
    "an exception": _caught,
    "vars": lambda m: vars(m).get("memory", 0),
    "__dict__": lambda m: m.__dict__.get("memory", 0),
    "of a submodule": lambda m: getattr(m.lin, "memory", 0),
}


def _set_and_deleted(model: Any, x: torch.Tensor) -> Any:
    first = model.step(x[:1])
    model.memory = model.lin.memory = first
    last = model.step(x[-1:])
    del model.memory, model.lin.memory
    return first, last


@pytest.mark.parametrize("read", READ)
def test_attributes_are_there_or_not(read: str) -> None:
    breaks = compared(Model(lambda m, x: m.lin(x) + READ[read](m), _set_and_deleted))
    assert bool(breaks) == (read in ("vars", "__dict__"))


@pytest.mark.parametrize("read", READ)
def test_attributes_come_between_calls(read: str) -> None:
    def put(model: Any) -> None:
        model.memory = model.lin.memory = 3.0

    compared(Model(lambda m, x: m.lin(x) + READ[read](m), lambda m, x: m.step(x[:1])), put)


def test_elements_see_all_attributes_of_those_before() -> None:
    class Reading(Model):
        def forward(self, x: torch.Tensor) -> Any:
            found = self.step(x[:1]) + (vars(self)["memory"] if "memory" in self.__dict__ else 0)
            self.memory = found
            return found

    compared(Reading(lambda m, x: m.lin(x), lambda m, x: x))


# Cells in cells -----------------------------------------------------------------------------------------------------


class Nested(torch.nn.Module):
    """Its methods and its function are cells, also those that are called by others."""

    def __init__(self) -> None:
        super().__init__()
        self.lin, self.key = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
        self.temperature = 1.0
        self.scaled = lambda x: self.lin(x) / self.temperature
        self.use: Callable[..., Any] = lambda m, x: x

    def inner(self, x: Any) -> Any:
        return self.scaled(x) / self.temperature

    def outer(self, x: Any) -> Any:
        return torch.tanh(self.inner(x))

    def reads(self, x: Any) -> Any:
        return self.lin(x) + self.memory

    def around(self, x: Any) -> Any:
        return torch.tanh(self.reads(x))

    def forward(self, x: torch.Tensor) -> Any:
        return self.use(self, x)


def _with_memory(model: Any, x: torch.Tensor) -> Any:
    model.memory = model.key(x[:1])
    return model.around(x[:1]), model.reads(x[:1])


NESTED: dict[str, Callable[..., Any]] = {
    "by the outer one": lambda m, x: m.outer(x),
    "both": lambda m, x: (m.outer(x[:1]), m.inner(x[:1])),
    "a function": lambda m, x: (m.outer(x[:1]), m.scaled(x[:1])),
    "a memory": _with_memory,
}


@pytest.mark.parametrize("cells", [["outer", "around", "inner", "reads", "scaled", "lin"], ["lin", "scaled", "inner"]])
@pytest.mark.parametrize("name", NESTED)
def test_cells_read_what_cells_in_them_read(name: str, cells: list[str]) -> None:
    model = Nested()
    model.use = NESTED[name]
    fast = eb.autobatch(model, cells=cells, target="numpy")
    for temperature in (1.0, 5.0, 2.0):
        model.temperature = temperature
        torch.testing.assert_close(fast(ELEMENTS), [model(x) for x in ELEMENTS], rtol=1e-5, atol=1e-5)
        assert not fast.breaks


# Functions, hooks and objects that change -----------------------------------------------------------------------------


def _set(place: Any, name: str, value: Any) -> None:
    setattr(place, name, value)


BETWEEN: dict[str, tuple[Callable[..., Any], Callable[[Any], Any]]] = {
    "a function": (lambda m, x: m.activation(m.lin(x)), lambda m: _set(m, "activation", torch.relu)),
    "a partial function": (
        lambda m, x: m.activation(m.lin(x)),
        lambda m: _set(m, "activation", partial(F.leaky_relu, negative_slope=0.5)),
    ),
    "a method": (lambda m, x: m.double(m.lin(x)), lambda m: _set(m, "double", lambda x: x * 5)),
    "the cell": (lambda m, x: m.lin(x), lambda m: _set(m, "step", lambda x: m.lin(x) * 5)),
    "forward of a part": (lambda m, x: m.tanh(m.lin(x)), lambda m: _set(m.tanh, "forward", lambda x: x * 5)),
    "a hook": (lambda m, x: m.lin(x), lambda m: m.lin.register_forward_hook(lambda one, given, found: found * 3)),
    "a hook before": (
        lambda m, x: m.lin(x),
        lambda m: m.lin.register_forward_pre_hook(lambda one, given: given[0] * 3),
    ),
    "an object": (lambda m, x: m.lin(x) * m.settings.scale, lambda m: _set(m.settings, "scale", 5.0)),
    "a list in an object": (
        lambda m, x: m.lin(x) * m.settings.inner[0],
        lambda m: m.settings.inner.__setitem__(0, 5.0),
    ),
    "a namespace": (lambda m, x: m.lin(x) * m.arguments.scale, lambda m: _set(m.arguments, "scale", 5.0)),
    "an object that is called": (lambda m, x: m.scaled(m.lin(x)), lambda m: _set(m.scaled, "scale", 5.0)),
    "a namespace in a list": (
        lambda m, x: m.lin(x) * m.namespaces[0].scale,
        lambda m: _set(m.namespaces[0], "scale", 5.0),
    ),
    "slots": (lambda m, x: m.lin(x) * m.slots.scale, lambda m: _set(m.slots, "scale", 5.0)),
    "a set": (lambda m, x: m.lin(x) * len(m.seen), lambda m: m.seen.add(2)),
}


@pytest.mark.parametrize("name", BETWEEN)
def test_what_cells_find_may_change_between_calls(name: str) -> None:
    step, change = BETWEEN[name]
    assert not compared(Model(step, lambda m, x: m.step(x[:1]) + m.step(x[-1:])), change)


@pytest.mark.parametrize("name", ["method", "static", "property", "by type", "by its name"])
def test_classes_may_change_between_calls(name: str) -> None:
    class Own(Model):
        factor = 1.0

        def double(self, x: Any) -> Any:  # type: ignore[override]
            return x * 2

        @staticmethod
        def twice(x: Any) -> Any:
            return x * 2

        @property
        def two(self) -> float:
            return 2.0

    changes: dict[str, tuple[Callable[..., Any], str, Any]] = {
        "method": (lambda m, x: m.double(m.lin(x)), "double", lambda m, x: x * 5),
        "static": (lambda m, x: m.twice(m.lin(x)), "twice", staticmethod(lambda x: x * 5)),
        "property": (lambda m, x: m.lin(x) * m.two, "two", property(lambda m: 5.0)),
        "by type": (lambda m, x: m.lin(x) * type(m).factor, "factor", 5.0),
        "by its name": (lambda m, x: m.lin(x) * Own.factor, "factor", 5.0),
    }
    step, attribute, value = changes[name]
    Own.step = step  # type: ignore[method-assign]
    model = Own(lambda m, x: x, lambda m, x: m.step(x[:1]))
    fast = eb.autobatch(model, cells=["step"], target="numpy")
    for _ in range(2):
        torch.testing.assert_close(fast(ELEMENTS), [model(x) for x in ELEMENTS], rtol=1e-5, atol=1e-5)
        setattr(Own, attribute, value)


def test_variables_that_are_functions_or_namespaces_may_change(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(Model):
        def step(self, x: Any) -> Any:  # type: ignore[override]
            return helper(ACTIVATION(SCALED(self.lin(x)))) * NAMESPACE.scale

    model = Own(lambda m, x: x, lambda m, x: m.step(x[:1]))
    fast = eb.autobatch(model, cells=["step"], target="numpy")
    changes: list[tuple[Any, str, Any]] = [
        (None, "", None),
        (NAMESPACE, "scale", 3.0),
        (SCALED, "scale", 3.0),
        (None, "ACTIVATION", torch.relu),
        (None, "helper", lambda x: x * 7),
    ]
    for place, name, value in changes:
        if place is not None:
            monkeypatch.setattr(place, name, value)
        elif name:
            monkeypatch.setitem(globals(), name, value)
        torch.testing.assert_close(fast(ELEMENTS), [model(x) for x in ELEMENTS], rtol=1e-5, atol=1e-5)


def _sets(name: str, value: Callable[[int], Any]) -> Callable[..., Any]:
    def run(model: Any, x: torch.Tensor) -> Any:
        _set(model, name, value(len(x)))
        return model.step(x[:1])

    return run


def _changes_settings(model: Any, x: torch.Tensor) -> Any:
    model.settings.scale = float(len(x))
    return model.step(x[:1]) + model.step(x[-1:])


WITHIN: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "a function": (
        lambda m, x: m.activation(m.lin(x)),
        _sets("activation", lambda rows: (torch.tanh, torch.relu)[rows % 2]),
    ),
    "a function made anew": (lambda m, x: m.activation(m.lin(x)), _sets("activation", lambda rows: lambda x: x * rows)),
    "a method": (lambda m, x: m.use(m.lin(x)), lambda m, x: (_set(m, "use", m.double), m.step(x[:1]))[1]),
    "an object": (lambda m, x: m.lin(x) * m.settings.scale, _changes_settings),
    "a new object": (lambda m, x: m.lin(x) * m.settings.scale, _sets("settings", lambda rows: Settings(float(rows)))),
    "an argument": (
        lambda m, x, settings: m.lin(x) * settings.scale,
        lambda m, x: m.step(x[:1], Settings(float(len(x)))),
    ),
}


@pytest.mark.parametrize("name", WITHIN)
def test_elements_may_change_what_cells_find(name: str) -> None:
    compared(Model(*WITHIN[name]))


def test_objects_that_have_more_than_attributes_are_left_to_pytorch() -> None:
    model = Model(lambda m, x: m.lin(x) * m.day.day, lambda m, x: m.step(x[:1]))
    assert compared(model, lambda m: _set(m, "day", Day(2026, 12, 2)))


def _counts(model: Any, x: torch.Tensor) -> torch.Tensor:
    model.settings.scale += 1
    result: torch.Tensor = model.lin(x) * model.settings.scale
    return result


class Dropping(torch.nn.Module):
    """A cell that drops elements."""

    def __init__(self) -> None:
        super().__init__()
        self.lin, self.drop = torch.nn.Linear(4, 4), torch.nn.Dropout(0.5)
        self.temperature, self.sets = 1.0, False
        self.register_buffer("bias", torch.ones(4))

    def step(self, x: Any) -> Any:
        return self.drop(self.lin(x)) / self.temperature + self.bias

    def forward(self, x: torch.Tensor) -> Any:
        if self.sets:
            self.temperature = float(len(x))
            self.drop.p = 1 / (1 + len(x))
            self.bias = self.bias * 2
        return self.step(x[:1])


def test_cells_with_dropout_see_changes_too() -> None:
    model, own = Dropping(), Dropping()
    own.load_state_dict(model.state_dict())
    fast = eb.autobatch(model, cells=["step"], target="numpy")
    changes: list[Callable[[Any], Any]] = [
        lambda m: None,
        lambda m: _set(m, "temperature", 5.0),
        lambda m: _set(m.drop, "p", 0.9),
        lambda m: m.lin.register_forward_hook(lambda one, given, found: found * 3),
        lambda m: _set(m, "sets", True),
        lambda m: None,
    ]
    for change in changes:
        for each in (model, own):
            change(each)
        torch.manual_seed(1)
        wanted = [own(x) for x in ELEMENTS]
        torch.manual_seed(1)
        torch.testing.assert_close(fast(ELEMENTS), wanted, rtol=1e-5, atol=1e-5)


def test_cells_that_change_an_object_are_left_to_pytorch() -> None:
    assert compared(Model(_counts, lambda m, x: m.step(x[:1])))


DRAWING: dict[str, Callable[..., Any]] = {
    "Python's": lambda m, x: m.lin(x) * random.random(),
    "NumPy's": lambda m, x: m.lin(x) * float(np.random.rand()),  # noqa: NPY002
    "a generator of the model's": lambda m, x: m.lin(x) * m.numbers.random(),
    "NumPy's generator": lambda m, x: m.lin(x) * float(m.of_numpy.random()),
    "a branch": lambda m, x: m.lin(x) if random.random() < 0.5 else x,
}


@pytest.mark.parametrize("name", DRAWING)
def test_cells_draw_the_numbers_of_python_and_numpy(name: str) -> None:
    assert compared(Model(DRAWING[name], lambda m, x: m.step(x[:1]) + m.step(x[-1:])))


def test_cells_draw_from_generators_outside_of_the_model() -> None:
    class Own(Model):
        def step(self, x: Any) -> Any:  # type: ignore[override]
            return self.lin(x) * NUMBERS.random()

    model = Own(lambda m, x: x, lambda m, x: m.step(x[:1]))
    NUMBERS.seed(0)
    wanted = [model(x) for x in ELEMENTS]
    NUMBERS.seed(0)
    with pytest.warns(BreakWarning, match="NUMBERS"):
        found = eb.autobatch(model, cells=["step"], target="numpy")(ELEMENTS)
    torch.testing.assert_close(found, wanted)


# Records ----------------------------------------------------------------------------------------------------------


RECORDED: dict[str, Callable[[Any, type], Any]] = {
    "nothing": lambda m, kind: None,
    "an object that is called": lambda m, kind: _set(m.scaled, "scale", 5.0),
    "a method": lambda m, kind: setattr(kind, "double", lambda m, x: x * 5),
    "forward": lambda m, kind: setattr(kind, "forward", lambda m, x: m.step(x[-1:]) * 2),
    "a function": lambda m, kind: _set(m, "activation", torch.relu),
}


@pytest.mark.parametrize("name", RECORDED)
def test_records_see_functions_and_objects_that_change(name: str) -> None:
    class Own(Model):
        def step(self, x: Any) -> Any:  # type: ignore[override]
            return self.lin(x)

        def forward(self, x: torch.Tensor) -> Any:
            return self.activation(self.double(self.scaled(self.step(x[:1]))))

    model = Own(lambda m, x: x, lambda m, x: x)
    fast = eb.autobatch(model, cells=["step"], target="numpy")
    records = [fast.record(x) for x in ELEMENTS]
    for change in (RECORDED["nothing"], RECORDED[name]):
        change(model, Own)
        torch.testing.assert_close(fast(records), [model(x) for x in ELEMENTS], rtol=1e-5, atol=1e-5)


# Cells that cannot be compiled ----------------------------------------------------------------------------------------


def test_models_none_of_whose_cells_can_be_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_given: Any) -> None:
        raise CellError("a cell that cannot be compiled")

    model = Model(lambda m, x: m.lin(x), lambda m, x: m.step(x[:1]))
    fast = eb.autobatch(model, cells=["step"], target="numpy")
    wanted = [model(x) for x in ELEMENTS]
    with monkeypatch.context() as patched:
        patched.setattr(compiled_cells, "check_compiled", fails)
        torch.testing.assert_close(fast(ELEMENTS), wanted)
    for _ in range(2):
        torch.testing.assert_close(fast(ELEMENTS), wanted)
        torch.testing.assert_close(fast([fast.record(x) for x in ELEMENTS]), wanted)


RETURNED: dict[str, Callable[..., Any]] = {
    "indices": lambda m, x: m.lin(x).argmax(),
    "nothing": lambda m, x: None,
    "a number": lambda m, x: len(x),
}


@pytest.mark.parametrize("name", RETURNED)
def test_records_of_models_that_record_nothing(name: str) -> None:
    model = Model(RETURNED[name], lambda m, x: m.step(x))
    fast = eb.autobatch(model, cells=["step"], target="numpy")
    records = [fast.record(x) for x in ELEMENTS]
    for _ in range(2):
        assert fast([*records, *ELEMENTS]) == [model(x) for x in ELEMENTS] * 2


class Rest(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        rows = torch.stack([self.cell(row) for row in x])
        return rows[1:], rows[0], rows


@pytest.mark.parametrize("target", ["numpy", "llvm"])
def test_results_without_rows_and_their_records(target: str) -> None:
    model = Rest()
    fast = eb.autobatch(model, cells=["cell"], target=target)
    wanted = [model(x) for x in ELEMENTS]
    torch.testing.assert_close(fast(ELEMENTS), wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(fast([fast.record(x) for x in ELEMENTS]), wanted, rtol=1e-5, atol=1e-5)

"""What autobatch says when a model cannot be recorded."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import edbatch_tvm as eb
from edbatch_tvm.errors import BreakWarning, CellWarning, RecordingError
from tests.recording.checks import assert_equal
from tests.recording.test_cells import Shapes


class Model(nn.Module):
    """Calls one cell, then does what the element says."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.Linear(4, 4)

    def integers(self, x: torch.Tensor) -> torch.Tensor:
        return x.argmax()

    def branch(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x

    def constant(self, x: torch.Tensor, option: object) -> torch.Tensor:
        return x

    def forward(self, what: str) -> Any:
        x = torch.ones(4)
        h = self.cell(x)
        if what == "unsupported":
            return torch.fft.fft(h)
        if what == "changed":
            y = torch.ones(4)
            h = self.cell(y)
            y.zero_()
            return h
        if what == "double":
            return self.cell(torch.ones(4, dtype=torch.float64))
        if what == "option":
            return self.constant(h, bytearray())
        if what == "fails":
            raise KeyError("missing word")
        return getattr(self, what)(h) if what != "fine" else h


CELLS = ["cell", "integers", "branch", "constant"]


@pytest.mark.parametrize(
    ("what", "error", "message"),
    [
        ("double", RuntimeError, "must have the same dtype"),  # as PyTorch says it
        ("fails", KeyError, "missing word"),
    ],
)
@pytest.mark.filterwarnings("ignore::edbatch_tvm.errors.BreakWarning")
def test_what_a_model_does_wrong(what: str, error: type[Exception], message: str) -> None:
    model = Model()
    fast = eb.autobatch(model, cells=CELLS)
    with pytest.raises(error, match=message) as caught:
        fast(["fine", "fine", what, "fine"])
    notes = getattr(caught.value, "__notes__", None)
    assert notes is None or notes[-1].startswith("in element ")
    # The others are ended, and the next call is as if nothing had happened.
    assert_equal(fast(["fine"])[0], model("fine"))


@pytest.mark.parametrize(
    ("what", "warning"),
    [
        ("unsupported", r"_fft_r2c\(\) is not batched: what it needs is computed, and PyTorch runs it"),
        ("changed", None),
        ("option", r"cell 'constant' is not batched: .*an argument of a cell is a bytearray"),
        ("integers", r"cell 'integers' is not batched: .*returns a tensor of torch.int64"),
        ("branch", r"cell 'branch' is not batched: .*cannot be exported"),
    ],
)
def test_what_cannot_be_recorded_runs(what: str, warning: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    model = Model()
    fast = eb.autobatch(model, cells=CELLS)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            assert_equal(fast(["fine", what, what]), [model(one) for one in ("fine", what, what)])
    told = [one for one in caught if one.category is BreakWarning]
    assert len(told) == (warning is not None)
    if warning is not None:
        assert re.match(warning, str(told[0].message))
        assert {one.place for one in fast.breaks} == {f"{told[0].filename}:{told[0].lineno}"}
        assert fast.breaks[0].place.startswith(__file__)
    assert not capsys.readouterr().err


def test_what_is_asked_for() -> None:
    model = Model()
    with pytest.raises(RecordingError, match=r"Model has no submodule or method 'cel'; .*hint: did you mean 'cell'\?"):
        eb.autobatch(model, cells=["cel"])
    with pytest.raises(RecordingError, match="cells='cell'; expected a list of submodules"):
        eb.autobatch(model, cells="cell")
    with pytest.raises(RecordingError, match="a model that is a type"):
        eb.autobatch(Model, cells=["cell"])  # type: ignore[arg-type]
    with pytest.raises(RecordingError, match="the model's own forward as a cell"):
        eb.autobatch(model, cells=["forward"])


def test_too_many_kinds_of_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edbatch_tvm.recording.library.MOST_CELLS", 2)
    model = Shapes()
    fast = eb.autobatch(model, cells=["cell"])
    elements = [torch.ones(n) for n in (1, 2, 3)]
    with pytest.warns(BreakWarning, match=r"'cell' has been called with more than 2 kinds of arguments; expected few"):
        assert_equal(fast(elements), [model(x) for x in elements])


def test_a_missing_greenlet_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "greenlet", None)
    with pytest.raises(eb.EdbatchError, match=r"greenlet is not installed; .*pip install 'edbatch-tvm\[torch\]'"):
        eb.autobatch(Model(), cells=["cell"])


class Faults(nn.Module):
    """Does what its element says; every line has one fault."""

    def __init__(self) -> None:
        super().__init__()
        self.word, self.cell = nn.Embedding(10, 4), nn.Linear(4, 4)
        self.shared: list[int] = []

    def only(self, x: torch.Tensor, *, scale: float) -> torch.Tensor:
        return x * scale

    def solve(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.inv(torch.outer(x, x) + torch.eye(4))

    def forward(self, what: str) -> Any:
        h = self.cell(self.word(torch.tensor(1)))
        if what == "index":
            return self.word(torch.tensor(11))  # index
        if what == "late":
            float(h.sum())
            self.made = h  # late
        calls: dict[str, Any] = {
            "memory": lambda: h.data_ptr(),  # memory
            "gradient": lambda: h * torch.ones(4, requires_grad=True),  # gradient
            "shape": lambda: h + torch.ones(3),
            "name": lambda: h.nothing,
            "only": lambda: self.only(h, scale=2.0),
            "solve": lambda: self.solve(h),
        }
        return calls[what]() if what in calls else h


@pytest.fixture(scope="module")
def faults() -> Any:
    fast = eb.autobatch(Faults().eval().requires_grad_(False), cells=["word", "cell", "only", "solve"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CellWarning)
        fast(["fine", "fine"])
    return fast


_INTERNALS = re.compile(r"TVM|relax|TIR|aten|\bnode\b|arena|graph|LazyTensor|importer", re.IGNORECASE)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("index", r"'word' is called with index 11; expected 0 to 9: its table has 10 rows \(hint: check the ids"),
        ("memory", r"the memory of a tensor of shape \[4\] that is recorded; .*hint: use tensor.clone\(\).numpy\(\)"),
        ("gradient", r"a tensor of shape \[4\] requires a gradient, .*hint: with torch.no_grad\(\)"),
        ("late", r"forward sets Faults.made for the first time while other elements run; .*hint: call again"),
    ],
)
def test_errors_name_the_line_the_element_and_what_to_do(what: str, message: str, faults: Any) -> None:
    with torch.set_grad_enabled(what == "gradient"), pytest.raises(RecordingError, match=message) as caught:
        faults(["fine", what, what])
    text = str(caught.value)
    assert not _INTERNALS.search(text.rpartition(".py:")[2])
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    line = next(number for number, one in enumerate(lines, 1) if one.endswith(f"  # {what}"))
    assert text.startswith(f"{__file__}:{line}, in element 1 of the minibatch: ")
    assert_equal(faults(["fine"]), [faults.model("fine")])


def test_the_first_call_says_the_same_of_a_bad_index() -> None:
    fast = eb.autobatch(Faults().eval(), cells=["word", "cell"])
    with pytest.raises(RecordingError, match=r"test_errors.py:\d+, in element 1 .*: 'word' is called with index 11; "):
        fast(["fine", "index"])


@pytest.mark.parametrize(("what", "error"), [("shape", RuntimeError), ("name", AttributeError)])
def test_errors_of_pytorch_keep_their_class(what: str, error: type[Exception], faults: Any) -> None:
    with pytest.raises(error) as caught:
        faults(["fine", "fine", what])
    assert getattr(caught.value, "__notes__", ["in element 2 of the minibatch"]) == ["in element 2 of the minibatch"]


@pytest.mark.parametrize("what", ["only", "solve"])
@pytest.mark.filterwarnings("ignore::edbatch_tvm.errors.BreakWarning")
def test_reasons_of_breaks_speak_of_the_model(what: str, faults: Any) -> None:
    held = faults.model.shared
    assert_equal(faults(["fine", what]), [faults.model("fine"), faults.model(what)])
    assert faults.breaks
    assert all(one.place.startswith(__file__) and not _INTERNALS.search(one.reason) for one in faults.breaks)
    assert faults.model.shared is held  # torch.export leaves it alone


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"dtype": "float64"},
            r"option 'dtype' of autobatch; .*hint: it computes in the dtype of the model's parameters",
        ),
        ({"granularity": "op"}, r"option 'granularity' of autobatch; .*hint: calls of cells are what it records"),
        ({"training": True}, r"option 'training' of autobatch; .*hint: it trains where gradients are recorded"),
        ({"polcy": "fsm"}, r"unknown option 'polcy' of autobatch; .*did you mean 'policy'\?"),
        ({"policy": "nonsense"}, "unknown policy 'nonsense'"),
        ({"plan": "dense"}, "unknown plan 'dense'"),
        ({"target": "abacus"}, "unknown target 'abacus'"),
    ],
)
def test_options_are_checked_at_once(options: dict[str, str], message: str) -> None:
    with pytest.raises(eb.EdbatchError, match=message):
        eb.autobatch(Faults(), cells=["cell"], **options)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is")
def test_a_scripted_model_is_an_error() -> None:
    with pytest.raises(RecordingError, match="a scripted model; expected the module that it was made of"):
        eb.autobatch(torch.jit.script(nn.Linear(2, 2)), cells=["weight"])


def test_cells_that_break_have_been_called() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)).half()
    fast = eb.autobatch(model, cells=["0", "1"])
    with pytest.warns() as caught:
        fast([torch.ones(1, 3).half()])
    kinds = [one.category for one in caught]
    assert kinds.count(BreakWarning) == 2
    (told,) = (str(one.message) for one in caught if one.category is CellWarning)
    assert "nothing of Sequential was recorded" in told
    assert "PyTorch runs its cells" in told

"""Functions of ``torch`` that are replaced while elements run: what they do then, and that they are put back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

import edbatch_tvm as eb
from edbatch_tvm.recording import torch_functions
from edbatch_tvm.recording.lazy import is_lazy
from tests.recording.checks import assert_equal

H = 3
ORIGINALS = [(owner, name, vars(owner).get(name)) for owner, name, _, _ in torch_functions._REPLACEMENTS]


class Between(nn.Module):
    """A cell, and whatever `between` does with two of its values."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.Linear(H, H)
        self.weight = nn.Parameter(torch.zeros(2, H))
        self.between: Callable[[Any, Any], Any] = lambda a, b: [a, b]

    def forward(self, x: torch.Tensor) -> Any:
        return self.between(self.cell(x), self.cell(x + 1))


@pytest.fixture(scope="module")
def fast() -> eb.AutoBatched:
    """A model compiled for the cell alone; most of what the tests do between calls of it is no new cell."""
    torch.manual_seed(0)
    model = eb.autobatch(Between(), cells=["cell"])
    with torch.no_grad():
        model([torch.randn(H) for _ in range(3)])
    return model


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    yield
    assert all(vars(owner).get(name) is original for owner, name, original in ORIGINALS)


def run(fast: eb.AutoBatched, between: Callable[[Any, Any], Any]) -> list[Any]:
    """`between` for three elements, batched, after a comparison with PyTorch."""
    fast.model.between = between
    elements = [torch.randn(H) for _ in range(3)]
    found = fast(elements)
    assert_equal(found, [fast.model(x) for x in elements])
    return found


def replaced() -> bool:
    return torch.cat is not ORIGINALS[0][2]


def test_joining(fast: eb.AutoBatched) -> None:
    def between(a: Any, b: Any) -> Any:
        rows = [torch.stack([a, b]), torch.stack((a, b), 0), torch.stack(tensors=[a, b], dim=0)]
        first, second = a[None], b[None]
        for cat in (torch.cat, torch.concat, torch.concatenate):
            rows += [cat([first, second]), cat(tensors=(first, second), dim=0), cat([first, second], axis=0)]
            rows += [cat([torch.ones(1, H), first]), cat([first, torch.ones(1, H)]), cat([rows[0], first])]
        return rows

    known = fast.compiled.signature.names
    run(fast, between)
    assert fast.compiled.signature.names == known  # all of them are rows


def test_joining_along_other_dimensions() -> None:
    def between(a: Any, b: Any) -> Any:
        return [torch.cat([a, b], dim=-1), torch.concatenate((a, b)), torch.stack([a, b], -1)]

    fast = eb.autobatch(Between(), cells=["cell"])
    run(fast, between)
    run(fast, between)


def test_joining_tensors_is_as_ever(fast: eb.AutoBatched) -> None:
    given = torch.ones(1, H)

    def between(a: Any, _b: Any) -> Any:
        out = torch.empty(2, H)
        assert torch.cat([given, given], out=out) is out
        assert torch.cat(tensors=(given, given), dim=-1).shape == (1, 2 * H)
        with pytest.raises(ValueError, match="non-empty"):
            torch.cat([])
        with pytest.raises(TypeError, match="tensors"):
            torch.stack(dim=0)
        return [a, out, torch.stack([given])]

    run(fast, between)
    run(fast, lambda a, b: torch.cat([a, b], out=torch.empty(2 * H)))


def test_values_are_read(fast: eb.AutoBatched) -> None:
    def between(a: Any, b: Any) -> Any:
        number = a.tolist()[0]
        made = [torch.tensor([1, 2]), torch.tensor(1.5), torch.tensor([[number], [2.0]]), torch.full((2,), 0.5)]
        made += [torch.as_tensor(a), torch.asarray(b), torch.as_tensor(data=a), torch.full((2,), b[0])]
        made += [torch.tensor([a[0], 1.0, b[2]]), torch.tensor([[b[1], 0], (1, a[2])], dtype=torch.float64)]
        return [*made, torch.as_tensor([number, *a]), torch.scalar_tensor(a[0])]

    found = run(fast, between)
    kept = [[tensor.clone() for tensor in made] for made in found]
    run(fast, between)
    assert_equal(found, kept)  # they share no memory with the arenas


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is")
def test_scripted_functions_get_values(fast: eb.AutoBatched) -> None:
    scripted = torch.jit.script(_scripted)
    run(fast, lambda a, b: [scripted(a, [b, a]), scripted(a, rest=[b])])


def _scripted(x: torch.Tensor, rest: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([x, rest[0]]) + len(rest)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is")
def test_scripting_meanwhile(fast: eb.AutoBatched) -> None:
    def between(a: Any, b: Any) -> Any:
        return [a, torch.jit.script(_scripted)(b, [a])]

    run(fast, between)


def test_what_is_set_on_parameters_is_computed() -> None:
    class Setting(Between):
        def forward(self, x: torch.Tensor) -> Any:
            a = self.cell(x)
            self.weight.data = torch.stack([a, a])
            return self.weight[0] + 1

    plain = Setting()
    model = eb.autobatch(plain, cells=["cell"])
    x = torch.randn(H)
    assert_equal(model([x]), [plain(x)])
    assert not is_lazy(plain.weight.data)


def test_an_exception_puts_them_back(fast: eb.AutoBatched) -> None:
    def between(_a: Any, _b: Any) -> Any:
        assert replaced()
        raise KeyError("no")

    fast.model.between = between
    with pytest.raises(KeyError):
        fast([torch.randn(H)])


def test_nested_use(fast: eb.AutoBatched) -> None:
    inner = eb.autobatch(Between(), cells=["cell"])

    def between(a: Any, b: Any) -> Any:
        inside = inner([torch.ones(H), torch.zeros(H)])  # compiles the first time
        assert replaced() or not is_lazy(a)
        return [a, *inside[0], torch.stack([a, b])]

    run(fast, between)


def test_originals_prevail() -> None:
    with torch_functions.replaced_functions():
        assert replaced()
        with torch_functions.original_functions():
            assert not replaced()
            with torch_functions.replaced_functions():
                assert not replaced()
        assert replaced()


def test_what_others_put_there_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def own(*arguments: Any) -> Any:
        return arguments

    with monkeypatch.context() as patch:
        patch.setattr(torch, "cat", own)
        with torch_functions.replaced_functions():
            assert torch.cat is own
        assert torch.cat is own


def test_another_thread_meanwhile(fast: eb.AutoBatched) -> None:
    started, joined = threading.Event(), threading.Event()
    found: list[Any] = []

    def other() -> None:
        started.wait(10)
        found.append((replaced(), torch.cat([torch.ones(1), torch.zeros(1)], dim=-1), torch.tensor([[1, 2]])))
        joined.set()

    def between(a: Any, b: Any) -> Any:
        started.set()
        assert joined.wait(10)
        return torch.stack([a, b])

    thread = threading.Thread(target=other)
    thread.start()
    run(fast, between)
    thread.join()
    assert found[0][0]
    assert_equal(list(found[0][1:]), [torch.tensor([1.0, 0.0]), torch.tensor([[1, 2]])])


def test_threads_that_come_and_go() -> None:
    def use() -> None:
        for _ in range(200):
            with torch_functions.replaced_functions():
                assert replaced()
                assert torch.stack([torch.ones(1)]).shape == (1, 1)

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

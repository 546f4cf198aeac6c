"""Which tensors require a gradient, while they are recorded and in results: the same as in PyTorch."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

import edbatch_tvm as eb
from edbatch_tvm.recording import api
from tests.recording.checks import assert_equal

H = 4
pytestmark = pytest.mark.filterwarnings("ignore::edbatch_tvm.errors.BreakWarning")


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.frozen = nn.Linear(H, H), nn.Linear(H, H)
        self.frozen.requires_grad_(False)
        self.use: Callable[[Any, Any], Any] = lambda model, x: model.frozen(model.cell(x))

    def pair(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.tanh(self.cell(x)), y * 2

    def forward(self, x: torch.Tensor) -> Any:
        made = self.use(self, x)
        return made, [_asked(one) for one in made]


def _asked(tensor: torch.Tensor) -> tuple[bool, bool, bool]:
    return tensor.requires_grad, tensor.is_leaf, tensor.grad_fn is None


def _of_detached(m: Any, x: Any) -> Any:
    h = m.cell(x)
    d = h.detach()
    return h, d, d * 2, m.frozen(d), m.frozen(h), d * 2 + h, d + d.sum(), m.cell(d)


def _without_gradients(m: Any, x: Any) -> Any:
    with torch.no_grad():
        h = m.cell(x)
        n = h * 3
    return h, n, n * 2, m.frozen(n), m.cell(n)


def _one_output_of_two(m: Any, x: Any) -> Any:
    p, q = m.pair(x, x * 2)
    return p, q, q * 3, p * q


def _after_a_read(m: Any, x: Any) -> Any:
    h = m.cell(x)
    d = h.detach() * 2
    if d.sum() > 0:
        d = d + 1
    return h, d, d * 3, d * 3 + h


def _stacked(m: Any, x: Any) -> Any:
    h = m.cell(x)
    d = h.detach()
    both, neither = torch.stack([d, h]), torch.stack([d, d * 2])
    return both, neither, both[0], both[1], neither[0], torch.cat([d, h]), torch.cat([d, d]), both.sum(0)


def _written(m: Any, x: Any) -> Any:
    h = m.cell(x)
    first, second = torch.zeros(2, H, dtype=x.dtype), torch.zeros(2, H, dtype=x.dtype)
    first[0], second[0] = h.detach(), h.detach()
    second[1] = h
    own = (h * 2).detach().clone()
    own[0] = h[1]
    return first, first * 2, second, second * 2, own, own * 2


def _without_a_derivative(m: Any, x: Any) -> Any:
    h = m.cell(x)
    mask = (h > 0).to(h.dtype)
    return mask, torch.zeros_like(h), h.sign(), h.round(), mask * 2, mask * h


def _kept_by_hooks(m: Any, x: Any) -> Any:
    def kept(one: Any) -> Any:
        with torch.no_grad():  # PyTorch, which calls this, has switched gradients off by itself
            return one * 1

    with torch.autograd.graph.saved_tensors_hooks(kept, lambda one: one):
        own = (m.cell.bias * m.cell.bias).sum()
        h = m.cell(x)
    return h, h * own, m.frozen(h), m.frozen(x)


def _calls_of_no_rows(m: Any, x: Any) -> Any:
    none = torch.zeros(0, H, dtype=x.dtype)
    p, q = m.pair(none, none)
    cells = m.cell(none), m.frozen(none), m.cell(none) * 2, p, q, m.cell(torch.zeros(3, 0, H, dtype=x.dtype))
    return *cells, m.cell(none).sum(), m.frozen(none).sum(), torch.cat([m.cell(none), m.cell(none)])


def _no_elements_of_values(m: Any, x: Any) -> Any:
    h, f = m.cell(x), m.frozen(x)
    parts = h[:0], h.narrow(0, 1, 0), h.split([0, H])[0], h[:0].reshape(0, 3), h.detach()[:0], f[:0], h[:0].detach()
    return *parts, *(one * 2 for one in parts), *(one.sum() for one in parts), h[:0].clone(), h[torch.tensor([]).long()]


def _no_rows_of_lists(m: Any, x: Any) -> Any:
    for h in (m.cell(torch.stack([x, x * 2])), m.frozen(torch.stack([x, x * 2]))):
        none = h[:0]
        made = none, none.tanh(), none.sum(0), none.mean(0), none @ m.cell.weight, none + m.cell.bias, none + h[0]
        chosen = h[h[:, 0] > 1e9], h[torch.tensor([]).long()], torch.stack([none, none]), torch.cat([none, none])
        yield from (*made, *chosen, torch.cat([none, h]), h.detach()[:0] * 2, m.frozen(none), m.cell(none).sum(0) * 3)


def _no_rows_without_gradients(m: Any, x: Any) -> Any:
    h = m.cell(torch.stack([x, x]))
    with torch.no_grad():
        made = h[:0] * 2, m.cell(h[:0]), h[:0].sum(), h[:0].clone(), torch.cat([h[:0], h[:0]])
    return *made, *(one * 2 for one in made)


def _no_rows_after_a_read(m: Any, x: Any) -> Any:
    h = m.cell(torch.stack([x, x]))[:0]
    total = h.sum() if m.cell(x).sum() < 1e9 else None
    return h, total, h * 2, m.frozen(h).sum()


USES: dict[str, Callable[[Any, Any], Any]] = {
    "of a detached tensor": _of_detached,
    "under no_grad": _without_gradients,
    "one output of two": _one_output_of_two,
    "after a value is read": _after_a_read,
    "rows of what is stacked": _stacked,
    "written into": _written,
    "masks and steps": _without_a_derivative,
    "frozen weights": lambda m, x: (m.frozen(x), m.frozen(x) * 2, m.cell(m.frozen(x) * 2)),
    "hooks of saved tensors": _kept_by_hooks,
    "calls of no rows": _calls_of_no_rows,
    "no elements of values": _no_elements_of_values,
    "no rows of lists": lambda m, x: list(_no_rows_of_lists(m, x)),
    "no rows without gradients": _no_rows_without_gradients,
    "no rows after a read": _no_rows_after_a_read,
    "a chain of operations": lambda m, x: [m.frozen(x), *_chain(m.frozen(x)), *_chain(m.cell(x))],
}


def _chain(h: Any) -> Any:
    for _ in range(50):
        h = h * 1.01
    return [h]


@pytest.fixture(autouse=True)
def _gradients(_inference: None) -> Iterator[None]:
    with torch.enable_grad():
        yield


@pytest.fixture(scope="module")
def made() -> tuple[Any, Model]:
    torch.manual_seed(0)
    model = Model().double()
    return eb.autobatch(model, cells=["cell", "frozen", "pair"]), copy.deepcopy(model)


@pytest.mark.parametrize("name", USES)
def test_tensors_require_a_gradient_as_in_pytorch(made: tuple[Any, Model], name: str) -> None:
    fast, eager = made
    fast.use = eager.use = USES[name]
    xs = [torch.randn(H, dtype=torch.float64) for _ in range(3)]
    found, wanted = fast(xs), [eager(x) for x in xs]
    assert_equal(found, wanted)
    given, expected = ([one for tensors, _ in results for one in tensors] for results in (found, wanted))
    assert list(map(_asked, given)) == list(map(_asked, expected))
    for model, tensors in ((fast, given), (eager, expected)):
        model.zero_grad()
        used = [one.square().sum() for one in tensors if one.requires_grad]
        if used:
            torch.stack(used).sum().backward()
    for one, other in zip(fast.parameters(), eager.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None)
        assert one.grad is None or torch.allclose(one.grad, other.grad)


@pytest.mark.parametrize("name", ["one output of two", "rows of what is stacked", "frozen weights"])
def test_results_of_records_require_a_gradient_as_in_pytorch(made: tuple[Any, Model], name: str) -> None:
    fast, eager = made
    fast.use = eager.use = USES[name]
    x, other = torch.randn(2, H, dtype=torch.float64)
    found, wanted = fast([fast.record(x), other, fast.record(other)]), [eager(one) for one in (x, other, other)]
    for (tensors, _), (expected, _) in zip(found, wanted, strict=True):
        assert list(map(_asked, tensors)) == list(map(_asked, expected))


def test_a_parameter_that_is_frozen_later(made: tuple[Any, Model]) -> None:
    fast, eager = made
    fast.use = eager.use = lambda m, x: (m.cell(x), m.frozen(x))
    x = torch.randn(H, dtype=torch.float64)
    for trains in (False, True):
        for model in (fast, eager):
            model.frozen.requires_grad_(trains)
        assert [_asked(one) for one in fast([x])[0][0]] == [_asked(one) for one in eager(x)[0]]
    for model in (fast, eager):
        model.frozen.requires_grad_(False)


def test_threads_record_gradients_or_not_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    fast = eb.autobatch(nn.Sequential(nn.Linear(H, H), nn.Linear(H, H)), cells=["0", "1"])
    xs = [torch.randn(H) for _ in range(3)]
    found: list[Any] = []

    def without() -> None:
        with torch.no_grad():
            found.extend(fast(xs))

    def meanwhile(_model: Any) -> bool:
        monkeypatch.undo()
        other = threading.Thread(target=without)
        other.start()
        other.join()
        return False

    without()
    fast(xs)
    monkeypatch.setattr(api, "is_uninitialised", meanwhile)  # asked once the call knows what is compiled for it
    assert all(one.requires_grad for one in fast(xs))
    assert len(found) == 6
    assert not any(one.requires_grad for one in found)

"""A recorded program does what PyTorch does: views, writes, attributes, rows, weights, modes, random numbers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import edbatch_tvm as eb
from edbatch_tvm.errors import BreakWarning, RecordingError
from tests.recording.checks import assert_equal

H = 4
pytestmark = pytest.mark.filterwarnings("ignore::edbatch_tvm.errors.BreakWarning")


class Model(nn.Module):
    """A cell, and whatever `use` does with its values."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.Linear(H, H)
        self.temperature = 1.0
        self.table = torch.randn(1, H)
        self.use: Callable[[Any, Any, Any], Any] = lambda model, h, x: h

    def step(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x) / self.temperature + self.table

    def forward(self, x: torch.Tensor) -> Any:
        return self.use(self, self.cell(x[:1]), x)


@pytest.fixture(scope="module")
def made() -> tuple[Model, eb.AutoBatched]:
    torch.manual_seed(0)
    model = Model()
    fast = eb.autobatch(model, ["cell", "step"])
    model.use = lambda s, h, x: s.step(h)
    with torch.no_grad():
        fast([torch.randn(2, H), torch.randn(2, H)])
    return model, fast


LENGTHS = (2, 1, 3, 2)


def check(made: tuple[Model, eb.AutoBatched], use: Callable[[Any, Any, Any], Any]) -> None:
    model, fast = made
    model.use = use
    elements = [torch.randn(n, H) for n in LENGTHS]
    wanted = [model(x.clone()) for x in elements]
    assert_equal(fast([x.clone() for x in elements]), wanted)


VIEWS: dict[str, Callable[[Any], Any]] = {
    "slice": lambda h: h[:, :2],
    "row": lambda h: h[0],
    "view": lambda h: h.view(2, 2),
    "reshape": lambda h: h.reshape(H, 1),
    "unsqueeze": lambda h: h.unsqueeze(0),
    "None": lambda h: h[None],
    "chunk": lambda h: h.chunk(2, 1)[0],
    "split": lambda h: h.split(3, 1)[1],
    "unbind": lambda h: h.unbind(1)[2],
    "narrow": lambda h: h.narrow(1, 1, 2),
    "squeeze": lambda h: h.squeeze(),
    "detach": lambda h: h.detach(),
    "contiguous": lambda h: h.contiguous(),
    "to": lambda h: h.to(torch.float32),
    "cpu": lambda h: h.cpu().float(),
    "itself": lambda h: h,
}


def test_writes_are_seen_through_every_view(made: tuple[Model, eb.AutoBatched]) -> None:
    def use(model: Any, h: Any, x: Any) -> Any:
        results = []
        for view in VIEWS.values():
            for through_view in (False, True):
                base = h.clone()
                seen = view(base)
                (seen if through_view else base).fill_(2.0)
                results += [base, seen]
        return results

    check(made, use)


def test_rows_that_are_written(made: tuple[Model, eb.AutoBatched]) -> None:
    def use(model: Any, h: Any, x: Any) -> Any:
        states = torch.zeros(len(x), H)
        for place, row in enumerate(x):
            states[place] = model.cell(row[None])
        seen, shared = torch.zeros(2, H), torch.zeros(2, H)
        view = shared[1]
        shared[0] = h
        view += 1
        stacked = torch.stack([h[0], x[0]])
        stacked[1] = 3
        total = torch.zeros(1, H)
        total.copy_(h)
        written = torch.zeros(3, H).index_copy(0, torch.tensor([1]), h)
        assert seen.sum() == 0
        return [states, shared, view, stacked, stacked[0], total, written, torch.cat([h[:, :2], h[:, 2:]], 1)]

    check(made, use)


def test_one_row_none_and_many(made: tuple[Model, eb.AutoBatched]) -> None:
    def use(model: Any, h: Any, x: Any) -> Any:
        rows = torch.cat([model.cell(row[None]) for row in x], 0)
        none = torch.cat([rows, torch.zeros(0, H)])
        return [rows.sum(0), none, rows[None], rows[torch.tensor([0, 0])], rows[1:], model.cell(x)]

    check(made, use)


def test_one_row_of_an_ordinary_tensor_and_of_a_recorded_one(made: tuple[Model, eb.AutoBatched]) -> None:
    for other in (lambda h, x: x[:1] + 0, lambda h, x: h):
        check(made, lambda s, h, x, other=other: torch.maximum(torch.cat([h], 0), other(h, x)))


def test_attributes_that_change(made: tuple[Model, eb.AutoBatched]) -> None:
    model, _ = made
    check(made, lambda s, h, x: s.step(h))
    model.temperature = 5.0
    check(made, lambda s, h, x: s.step(h))
    model.table = torch.randn(1, H)
    check(made, lambda s, h, x: s.step(h))
    model.table.mul_(3)
    check(made, lambda s, h, x: s.step(h))
    model.temperature = 1.0

    def sets(s: Any, h: Any, x: Any) -> Any:
        s.table = h
        return s.step(h)

    check(made, sets)
    assert type(model.table) is torch.Tensor  # as the last element has left it


@pytest.mark.slow
def test_state_goes_from_element_to_element(made: tuple[Model, eb.AutoBatched]) -> None:
    model, fast = made

    def use(s: Any, h: Any, x: Any) -> Any:
        s.carried = s.carried + h
        s.count += 1
        if float(h.sum()) > 0:
            s.carried = s.carried * 2
        return s.carried, s.count

    elements = [torch.randn(2, H) for _ in range(4)]
    model.use = use
    model.carried, model.count = torch.zeros(1, H), 0
    wanted = [model(x) for x in elements]
    for _ in range(2):
        model.carried, model.count = torch.zeros(1, H), 0
        assert_equal(fast(elements), wanted)
        assert model.count == 4
        assert_equal([model.carried], [wanted[-1][0]])


def _waits_and_changes(change: Callable[[Model], Any]) -> Callable[[Model, Any, Any], Any]:
    def use(model: Model, h: Any, x: Any) -> Any:
        h.sum().item()
        change(model)
        return h * len(model.log["of"])

    return use


SHARED: dict[str, tuple[str, Callable[[Model], Any]]] = {
    "list": ("log, a dict", lambda m: m.log["of"].append(1)),
    "dict": ("log, a dict", lambda m: m.log.update(of=[*m.log["of"], 2])),
    "tensor": ("seen, a Tensor", lambda m: (m.seen.add_(1), m.log["of"].append(1))),
}


@pytest.mark.parametrize("name", SHARED)
def test_what_elements_share_and_change_while_they_wait(made: tuple[Model, eb.AutoBatched], name: str) -> None:
    model, fast = made
    what, change = SHARED[name]
    model.use = _waits_and_changes(change)
    model.log, model.seen = {"of": [0], "kept": {n: str(n) for n in range(300)}}, torch.zeros(1)
    elements = [torch.randn(n, H) for n in LENGTHS]
    with pytest.raises(RecordingError, match=f"change (log, a dict|{what}) that they share"):
        fast(elements)
    model.log["of"] = [0]
    wanted = [model(x) for x in elements]
    model.log["of"] = [0]
    with pytest.warns(BreakWarning, match="one after the other") as warned:
        found = fast(elements)  # from now on PyTorch runs them in order
    assert warned[0].filename == __file__  # where the user has called it
    assert_equal(found, wanted)
    assert len(fast.breaks) == 1
    fast.refresh()
    fast._told = False  # another test has its own warning
    del model.log, model.seen


def test_the_first_element_finds_out_that_the_order_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model()
    model.use, model.log = _waits_and_changes(lambda m: m.log["of"].append(1)), {"of": [0]}
    elements = [torch.randn(n, H) for n in LENGTHS]
    wanted = [model(x) for x in elements]
    model.log["of"] = [0]
    fast = eb.autobatch(model, ["cell"])
    with pytest.warns(BreakWarning, match="one after the other"):
        assert_equal(fast(elements), wanted)
    model.log["of"] = [0]
    monkeypatch.setattr("edbatch_tvm.recording.api.run_minibatch", None)  # nothing is looked at that takes time
    assert_equal(fast(elements), wanted)


def test_containers_that_elements_only_read_or_do_not_wait_for(made: tuple[Model, eb.AutoBatched]) -> None:
    model, fast = made
    model.log = {"of": [0], "kept": {n: str(n) for n in range(300)}, "loop": []}
    model.log["loop"].append(model.log)
    model.use = lambda m, h, x: (h.sum().item(), h * len(m.log["of"]))[1]
    elements = [torch.randn(n, H) for n in LENGTHS]
    assert_equal(fast(elements), [model(x) for x in elements])
    assert not fast.breaks
    model.log = []
    model.use = lambda m, h, x: (m.log.append(len(x)), h)[1]
    fast(elements)
    assert tuple(model.log) == LENGTHS
    del model.log


CHANGES: dict[str, Callable[[torch.Tensor], Any]] = {
    "in place": lambda w: w.mul_(2),
    "data": lambda w: w.data.mul_(2),
    "data item": lambda w: w.data.__setitem__(0, 3.0),
    "data copy": lambda w: w.data.copy_(torch.randn(H, H)),
    "other data": lambda w: setattr(w, "data", torch.randn(H, H)),
    "numpy": lambda w: w.detach().numpy().__imul__(2),
    "one bit": lambda w: w.data.view(torch.int32)[0].bitwise_xor_(1 << 22),
}


def test_weights_changed_in_every_way(made: tuple[Model, eb.AutoBatched]) -> None:
    for change in CHANGES.values():
        change(made[0].cell.weight)
        check(made, lambda s, h, x: h)


def test_modes_belong_to_elements(made: tuple[Model, eb.AutoBatched]) -> None:
    model, fast = made

    def use(s: Any, h: Any, x: Any) -> Any:
        if len(x) == 1:
            torch.set_grad_enabled(True)
            torch.autocast("cpu", dtype=torch.bfloat16).__enter__()
        h.sum().item()
        return len(x), torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")

    model.use = use
    seen = fast([torch.randn(n, H) for n in LENGTHS])
    assert set(seen) == {(2, False, False), (3, False, False), (1, True, True)}
    assert not torch.is_grad_enabled()
    assert not torch.is_autocast_enabled("cpu")


def test_random_numbers_are_those_of_pytorch(made: tuple[Model, eb.AutoBatched]) -> None:
    model, fast = made
    elements = [torch.randn(2, H) for _ in range(3)]
    model.use = lambda s, h, x: h + torch.randn(1, H)
    torch.manual_seed(3)
    wanted = [model(x) for x in elements]
    torch.manual_seed(3)
    assert_equal(fast(elements), wanted)

    def waits(s: Any, h: Any, x: Any) -> Any:
        torch.randn(1)
        h.sum().item()
        return h + torch.randn(1, H)

    model.use = waits
    with pytest.raises(RecordingError, match="draw random numbers and wait"):
        fast(elements)
    torch.manual_seed(3)
    wanted = [model(x) for x in elements]
    torch.manual_seed(3)
    assert_equal(fast(elements), wanted)  # in order, from now on
    fast.refresh()


CPLUSPLUS: tuple[Callable[[Any, Any], Any], ...] = (
    lambda h, x: torch.autograd.Variable(h) * 1,
    lambda h, x: torch.FloatTensor([h[0, 0], 1.0]),
    lambda h, x: torch.Tensor(h),
    lambda h, x: x.new_tensor(h.tolist()),
    lambda h, x: x.new(h),
    lambda h, x: torch.vmap(lambda row: row + 0)(h),
    lambda h, x: torch.from_numpy(h.numpy() * 2),
    lambda h, x: torch.ops.aten.special_i0e(h),
)


@pytest.mark.filterwarnings("ignore")
def test_no_code_sees_a_tensor_without_memory(made: tuple[Model, eb.AutoBatched]) -> None:
    check(made, lambda s, h, x: [step(h, x) for step in CPLUSPLUS])
    for ask in (torch.Tensor.data_ptr, torch.Tensor.untyped_storage, lambda h: h.set_(torch.ones(1))):
        made[0].use = lambda s, h, x, ask=ask: ask(h) if ask is not torch.Tensor.data_ptr else h.data_ptr()
        with pytest.raises((RecordingError, RuntimeError)):
            made[1]([torch.randn(2, H)])


@pytest.mark.slow
def test_first_calls_from_threads() -> None:
    failed = []

    def call(fast: eb.AutoBatched, elements: list[Any], wanted: list[Any]) -> None:
        try:
            with torch.no_grad():
                assert_equal(fast(elements), wanted)
        except BaseException as error:
            failed.append(repr(error))

    for _ in range(100):
        model = Model()
        fast = eb.autobatch(model, ["cell"])
        elements = [torch.randn(n, H) for n in LENGTHS]
        wanted = [model(x) for x in elements]
        threads = [threading.Thread(target=call, args=(fast, elements, wanted)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failed

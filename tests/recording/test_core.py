"""The compiled core records what Python records, refuses what it refuses, and uses tensors again only where it may."""

from __future__ import annotations

import gc
import logging
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

import edbatch_tvm as eb
from edbatch_tvm.recording import core as core_module
from edbatch_tvm.recording.cell_call import CellCall
from edbatch_tvm.recording.core import Core, core
from edbatch_tvm.recording.lazy import LazyTensor
from edbatch_tvm.recording.outside import Outside
from edbatch_tvm.recording.recorder import Recorder
from edbatch_tvm.recording.site import Site
from tests.recording.checks import assert_equal

H = 11

pytestmark = pytest.mark.skipif(bool(core.reason), reason=core.reason)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, H)
        self.join = nn.Linear(H, H)

    def leaf(self, word: Any) -> torch.Tensor:
        return self.table(torch.as_tensor(word))

    def node(self, x: Any, rest: Any, how: Any = None) -> Any:
        total = self.join(x) + sum(part.sum(0) if part.dim() > 1 else part for part in flat(rest))
        return (total, torch.tanh(total)) if how is None else [total * 2]

    def forward(self, word: int) -> Any:
        return [self.node(*given) for given in arguments([self.leaf(word), self.leaf(2), self.leaf(torch.tensor(3))])]


def flat(rest: Any) -> Iterator[torch.Tensor]:
    if isinstance(rest, torch.Tensor):
        yield rest
    else:
        for part in rest.values() if isinstance(rest, dict) else rest:
            yield from flat(part)


def arguments(leaves: list[Any]) -> list[tuple[Any, ...]]:
    """Arguments of all classes that a call is described by."""
    a, b, c = leaves
    ones = torch.arange(1.0, H + 1)
    wide = torch.stack([ones, ones], 1)
    rests = [
        a,
        ones,
        wide[:, 0],  # not one number after another
        torch._neg_view(ones),
        torch.stack([a, b]),
        torch.stack([a, b, c])[1:],
        torch.cat([a.reshape(1, H), b.reshape(1, H)]),
        (a, (b, ones)),
        [a, b, c],
        [],
        [torch.stack([a, b, c])[1], b],
        [torch.cat([b.reshape(1, H), c.reshape(1, H)])[1]],
        [(a, b), (b, c)],
        [a, ones],
        (torch.stack([a, b]), torch.stack([b, c])),
        {"left": a, "right": (b,)},
        torch.stack([a]),
        ones.reshape(1, H),
    ]
    return [(x, rest, *how) for x in (a, ones, torch.stack([b, c])[1]) for rest in rests for how in ((), ("twice",))]


@pytest.fixture(scope="module")
def made() -> tuple[Model, eb.AutoBatched]:
    torch.manual_seed(0)
    model = Model().requires_grad_(False)
    fast = eb.autobatch(model, ["leaf", "node"])
    with torch.no_grad():
        fast([0, 1])
    return model, fast


@pytest.fixture
def python() -> Iterator[None]:
    core.use(False)
    yield
    core.use(True)


def described(result: Any) -> Any:
    """What a call returned, without what differs from recorder to recorder."""
    if isinstance(result, LazyTensor):
        rows = None if result.held is None else (list(result.held.rows), result.held.row, result.held.listed)
        assert type(result) is LazyTensor
        return result.spec, result.value, rows, result.geometry
    return (type(result), [described(one) for one in result]) if isinstance(result, list | tuple) else result


def recorded(fast: eb.AutoBatched, model: Model, calls: Callable[[Any, Any], Iterator[Any]]) -> tuple[Any, ...]:
    recorder = Recorder(fast._library, lambda: None)
    leaf = CellCall(recorder, fast._sites["leaf"], model.leaf, model)
    node = CellCall(recorder, fast._sites["node"], model.node, model)
    results = [described(result) for result in calls(leaf, node)]
    attributes = {key: list(entries) for key, entries in recorder.attributes.items()}
    return recorder.types, recorder.ends, recorder.operands, attributes, recorder.recorded, results


def test_both_ways_record_the_same(made: tuple[Model, eb.AutoBatched]) -> None:
    model, fast = made

    def calls(leaf: Any, node: Any) -> Iterator[Any]:
        leaves = [leaf(word) for word in (0, 2, torch.tensor(3))]
        yield from leaves
        yield leaf(word=4)
        for given in arguments(leaves):
            yield node(*given)
        yield node(x=leaves[0], rest=leaves[1])

    compiled = recorded(fast, model, calls)
    core.use(False)
    try:
        assert recorded(fast, model, calls) == compiled
    finally:
        core.use(True)
    assert compiled[-2] > 90


def test_lists_are_read_by_compiled_code(made: tuple[Model, eb.AutoBatched]) -> None:
    model, fast = made
    in_python: list[Any] = []

    def calls(leaf: Any, node: Any) -> Iterator[Any]:
        a, b = leaf(0), leaf(2)

        def watch(frame: Any, event: str, _argument: Any) -> None:
            code = frame.f_code
            if event == "call" and code.co_name == "call" and code.co_filename.endswith("recorder.py"):
                in_python.append(frame.f_locals["arguments"])

        lists: list[Any] = [[], [a, b], [torch.stack([a, b])[1], b], [torch.cat([a.reshape(1, H), b.reshape(1, H)])[1]]]
        for rest in lists:
            sys.setprofile(watch)
            result = node(a, rest)
            sys.setprofile(None)
            yield result

    recorded(fast, model, calls)
    in_python.clear()  # what was met for the first time
    recorded(fast, model, calls)
    assert not in_python


def test_results_are_those_of_pytorch(made: tuple[Model, eb.AutoBatched]) -> None:
    model, fast = made
    assert_equal(fast([1, 4, 0]), [model(word) for word in (1, 4, 0)])


def test_results_of_python_are_those_of_pytorch(made: tuple[Model, eb.AutoBatched], python: None) -> None:
    model, fast = made
    assert_equal(fast([1, 4, 0]), [model(word) for word in (1, 4, 0)])


@pytest.mark.parametrize(
    "given",
    [
        (),
        (torch.ones(H),),
        (torch.ones(H), object()),
        (torch.ones(H), [set()]),
        (torch.ones(H + 1), torch.ones(H)),
        (torch.ones(H, requires_grad=True), torch.ones(H)),
        (torch.ones(H).to_sparse(), torch.ones(H)),
        (torch.ones(H, device="meta"), torch.ones(H)),
        (torch.ones(H, dtype=torch.complex64), torch.ones(H)),
    ],
    ids=lambda given: f"{len(given)}",
)
def test_both_ways_refuse_the_same(made: tuple[Model, eb.AutoBatched], given: tuple[Any, ...]) -> None:
    model, fast = made

    def outcome() -> Any:
        recorder = Recorder(fast._library, lambda: None)
        fast._library.told.clear()
        node = CellCall(recorder, fast._sites["node"], model.node, model)
        with torch.enable_grad():
            try:
                return described(node(*given))
            except Exception as error:
                return type(error), str(error)

    compiled = outcome()
    core.use(False)
    try:
        found = outcome()
    finally:
        core.use(True)
    assert str(found) == str(compiled)


def test_tensors_of_other_kinds_are_read_as_by_python(made: tuple[Model, eb.AutoBatched]) -> None:
    """None is taken for numbers that lie in memory as they are, and none ends the process."""
    one = torch.arange(1.0, H + 1)
    tensors = [
        one,
        torch._neg_view(one),
        torch.stack([one, one], 1)[:, 0],
        one.to_sparse(),
        one.to(torch.float64),
        one.to(torch.bfloat16),
        one.to_mkldnn(),
        torch._lazy_clone(one),
        one.as_strided((3,), (0,)),
        torch.ones(H, device="meta"),
        torch.empty(0),
        torch.zeros(3, 0),
        torch.tensor(2.0),
        torch.complex(one, one).imag,
        one.expand(3, H),
        torch.ones(2000),
    ]

    def numbers() -> list[Any]:
        outside = Recorder(made[1]._library, lambda: None).outside
        found = [_attempt(outside, tensor) for tensor in tensors * 2]

        def met(tensor: torch.Tensor) -> torch.Tensor:
            found.append(_attempt(outside, tensor))
            return tensor.sum()

        torch.func.vmap(met)(torch.ones(2, 3))
        torch.func.grad(met)(torch.ones(3))
        torch.func.functionalize(met)(torch.ones(3))
        emptied = torch.ones(4)
        emptied.untyped_storage().resize_(0)
        found.append(_attempt(outside, emptied))
        return found

    compiled = numbers()
    core.use(False)
    try:
        assert numbers() == compiled
    finally:
        core.use(True)


def test_a_tensor_is_what_it_is_now(made: tuple[Model, eb.AutoBatched]) -> None:
    """Neither its place in memory nor the object says what its numbers are."""
    outside = Recorder(made[1]._library, lambda: None).outside
    tensor = torch.arange(6.0)
    for count in range(3):
        for view in (tensor, tensor.view(2, 3), tensor.view(3, 2), tensor[:3], tensor[3:]):
            for _ in range(3):
                number = outside.number(view)
                assert torch.equal(outside.flat(number), view.reshape(-1))
                assert outside.specs[-1 - number].shape == view.shape
        tensor.numpy()[count] = -1
    del tensor, view
    for value in range(50):
        assert outside.flat(outside.number(torch.full((6,), float(value))))[0] == value


def _attempt(outside: Outside, tensor: torch.Tensor) -> Any:
    try:
        return outside.number(tensor)
    except Exception as error:
        return type(error), str(error)


@pytest.mark.parametrize("thing", [None, 1, "x", [], (), {}, torch.ones(2), object(), Recorder.__new__(Recorder)])
def test_wrong_arguments_are_errors(thing: Any) -> None:
    functions = core._compiled
    bare = CellCall.__new__(CellCall)
    for call in (
        lambda: functions["call"](Recorder.__new__(Recorder), Site("a", len, None), (thing,)),
        lambda: functions["call"](thing, thing, thing),
        lambda: functions["call"](Recorder.__new__(Recorder), Site.__new__(Site), (thing,)),
        lambda: functions["cell_call"](bare, thing),
        lambda: functions["cell_call"](thing, thing),
        lambda: functions["number"](Outside.__new__(Outside), thing),
        lambda: functions["rows_of_values"](thing),
        lambda: functions["returned_of"]([thing], None),
        lambda: functions["returned_of"]((), None),
    ):
        with pytest.raises((TypeError, AttributeError, ValueError, RuntimeError)):
            call()
    assert functions["rows_of_values"](thing, True) is None
    with pytest.raises(AttributeError):
        functions["rows_of_values"]([LazyTensor.__new__(LazyTensor), thing], False)


def test_memory_is_steady(made: tuple[Model, eb.AutoBatched]) -> None:
    model, fast = made
    a = torch.ones(H)

    def minibatch() -> None:
        recorder = Recorder(fast._library, lambda: None)
        leaf = CellCall(recorder, fast._sites["leaf"], model.leaf, model)
        node = CellCall(recorder, fast._sites["node"], model.node, model)
        leaves = [leaf(word) for word in (0, 1, 2)]
        for given in arguments(leaves):
            node(*given)
        for wrong in ((), (a, object()), (leaves[0], {1: 2})):
            with pytest.raises(Exception):  # noqa: B017, PT011  (which one, the test above says)
                node(*wrong)
        core.minibatch_ended()

    for _ in range(3):
        minibatch()
    gc.collect()
    shared = [fast._sites["node"], fast._sites["node"].steps, a]
    before, counts = sys.getallocatedblocks(), [sys.getrefcount(one) for one in shared]
    for _ in range(20):
        minibatch()
    gc.collect()
    assert [sys.getrefcount(one) for one in shared] == counts
    assert sys.getallocatedblocks() - before < 900  # of 1,800 calls; what is used again is not the same each time


def _leaf(made: tuple[Model, eb.AutoBatched]) -> Any:
    model, fast = made
    return CellCall(Recorder(fast._library, lambda: None), fast._sites["leaf"], model.leaf, model)


@pytest.mark.parametrize(
    "touch",
    [
        lambda tensor: setattr(tensor, "mine", 1),
        lambda tensor: tensor.requires_grad,
        lambda tensor: tensor._version,
        lambda tensor: tensor[0],
        lambda tensor: tensor.view(1, H),
        lambda tensor: torch.ops.aten.tanh(tensor),
        lambda tensor: torch.utils.swap_tensors(tensor, torch.ones(H)),
    ],
)
def test_a_tensor_that_was_touched_is_not_used_again(
    made: tuple[Model, eb.AutoBatched], touch: Callable[[Any], Any]
) -> None:
    leaf = _leaf(made)
    tensor = leaf(0)
    known = id(tensor)
    touch(tensor)
    del tensor
    core.minibatch_ended()
    later = [leaf(1) for _ in range(50)]
    assert known not in map(id, later) or vars(next(one for one in later if id(one) == known)).get("mine") is None
    assert all(set(vars(one)) <= {"recorder", "spec", "value", "OWN"} for one in later)


def test_a_tensor_that_somebody_holds_is_not_used_again(made: tuple[Model, eb.AutoBatched]) -> None:
    leaf = _leaf(made)
    held, watched = leaf(0), leaf(1)
    seen = weakref.ref(watched)
    number, value = held.value, id(watched)
    del watched
    for _ in range(3):
        core.minibatch_ended()
    assert seen() is None
    later = [leaf(1) for _ in range(3000)]
    assert held.value == number
    assert all(one is not held for one in later)
    assert len({id(one) for one in later}) == len(later)
    assert value


def test_tensors_are_used_again_and_hold_nothing_meanwhile(made: tuple[Model, eb.AutoBatched]) -> None:
    leaf = _leaf(made)
    core.minibatch_ended()
    first = {id(leaf(0)) for _ in range(10)} | {id(torch.stack([leaf(0), leaf(1)])) for _ in range(10)}
    before = sys.getrefcount(leaf.recorder)
    core.minibatch_ended()
    assert sys.getrefcount(leaf.recorder) <= before
    kept = [leaf(0) for _ in range(30)]
    assert first & set(map(id, kept))
    assert [one.value for one in kept] == list(range(kept[0].value, kept[0].value + 30))


def test_inference_mode_makes_its_own(made: tuple[Model, eb.AutoBatched]) -> None:
    leaf = _leaf(made)
    for _ in range(4):
        leaf(0)
    core.minibatch_ended()
    with torch.inference_mode():
        inside = leaf(0)
    outside = leaf(0)
    assert (inside.is_inference(), outside.is_inference()) == (True, False)


def test_python_alone_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(core_module.VARIABLE, "python")
    assert Core().reason == f"{core_module.VARIABLE}=python"


def test_python_alone_without_a_compiler(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv(core_module.VARIABLE, raising=False)
    monkeypatch.setenv("EDBATCH_CACHE", str(tmp_path))
    monkeypatch.setattr("edbatch_tvm.c_extension.find_compiler", lambda: None)
    with caplog.at_level(logging.WARNING):
        alone = Core()
    assert not alone.in_use
    assert [record.message for record in caplog.records] == [
        "no compiled core, so Python records calls of cells: no C compiler on the PATH"
    ]
    with pytest.raises(ImportError, match="no C compiler"):
        alone.use(True)


def test_python_alone_where_it_does_not_compile(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.delenv(core_module.VARIABLE, raising=False)
    monkeypatch.setenv("EDBATCH_CACHE", str(tmp_path))
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources" / "module.c").write_text("#error no\n")
    monkeypatch.setattr(core_module, "_SOURCES", tmp_path / "sources")
    assert "error" in Core().reason


class Repeating(nn.Module):
    """A cell of which integers are constants, and one of which numbers of rows are, too."""

    def __init__(self) -> None:
        super().__init__()
        self.join = nn.Linear(H, H)

    def times(self, x: torch.Tensor, count: int) -> torch.Tensor:
        for _ in range(count):
            x = torch.tanh(self.join(x))
        return x

    def both(self, rows: torch.Tensor, count: int) -> torch.Tensor:
        return self.times(rows.cumsum(0)[-1], count)

    def forward(self, counts: list[int]) -> Any:
        x = torch.ones(H)
        rows = []
        for count in counts:
            x = self.times(x, count)
            rows.append(x)
        return self.both(torch.stack(rows), len(rows))


def test_calls_with_constants_are_known_the_next_time() -> None:
    torch.manual_seed(0)
    model = Repeating().requires_grad_(False)
    fast = eb.autobatch(model, ["times", "both"])
    batch = [[1, 2], [2, 1]]
    fast(batch)
    fast(batch)
    met: list[str] = []
    specialise = fast._library.specialise

    def watched(recorder: Any, site: Any, given: Any) -> Any:
        met.append(site.name)
        return specialise(recorder, site, given)

    fast._library.specialise = watched  # type: ignore[method-assign]
    try:
        for compiled in (True, False):
            core.use(compiled)
            assert_equal(fast(batch), [model(counts) for counts in batch])
    finally:
        core.use(True)
    assert not met
    assert_equal(fast([[2, 4]]), [model([2, 4])])
    assert met

"""What autobatch returns is a module among modules, and runs minibatches of any kind."""

from __future__ import annotations

import copy
import functools
import io
import pickle
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn

import edbatch_tvm as eb
from edbatch_tvm.errors import RecordingError
from edbatch_tvm.recording.elements import takes_several
from tests.recording.checks import assert_equal


class Net(nn.Module):
    """Joins words along binary trees."""

    def __init__(self) -> None:
        super().__init__()
        self.emb, self.join = nn.Embedding(10, 4), nn.Linear(8, 4)
        self.temperature = 1.0
        self.register_buffer("shift", torch.ones(4))

    def node(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.join(torch.cat([left, right])))

    def encode(self, tree: Any) -> torch.Tensor:
        return self.emb(torch.tensor(tree)) if isinstance(tree, int) else self.node(*map(self.encode, tree))

    def forward(self, tree: Any, scale: float = 1.0) -> torch.Tensor:
        return self.encode(tree) * scale * self.temperature + self.shift

    def decode(self, tree: Any, *, twice: bool = False) -> torch.Tensor:
        return self.encode(tree) * (2 if twice else 1)

    def both(self, left: Any, right: Any) -> torch.Tensor:
        return self.node(self.encode(left), self.encode(right))


TREES: list[Any] = [((1, 2), 3), (4, ((5, 6), 7)), 8, (1, 2), (3, 4)]


@pytest.fixture(scope="module")
def compiled() -> Any:
    torch.manual_seed(0)
    fast = eb.autobatch(Net().eval(), cells=["emb", "node"])
    with torch.no_grad():
        fast(TREES)
        fast.both([(1, 2), (3, 4), ((1, 2), 3), (4, (5, 6)), (7, 8)])
    return fast


@pytest.fixture
def fast(compiled: Any) -> Iterator[Any]:
    state = copy.deepcopy(compiled.state_dict())
    yield compiled
    compiled.load_state_dict(state)
    compiled.eval()


def equals(fast: Any, elements: Any = TREES) -> None:
    assert_equal(fast(elements), [fast.model(tree) for tree in elements])


def test_it_is_the_model_under_its_names(fast: Any) -> None:
    model = fast.model
    assert isinstance(fast, nn.Module)
    assert list(fast.state_dict()) == list(model.state_dict()) == ["shift", "emb.weight", "join.weight", "join.bias"]
    assert [name for name, _ in fast.named_parameters()] == [name for name, _ in model.named_parameters()]
    assert all(one is other for one, other in zip(fast.parameters(), model.parameters(), strict=True))
    assert [name for name, _ in fast.named_modules()] == ["", "emb", "join"]
    assert fast.join is model.join
    assert fast.temperature == 1.0
    fast.temperature = 2.0
    assert model.temperature == 2.0
    equals(fast)
    fast.temperature = 1.0
    assert not hasattr(fast, "nothing")


def test_switching_the_mode_compiles_nothing_that_was_compiled(fast: Any) -> None:
    before = fast.compiled
    assert fast.train() is fast
    assert fast.model.training
    assert fast.training
    fast.eval()
    assert not fast.model.join.training
    equals(fast)
    fast.train()
    fast.refresh()  # as a call in training mode does
    fast.eval()
    equals(fast)
    assert fast.compiled is before


def test_weights_are_loaded_and_changed(fast: Any) -> None:
    before = fast.compiled
    fast.load_state_dict({name: one * 0.5 for name, one in fast.state_dict().items() if name != "shift"}, strict=False)
    equals(fast)
    assert fast.compiled is before
    fast.apply(lambda module: nn.init.ones_(module.weight) if isinstance(module, nn.Linear) else None)
    assert bool((fast.model.join.weight == 1).all())
    equals(fast)


def test_copies_and_files(fast: Any) -> None:
    file = io.BytesIO()
    torch.save(fast, file)
    file.seek(0)
    made = [copy.deepcopy(fast), pickle.loads(pickle.dumps(fast)), torch.load(file, weights_only=False)]
    for one in made:
        assert one.model is not fast.model
        assert one.join is one.model.join
        assert one.cells == fast.cells
        assert one.compiled is None
    one = made[0]
    one.join.weight.mul_(2)
    equals(one)
    equals(fast)
    assert not torch.equal(one.join.weight, fast.join.weight)
    with torch.inference_mode():
        assert copy.deepcopy(one).compiled is None  # a copy of one that has been called


def test_a_part_of_another_module(fast: Any) -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.out = fast, nn.Linear(4, 2)

        def forward(self, trees: list[Any]) -> torch.Tensor:
            return self.out(torch.stack(self.inner(trees)))

    outer = Outer()
    names = [*(f"inner.{name}" for name in fast.state_dict()), "out.weight", "out.bias"]
    assert list(outer.state_dict()) == names
    outer.load_state_dict(outer.state_dict())
    assert outer.train().inner.model.training
    assert not outer.eval().inner.model.training
    assert_equal(outer(TREES), outer.out(torch.stack([fast.model(tree) for tree in TREES])))
    batched = eb.autobatch(outer, cells=["out"])
    assert_equal(batched([TREES, TREES[:2]]), [outer(TREES), outer(TREES[:2])])


def test_hooks(fast: Any) -> None:
    seen = []
    before = fast.register_forward_pre_hook(lambda _module, given: seen.append(len(given[0])))
    after = fast.register_forward_hook(lambda _module, _given, results: results[::-1])
    assert_equal(fast(TREES), [fast.model(tree) for tree in TREES][::-1])
    before.remove()
    after.remove()
    assert seen == [len(TREES)]


def test_minibatches(fast: Any) -> None:
    wanted = [fast.model(tree) for tree in TREES]

    class Listed(list[Any]):
        pass

    for elements in (TREES, Listed(TREES), iter(TREES), (tree for tree in TREES)):
        assert_equal(fast(elements), wanted)
    loader = torch.utils.data.DataLoader(TREES, batch_size=3, collate_fn=list)  # type: ignore[arg-type]
    assert_equal([one for batch in loader for one in fast(batch)], wanted)
    assert_equal(fast.map(dict(enumerate(TREES)).values()), wanted)
    assert fast([]) == []
    for tree, result in zip(TREES, wanted, strict=True):  # a tuple is one element
        assert_equal(fast(tree), result)
    with pytest.raises(RecordingError, match=r"a DataLoader .*hint: for batch in loader: fast\(batch\)"):
        fast(loader)


def test_arguments_that_elements_share(fast: Any) -> None:
    model = fast.model
    assert_equal(fast(TREES, scale=2.0), [model(tree, scale=2.0) for tree in TREES])
    assert_equal(fast.map(TREES, scale=2.0), [model(tree, scale=2.0) for tree in TREES])


def test_other_methods(fast: Any) -> None:
    model = fast.model
    assert_equal(fast.decode(TREES, twice=True), [model.decode(tree, twice=True) for tree in TREES])
    assert fast.batches > 0
    assert_equal(fast.decode(TREES[0]), model.decode(TREES[0]))
    pairs = list(pairwise(TREES))
    assert_equal(fast.both(pairs), [model.both(*pair) for pair in pairs])  # a tuple has several arguments
    other = eb.autobatch(model, cells=["emb", "node"], entry="decode")
    assert_equal(other(TREES), [model.decode(tree) for tree in TREES])
    with pytest.raises(RecordingError, match=r"entry='decod'; .*did you mean 'decode'\?"):
        eb.autobatch(model, cells=["node"], entry="decod")
    with pytest.raises(RecordingError, match="the model's own decode as a cell"):
        eb.autobatch(model, cells=["decode"], entry="decode")


def test_other_dtypes_run_in_pytorch(fast: Any) -> None:
    other = copy.deepcopy(fast).bfloat16()
    assert other.model.join.weight.dtype is torch.bfloat16
    with pytest.warns(eb.errors.BreakWarning):
        equals(other)
    with pytest.raises(RecordingError, match=r"parameter 'emb.weight' of Net is on meta; .*hint: call .cpu\(\)"):
        other.to("meta")(TREES)


class Takes:
    """Methods of several kinds of parameters."""

    def one(self, tree: Any) -> None: ...
    def two(self, tree: Any, other: Any) -> None: ...
    def second_has_a_default(self, tree: Any, other: Any = 1) -> None: ...
    def any_number(self, *trees: Any, **named: Any) -> None: ...
    def second_by_name(self, tree: Any, *, other: Any) -> None: ...

    @staticmethod
    def static(tree: Any, other: Any) -> None: ...

    @functools.wraps(two)
    def wrapped(self, *arguments: Any) -> None: ...


@pytest.mark.parametrize(
    ("name", "several"),
    [
        *(("one", False), ("two", True), ("second_has_a_default", False), ("any_number", False)),
        *(("second_by_name", False), ("static", True), ("wrapped", True)),
    ],
)
def test_which_methods_take_several_arguments(name: str, several: bool) -> None:
    method = getattr(Takes(), name)
    assert takes_several(method, {}) is several
    assert takes_several(functools.partial(method), {}) is several
    assert not takes_several(method, {"other": 1})

"""Gradients through ``autobatch``: what PyTorch's autograd gives for the model itself."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import edbatch_tvm as eb
from edbatch_tvm.errors import RecordingError
from edbatch_tvm.recording import compiled_cells

pytestmark = pytest.mark.filterwarnings(
    "ignore::edbatch_tvm.errors.BreakWarning", "ignore:Converting a tensor with requires_grad"
)

H, WORDS = 9, 20


@pytest.fixture(autouse=True)
def gradients_are_recorded() -> Iterator[None]:
    with torch.enable_grad():
        yield


class Net(nn.Module):
    """Does with the words of an element what the element says."""

    def __init__(self, **embedding: Any) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, H, **embedding)
        self.table = nn.Parameter(torch.randn(WORDS, H))
        self.vector = nn.Parameter(torch.randn(H))
        self.one = nn.Linear(H, H)
        self.two = nn.Linear(2 * H, H)
        self.unused = nn.Linear(H, H)

    def leaf(self, word: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.embedding(word))

    def step(self, h: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.two(torch.cat([h, x], -1)))

    def detaching(self, h: torch.Tensor) -> torch.Tensor:
        return h * self.one(h.detach())

    def without_gradient(self, h: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            scale = self.one(h)
        return h * scale

    def straight_through(self, h: torch.Tensor) -> torch.Tensor:
        return h * _Sign.apply(h)

    def word(self, number: int) -> torch.Tensor:
        return self.leaf(torch.tensor(number))

    def forward(self, what: str, words: tuple[int, ...]) -> torch.Tensor:
        return FORWARD[what](self, words)


CELLS = ["leaf", "step", "one", "detaching", "without_gradient", "straight_through"]


class _Sign(torch.autograd.Function):
    """The sign of numbers, with the gradient of the identity."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return (x > 0).float()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient


def _chain(m: Net, words: tuple[int, ...]) -> torch.Tensor:
    h = torch.zeros(H)
    for word in words:
        h = m.step(h, m.word(word))
    return h


def _rows_of_a_parameter(m: Net, words: tuple[int, ...]) -> torch.Tensor:
    h = torch.zeros(H)
    for word in words:
        h = m.step(h, m.table[word])
    return h * 2 + m.vector


def _reads_values(m: Net, words: tuple[int, ...]) -> torch.Tensor:
    h = m.word(1)
    for word in words:
        h = m.step(h, m.word(word))
        h = m.one(h) if h.sum() > 0 else m.step(h, h)
    return h


def _no_grad(m: Net, words: tuple[int, ...]) -> torch.Tensor:
    h = m.word(2)
    for word in words:
        with torch.no_grad():
            known = m.step(h, m.word(word))
        h = m.step(known, h)
    return h


def _detached(m: Net, words: tuple[int, ...]) -> torch.Tensor:
    h = m.word(2)
    for word in words:
        h = m.step(h.detach() if word % 2 else h, m.word(word)) + h.data
    return h


def _detached_in_another_round(m: Net, words: tuple[int, ...]) -> torch.Tensor:
    h = m.step(m.word(words[0]), m.word(1))
    known = h.detach()
    with torch.no_grad():
        other = m.step(h, h)
    if known.sum() + other.sum() > -1e9:  # what follows is computed in a round of its own
        known = m.one(known) + m.one(other)
    return m.step(known, h)


def _detached_rows(m: Net, words: tuple[int, ...]) -> torch.Tensor:
    rows = torch.stack([m.word(word) for word in words])
    known = rows.detach()
    return m.one(known.sum(0)) + known[0] * rows[0] + torch.stack([row.detach() for row in rows]).mean(0)


def _straight_through(m: Net, words: tuple[int, ...]) -> torch.Tensor:
    h = m.word(words[0])
    return m.step((h > 0.5).float() - h.detach() + h, h)


def _breaks(m: Net, words: tuple[int, ...]) -> torch.Tensor:
    h = m.word(1)
    for word in words:
        h = m.step(h, m.word(word))
        h = m.step(torch.logcumsumexp(h, 0), h)
    return h


def _parameters_in_breaks(m: Net, words: tuple[int, ...]) -> torch.Tensor:
    h = m.word(words[0])
    for _ in words:
        h = torch.logcumsumexp((h + torch.einsum("ij,j->i", m.one.weight, h)) * m.vector, 0)
    return h


def _weight_of_a_weight(m: Net, words: tuple[int, ...]) -> torch.Tensor:
    weight = m.one.weight / m.one.weight.norm()
    h = m.word(words[0])
    for _ in words:
        h = F.linear(h, weight) + m.step(h, h)
    return h


def _sums_of_one_row(m: Net, words: tuple[int, ...]) -> torch.Tensor:
    """Cells of no operator stand behind others that were met before them."""
    h = m.word(words[0])
    for word in words:
        h = m.step(h, torch.tanh(m.word(word)))
        h = m.one(h).view(1, 1, H).sum(1).view(H)
    return h


def _written_rows(m: Net, words: tuple[int, ...]) -> torch.Tensor:
    rows = torch.zeros(len(words), H)
    for place, word in enumerate(words):
        rows[place] = m.word(word)
    return (torch.softmax(rows @ m.vector, 0)[:, None] * rows).sum(0)


def _writes_into_what_has_a_gradient(m: Net, words: tuple[int, ...]) -> torch.Tensor:
    rows = m.table[:4].clone()
    rows[1] = m.word(words[0])
    rows[2] *= m.one(m.word(2))
    return m.one(rows.sum(0))


def _in_place(m: Net, words: tuple[int, ...]) -> torch.Tensor:
    h = m.word(words[0])
    g = m.one(h)
    g += h
    g[2:4] *= 2
    g[0] = h[1]
    return m.step(g, h)


def _extrema(m: Net, words: tuple[int, ...]) -> torch.Tensor:
    h = m.word(words[0])
    most = h.max()
    if most > 0.1:
        h = h * most
    return torch.cat([m.one(h) * h.min(), torch.sort(h).values, torch.topk(h, 3).values])


def _losses(m: Net, words: tuple[int, ...]) -> torch.Tensor:
    h = m.one(m.word(words[0]))
    log = F.log_softmax(h, 0)
    label = torch.tensor([words[0] % H])
    return (
        F.cross_entropy(h[None], label)
        + F.nll_loss(log[None], label)
        + F.mse_loss(h, torch.ones(H))
        + F.binary_cross_entropy_with_logits(h, torch.full((H,), 0.3))
        + F.kl_div(log, torch.softmax(m.vector, 0), reduction="sum")
    )


def _double(m: Net, words: tuple[int, ...]) -> torch.Tensor:
    return m.one((m.word(words[0]).double() * 2).float())


FORWARD: dict[str, Callable[[Net, tuple[int, ...]], torch.Tensor]] = {
    "chain": _chain,
    "rows of a parameter": _rows_of_a_parameter,
    "rows of an embedding": lambda m, words: m.step(*m.embedding(torch.tensor([words[0], words[-1]]))),
    "reads values": _reads_values,
    "no_grad": _no_grad,
    "detached": _detached,
    "detached in another round": _detached_in_another_round,
    "detached rows": _detached_rows,
    "straight through": _straight_through,
    "breaks": _breaks,
    "parameters in breaks": _parameters_in_breaks,
    "a weight of a weight": _weight_of_a_weight,
    "sums of one row": _sums_of_one_row,
    "written rows": _written_rows,
    "writes into what has a gradient": _writes_into_what_has_a_gradient,
    "in place": _in_place,
    "extrema": _extrema,
    "losses": _losses,
    "double": _double,
    "detaches in a cell": lambda m, words: m.detaching(m.word(words[0])),
    "no_grad in a cell": lambda m, words: m.without_gradient(m.word(words[0])),
    "own backward in a cell": lambda m, words: m.straight_through(m.word(words[0])),
}

QUICK = (
    "chain",
    "sums of one row",
    "rows of a parameter",
    "reads values",
    "no_grad",
    "detached",
    "detached in another round",
    "breaks",
    "in place",
    "detaches in a cell",
)

MINIBATCH = [tuple(random.Random(seed).choices(range(WORDS), k=seed % 4 + 1)) for seed in range(6)]


def gradients(model: nn.Module) -> dict[str, torch.Tensor | None]:
    found = {name: None if one.grad is None else one.grad.to_dense().clone() for name, one in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    return found


def assert_gradients_equal(found: Any, wanted: Any) -> None:
    assert found.keys() == wanted.keys()
    for name, one in found.items():
        other = wanted[name]
        assert (one is None) == (other is None), name
        if other is not None:
            assert one.shape == other.shape
            assert (one - other).abs().max() <= 1e-5 * other.abs().max().clamp(min=1e-4), name


def of_losses(model: nn.Module, outputs: Any) -> dict[str, torch.Tensor | None]:
    """The gradients of a weighted sum of outputs."""
    numbers = torch.Generator().manual_seed(3)
    sum((one * torch.randn(one.shape, generator=numbers)).sum() for one in outputs).backward()  # type: ignore[union-attr]
    return gradients(model)


def check(model: Net, fast: Any, what: str) -> None:
    elements = [(what, words) for words in MINIBATCH]
    wanted = of_losses(model, [model(*one) for one in elements])
    outputs = fast(elements)
    for one, other in zip(outputs, [model(*element) for element in elements], strict=True):
        assert (one - other).abs().max() <= 1e-5 * other.abs().max()
    assert_gradients_equal(of_losses(model, outputs), wanted)


@pytest.fixture(scope="module")
def model() -> Net:
    torch.manual_seed(0)
    return Net()


@pytest.fixture(scope="module")
def fast(model: Net) -> Any:
    return eb.autobatch(model, CELLS)


@pytest.mark.parametrize(
    "what", [what if what in QUICK else pytest.param(what, marks=pytest.mark.slow) for what in FORWARD]
)
def test_gradients(model: Net, fast: Any, what: str) -> None:
    """The first elements run by the model's own code, those of the second call by compiled cells."""
    check(model, fast, what)
    check(model, fast, what)


def test_several_calls_and_several_backward_passes(model: Net, fast: Any) -> None:
    chains = [("chain", words) for words in MINIBATCH]

    def loss(run: Any) -> Any:
        return sum(one.sum() for one in run(chains)) + sum((one**2).sum() for one in run(chains[:3]))

    found, wanted = loss(fast), loss(lambda elements: [model(*one) for one in elements])
    for keep in (True, False):
        some = torch.autograd.grad(found, list(model.two.parameters()), retain_graph=True)
        others = torch.autograd.grad(wanted, list(model.two.parameters()), retain_graph=True)
        assert_gradients_equal(dict(enumerate(some)), dict(enumerate(others)))
        found.backward(retain_graph=keep)
        wanted_now = (wanted.backward(retain_graph=keep), gradients(model))
        assert wanted_now[1].keys() == gradients(model).keys()
    with pytest.raises(RuntimeError, match="a second time"):
        found.backward()


def test_what_backward_refuses(model: Net, fast: Any) -> None:
    elements = [("chain", words) for words in MINIBATCH]
    loss = sum(one.sum() for one in fast(elements))
    with torch.no_grad():
        model.two.weight.mul_(1.5)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    loss = sum(one.sum() for one in fast(elements))
    with pytest.raises(RecordingError, match=r"gradients of gradients .*expected first derivatives"):
        torch.autograd.grad(loss, list(model.two.parameters()), create_graph=True)


def test_hooks_frozen_parameters_and_results_written_into(model: Net, fast: Any) -> None:
    elements = [("chain", words) for words in MINIBATCH]
    hooks = [model.two.weight.register_hook(lambda gradient: gradient * 2)]
    model.one.requires_grad_(False)
    model.two.bias.requires_grad_(False)
    found = []
    for run in (fast, lambda some: [model(*one) for one in some]):
        outputs = run(elements)
        hooks.append(outputs[0].register_hook(lambda gradient: gradient * 3))
        if run is fast:  # autograd has no use for the number itself, as it has for that of tanh
            outputs[1] += outputs[0]
        else:
            outputs[1] = outputs[1] + outputs[0]
        outputs[1].sum().backward()
        found.append(gradients(model))
    model.requires_grad_(True)
    for hook in hooks:
        hook.remove()
    assert_gradients_equal(*found)


class Dropping(nn.Module):
    """Drops elements in cells and between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(H, H), nn.Tanh(), nn.Dropout(0.4))
        self.second = nn.Linear(H, H)
        self.drop = nn.Dropout(0.2)
        self.scale = 1.0

    def step(self, h: torch.Tensor) -> torch.Tensor:
        return self.drop(self.drop(torch.tanh(self.second(h))) * self.scale)

    def forward(self, count: int) -> torch.Tensor:
        h = torch.ones(H)
        for _ in range(count):
            h = self.step(self.first(h))
        return F.dropout(h, 0.5, self.training)


def test_dropout_drops_what_pytorch_would() -> None:
    """With the same seed, for every call; in evaluation nothing."""
    model = Dropping()
    fast = eb.autobatch(model, ["step", "first"])
    counts = [3, 1, 4, 2, 5]
    for seed in range(3):
        if seed == 2:
            model.eval()
            model.scale = 0.5
        torch.manual_seed(seed)
        outputs = fast(counts)
        found, drawn = of_losses(model, outputs), torch.rand(3)
        torch.manual_seed(seed)
        wanted = [model(count) for count in counts]
        for one, other in zip(outputs, wanted, strict=True):
            assert (one - other).abs().max() <= 1e-5 * other.abs().max()
        assert_gradients_equal(found, of_losses(model, wanted))
        assert torch.equal(drawn, torch.rand(3))
    assert not fast.breaks
    assert len(fast.reports) == 1


class Losses(nn.Module):
    """Losses of labels, one of which is ignored."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.Linear(H, H)
        self.register_buffer("importance", torch.rand(H))

    def forward(self, label: int) -> torch.Tensor:
        h = self.cell(torch.full((H,), 0.3 * label))
        rows, labels = torch.stack([h, h * 2, h * 1e4]), torch.tensor([label, 2, -100])
        return (
            F.cross_entropy(h, torch.tensor(label))
            + F.cross_entropy(rows, labels)
            + F.cross_entropy(rows, labels, weight=self.importance, reduction="sum")
            + F.nll_loss(F.log_softmax(h, 0)[None], torch.tensor([label]), reduction="none").sum()
        )


def test_losses_of_labels_are_recorded() -> None:
    model = Losses()
    fast = eb.autobatch(model, ["cell"])
    labels = [0, 1, 2, 7]
    for _ in range(2):
        wanted = of_losses(model, [model(label) for label in labels])
        assert_gradients_equal(of_losses(model, fast(labels)), wanted)
    assert not fast.breaks
    assert len(fast.reports) == 1
    with pytest.raises(IndexError):
        fast([H])


@pytest.mark.parametrize("options", [{"sparse": True}, {"padding_idx": 3}], ids=str)
def test_embeddings(options: dict[str, Any]) -> None:
    torch.manual_seed(1)
    model = Net(**options)
    fast = eb.autobatch(model, CELLS)
    for _ in range(2):
        check(model, fast, "chain")
    assert not fast.breaks
    fast([("chain", (3, 4))])[0].sum().backward()
    assert model.embedding.weight.grad.is_sparse is ("sparse" in options)
    assert model.unused.weight.grad is None


@pytest.mark.parametrize("options", [{}, {"padding_idx": 3}], ids=str)
def test_embeddings_of_indices_in_any_shape(options: dict[str, Any]) -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(WORDS, H, **options)
            self.one = nn.Linear(H, H)

        def forward(self, words: torch.Tensor) -> torch.Tensor:
            return torch.tanh(self.one(self.embedding(words).reshape(-1, H))).sum()

    torch.manual_seed(1)
    model = Words()
    fast = eb.autobatch(model, ["embedding", "one"])
    indices = [torch.tensor(one) for one in (4, [4], [1, 3, 3], [[7], [0]], [[9]], list(range(WORDS)))]
    for _ in range(2):
        wanted = of_losses(model, [model(one) for one in indices])
        assert_gradients_equal(of_losses(model, fast(indices)), wanted)
    assert not fast.breaks
    # No word has a cell of its own.
    names = [cell.name for cell in fast.compiled.cells]  # type: ignore[union-attr]
    assert sum(name.startswith("embedding") for name in names) <= 5


def test_zeros_from_outside_get_gradients() -> None:
    class Guarded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.guard = nn.Parameter(torch.zeros(H))
            self.table = nn.Parameter(torch.zeros(WORDS, H))
            self.step = nn.Linear(H, H, bias=False)

        def forward(self, words: tuple[int, ...]) -> torch.Tensor:
            h = torch.zeros(H)
            for part in (self.guard, self.guard * 2, *(self.table[word] for word in words)):
                h = torch.tanh(self.step(h + part) + part)
            return h.sum()

    model = Guarded()
    fast = eb.autobatch(model, ["step"])
    words = [(1, 2), (3,), (0, 2, 2)]
    for _ in range(3):
        assert_gradients_equal(of_losses(model, fast(words)), of_losses(model, [model(one) for one in words]))


def test_adjoints_are_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    checked = []

    def check_gradients(cell: Any, *arguments: Any) -> None:
        checked.append(cell.name)
        check(cell, *arguments)

    check = compiled_cells.check_gradients
    monkeypatch.setattr(compiled_cells, "check_gradients", check_gradients)
    model = Net()
    fast = eb.autobatch(model, CELLS)
    # The adjoint of `detaching` is not PyTorch's, so that each cell is compiled by itself to find that out.
    fast([("chain", (1, 2)), ("detaches in a cell", (1, 2))])
    assert "step" in checked
    assert len(checked) == len(set(checked)) + checked.count("detaching") - 1


def test_inputs_get_gradients(model: Net) -> None:
    class Inputs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.step = model.step

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.step(self.step(x, x), x * 2).sum()

    plain = Inputs()
    plain.net = model
    fast = eb.autobatch(plain, ["step"])
    for _ in range(2):
        x = torch.randn(3, H, requires_grad=True)
        found = torch.autograd.grad(sum(fast([x[0], x[1] * 2, x[1], x[2]])), x)  # type: ignore[arg-type]
        wanted = torch.autograd.grad(sum(map(plain, [x[0], x[1] * 2, x[1], x[2]])), x)  # type: ignore[arg-type]
        assert_gradients_equal({"x": found[0]}, {"x": wanted[0]})


def test_recorded_elements_follow_steps_of_an_optimizer() -> None:
    torch.manual_seed(2)
    model = Net()
    plain = copy.deepcopy(model)
    fast = eb.autobatch(model, CELLS)
    optimizers = [torch.optim.Adam(one.parameters(), 0.05) for one in (model, plain)]
    kinds = ("chain", "no_grad", "rows of a parameter")
    elements = [(kinds[place % 3], words) for place, words in enumerate(MINIBATCH)]
    records = [fast.record(one) for one in elements]
    for turn in range(3):
        mixed = [*records[:4], *elements[4:]] if turn else records
        found, wanted = of_losses(model, fast(mixed)), of_losses(plain, [plain(*one) for one in elements])
        assert_gradients_equal(found, wanted)
        of = [sum((one**2).sum() for one in outputs) for outputs in (fast(mixed), [plain(*one) for one in elements])]
        assert abs(of[0] - of[1]) <= 1e-4 * abs(of[1])
        for optimizer, loss in zip(optimizers, of, strict=True):
            loss.backward()  # type: ignore[union-attr]
            optimizer.step()
            optimizer.zero_grad()


def test_training_and_inference_in_turn(model: Net, fast: Any) -> None:
    elements = [("chain", words) for words in MINIBATCH]
    for _ in range(2):
        check(model, fast, "chain")
        with torch.no_grad():
            outputs = fast(elements)
            assert not any(one.requires_grad for one in outputs)
            for one, element in zip(outputs, elements, strict=True):
                assert (one - model(*element)).abs().max() <= 1e-5
            model.two.weight.mul_(0.9)
    again = copy.deepcopy(fast)
    assert_gradients_equal(of_losses(again.model, again(elements)), of_losses(model, fast(elements)))

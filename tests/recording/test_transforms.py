"""Where training meets other parts of PyTorch: autocast, ``torch.func``, derivatives of derivatives, batch norms."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad

import edbatch_tvm as eb
from edbatch_tvm.errors import RecordingError
from tests.recording.test_gradients import assert_gradients_equal, of_losses

H = 7

pytestmark = pytest.mark.filterwarnings(
    "ignore::edbatch_tvm.errors.BreakWarning", "ignore:`torch.jit.script` is deprecated"
)


@pytest.fixture(autouse=True)
def gradients_are_recorded() -> Iterator[None]:
    with torch.enable_grad():
        yield


class Chain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.word, self.step = nn.Embedding(9, H), nn.Linear(2 * H, H)

    def cell(self, h: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.step(torch.cat([h, x])))

    def forward(self, words: tuple[int, ...]) -> torch.Tensor:
        h = self.word(torch.tensor(words[0]))
        for word in words:
            h = self.cell(h, self.word(torch.tensor(word)))
        return h


class Lowering(Chain):
    """Part of its forward pass is under autocast."""

    def forward(self, words: tuple[int, ...]) -> torch.Tensor:
        h = super().forward(words)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            lower = self.step(torch.cat([h, h]))
        return self.cell(lower.float(), h)


ELEMENTS = [(1, 2), (3,), (4, 5, 6), (7, 8, 1, 2)]


@pytest.fixture(scope="module")
def chain() -> Chain:
    torch.manual_seed(0)
    return Chain()


@pytest.fixture(scope="module")
def fast(chain: Chain) -> Any:
    made = eb.autobatch(chain, ["word", "cell"])
    with torch.enable_grad():
        made(ELEMENTS)
    return made


def compare(model: nn.Module, run: Callable[..., Any]) -> None:
    """Compare outputs and gradients of a minibatch with those of the model itself: PyTorch computes both."""
    found, wanted = run(ELEMENTS), [model(words) for words in ELEMENTS]
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype is other.dtype
        assert (one - other).abs().max() <= 1e-2 * other.abs().max()
    assert_close(of_losses(model, found), of_losses(model, wanted))


def assert_close(found: Any, wanted: Any) -> None:
    for name, one in found.items():
        assert (one - wanted[name]).abs().max() <= 2e-2 * wanted[name].abs().max(), name


def test_calls_under_autocast_are_those_of_pytorch(chain: Chain, fast: Any) -> None:
    """What they compute in bfloat16 is no cell; afterwards everything is batched as before."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, wanted = fast(ELEMENTS), [chain(words) for words in ELEMENTS]
        assert not fast.reports
        for one, other in zip(found, wanted, strict=True):
            assert one.dtype is other.dtype is torch.bfloat16
            assert torch.equal(one, other)
        # Eager PyTorch adds up the gradients of a weight in bfloat16 where the weight was converted once for all.
        assert_close(of_losses(chain, found), of_losses(chain, wanted))
    assert_gradients_equal(of_losses(chain, fast(ELEMENTS)), of_losses(chain, [chain(one) for one in ELEMENTS]))
    assert len(fast.reports) == 1


def test_autocast_inside_of_a_model() -> None:
    torch.manual_seed(1)
    model = Lowering()
    run = eb.autobatch(model, ["word", "cell"])
    for _ in range(2):
        compare(model, run)
        assert run.reports


def test_functional_call(chain: Chain, fast: Any) -> None:
    """Other weights for one call: computed with, and differentiated."""
    other = {name: (one * 1.5).detach().requires_grad_() for name, one in chain.named_parameters()}
    for _ in range(2):
        found = torch.func.functional_call(fast, other, (ELEMENTS,))
        wanted = [torch.func.functional_call(chain, other, (words,)) for words in ELEMENTS]
        gradients = [
            torch.autograd.grad(torch.stack(one).square().sum(), list(other.values())) for one in (found, wanted)
        ]
        assert_gradients_equal(*(dict(zip(other, one, strict=True)) for one in gradients))
    assert_gradients_equal(of_losses(chain, fast(ELEMENTS)), of_losses(chain, [chain(one) for one in ELEMENTS]))


def test_functional_call_of_weights_that_depend_on_others(chain: Chain, fast: Any) -> None:
    scale = torch.tensor(1.5, requires_grad=True)
    found = []
    for run in (
        lambda own: torch.func.functional_call(fast, own, (ELEMENTS,)),
        lambda own: [torch.func.functional_call(chain, own, (words,)) for words in ELEMENTS],
    ):
        own = {name: one.detach() * scale for name, one in chain.named_parameters()}
        found.append(torch.autograd.grad(torch.stack(run(own)).square().sum(), scale)[0])
    assert (found[0] - found[1]).abs() <= 1e-5 * found[1].abs()


TRANSFORMS: dict[str, Callable[[Any, dict[str, torch.Tensor]], Any]] = {
    "grad": lambda f, p: torch.func.grad(
        lambda own: sum(x.sum() for x in torch.func.functional_call(f, own, (ELEMENTS,)))
    )(p),
    "vmap": lambda f, p: torch.func.vmap(lambda x: torch.stack(f(ELEMENTS)) * x)(torch.ones(3)),
    "jvp": lambda f, p: torch.func.jvp(lambda x: torch.stack(f(ELEMENTS)) * x, (torch.ones(()),), (torch.ones(()),)),
    "jacrev": lambda f, p: torch.func.jacrev(lambda x: torch.stack(f(ELEMENTS)) * x)(torch.ones(())),
    "record": lambda f, p: torch.func.vmap(lambda x: f.record(ELEMENTS[0]) and x)(torch.ones(3)),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_are_one_error(chain: Chain, fast: Any, name: str) -> None:
    with pytest.raises(RecordingError, match=r"inside of a transform of torch\.func .*; expected a call outside"):
        TRANSFORMS[name](fast, dict(chain.named_parameters()))
    assert len(fast(ELEMENTS)) == len(ELEMENTS)


def test_forward_mode_gradients_are_one_error(fast: Any) -> None:
    with forward_ad.dual_level(), pytest.raises(RecordingError, match=r"inside of forward_ad.dual_level\(\)"):
        fast(ELEMENTS)
    assert len(fast(ELEMENTS)) == len(ELEMENTS)


class Tangents(Chain):
    """Takes a derivative in forward mode, of what is recorded or of a tensor of its own."""

    of_recorded = True

    def forward(self, words: tuple[int, ...]) -> torch.Tensor:
        h = super().forward(words)
        with forward_ad.dual_level():
            given = h.detach() if self.of_recorded else torch.ones(h.shape)
            dual = forward_ad.make_dual(given, torch.full(h.shape, 0.5))
            tangent = forward_ad.unpack_dual(self.cell(dual, dual)).tangent
        return self.cell(h, tangent.detach())


@pytest.mark.parametrize("of_recorded", [True, False])
@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.filterwarnings("ignore::edbatch_tvm.errors.BreakWarning")
def test_forward_mode_gradients_inside_of_a_model(grad: bool, of_recorded: bool) -> None:
    torch.manual_seed(2)
    model = Tangents()
    model.of_recorded = of_recorded
    run = eb.autobatch(model, ["word", "cell"])
    with torch.set_grad_enabled(grad):
        for _ in range(2):
            found, wanted = run(ELEMENTS), [model(words) for words in ELEMENTS]
            torch.testing.assert_close(found, wanted)
            if grad:
                assert_gradients_equal(of_losses(model, found), of_losses(model, wanted))


class Mapped(Chain):
    """Uses transforms of ``torch.func`` itself, on tensors that are recorded."""

    def forward(self, words: tuple[int, ...]) -> torch.Tensor:
        h = super().forward(words)
        rows = torch.vmap(lambda row: torch.tanh(row) * 2)(torch.stack([h, h * 0.5]))
        return self.cell(rows[0], rows[1])


def test_vmap_inside_of_a_model() -> None:
    torch.manual_seed(2)
    model = Mapped()
    run = eb.autobatch(model, ["word", "cell"])
    for _ in range(2):
        found, wanted = run(ELEMENTS), [model(words) for words in ELEMENTS]
        assert_gradients_equal(of_losses(model, found), of_losses(model, wanted))


def test_derivatives_of_derivatives_are_one_error(chain: Chain, fast: Any) -> None:
    x = torch.stack(fast(ELEMENTS)).sum()
    with pytest.raises(RecordingError, match=r"gradients of gradients .*; expected first derivatives"):
        torch.autograd.grad(x, list(chain.parameters()), create_graph=True)


class Normed(nn.Module):
    def __init__(self, norm: nn.Module, in_cell: bool) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(H, H), norm
        self.in_cell = in_cell

    def cell(self, x: torch.Tensor) -> torch.Tensor:
        h = self.linear(x)
        return self.norm(h) if self.in_cell else h

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.cell(x)
        return h if self.in_cell else self.norm(h) * 1


@pytest.mark.parametrize("in_cell", [True, False])
def test_batch_norm_in_training_mode_is_one_error(in_cell: bool) -> None:
    """Where the statistics do not change, it is recorded."""
    torch.manual_seed(3)
    elements = [torch.randn(n, H) for n in (2, 3, 4)]
    model = Normed(nn.BatchNorm1d(H), in_cell)
    run = eb.autobatch(model, ["cell"])
    for grad in (True, False):
        with (
            torch.set_grad_enabled(grad),
            pytest.raises(RecordingError, match=r"batch_norm in training mode: .*hint: use eval\(\)"),
        ):
            run(elements)
    model.norm.eval()
    for _ in range(2):
        assert_gradients_equal(of_losses(model, run(elements)), of_losses(model, [model(x) for x in elements]))


@pytest.mark.slow
@pytest.mark.parametrize("in_cell", [True, False])
def test_batch_norm_without_statistics(in_cell: bool) -> None:
    torch.manual_seed(4)
    elements = [torch.randn(n, H) for n in (2, 3, 4)]
    model = Normed(nn.BatchNorm1d(H, track_running_stats=False), in_cell)
    run = eb.autobatch(copy.deepcopy(model), ["cell"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(2):
            found = of_losses(run.model, run(elements))
            wanted = of_losses(model, [model(x) for x in elements])
            for name, one in found.items():
                other = wanted[name]
                if other is not None:
                    # A bias before the norm changes nothing: its gradient is rounding.
                    assert (one - other).abs().max() <= 1e-4, name


@pytest.mark.parametrize("reads", [lambda w: w.detach(), lambda w: w.data], ids=["detach", "data"])
def test_transforms_in_a_model_see_memory_of_parameters(reads: Any) -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = torch.nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> Any:
            return torch.func.jacrev(lambda z: torch.tanh(z @ reads(self.cell.weight)))(x) + self.cell(x)

    model = Model()
    xs = [torch.linspace(-1, 1, 4) * scale for scale in (1, 2, 3)]
    found = eb.autobatch(model, cells=["cell"], target="numpy")(xs)
    torch.testing.assert_close(found, [model(x) for x in xs], rtol=1e-5, atol=1e-5)


def test_many_gradients_at_once_are_one_error(chain: Chain, fast: Any) -> None:
    x = fast(ELEMENTS)[0]
    with pytest.raises(RecordingError, match=r"is_grads_batched=True.*; expected one gradient"):
        torch.autograd.grad(x, list(chain.parameters()), torch.eye(len(x)), is_grads_batched=True)

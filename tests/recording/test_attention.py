"""Attention over sequences: cells that sequences of any length share."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import edbatch_tvm as eb
from edbatch_tvm.errors import BreakWarning
from edbatch_tvm.recording.attention import attended

WIDTH, HEADS = 8, 2
LENGTHS = (3, 1, 5, 2, 5)


class Sequences(nn.Module):
    """Words, what `call` makes of them with `layer`, and a score."""

    def __init__(self, layer: nn.Module, call: Callable[[nn.Module, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.words = nn.Embedding(20, WIDTH)
        self.layer = layer
        self.score = nn.Linear(WIDTH, 3)
        self.call = call

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        """One row of scores a word."""
        return self.score(self.call(self.layer, self.words(words)))


def _encoder(**options: Any) -> nn.Module:
    return nn.TransformerEncoderLayer(WIDTH, HEADS, 12, **{"dropout": 0.0, "batch_first": True} | options)


def _attention(**options: Any) -> nn.Module:
    return nn.MultiheadAttention(WIDTH, HEADS, **options)


def _causal(length: int) -> torch.Tensor:
    return nn.Transformer.generate_square_subsequent_mask(length)


def _last_unseen(length: int) -> torch.Tensor:
    """A padding mask: nothing attends to the last word, but where it is the only one."""
    return torch.tensor([[False] * (length - 1) + [length > 1]])


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[Any, torch.Tensor], torch.Tensor]]] = {
    "encoder layer": (_encoder, lambda m, x: m(x[None])[0]),
    "attention": (_attention, lambda m, x: m(x, x, x, need_weights=False)[0]),
    "norm first, gelu, steps first": (
        lambda: _encoder(norm_first=True, activation="gelu", batch_first=False, bias=False),
        lambda m, x: m(x.unsqueeze(1)).squeeze(1),
    ),
    "two sequences at once": (_encoder, lambda m, x: m(torch.stack([x, x.flip(0)]))[1]),
    "causal encoder": (
        lambda: nn.TransformerEncoder(_encoder(), 2, enable_nested_tensor=False),
        lambda m, x: m(x[None], mask=_causal(len(x)), is_causal=True)[0],
    ),
    "padding": (_encoder, lambda m, x: m(x[None], src_key_padding_mask=_last_unseen(len(x)))[0]),
    "decoder layer": (
        lambda: nn.TransformerDecoderLayer(WIDTH, HEADS, 12, dropout=0.0),
        lambda m, x: m(x[:2], x, tgt_mask=_causal(len(x[:2]))),
    ),
    "keys and values of other widths": (
        lambda: _attention(kdim=4, vdim=6, bias=False),
        lambda m, x: m(x, x[:, :4], x[:, 2:], need_weights=False)[0],
    ),
    "within a cell": (
        lambda: nn.Sequential(nn.Linear(WIDTH, WIDTH), _encoder(), nn.Tanh()),
        lambda m, x: m(x),
    ),
}


class Heads(nn.Module):
    """Attention as it is often written by hand, with `options` for the function."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.project, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.options = options

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Of one sequence."""
        parts = (one.view(1, len(x), HEADS, -1).transpose(1, 2) for one in self.project(x[None]).split(WIDTH, 2))
        found = F.scaled_dot_product_attention(*parts, **self.options)
        return self.out(found.transpose(1, 2).reshape(1, len(x), WIDTH))[0]


CASES |= {
    "heads": (lambda: Heads(is_causal=True), lambda m, x: m(x)),
    "heads of another scale": (lambda: Heads(scale=0.3), lambda m, x: m(x)),
    "heads of one row each": (
        Heads,
        lambda m, x: torch.cat([m(one[None]) for one in x]),
    ),
    "masked heads": (
        nn.Identity,
        lambda _m, x: (
            F.scaled_dot_product_attention(
                *[x.view(1, len(x), HEADS, -1).transpose(1, 2)] * 3, attn_mask=torch.ones(len(x), len(x)).tril().bool()
            )
            .transpose(1, 2)
            .reshape(len(x), WIDTH)
        ),
    ),
}

AS_A_CELL: dict[str, tuple[Callable[[], nn.Module], Callable[[Any, torch.Tensor], torch.Tensor]]] = {
    "weights of the keys": (_attention, lambda m, x: m(x, x, x)[0] + m(x, x, x)[1].sum(1, keepdim=True)),
    "another mask": (
        _attention,
        lambda m, x: m(x, x, x, need_weights=False, attn_mask=torch.arange(len(x) ** 2.0).view(len(x), -1) / 9)[0],
    ),
    "a row more": (lambda: _attention(add_bias_kv=True), lambda m, x: m(x, x, x, need_weights=False)[0]),
}
"""What these cells do not have."""

SLOW = set(CASES) - {"attention"} | set(AS_A_CELL)


def _model(name: str) -> Sequences:
    torch.manual_seed(0)
    make, call = (CASES | AS_A_CELL)[name]
    return Sequences(make(), call)


def _words(lengths: tuple[int, ...]) -> list[torch.Tensor]:
    return [torch.randint(0, 20, (length,)) for length in lengths]


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and bool((one - other).abs().max() <= 1e-5 * other.abs().max())


def _gradients(model: nn.Module, results: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    model.zero_grad()
    torch.stack([(one * torch.linspace(0.5, 1, one.numel()).view(one.shape)).sum() for one in results]).sum().backward()
    return {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in CASES | AS_A_CELL]
)
def test_attention_is_that_of_pytorch(name: str, training: bool) -> None:
    model = _model(name).train(training)
    fast = eb.autobatch(model, cells=["words", "layer", "score"])
    with torch.set_grad_enabled(training), warnings.catch_warnings():
        warnings.simplefilter("ignore", BreakWarning)
        for lengths in (LENGTHS, LENGTHS, (4, 1, 7)):
            words = _words(lengths)
            expected, results = [model(one) for one in words], fast(words)
            assert all(map(_equal, results, expected))
            if training:
                wanted, found = _gradients(model, expected), _gradients(model, results)
                assert found.keys() == wanted.keys()
                assert all(_equal(found[key], wanted[key]) for key in wanted)


@pytest.mark.parametrize(
    ("name", "batches"),
    [
        ("encoder layer", 4),  # words, keys and values, the rest of the layer, scores
        # Words, projection, three parts of its rows, keys beside values, attention, two projections.
        ("heads", 9),
    ],
)
def test_sequences_of_all_lengths_share_cells_and_batches(name: str, batches: int) -> None:
    model = _model(name).eval()
    fast = eb.autobatch(model, cells=["words", "layer", "score"])
    counts = set()
    for lengths in (LENGTHS, (9, 4, 2), (17, 30)):
        fast(words := _words(lengths))
        assert all(map(_equal, fast(words), [model(one) for one in words]))
        counts.add(fast.batches)
    assert counts == {batches}
    assert fast.breaks == []


@pytest.mark.slow
def test_dropout_draws_what_pytorch_draws() -> None:
    model = Sequences(_encoder(dropout=0.5), CASES["encoder layer"][1]).train()
    fast = eb.autobatch(model, cells=["words", "score"])
    words = _words((3, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BreakWarning)
        for _ in range(2):
            torch.manual_seed(1)
            expected = [model(one) for one in words]
            torch.manual_seed(1)
            assert all(map(_equal, fast(words), expected))


@pytest.mark.parametrize(
    "change",
    ["hook", *(pytest.param(one, marks=pytest.mark.slow) for one in ("activation", "subclass", "forward", "norm"))],
)
def test_a_layer_that_was_changed_runs_as_it_is(change: str) -> None:
    """In training: PyTorch's fast path for inference does not see most of these changes."""

    class Doubled(nn.TransformerEncoderLayer):
        def _ff_block(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * x

    model = _model("encoder layer").train()
    layer: Any = model.layer
    if change == "hook":
        layer.linear2.register_forward_hook(lambda _module, _given, result: 2 * result)
    elif change == "activation":
        layer.activation = torch.tanh
    elif change == "subclass":
        model.layer = Doubled(WIDTH, HEADS, 12, dropout=0.0, batch_first=True)
    elif change == "forward":
        layer.forward = lambda src: 2 * src
    else:
        layer.norm1 = nn.Identity()
    fast = eb.autobatch(model, cells=["words", "score"])
    words = _words((2, 3, 1))
    with torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", BreakWarning)
        for _ in range(2):
            assert all(map(_equal, fast(words), [model(one) for one in words]))


def _norm_first(layer: Any) -> None:
    layer.norm_first = True


def _eps(layer: Any) -> None:
    layer.norm1.eps = 0.5


def _heads(layer: Any) -> None:
    layer.self_attn.num_heads, layer.self_attn.head_dim = 4, WIDTH // 4


def _gelu(layer: Any) -> None:
    layer.activation, layer.activation_relu_or_gelu = F.gelu, 2


def _weight(layer: Any) -> None:
    layer.linear1.weight.data = 2 * layer.linear1.weight.data


def _other_norm(layer: Any) -> None:
    layer.norm2 = nn.LayerNorm(WIDTH, bias=False).requires_grad_(False).train(layer.training)
    layer.norm2.weight.fill_(3)


@pytest.mark.slow
def test_changes_of_a_layer_between_calls_are_followed() -> None:
    model = _model("encoder layer").eval()
    fast = eb.autobatch(model, cells=["words", "layer", "score"])
    words = _words(LENGTHS)
    before = fast(words)
    for change in (_norm_first, _eps, _heads, _gelu, _weight, _other_norm):
        change(model.layer)
        expected = [model(one) for one in words]
        assert not all(map(_equal, before, expected))
        before = fast(words)
        assert all(map(_equal, before, expected))


@pytest.mark.slow
def test_gradients_of_inputs() -> None:
    torch.manual_seed(0)
    model = _encoder().train()
    fast = eb.autobatch(model)
    with torch.enable_grad():
        for _ in range(2):
            given = [torch.randn(1, length, WIDTH, requires_grad=True) for length in LENGTHS]
            results, expected = fast(given), [model(one) for one in given]
            found, wanted = (
                torch.autograd.grad([one.exp().sum() for one in each], given) for each in (results, expected)
            )
            assert all(map(_equal, found, wanted))


def test_masks_say_which_keys_are_attended_to() -> None:
    every, causal = [[[0, 1, 2]] * 3], [[[0], [0, 1], [0, 1, 2]]]
    extents = 1, 3, 3
    mask = torch.ones(3, 3, dtype=torch.bool).triu(1)
    padding = torch.tensor([[False, False, True]])
    assert attended(None, None, False, extents) == every
    for one in (mask, torch.zeros(3, 3).masked_fill(mask, float("-inf"))):
        assert attended(one, None, False, extents) == causal
    assert attended(torch.zeros(3, 3), None, True, extents) == causal
    assert attended(mask, padding, True, extents) == [[[0], [0, 1], [0, 1]]]
    assert attended(None, padding[0], False, extents) == [[[0, 1]] * 3]
    assert attended(None, ~padding, False, (2, 3, 3)) is None  # of another number of sequences
    assert attended(None, torch.ones(1, 3, dtype=torch.bool), False, extents) is None  # NaN in PyTorch
    assert attended(torch.full((3, 3), 0.5), None, False, extents) is None
    assert attended(None, None, True, extents) is None


def test_attention_of_no_rows_is_an_error_or_empty_as_in_pytorch() -> None:
    model = _model("attention").eval()
    fast = eb.autobatch(model, cells=["words", "layer", "score"])
    words = _words((2, 3))
    fast(words)
    empty = torch.empty(0, dtype=torch.int64)
    expected = F.relu(model(empty))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BreakWarning)
        assert fast([empty, *words])[0].shape == expected.shape

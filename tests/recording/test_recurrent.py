"""``nn.LSTM``, ``nn.GRU`` and ``nn.RNN`` are calls of one step cell a layer and direction, whatever the lengths."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import rnn as packing

import edbatch_tvm as eb
from tests.recording.checks import assert_equal

WIDTH, H = 3, 4
LENGTHS = (3, 2, 5, 2)

LAYERS: dict[str, Callable[..., nn.RNNBase]] = {
    "lstm": nn.LSTM,
    "gru": nn.GRU,
    "tanh": nn.RNN,
    "relu": lambda *sizes, **options: nn.RNN(*sizes, nonlinearity="relu", **options),
    "projected": lambda *sizes, **options: nn.LSTM(*sizes, proj_size=2, **options),
}
OPTIONS: list[dict[str, Any]] = [
    {},
    {"num_layers": 2, "bidirectional": True, "dropout": 0.3},
    {"bias": False, "batch_first": True},
]
SHAPES: tuple[tuple[int, ...], ...] = ((), (1,), (2,))


class AllForms(nn.Module):
    """Every kind of layer, on inputs of every shape, with initial states and without."""

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__()
        self.up = nn.Linear(WIDTH, WIDTH)
        self.first = nn.ModuleDict({str(size): nn.Linear(WIDTH, size) for size in (2, H)})
        self.layers = nn.ModuleDict({name: make(WIDTH, H, **options) for name, make in LAYERS.items()})
        self.batch_first = options.get("batch_first", False)

    def forward(self, x: torch.Tensor) -> list[Any]:
        made = []
        for batch, layer in product(SHAPES, self.layers.values()):
            count = batch[0] if batch else 1
            rows = x[: len(x) // count * count]
            shape = (*batch, -1) if self.batch_first else (-1, *batch)
            made.append(layer(self.up(rows).view(*shape, WIDTH)))
            many = layer.num_layers * (2 if layer.bidirectional else 1)
            size = layer.proj_size or H
            h = torch.cat([self.first[str(size)](x[-1:])] * many * count).view(many, *batch, size)
            states = (h, torch.ones(many, *batch, H)) if isinstance(layer, nn.LSTM) else h
            made.append(layer(rows.view(*shape, WIDTH), states))
        return made


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize(
    "options",
    [
        pytest.param(OPTIONS[0], id="plain"),
        pytest.param(OPTIONS[1], id="deep", marks=pytest.mark.slow),
        pytest.param(OPTIONS[2], id="without bias", marks=pytest.mark.slow),
    ],
)
def test_every_layer_in_every_form(options: dict[str, Any]) -> None:
    model = AllForms(options).eval()
    elements = [torch.randn(length, WIDTH) for length in LENGTHS]
    fast = eb.autobatch(model, ["up", "first.2", "first.4"])
    expected = [model(one) for one in elements]
    assert_equal(fast(elements), expected)
    assert_equal(fast(elements), expected)
    assert not fast.breaks
    steps = [name for name in fast.compiled.signature.names if name.startswith("layers")]
    assert len(steps) == len(LAYERS) * (4 if "num_layers" in options else 1)


class Tagger(nn.Module):
    """A layer that is listed, or inside of a method that is."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(9, WIDTH)
        self.lstm = nn.LSTM(WIDTH, H, bidirectional=True)
        self.tag = nn.Linear(2 * H, 2)

    def encode(self, words: torch.Tensor) -> torch.Tensor:
        return self.lstm(self.words(words))[0]

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        return self.tag(self.encode(words))


@pytest.mark.parametrize("cells", [pytest.param(["lstm", "tag"], marks=pytest.mark.slow), ["encode", "tag"], ["tag"]])
def test_lengths_batch(cells: list[str]) -> None:
    model = Tagger().eval()
    elements = [torch.randint(9, (length,)) for length in (4, 1, 6, 2, 3)]
    fast = eb.autobatch(model, cells)
    expected = [model(one) for one in elements]
    assert_equal(fast(elements), expected)
    assert_equal(fast(elements), expected)
    assert not fast.breaks
    assert set(fast.compiled.signature.names) == {"lstm_l0", "lstm_l0_reverse", "beside", "tag"}
    assert fast.batches <= 2 * 6 + 2


class Packed(nn.Module):
    """Padded sentences, packed and unpacked."""

    def __init__(self, kind: Callable[..., nn.RNNBase], sort: bool) -> None:
        super().__init__()
        self.up = nn.Linear(WIDTH, WIDTH)
        self.layer = kind(WIDTH, H, num_layers=2, bidirectional=True)
        self.sort = sort

    def forward(self, rows: list[torch.Tensor]) -> Any:
        padded = packing.pad_sequence([self.up(one) for one in rows])
        lengths = torch.tensor([len(one) for one in rows])
        packed = packing.pack_padded_sequence(padded, lengths, enforce_sorted=not self.sort)
        output, states = self.layer(packed)
        return packing.pad_packed_sequence(output), states


@pytest.mark.filterwarnings("ignore::edbatch_tvm.errors.BreakWarning")
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_packed_sequences(kind: Callable[..., nn.RNNBase]) -> None:
    model = Packed(kind, True).eval()
    elements = [[torch.randn(length, WIDTH) for length in lengths] for lengths in ((2, 3, 1), (1,), (2, 2))]
    fast = eb.autobatch(model, ["up"])
    expected = [model(one) for one in elements]
    for _ in range(2):
        assert_equal(fast(elements), expected)


def test_errors_are_those_of_the_layer() -> None:
    model = Tagger().eval()
    fast = eb.autobatch(model, ["lstm", "tag"])
    with pytest.raises(RuntimeError, match="sequence length"):
        fast([torch.zeros(0, dtype=torch.long)])


class ReadsAfterEachLayer(nn.Module):
    """Runs layers as often as an element says, and reads a value each time."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.LSTM(WIDTH, WIDTH), nn.GRU(WIDTH, WIDTH), nn.RNN(WIDTH, WIDTH)])

    def forward(self, times: int) -> Any:
        x, read = torch.ones(1, 1, WIDTH), 0.0
        for _ in range(times):
            for layer in self.layers:
                x = layer(x)[0]
            read += x.sum().item()
        return x, torch.tensor(read)


def test_elements_do_not_wait_for_the_weights_of_others() -> None:
    model = ReadsAfterEachLayer().eval()
    fast = eb.autobatch(model, [f"layers.{place}" for place in range(3)])
    times = [2, 3, 1, 3]
    for _ in range(2):
        assert_equal(fast(times), [model(one) for one in times])
        assert len(fast.reports) <= max(times) + 1
    assert not fast.breaks
    with torch.no_grad():
        model.layers[0].weight_hh_l0.mul_(2)
    model.layers[1].weight_ih_l0 = nn.Parameter(-model.layers[1].weight_ih_l0)
    assert_equal(fast(times), [model(one) for one in times])
    assert len(fast.reports) <= max(times) + 1


def test_kernels_of_other_libraries_are_not_tried() -> None:
    """They check no shapes: tried for another number of rows, ``mkldnn_rnn_layer`` wrote beyond its tensors."""
    fast = eb.autobatch(nn.Linear(2, 2))
    for name in ("mkldnn_rnn_layer", "mkldnn_linear", "_cudnn_rnn", "miopen_rnn", "fbgemm_linear_fp16_weight"):
        site = fast._library.operator_site(getattr(torch.ops.aten, name).default, ())
        assert site.never is not None, name
    for name in ("mul", "linear", "addmm", "lstm_cell", "softmax"):
        packet = getattr(torch.ops.aten, name)
        assert fast._library.operator_site(getattr(packet, packet.overloads()[0]), ()).never is None, name

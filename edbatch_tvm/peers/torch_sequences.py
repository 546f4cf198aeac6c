"""The tagger on ``torch.nn.LSTM``, packed or padded, and as a loop over time with both directions in one product.

In all of them sentences are sorted by length, and the index tensors that arrange words are made ahead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from edbatch_tvm.graph import InstanceGraph

SIDES = ("forward", "backward")


class Sentences:
    """The words of a minibatch, arranged by position: all first words, all second words, ...

    Attributes
    ----------
    sizes : list of int
        Sentences that have a word at each position.
    words : Tensor of shape ``[2, tokens]``
        Read from left to right, and from right to left.
    back : Tensor of shape ``[2, tokens]``
        Where the tokens, in the order of the sentences, are among the words.
    """

    def __init__(self, graph: InstanceGraph) -> None:
        assert graph.signature is not None
        kind = graph.signature.type_id("forward_layer1")
        all_words = graph.attributes[kind, "word"]
        lengths = np.diff(graph.output_ptr)
        starts = graph.output_ptr[:-1].astype(np.int64)
        order = np.argsort(-lengths, kind="stable")
        self.longest = int(lengths.max())
        self.lengths = lengths
        positions = [order[lengths[order] > position] for position in range(self.longest)]
        self.sizes = [len(these) for these in positions]
        source = np.concatenate([starts[these] + position for position, these in enumerate(positions)])
        mirrored = np.concatenate([starts[these] + lengths[these] - 1 - p for p, these in enumerate(positions)])
        both = np.stack((source, mirrored))
        self.words = torch.from_numpy(all_words[both].astype(np.int64))
        self.back = torch.from_numpy(np.argsort(both, axis=1))
        column = np.argsort(order)
        where = [np.arange(length) * len(lengths) + column[i] for i, length in enumerate(lengths.tolist())]
        self.padded_forward = torch.from_numpy(np.concatenate(where))
        turned = [place[::-1] for place in where]
        self.padded_backward = torch.from_numpy(np.concatenate(turned))
        table = np.zeros((2, self.longest * len(lengths)), np.int64)
        table[0, self.padded_forward.numpy()] = all_words
        table[1, self.padded_backward.numpy()] = all_words
        self.padded_words = torch.from_numpy(table.reshape(2, self.longest, len(lengths)))


class Tagger:
    """The tagger.

    Parameters
    ----------
    graph : InstanceGraph
        A minibatch of ``bilstm-tagger``.
    weights : mapping of str to float32 array
    form : {"packed", "padded", "loop"}
    """

    def __init__(self, graph: InstanceGraph, weights: Mapping[str, np.ndarray], form: str) -> None:
        w = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in weights.items()}
        self._sentences = Sentences(graph)
        self._embedding, self._inner, self._outer = w["embedding"], w["T_tag"], w["O_tag"]
        self._run: Callable[[], Tensor] = getattr(self, f"_{form}")
        if form == "loop":
            self._layers = [_both_sides(w, layer) for layer in (1, 2)]
        else:
            self._lstms = [_torch_lstm(w, side) for side in SIDES]
        self._logits = torch.empty(0)

    def run(self) -> None:
        """Run the minibatch."""
        with torch.inference_mode():
            self._logits = self._run()

    def outputs(self) -> np.ndarray:
        """Declared outputs of the last run, one per row."""
        return self._logits.numpy()

    def _tagged(self, forward: Tensor, backward: Tensor) -> Tensor:
        return torch.mm(torch.mm(torch.cat((forward, backward), 1), self._inner).tanh_(), self._outer)

    def _packed(self) -> Tensor:
        these = self._sentences
        sizes = torch.tensor(these.sizes)
        states = []
        for lstm, words, back in zip(self._lstms, these.words, these.back, strict=True):
            out, _ = lstm(PackedSequence(self._embedding.index_select(0, words), sizes))
            states.append(out.data.index_select(0, back))
        return self._tagged(*states)

    def _padded(self) -> Tensor:
        these = self._sentences
        states = []
        for lstm, words, back in zip(
            self._lstms, these.padded_words, (these.padded_forward, these.padded_backward), strict=True
        ):
            out, _ = lstm(self._embedding[words])
            states.append(out.flatten(0, 1).index_select(0, back))
        return self._tagged(*states)

    def _loop(self) -> Tensor:
        these = self._sentences
        x = self._embedding[these.words]
        for inputs, recurrent, bias in self._layers:
            x = _scan(torch.baddbmm(bias, x, inputs), recurrent, these.sizes)
        return self._tagged(x[0].index_select(0, these.back[0]), x[1].index_select(0, these.back[1]))


def _scan(gates: Tensor, recurrent: Tensor, sizes: list[int]) -> Tensor:
    """H after every word: a step of all sentences and both directions is one product."""
    size = recurrent.shape[1]
    states = torch.empty(2, gates.shape[1], size)
    h = c = None
    begin = 0
    for count in sizes:
        step = gates[:, begin : begin + count]
        if h is not None and c is not None:
            step = torch.baddbmm(step, h[:, :count], recurrent)
            c = c[:, :count]
        i, f, o = step[..., : 3 * size].sigmoid().chunk(3, 2)
        g = step[..., 3 * size :].tanh()
        c = i * g if c is None else torch.addcmul(f * c, i, g)
        h = torch.mul(o, torch.tanh(c))
        states[:, begin : begin + count] = h
        begin += count
    return states


def _both_sides(w: Mapping[str, Tensor], layer: int) -> tuple[Tensor, Tensor, Tensor]:
    """Weights of the input, of the state, and biases of one layer in both directions."""
    matrix = torch.stack([w[f"W_{side}{layer}"] for side in SIDES])
    bias = torch.stack([w[f"b_{side}{layer}"] for side in SIDES])[:, None]
    width = matrix.shape[1] // 2
    return matrix[:, :width].contiguous(), matrix[:, width:].contiguous(), bias


def lstm_weights(w: Mapping[str, Tensor], side: str) -> list[Tensor]:
    """The weights of ``torch.nn.LSTM`` (gates i, f, g, o) of two layers, in its order, from ours (gates i, f, o, g)."""
    size = len(w[f"b_{side}1"]) // 4
    order = torch.cat([torch.arange(size) + gate * size for gate in (0, 1, 3, 2)])
    found = []
    for layer in (1, 2):
        matrix, bias = w[f"W_{side}{layer}"][:, order], w[f"b_{side}{layer}"][order]
        found += [matrix[:size].T.contiguous(), matrix[size:].T.contiguous(), bias, torch.zeros_like(bias)]
    return found


def _torch_lstm(w: Mapping[str, Tensor], side: str) -> Any:
    """Two layers of ``torch.nn.LSTM`` with our weights."""
    size = len(w[f"b_{side}1"]) // 4
    lstm = torch.nn.LSTM(size, size, num_layers=2).eval().requires_grad_(False)
    for parameter, value in zip(lstm.parameters(), lstm_weights(w, side), strict=True):
        parameter.copy_(value)
    return lstm


FORMS: Mapping[str, tuple[str, ...]] = {"bilstm-tagger": ("packed", "padded", "loop")}
"""Forms of the workloads that are sequences."""

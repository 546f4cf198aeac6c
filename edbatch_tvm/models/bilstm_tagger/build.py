"""Instance graphs of sentences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from edbatch_tvm.graph import Builder, InstanceGraph


def sentence_graph(builder: Builder, words: Sequence[int]) -> InstanceGraph:
    """The graph of one sentence of word ids; the tag logits of its tokens are the declared outputs, in order."""

    def layers(direction: str, sequence: Iterable[int]) -> list[Any]:
        first, second = f"{direction}_layer1", f"{direction}_layer2"
        h1 = c1 = h2 = c2 = builder.zero
        hidden = []
        for word in sequence:
            h1, c1 = builder.call(first, h1, c1, word=word)
            h2, c2 = builder.call(second, h1, h2, c2)
            hidden.append(h2)
        return hidden

    forward = layers("forward", words)
    backward = layers("backward", reversed(words))
    return builder.finish([builder.call("tag", *pair) for pair in zip(forward, reversed(backward), strict=True)])

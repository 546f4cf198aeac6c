"""Instance graphs of sentences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from edbatch_tvm.graph import Builder, InstanceGraph, Value


def sentence_graph(builder: Builder, words: Sequence[int]) -> InstanceGraph:
    """The graph of one sentence of word ids; the tag logits of its tokens are the declared outputs, in order."""
    forward = two_layers(builder, "forward", words, "word")
    backward = two_layers(builder, "backward", reversed(words), "word")
    return builder.finish([builder.call("tag", *pair) for pair in zip(forward, reversed(backward), strict=True)])


def two_layers(builder: Builder, name: str, inputs: Iterable[Any], attribute: str = "") -> list[Value]:
    """Run the LSTM cells ``name_layer1`` and ``name_layer2``, stacked, over a sequence.

    Parameters
    ----------
    builder : Builder
    name : str
    inputs : iterable
        What layer 1 reads: its operand ``x``, or the attribute named next.
    attribute : str
        Name of the attribute; empty where the inputs are operands.

    Returns
    -------
    list of Value
        The h of layer 2 after each input.
    """
    call, first, second = builder.call, f"{name}_layer1", f"{name}_layer2"
    h1 = c1 = h2 = c2 = builder.zero
    hidden = []
    for item in inputs:
        h1, c1 = call(first, h1, c1, **{attribute: item}) if attribute else call(first, item, h1, c1)
        h2, c2 = call(second, h1, h2, c2)
        hidden.append(h2)
    return hidden

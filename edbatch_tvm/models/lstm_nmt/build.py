"""Instance graphs of sentence pairs."""

from __future__ import annotations

from collections.abc import Sequence

from edbatch_tvm.graph import Builder, InstanceGraph
from edbatch_tvm.models.vocabulary import word_id

START = word_id("<s>")
"""What the decoder reads before the first word."""

Pair = tuple[Sequence[int], Sequence[int]]
"""Word ids of a sentence and of its translation."""


def translation_graph(builder: Builder, pair: Pair) -> InstanceGraph:
    """The graph of one pair, teacher forced: the decoder reads the translation one word behind.

    The readouts of the decoder's steps, one a word of the translation, are the declared outputs, in order.
    """
    call = builder.call
    source, target = pair
    h = c = builder.zero
    for word in source:
        h, c = call("encoder", call("source", word=word), h, c)
    hidden = []
    for word in (START, *target[:-1]):
        h, c = call("decoder", call("target", word=word), h, c)
        hidden.append(h)
    return builder.finish([call("readout", h) for h in hidden])

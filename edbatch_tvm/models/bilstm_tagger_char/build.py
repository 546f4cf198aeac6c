"""Instance graphs of sentences in which rare words are spelled."""

from __future__ import annotations

from collections.abc import Sequence

from edbatch_tvm.graph import Builder, InstanceGraph, Value
from edbatch_tvm.models.bilstm_tagger.build import two_layers
from edbatch_tvm.models.vocabulary import VOCABULARY

PAD = VOCABULARY
"""Character id at both ends of a spelled word; characters are below."""

Token = int | tuple[int, ...]
"""A frequent word's id, or the character ids of a rare one."""


def spelled_sentence_graph(builder: Builder, tokens: Sequence[Token]) -> InstanceGraph:
    """The graph of one sentence; the tag logits of its tokens are the declared outputs, in order."""
    call = builder.call

    def vector(token: Token) -> Value:
        if isinstance(token, int):
            word: Value = call("word", word=token)
            return word
        padded = (PAD, *token, PAD)
        forward = two_layers(builder, "char_forward", padded, "char")
        backward = two_layers(builder, "char_backward", reversed(padded), "char")
        spelled: Value = call("spell", forward[-1], backward[-1])
        return spelled

    vectors = [vector(token) for token in tokens]
    forward = two_layers(builder, "forward", vectors)
    backward = two_layers(builder, "backward", reversed(vectors))
    return builder.finish([call("tag", *pair) for pair in zip(forward, reversed(backward), strict=True)])

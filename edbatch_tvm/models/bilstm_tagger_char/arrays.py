"""Instances of sentences in which rare words are spelled, from arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from edbatch_tvm.graph import Signature
from edbatch_tvm.models.bilstm_tagger.arrays import steps_of, two_layers
from edbatch_tvm.models.bilstm_tagger_char.build import PAD, Token
from edbatch_tvm.models.flat_items import FlatSequences, offsets
from edbatch_tvm.models.flatten import flat_sequences
from edbatch_tvm.models.minibatch_arrays import MinibatchArrays, Read


@dataclass(frozen=True, eq=False)
class FlatSpelled:
    """Sentences in which rare words are spelled.

    Attributes
    ----------
    tokens : FlatSequences
        The words' ids; -1 for a word that is spelled.
    letters : FlatSequences
        The characters of those, in their order.
    """

    tokens: FlatSequences
    letters: FlatSequences

    def __len__(self) -> int:
        return len(self.tokens)

    def part(self, begin: int, end: int) -> FlatSpelled:
        """Sentences `begin` to `end`."""
        first, last = self.tokens.ptr[begin], self.tokens.ptr[min(end, len(self))]
        before = int(np.count_nonzero(self.tokens.values[:first] < 0))
        own = int(np.count_nonzero(self.tokens.values[first:last] < 0))
        return FlatSpelled(self.tokens.part(begin, end), self.letters.part(before, before + own))


def flat_spelled(items: Sequence[Sequence[Token]]) -> FlatSpelled:
    """Sentences of words' ids and tuples of characters as arrays."""
    spelled = [token for token in chain.from_iterable(items) if not isinstance(token, int)]
    words = flat_sequences([[token if isinstance(token, int) else -1 for token in item] for item in items])
    return FlatSpelled(words, flat_sequences(spelled))


def spelled_arrays(signature: Signature, sentences: FlatSpelled) -> MinibatchArrays:
    """The instances that :func:`~edbatch_tvm.models.bilstm_tagger_char.build.spelled_sentence_graph` builds.

    A frequent word is one call. A word of n letters, with a pad on each side, has 2 n + 4 calls forward, as many
    backward, and one that puts both together. Then come the calls of a sentence of words.
    """
    tokens = sentences.tokens
    spelled = tokens.values < 0
    lengths = np.zeros(len(tokens.values), np.int32)
    lengths[spelled] = np.diff(sentences.letters.ptr) + 2
    calls = offsets(np.where(spelled, 4 * lengths + 1, 1))
    sizes = np.diff(tokens.ptr)
    made = MinibatchArrays(signature, calls[tokens.ptr] + 5 * tokens.ptr)
    token = calls[:-1] + 5 * np.repeat(tokens.ptr[:-1], sizes)
    vector = token + 4 * lengths  # the last call of a token
    made.add("word", token[~spelled], word=tokens.values[~spelled])

    padded = offsets(lengths[spelled])
    letters = np.full(padded[-1], PAD, np.int32)
    inside = np.ones(len(letters), bool)
    inside[padded[:-1]] = inside[padded[1:] - 1] = False
    letters[inside] = sentences.letters.values
    steps = steps_of(padded)
    first = np.repeat(token[spelled], lengths[spelled])
    forward = two_layers(made, "char_forward", first, steps, char=letters)
    backward = two_layers(made, "char_backward", first + 2 * steps.size, steps, char=letters[steps.backwards])
    ends = padded[1:] - 1
    made.add("spell", vector[spelled], Read(made.value(forward[ends])), Read(made.value(backward[ends])))

    steps, read = steps_of(tokens.ptr), made.value(vector)
    first = np.repeat(calls[tokens.ptr[1:]] + 5 * tokens.ptr[:-1], sizes)
    forward = two_layers(made, "forward", first, steps, Read(read))
    backward = two_layers(made, "backward", first + 2 * steps.size, steps, Read(read[steps.backwards]))
    tag = first + 4 * steps.size + steps.number
    made.add("tag", tag, Read(made.value(forward)), Read(made.value(backward)[steps.backwards]))
    return made.declare(tag, tokens.ptr)

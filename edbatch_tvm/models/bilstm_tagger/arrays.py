"""Instances of sentences from arrays."""

from __future__ import annotations

import numpy as np

from edbatch_tvm.graph import Signature
from edbatch_tvm.models.flat_items import FlatSequences
from edbatch_tvm.models.minibatch_arrays import MinibatchArrays, Read


def sentence_arrays(signature: Signature, sentences: FlatSequences) -> MinibatchArrays:
    """The instances that :func:`edbatch_tvm.models.bilstm_tagger.build.sentence_graph` builds of sentences.

    A sentence of n words has 2 n calls forward, 2 n backward, and n of the tags.
    """
    made = MinibatchArrays(signature, 5 * sentences.ptr)
    sizes = np.diff(sentences.ptr)
    size, begin = np.repeat(sizes, sizes), np.repeat(sentences.ptr[:-1], sizes)
    word = np.arange(len(sentences.values), dtype=np.int32)
    step = word - begin
    backwards = begin + (size - 1 - step)  # the word that a step of the backward direction reads
    starts = sentences.ptr[:-1][sizes > 0]
    ends = []
    for name, first, words in (
        ("forward", 5 * begin, sentences.values),
        ("backward", 5 * begin + 2 * size, sentences.values[backwards]),
    ):
        layer1 = first + 2 * step
        layer2 = layer1 + 1
        before1, before2 = made.value(layer1 - 2), made.value(layer2 - 2)
        before1[starts] = before2[starts] = -1
        made.add(f"{name}_layer1", layer1, Read(before1, 2), word=words)
        made.add(f"{name}_layer2", layer2, Read(made.value(layer1)), Read(before2, 2))
        ends.append(made.value(layer2))
    tag = 5 * begin + 4 * size + step
    made.add("tag", tag, Read(ends[0]), Read(ends[1][backwards]))
    return made.declare(tag, sentences.ptr)

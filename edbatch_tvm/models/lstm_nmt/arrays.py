"""Instances of sentence pairs from arrays."""

from __future__ import annotations

import numpy as np

from edbatch_tvm.graph import Signature
from edbatch_tvm.models.flat_items import FlatPairs
from edbatch_tvm.models.lstm_nmt.build import START
from edbatch_tvm.models.minibatch_arrays import MinibatchArrays, Read


def translation_arrays(signature: Signature, pairs: FlatPairs) -> MinibatchArrays:
    """The instances that :func:`edbatch_tvm.models.lstm_nmt.build.translation_graph` builds of pairs.

    A pair of n and m words has 2 n calls of the source, 2 m of the target, and m readouts.
    """
    source, target = pairs.source, pairs.target
    begins = 2 * source.ptr + 3 * target.ptr
    made = MinibatchArrays(signature, begins)
    words, others = np.diff(source.ptr), np.diff(target.ptr)
    begin = begins[:-1]

    step = np.arange(len(source.values), dtype=np.int32) - np.repeat(source.ptr[:-1], words)
    word = np.repeat(begin, words) + 2 * step
    before = np.where(step == 0, -1, made.value(word - 1))
    made.add("source", word, word=source.values)
    made.add("encoder", word + 1, Read(made.value(word)), Read(before, 2))

    step = np.arange(len(target.values), dtype=np.int32) - np.repeat(target.ptr[:-1], others)
    word = np.repeat(begin + 2 * words, others) + 2 * step
    read = np.empty_like(target.values)  # the word before
    read[1:] = target.values[:-1]
    read[step == 0] = START
    # The first reads the last state of the encoder, which is just before its word's node.
    made.add("target", word, word=read)
    made.add("decoder", word + 1, Read(made.value(word)), Read(made.value(word - 1), 2))
    readout = np.repeat(begin + 2 * words + 2 * others, others) + step
    made.add("readout", readout, Read(made.value(word + 1)))
    return made.declare(readout, target.ptr)

"""Instances of sentences from arrays."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from edbatch_tvm.graph import Signature
from edbatch_tvm.models.flat_items import FlatSequences
from edbatch_tvm.models.minibatch_arrays import MinibatchArrays, Read
from edbatch_tvm.models.native_reader import native_reader


class Steps(NamedTuple):
    """The elements of sequences, one after the other.

    Attributes
    ----------
    size, number : int32 array of shape [elements]
        The length of the sequence that an element is of, and its number there.
    starts : int32 array of shape [sequences that are not empty]
        The first element of each sequence.
    backwards : int32 array of shape [elements]
        The elements in the order in which the backward direction reads them, sequence by sequence.
    """

    size: np.ndarray
    number: np.ndarray
    starts: np.ndarray
    backwards: np.ndarray


def steps_of(ptr: np.ndarray) -> Steps:
    """The elements of sequences that begin where `ptr` says."""
    sizes = np.diff(ptr)
    size, begin = np.repeat(sizes, sizes), np.repeat(ptr[:-1], sizes)
    number = np.arange(ptr[-1], dtype=np.int32) - begin
    return Steps(size, number, ptr[:-1][sizes > 0], begin + (size - 1 - number))


def two_layers(
    made: MinibatchArrays, name: str, first: np.ndarray, steps: Steps, *inputs: Read, **attributes: np.ndarray
) -> np.ndarray:
    """The calls that :func:`edbatch_tvm.models.bilstm_tagger.build.two_layers` makes: those of layer 2.

    Parameters
    ----------
    made : MinibatchArrays
    name : str
    first : int array
        For each element the first call of its sequence.
    steps : Steps
    *inputs, **attributes
        What layer 1 reads at each step, but for its state.
    """
    layer1 = first + 2 * steps.number
    layer2 = layer1 + 1
    before1, before2 = made.value(layer1 - 2), made.value(layer2 - 2)
    before1[steps.starts] = before2[steps.starts] = -1
    made.add(f"{name}_layer1", layer1, *inputs, Read(before1, 2), **attributes)
    made.add(f"{name}_layer2", layer2, Read(made.value(layer1)), Read(before2, 2))
    return layer2


def sentence_arrays(signature: Signature, sentences: FlatSequences) -> MinibatchArrays:
    """The instances that :func:`edbatch_tvm.models.bilstm_tagger.build.sentence_graph` builds of sentences.

    A sentence of n words has 2 n calls forward, 2 n backward, and n of the tags.
    """
    native = native_reader()
    if native is not None:
        names = "forward_layer1", "forward_layer2", "backward_layer1", "backward_layer2", "tag"
        found = native.sentence_nodes(sentences, [*map(signature.type_id, names)], signature.stride)
        if found is not None:
            read = {(names[0], "word"): sentences.values, (names[2], "word"): found.ids[0]}
            return MinibatchArrays.of_nodes(signature, found, sentences.ptr, read)
    made = MinibatchArrays(signature, 5 * sentences.ptr)
    steps = steps_of(sentences.ptr)
    begin = 5 * np.repeat(sentences.ptr[:-1], np.diff(sentences.ptr))
    words = sentences.values
    forward = two_layers(made, "forward", begin, steps, word=words)
    backward = two_layers(made, "backward", begin + 2 * steps.size, steps, word=words[steps.backwards])
    tag = begin + 4 * steps.size + steps.number
    made.add("tag", tag, Read(made.value(forward)), Read(made.value(backward)[steps.backwards]))
    return made.declare(tag, sentences.ptr)

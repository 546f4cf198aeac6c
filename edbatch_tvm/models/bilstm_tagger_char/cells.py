"""Cells of the sequence tagger that spells rare words: two LSTM layers over characters, two over words."""

# TVMScript annotates parameters with calls and indexes modules, which no type checker follows.
# mypy: disable-error-code="valid-type,no-untyped-def,misc"

from __future__ import annotations

from typing import Any

from tvm.script import ir as I
from tvm.script import relax as R

from edbatch_tvm.models import bilstm_tagger, lstm
from edbatch_tvm.models.bilstm_tagger_char.build import PAD
from edbatch_tvm.models.renaming import module_of, renamed, suffixed
from edbatch_tvm.models.vocabulary import VOCABULARY

DIRECTIONS = ("forward", "backward")

LETTER = {"word": "char", "embedding": "char_embedding"}
"""Names of a lookup LSTM that reads characters."""


def cells(hidden: int) -> Any:
    """Module of the cells of both levels.

    ============================ ==================================================================
    char_{forward,backward}_.. 1 an LSTM of half the hidden size that reads the character's embedding
    char_{forward,backward}_.. 2 an LSTM of the same size that reads layer 1 of its direction
    word                         the embedding of a frequent word
    spell                        a rare word: [last forward state; last backward state]
    {forward,backward}_layer1    an LSTM that reads a word, looked up or spelled
    {forward,backward}_layer2    an LSTM that reads layer 1 of its direction
    tag                          9 logits, O tanh(T [forward; backward])
    ============================ ==================================================================

    Embeddings are as wide as the hidden size, rounded up to the next even number.
    """
    half = (hidden + 1) // 2
    width = 2 * half

    @I.ir_module
    class Words:
        @R.function
        def word(word: R.Tensor((), "int32"), embedding: R.Tensor((VOCABULARY, width), "float32")):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                x = R.take(embedding, word, axis=0)
                R.output(x)
            return x

        @R.function
        def spell(forward: R.Tensor((half,), "float32"), backward: R.Tensor((half,), "float32")):
            with R.dataflow():
                x = R.concat((forward, backward))
                R.output(x)
            return x

    char1, char2 = lstm.lookup_cell(PAD + 1, half, half), lstm.step_cell(half, half)
    word1, word2 = lstm.step_cell(width, hidden), lstm.step_cell(hidden, hidden)
    functions: dict[str, Any] = {}
    for side in DIRECTIONS:
        functions[f"char_{side}_layer1"] = renamed(char1, LETTER | suffixed(f"char_{side}1", "W", "b"))
        functions[f"char_{side}_layer2"] = renamed(char2, suffixed(f"char_{side}2", "W", "b"))
    functions |= {"word": Words["word"], "spell": Words["spell"]}
    for side in DIRECTIONS:
        functions[f"{side}_layer1"] = renamed(word1, suffixed(f"{side}1", "W", "b"))
        functions[f"{side}_layer2"] = renamed(word2, suffixed(f"{side}2", "W", "b"))
    return module_of({**functions, "tag": bilstm_tagger.WORKLOAD.cells(hidden)["tag"]})

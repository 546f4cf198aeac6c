"""Models as they are: equal to PyTorch, in few batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import edbatch_tvm as eb
from tests.recording.checks import assert_equal
from tests.recording.models import (
    ChildSumTreeLSTM,
    GreedyDecoder,
    ModularTreeLSTM,
    ShiftReduceParser,
    random_trees,
)


def sentences(count: int, vocabulary: int) -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [rng.integers(1, vocabulary, rng.integers(4, 12)).tolist() for _ in range(count)]


def test_published_tree_lstm_by_a_method() -> None:
    model = ChildSumTreeLSTM(24)
    fast = eb.autobatch(model, cells=["node_forward"], policy="lookahead")
    trees = random_trees(32)
    expected = [model(tree) for tree in trees]
    assert_equal(fast(trees), expected)
    assert_equal(fast(trees), expected)
    # One batch of leaves, then one for each level; the readout and its logarithm are recorded between cells.
    levels = max(map(height, trees))
    assert fast.batches == levels + 2
    assert len(fast.reports) == 1
    assert {operand.variadic for operand in fast.compiled.signature["node_forward_2"].operands} == {False, True}
    assert max(len(tree.children) for tree in trees) > 3


def height(tree: Any) -> int:
    return 1 + max(map(height, tree.children), default=0)


@pytest.mark.slow
def test_published_tree_lstm_by_submodules() -> None:
    model = ModularTreeLSTM(24)
    fast = eb.autobatch(model, cells=["word", "cell", "classify"])
    trees = random_trees(16, seed=1)
    expected = [model(tree) for tree in trees]
    assert_equal(fast(trees), expected)
    assert_equal(fast.map(iter(trees)), expected)
    assert_equal([fast(trees[3])], expected[3:4])
    assert {name: path.split()[0] for name, path in fast.compiled.paths.items()}["classify"] == "stage"


def test_a_parser_whose_structure_depends_on_values() -> None:
    model = ShiftReduceParser(16)
    fast = eb.autobatch(model, cells=["shift", "reduce", "score"])
    given = sentences(64, 50)
    expected = [model(words) for words in given]
    assert len({tuple(actions) for actions, _ in expected}) > 10
    assert_equal(fast(given), expected)
    assert_equal(fast(given), expected)
    steps = sum(len(actions) for actions, _ in expected)
    assert fast.batches * 10 < steps
    # They advance together: as often as the longest sentence reads a score.
    assert len(fast.reports) <= max(len(words) for words in given) * 2


def test_a_greedy_decoder_that_stops_when_it_likes() -> None:
    model = GreedyDecoder(16)
    with torch.no_grad():
        model.output.bias[GreedyDecoder.END] += 0.35
    fast = eb.autobatch(model, cells=["encode", "step"])
    given = sentences(64, 20)
    expected = [model(words) for words in given]
    assert len({len(written) for written in expected}) > 3
    assert fast(given) == expected
    assert fast(given) == expected
    steps = sum(len(words) + len(written) for words, written in zip(given, expected, strict=True))
    assert fast.batches * 10 < steps


@pytest.mark.slow
def test_the_same_decoder_by_submodules_in_containers() -> None:
    model = GreedyDecoder(16, longest=6)
    fast = eb.autobatch(model, cells=["encoder", "decoder.0", "output", "source", "target"])
    given = sentences(8, 20)
    expected = [model(words) for words in given]
    assert fast(given) == expected
    assert fast(given) == expected
    assert fast.compiled.signature.names == ("source", "encoder", "target", "decoder_0", "output")

"""Peers on PyTorch compute what the reference does."""

from __future__ import annotations

import shutil

import pytest

from tests.peers.conftest import Example, example

torch = pytest.importorskip("torch")

from edbatch_tvm.peers.torch_runs import ByHand, OneByOne  # noqa: E402  (needs torch)
from edbatch_tvm.peers.torch_sequences import FORMS, Tagger  # noqa: E402


def test_one_by_one(every: Example) -> None:
    run = OneByOne(every.name, every.graph, every.weights)
    run.run()
    every.check(run.outputs())


def test_by_hand(every: Example) -> None:
    run = ByHand(every.name, every.graph, every.weights)
    for _ in range(2):  # the buffers are used again
        run.run()
        every.check(run.outputs())


@pytest.mark.parametrize("form", FORMS["bilstm-tagger"])
def test_tagger(form: str) -> None:
    sentences = example("bilstm-tagger")
    run = Tagger(sentences.graph, sentences.weights, form)
    run.run()
    sentences.check(run.outputs())


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("default")
def test_compiled() -> None:
    trees = example("treelstm")
    run = ByHand(trees.name, trees.graph, trees.weights, compiled=True)
    run.run()
    trees.check(run.outputs())

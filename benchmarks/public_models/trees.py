"""Drivers of models over trees: random weights, a minibatch of random trees, and the cells."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from benchmarks.public_models.inputs import HIDDEN, WORDS, Calls, binary, inside, lengths, parents_of, rng, words
from benchmarks.public_models.measure import Case, doubled


def treelstm(place: Path) -> Case:
    """The child-sum TreeLSTM over dependency trees, with the similarity of two sentences (SICK)."""
    inside(place)
    from treelstm import SimilarityTreeLSTM, Tree

    def tree(length: int) -> Any:
        nodes = [Tree() for _ in range(length)]
        for word, parent in enumerate(parents_of(length)):
            nodes[word].idx = word
            if parent >= 0:
                nodes[parent].add_child(nodes[word])
        return nodes[0]

    model = SimilarityTreeLSTM(WORDS, 300, 150, 50, 5, sparsity=False, freeze=False)
    pairs = zip(lengths(32), lengths(32), strict=True)
    elements = [(tree(left), words(left), tree(right), words(right)) for left, right in pairs]
    return Case(model, elements, ["childsumtreelstm.node_forward", "similarity"], in_double=doubled)


def sentiment(kind: str) -> Callable[[Path], Case]:
    """The TreeLSTM of sentiment over constituency or dependency trees (Stanford Sentiment Treebank)."""

    def driver(place: Path) -> Case:
        inside(place)
        from model import TreeLSTMSentiment
        from tree import Tree

        def constituency(one: Any) -> Any:
            node = Tree()
            node.gold_label = None
            if isinstance(one, int):
                node.idx = one + 1
            else:
                node.idx = 0
                for child in one:
                    node.add_child(constituency(child))
            return node

        def dependency(length: int) -> Any:
            nodes = [Tree() for _ in range(length)]
            for word, parent in enumerate(parents_of(length)):
                nodes[word].idx, nodes[word].gold_label = word + 1, None
                if parent >= 0:
                    nodes[parent].add_child(nodes[word])
            return nodes[0]

        model = TreeLSTMSentiment(False, WORDS, 300, 150, 5, kind, None)
        elements = [
            (
                constituency(binary(0, length)) if kind == "constituency" else dependency(length),
                torch.randn(length, 1, 300),
            )
            for length in lengths(32)
        ]
        cells = ["tree_module.leaf_module", "tree_module.composer", "output_module"]
        if kind == "dependency":
            cells = ["tree_module.node_forward", "output_module"]
        return Case(model, elements, cells, in_double=doubled)

    return driver


def spinn(place: Path) -> Case:
    """The SPINN of torchfold over parse trees, beside torchfold's own batching."""
    # The example reads SNLI by torchtext, which is no more; only its classes are used.
    sys.modules["torchtext"] = SimpleNamespace(data=None, datasets=None)
    inside(place / "examples/snli", place)
    module = __import__("spinn-example")
    import torchfold

    def node(one: Any) -> Any:
        if isinstance(one, int):
            return module.Tree.Node(leaf=int(rng.integers(1, WORDS)))
        return module.Tree.Node(left=node(one[0]), right=node(one[1]))

    trees = [SimpleNamespace(root=node(binary(0, length))) for length in lengths(64)]
    model = module.SPINN(3, HIDDEN, WORDS)

    def by_hand() -> Any:
        fold = torchfold.Fold()
        return fold.apply(model, [[module.encode_tree_fold(fold, tree) for tree in trees]])

    calls = Calls(model, module.encode_tree_regular)
    return Case(calls, [(tree,) for tree in trees], ["model.leaf", "model.children", "model.logits"], by_hand)


def grass(part: str) -> Callable[[Path], Case]:
    """GRASS over trees of boxes, encoding them or decoding codes along them, beside the folding of its authors."""

    def driver(place: Path) -> Case:
        # The authors' copy of torchfold is not in their repository.
        from types import ModuleType

        inside(place, place.parent / "nearai+torchfold")
        import torchfold.torchfold

        tools = ModuleType("pytorch_tools")
        tools.torchfold = torchfold.torchfold  # type: ignore[attr-defined]
        sys.modules |= {"pytorch_tools": tools, "pytorch_tools.torchfold": torchfold.torchfold}
        import grassmodel
        from grassdata import Tree
        from torchfoldext import FoldExt

        config = SimpleNamespace(box_code_size=12, feature_size=80, hidden_size=200, symmetry_size=8)
        trees = [boxes(Tree, length) for length in lengths(32, 4, 16)]
        codes = torch.randn(len(trees), 1, config.feature_size)
        if part == "encoder":
            model: torch.nn.Module = grassmodel.GRASSEncoder(config)
            elements: list[Any] = [(tree,) for tree in trees]
            cells = ["boxEncoder", "adjEncoder", "symEncoder"]
            function = grassmodel.encode_structure_fold
        else:
            model = grassmodel.GRASSDecoder(config)
            elements = list(zip(codes, trees, strict=True))
            cells = ["sampleDecoder", "boxDecoder", "adjDecoder", "symDecoder", "nodeClassifier"]
            function = grassmodel.decode_structure_fold

        def one(model: torch.nn.Module, *element: Any) -> Any:
            return function(torchfold.torchfold.Unfold(model), *element).tensor

        def by_hand() -> Any:
            fold = FoldExt()
            return fold.apply(model, [[function(fold, *element) for element in elements]])

        return Case(Calls(model, one), elements, [f"model.{cell}" for cell in cells], by_hand)

    return driver


def boxes(tree: Any, length: int) -> Any:
    """A tree of GRASS: boxes, pairs of parts, and symmetries of parts."""
    moves: list[int] = []

    def move(one: Any) -> None:
        if isinstance(one, int):
            moves.append(0)
        else:
            move(one[0])
            move(one[1])
            moves.append(1)
        if rng.random() < 0.2:
            moves.append(2)

    move(binary(0, length))
    return tree(torch.randn(length, 12), torch.tensor([moves]), torch.randn(max(1, moves.count(2)), 8))

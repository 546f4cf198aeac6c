"""PyTorch models as people write them: for one element, with recursion, lists and branches on values."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from edbatch_tvm.models.childsum_tree import random_flat_trees


class Tree:
    """A tree of any arity; every node has a word."""

    def __init__(self, word: int, children: Sequence[Tree] = ()) -> None:
        self.word = word
        self.children = list(children)
        self.state: tuple[torch.Tensor, torch.Tensor] | None = None

    def __len__(self) -> int:
        return 1 + sum(map(len, self.children))


def tree_of(postfix: Sequence[int], vocabulary: int) -> Tree:
    """The tree of a postfix form: word ids, and -k for a phrase of k parts."""
    stack: list[Tree] = []
    for symbol in postfix:
        children = stack[symbol:] if symbol < 0 else []
        del stack[len(stack) - len(children) :]
        stack.append(Tree(abs(symbol) % vocabulary, children))
    return stack.pop()


def random_trees(count: int, vocabulary: int = 50, seed: int = 0) -> list[Tree]:
    """Trees with the shapes of parse trees."""
    return [tree_of(postfix, vocabulary) for postfix in random_flat_trees(count, seed)]


class ChildSumTreeLSTM(nn.Module):
    """The child-sum TreeLSTM of Tai, Socher and Manning (ACL 2015), equations 2 to 8, for one tree.

    For a node with input x and children k: s = sum_k h_k; i, o, u = gates of W x + U s + b; f_k = sigmoid(W_f x +
    U_f h_k + b_f); c = i * u + sum_k f_k * c_k; h = o * tanh(c). The states of the children are rows of a matrix.
    """

    def __init__(self, hidden: int, vocabulary: int = 50, classes: int = 5) -> None:
        super().__init__()
        self.hidden = hidden
        self.embedding = nn.Embedding(vocabulary, hidden)
        self.iou_x, self.iou_h = nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, 3 * hidden, bias=False)
        self.f_x, self.f_h = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden, bias=False)
        self.output = nn.Linear(hidden, classes)

    def node_forward(
        self, x: torch.Tensor, child_c: torch.Tensor, child_h: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        iou = self.iou_x(x) + self.iou_h(torch.sum(child_h, dim=0, keepdim=True))
        i, o, u = torch.split(iou, iou.size(1) // 3, dim=1)
        f = torch.sigmoid(self.f_h(child_h) + self.f_x(x).repeat(len(child_h), 1))
        c = torch.mul(torch.sigmoid(i), torch.tanh(u)) + torch.sum(torch.mul(f, child_c), dim=0, keepdim=True)
        return c, torch.mul(torch.sigmoid(o), torch.tanh(c))

    def states(self, tree: Tree, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        for child in tree.children:
            child.state = self.states(child, inputs)
        if tree.children:
            child_c, child_h = zip(*(child.state for child in tree.children), strict=True)
            child_c, child_h = torch.cat(child_c, dim=0), torch.cat(child_h, dim=0)
        else:
            child_c, child_h = inputs.new_zeros(1, self.hidden), inputs.new_zeros(1, self.hidden)
        return self.node_forward(inputs[tree.word], child_c, child_h)

    def forward(self, tree: Tree) -> torch.Tensor:
        _, h = self.states(tree, self.embedding.weight)
        return F.log_softmax(self.output(h), dim=1)


class NodeCell(nn.Module):
    """The same equations as a module; states of the children are stacked."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.x, self.h = nn.Linear(hidden, 4 * hidden), nn.Linear(hidden, 3 * hidden, bias=False)
        self.f = nn.Linear(hidden, hidden, bias=False)

    def forward(self, x: torch.Tensor, hs: torch.Tensor, cs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        i, o, u, f = self.x(x).chunk(4)
        hi, ho, hu = self.h(hs.sum(0)).chunk(3)
        c = torch.sigmoid(i + hi) * torch.tanh(u + hu) + (torch.sigmoid(f + self.f(hs)) * cs).sum(0)
        return torch.sigmoid(o + ho) * torch.tanh(c), c


class ModularTreeLSTM(nn.Module):
    """A child-sum TreeLSTM whose cells are submodules."""

    def __init__(self, hidden: int, vocabulary: int = 50, classes: int = 5) -> None:
        super().__init__()
        self.hidden = hidden
        self.word = nn.Embedding(vocabulary, hidden)
        self.cell = NodeCell(hidden)
        self.classify = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, classes))

    def states(self, tree: Tree) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.word(torch.tensor(tree.word))
        zero = torch.zeros(self.hidden)
        below = [self.states(child) for child in tree.children] or [(zero, zero)]
        return self.cell(x, torch.stack([h for h, _ in below]), torch.stack([c for _, c in below]))

    def forward(self, tree: Tree) -> list[torch.Tensor]:
        """The scores of the tree and of the parts of its root."""
        h, _ = self.states(tree)
        return [self.classify(h), *(self.classify(self.states(child)[0]) for child in tree.children)]


class ShiftReduceParser(nn.Module):
    """Builds a binary tree over a sentence; which, its own scores decide."""

    def __init__(self, hidden: int, vocabulary: int = 50) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, hidden)
        self.merge_cell = nn.LSTMCell(2 * hidden, hidden)
        self.scorer = nn.Sequential(nn.Linear(3 * hidden, hidden), nn.Tanh(), nn.Linear(hidden, 2))
        self.zero = nn.Parameter(torch.zeros(hidden))

    def shift(self, word: int) -> tuple[torch.Tensor, torch.Tensor]:
        h = torch.tanh(self.embedding.weight[word])
        return h, torch.zeros_like(h)

    def reduce(self, left: tuple[torch.Tensor, torch.Tensor], right: tuple[torch.Tensor, torch.Tensor]) -> tuple:
        return self.merge_cell(torch.cat([left[0], right[0]]), (left[0] + right[0], left[1] + right[1]))

    def score(self, below: torch.Tensor, top: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
        return self.scorer(torch.cat([below, top, following]))

    def forward(self, words: list[int]) -> tuple[list[int], torch.Tensor]:
        """The actions, and the state of the tree they build."""
        stack: list[tuple[torch.Tensor, torch.Tensor]] = []
        following = [self.shift(word) for word in words]
        actions = []
        at = 0
        while at < len(words) or len(stack) > 1:
            if len(stack) < 2:
                action = 0
            elif at == len(words):
                action = 1
            else:
                scores = self.score(stack[-2][0], stack[-1][0], following[at][0])
                action = int(scores.argmax())
            actions.append(action)
            if action == 0:
                stack.append(following[at])
                at += 1
            else:
                right = stack.pop()
                stack.append(self.reduce(stack.pop(), right))
        return actions, stack[0][0]


class GreedyDecoder(nn.Module):
    """Reads a sentence and writes another, one word after the other, until it writes the end."""

    END = 0

    def __init__(self, hidden: int, vocabulary: int = 20, longest: int = 30) -> None:
        super().__init__()
        self.longest = longest
        self.source = nn.Embedding(vocabulary, hidden)
        self.target = nn.Embedding(vocabulary, hidden)
        self.encoder = nn.GRUCell(hidden, hidden)
        self.decoder = nn.ModuleList([nn.GRUCell(hidden, hidden)])
        self.output = nn.Linear(hidden, vocabulary)

    def encode(self, word: int, state: torch.Tensor) -> torch.Tensor:
        return self.encoder(self.source(torch.tensor(word)), state)

    def step(self, word: int, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        state = self.decoder[0](self.target(torch.tensor(word)), state)
        return self.output(state), state

    def forward(self, words: list[int]) -> list[int]:
        state = torch.zeros(self.source.embedding_dim)
        for word in words:
            state = self.encode(word, state)
        written: list[int] = []
        word = self.END
        while len(written) < self.longest:
            logits, state = self.step(word, state)
            word = logits.argmax().item()
            if word == self.END:
                break
            written.append(word)
        return written

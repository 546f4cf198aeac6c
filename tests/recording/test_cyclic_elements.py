"""Elements whose objects lead back to themselves, and to those of others."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import edbatch_tvm as eb
from edbatch_tvm.errors import RecordingError
from edbatch_tvm.recording.watched_objects import in_several
from tests.recording.checks import assert_equal

H = 4


class Node:
    """A node of a tree that knows its parent."""

    def __init__(self, x: torch.Tensor, *children: Node) -> None:
        self.x, self.children, self.parent = x, list(children), None
        self.visits = 0
        for child in children:
            child.parent = self


class Model(nn.Module):
    def __init__(self, waits: bool) -> None:
        super().__init__()
        self.cell, self.waits = nn.Linear(H, H), waits

    def forward(self, node: Node) -> torch.Tensor:
        h = torch.tanh(self.cell(node.x + sum(self(child) for child in node.children)))
        if self.waits and float(h.sum()) > 0:
            h = h * 2
        node.visits += 1
        return h


def trees() -> list[Node]:
    rng = torch.Generator().manual_seed(0)
    return [Node(x, Node(x - 1), Node(x, Node(-x))) for x in torch.randn(3, H, generator=rng)]


@pytest.mark.parametrize("waits", [False, True])
def test_nodes_that_know_their_parents(waits: bool) -> None:
    torch.manual_seed(0)
    model, elements = Model(waits), trees()
    fast = eb.autobatch(model, cells=["cell"])
    for number in (1, 2):
        with torch.no_grad():
            assert_equal(fast(elements), [model(element) for element in trees()])
        assert [element.visits for element in elements] == [number] * 3


def test_nodes_of_several_elements() -> None:
    """The order matters where elements that wait change an object that both have, wherever it is."""
    model, (one, other, third) = Model(True), trees()
    one.children[0].parent = other  # type: ignore[assignment]
    fast = eb.autobatch(model, cells=["cell"])
    with torch.no_grad():
        fast([one, other, third])  # the first elements run one after the other
        with pytest.raises(RecordingError, match="several elements"):
            fast([one, other, third])


def test_what_is_in_several() -> None:
    shared: list[Any] = [1]
    own: list[Any] = [shared, None]
    own[1] = own
    tree: dict[str, Any] = {"of": shared}
    tree["self"] = [tree, tree]
    assert [id(one) for one in in_several([own, tree, [own]])] == [id(shared), id(own)]
    assert in_several([[[own]], {"a": 1}]) == []

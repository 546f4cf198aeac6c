"""A cell is recognised however it is called."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import pytest
import torch
from torch import nn

import edbatch_tvm as eb
from edbatch_tvm.errors import RecordingError
from tests.recording.checks import assert_equal


def merge(left: torch.Tensor, right: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
    return torch.tanh(left * right) * scale


renamed = merge


class Ways(nn.Module):
    """Folds rows; how it calls its cells is an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.leaf, self.node = nn.Linear(4, 4), nn.Linear(8, 4)
        self.way = "attribute"
        self.units = {"leaf": self.leaf, "node": self.node}
        self.nested = [[self.leaf], (self.node, {"node": self.node})]
        self.second = nn.Module()
        self.second.node = self.node
        self.parallel = nn.DataParallel(self.node)
        self.partial = partial(self.join, bias=0.0)
        self.bound = self.join
        self.closure = _closure(self)
        self.lambdas = {"join": lambda x: self.node(x)}

    def join(self, x: torch.Tensor, bias: float = 0.0) -> torch.Tensor:
        return self.node(x) + bias

    def calls(self) -> tuple[Callable[..., Any], Callable[..., Any]]:
        return {
            "attribute": (self.leaf, self.node),
            "forward": (self.leaf.forward, self.node.forward),
            "dict": (self.units["leaf"], self.units["node"]),
            "nested": (self.nested[0][0], self.nested[1][1]["node"]),  # type: ignore[index]
            "second name": (self.leaf, self.second.node),
            "DataParallel": (self.leaf, self.parallel),
            "partial": (self.leaf, self.partial),
            "bound": (self.leaf, self.bound),
            "closure": (self.leaf, self.closure),
            "lambda": (self.leaf, self.lambdas["join"]),
        }[self.way]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        leaf, node = self.calls()
        h = leaf(x[0])
        for row in x[1:]:
            h = node(torch.cat([h, leaf(row)]))
        return h


def _closure(model: Ways) -> Callable[[torch.Tensor], torch.Tensor]:
    @wraps(model.node.forward)
    def node(x: torch.Tensor) -> torch.Tensor:
        return model.node(x)

    return node


WAYS = [
    *("attribute", "forward", "dict", "nested", "second name", "DataParallel", "partial", "bound", "closure", "lambda"),
]


@pytest.fixture(scope="module")
def fast() -> Any:
    return eb.autobatch(Ways().eval(), cells=["leaf", "node"])


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_call_a_module(way: str, fast: Any) -> None:
    elements = [torch.randn(rows, 4) for rows in (2, 4, 3, 3, 2)]
    fast.way = way
    fast(elements)
    assert_equal(fast(elements), [fast.model(x) for x in elements])
    assert not fast.breaks
    cells = {cell.name for cell in fast.compiled.signature}
    assert {"leaf", "node"} <= cells
    assert not any(name.startswith("linear") for name in cells)


class Calls(nn.Module):
    merged = staticmethod(merge)

    def __init__(self) -> None:
        super().__init__()
        self.leaf = nn.Linear(4, 4)
        self.held = {"merge": merge}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.leaf(x[0])
        for function in (merge, renamed, self.merged, self.held["merge"], partial(merge, scale=1.0)):
            h = function(h, self.leaf(x[1]))
        return h


def test_functions_are_cells() -> None:
    def local(h: torch.Tensor) -> torch.Tensor:
        return torch.relu(h) + 1

    class Local(Calls):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return local(super().forward(x))

    model = Local().eval()
    fast = eb.autobatch(model, cells=[model.leaf, merge, local])
    assert fast.cells == ["leaf", "merge", "local"]
    elements = [torch.randn(2, 4) for _ in range(5)]
    for _ in range(2):
        assert_equal(fast(elements), [model(x) for x in elements])
    assert {cell.name for cell in fast.compiled.signature} == {"leaf", "merge", "local"}
    assert fast.batches == 7  # leaf, merge five times, local
    assert not hasattr(merge, "__wrapped__")  # outside it is itself


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (torch.tanh, r"tanh as a cell; .*functions of PyTorch are recorded anyway"),
        (nn.Linear(2, 2), r"a cell that is of no submodule of Ways: Linear"),
        (3, r"a cell is a int; expected the name of a submodule or method, one itself, or a Python function"),
        ("closur", r"did you mean 'closure'|no submodule or method 'closur'"),
    ],
)
def test_what_cannot_be_a_cell(cell: Any, message: str) -> None:
    with pytest.raises(RecordingError, match=message):
        eb.autobatch(Ways(), cells=[cell])


def test_methods_and_modules_themselves_are_cells() -> None:
    model = Ways()
    assert eb.autobatch(model, cells=[model.join, model.second.node, Ways.calls, "leaf.forward"]).cells == [
        *("join", "node", "calls", "leaf.forward"),
    ]

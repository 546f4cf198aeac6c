"""Code made for the classes of a call's arguments records what the general way records, where Python does it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
import torch
from torch import nn

import edbatch_tvm as eb
from edbatch_tvm.recording.call_fast_paths import PATHS
from edbatch_tvm.recording.cell_call import CellCall
from edbatch_tvm.recording.core import core
from edbatch_tvm.recording.recorder import Recorder
from tests.recording.checks import assert_equal

H = 3


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, H)
        self.join = nn.Linear(H, H)

    def leaf(self, word: int) -> torch.Tensor:
        return self.table.weight[word]

    def node(self, x: Any, rows: Any, pair: Any, word: Any) -> Any:
        h = torch.tanh(self.join(x) + rows.sum(0)) + pair[0] * pair[1]
        return h, h + self.table(torch.as_tensor(word))

    def forward(self, count: int) -> Any:
        leaves = [self.leaf(word) for word in (0, 1, 2, 3)]
        results = []
        for given in arguments(leaves, count):
            results += self.node(*given)
        return results


def arguments(leaves: list[Any], count: int) -> list[tuple[Any, ...]]:
    """Arguments of many classes: recorded and ordinary tensors, rows, views, tuples and words."""
    a, b, c, d = leaves
    ones = torch.arange(1.0, H + 1)
    xs = [a, ones, torch.stack([b, c])[1]]
    rows = [torch.stack(leaves[: count + 1]), torch.stack([a, b, c])[1:]]
    pairs = [(a, b), (ones, d)]
    words = [1, torch.tensor(3)]
    return list(product(xs, rows, pairs, words))


@pytest.fixture(autouse=True)
def _in_python() -> Iterator[None]:
    compiled = core.in_use
    core.use(False)
    yield
    core.use(compiled)


@pytest.fixture(scope="module")
def made() -> tuple[Model, eb.AutoBatched]:
    model = Model().requires_grad_(False)
    fast = eb.autobatch(model, ["leaf", "node"])
    with torch.no_grad():
        fast([0, 1, 2, 3])
    return model, fast


def test_results_are_those_of_pytorch(made: tuple[Model, eb.AutoBatched]) -> None:
    model, fast = made
    assert_equal(fast([3, 0, 1]), [model(count) for count in (3, 0, 1)])


@pytest.mark.parametrize("count", [0, 1, 2])
def test_paths_record_what_the_general_way_records(made: tuple[Model, eb.AutoBatched], count: int) -> None:
    model, fast = made
    taken = 0
    recorders = []
    for by_path in (True, False):
        recorder = Recorder(fast._library, lambda: None)
        call = CellCall(recorder, fast._sites["node"], model.node, model)
        leaf = CellCall(recorder, fast._sites["leaf"], model.leaf, model)
        for given in arguments([leaf(word) for word in (0, 1, 2, 3)], count):
            if by_path:
                taken += PATHS[tuple(map(type, given))] is not None
                call(*given)
            else:
                recorder.call(fast._sites["node"], given, call)
        recorders.append(recorder)
    path, general = recorders
    assert taken
    assert path.types == general.types
    assert path.ends == general.ends
    assert path.operands == general.operands
    assert path.attributes == general.attributes
    assert path.recorded == general.recorded


def test_a_path_records_nothing_where_it_gives_up(made: tuple[Model, eb.AutoBatched]) -> None:
    model, fast = made
    recorder = Recorder(fast._library, lambda: None)
    site = fast._sites["node"]
    leaves = [CellCall(recorder, fast._sites["leaf"], model.leaf, model)(word) for word in range(3)]
    before = recorder.recorded, list(recorder.types), list(recorder.operands), dict(recorder.attributes)
    unknown = (leaves[0], torch.stack(leaves), (leaves[0], leaves[1], leaves[2]), 1)
    with pytest.raises(KeyError):
        PATHS[tuple(map(type, unknown))](recorder, site, *unknown)  # type: ignore[misc]
    assert (recorder.recorded, recorder.types, recorder.operands, dict(recorder.attributes)) == before

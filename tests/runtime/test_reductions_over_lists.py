"""Code that goes through a list and reduces what it made is a stage, equal to PyTorch for every reduction and count."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import edbatch_tvm as eb

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from relay_ext.unroll_reductions import MOST  # noqa: E402

H = 20


def _attention(parts: list[torch.Tensor]) -> torch.Tensor:
    """Soft-max over the list, for every column."""
    rows = torch.cat(parts, 0)
    return (torch.softmax(rows * 3, 0) * rows).sum(0, keepdim=True)


REDUCTIONS: dict[str, Callable[[list[torch.Tensor]], torch.Tensor]] = {
    "sum": lambda parts: torch.cat(parts, 0).sigmoid().sum(0, keepdim=True),
    "mean": lambda parts: torch.stack(parts).mean(0),
    "max": lambda parts: torch.stack(parts, 1).amax(1),
    "min": lambda parts: torch.cat(parts, 0).amin(0, keepdim=True).tanh(),
    "prod": lambda parts: torch.cat(parts, 0).prod(0, keepdim=True),
    "attention": _attention,
    "twice": lambda parts: torch.cat([torch.cat(parts, 0).sum(0, keepdim=True), parts[0]], 0).amax(0, keepdim=True),
}


class Node(nn.Module):
    """A product for each child, reduced in every way; one product reads a reduction."""

    def __init__(self) -> None:
        super().__init__()
        self.own, self.of_child, self.out = nn.Linear(7, H), nn.Linear(H, H), nn.Linear(H, H)

    def forward(self, x: torch.Tensor, children: torch.Tensor) -> tuple[torch.Tensor, ...]:
        own = self.own(x)
        parts = [self.of_child(child) + own for child in children]
        reduced = [reduce(parts) for reduce in REDUCTIONS.values()]
        return *reduced, self.out(reduced[0])


@pytest.mark.parametrize(
    ("counts", "target"),
    [((3,), "llvm"), ((2,), "cuda-emulated"), pytest.param((1, 2, 5, MOST, MOST + 1), "llvm", marks=pytest.mark.slow)],
)
def test_reductions_over_lists(counts: tuple[int, ...], target: str) -> None:
    torch.manual_seed(0)
    node = Node()
    cells = eb.cells_from_torch(
        {f"of{count}": node for count in counts},
        {f"of{count}": (torch.randn(1, 7), torch.randn(count, 1, H)) for count in counts},
    )
    model = eb.compile(*cells, target=target)
    if target == "llvm":
        assert model.paths == {
            f"of{count}": "stage" if count <= MOST else model.paths[f"of{count}"] for count in counts
        }
    given = [(torch.randn(1, 7), torch.randn(count, 1, H)) for count in counts for _ in range(5)]
    for number, (_, children) in enumerate(given):
        if number % 5 == 1:
            children[0, 0, 0] = float("nan")
        if number % 5 == 3:
            children[-1, 0, 1] = float("inf")
    instances = []
    for x, children in given:
        b = model.builder()
        instances.append(b.finish(b.call(f"of{len(children)}", x.numpy(), children.numpy())))
    exact = node.double()
    for found, (x, children) in zip(model(instances), given, strict=True):
        for one, wanted in zip(found, exact(x.double(), children.double()), strict=True):
            expected = wanted.detach().numpy()
            largest = np.abs(expected[np.isfinite(expected)]).max(initial=1.0)
            np.testing.assert_allclose(one, expected, rtol=0, atol=1e-5 * largest)


class Extremes(nn.Module):
    """Values and places of the extremes of rows: eight maxima in each other were code without end on GPUs."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        (largest, first), (least, last) = x.max(0), x.min(0)
        return largest, first.float(), least, last.float()


@pytest.mark.parametrize("target", ["llvm", "cuda-emulated"])
def test_extremes_of_rows(target: str) -> None:
    x = torch.randn(MOST, H).round(decimals=1)
    x[2, 3], x[4, 3], x[5, 4] = float("nan"), float("inf"), -float("inf")
    model = eb.compile(*eb.cells_from_torch({"extremes": Extremes()}, {"extremes": (x,)}), target=target)
    b = model.builder()
    (found,) = model([b.finish(list(b.call("extremes", x.numpy())))])
    for one, wanted in zip(found, Extremes()(x), strict=True):
        np.testing.assert_array_equal(one, wanted.numpy())

"""Modules of one structure export once; anything that changes what they compute keeps them apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import edbatch_tvm as eb

torch = pytest.importorskip("torch")

from relay_ext import from_torch  # noqa: E402
from relay_ext.module_structure import module_structure  # noqa: E402


class Net(torch.nn.Module):
    """Two layers, a buffer, and attributes of several kinds."""

    def __init__(self, size: int = 4, scale: float = 2.0) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(size, size), torch.nn.Linear(size, size)
        self.register_buffer("shift", torch.ones(size))
        self.plain = torch.full((size,), 3.0)
        self.scale = scale
        self.activation: Callable[..., Any] = torch.tanh
        self.names = {"a": [1, 2.5, None], "b": {3, 4}}

    def forward(self, x: Any) -> Any:
        return self.activation(self.second(self.first(x))) * self.scale + self.shift + self.plain


class Other(Net):
    """Another class."""


def changed(change: Callable[[Any], Any]) -> Any:
    net = Net()
    change(net)
    return net


SAME = [
    Net(),
    changed(lambda net: torch.nn.init.zeros_(net.first.weight)),
    changed(lambda net: net.names.update(b={4, 3})),
]
DIFFERENT = {
    "class": Other(),
    "size": Net(5),
    "a number": Net(scale=2.5),
    "its sign": changed(lambda net: net.names.update(a=[1, -0.0, None])),
    "its type": changed(lambda net: setattr(net, "scale", 2)),
    "a buffer": changed(lambda net: net.shift.mul_(2)),
    "a tensor": changed(lambda net: net.plain.mul_(2)),
    "a function": changed(lambda net: setattr(net, "activation", torch.relu)),
    "a closure": changed(lambda net: setattr(net, "activation", lambda x: x)),
    "tied parameters": changed(lambda net: setattr(net.second, "weight", net.first.weight)),
    "no bias": changed(lambda net: setattr(net, "second", torch.nn.Linear(4, 4, bias=False))),
    "a hook": changed(lambda net: net.first.register_forward_hook(lambda *_: None)),
    "a method of its own": changed(lambda net: setattr(net, "forward", net.first.forward)),
    "training": changed(lambda net: net.eval()),
    "dtype": changed(lambda net: net.first.double()),
    "an object": changed(lambda net: setattr(net, "names", object())),
    "one attribute more": changed(lambda net: setattr(net, "more", 1)),
}


@pytest.mark.parametrize("net", SAME)
def test_one_structure(net: Any) -> None:
    assert module_structure(torch, net) == module_structure(torch, Net())
    assert hash(module_structure(torch, net)) == hash(module_structure(torch, Net()))


@pytest.mark.parametrize("what", DIFFERENT)
def test_another_structure(what: str) -> None:
    assert module_structure(torch, DIFFERENT[what]) != module_structure(torch, Net())
    assert module_structure(torch, DIFFERENT[what]) == module_structure(torch, DIFFERENT[what])


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the cells that were exported."""
    names: list[str] = []
    export = from_torch.export_program

    def counted(name: str, *arguments: Any) -> Any:
        names.append(name)
        return export(name, *arguments)

    monkeypatch.setattr(from_torch, "export_program", counted)
    monkeypatch.setattr("edbatch_tvm.recording.specialise.export_program", counted)
    return names


def test_cells_share_a_program(exports: list[str]) -> None:
    torch.manual_seed(0)
    nets = {f"net{number}": Net() for number in range(5)} | {"other": Net(scale=3.0)}
    cells = eb.cells_from_torch(nets, {name: (torch.zeros(4),) for name in nets})
    assert exports == ["net0", "other"]
    model = eb.compile(*cells)
    assert len(set(model.kernel_names.values())) == 2  # the scale differs, which is a constant
    builder = model.builder()
    x = torch.randn(4)
    found = model([builder.finish([builder.call(name, x.numpy()) for name in nets])])[0]
    for value, net in zip(found, nets.values(), strict=True):
        np.testing.assert_allclose(value, net(x).detach().numpy(), rtol=1e-5, atol=1e-6)


class Chain(torch.nn.Module):
    """Nets called in an order that the input says."""

    def __init__(self) -> None:
        super().__init__()
        self.nets = torch.nn.ModuleList(Net() for _ in range(6))
        self.nets[4].second.weight = self.nets[4].first.weight

    def forward(self, x: Any, order: list[int]) -> Any:
        for number in order:
            x = self.nets[number](x)
        return x


def test_recorded_cells_share_a_program(exports: list[str]) -> None:
    torch.manual_seed(1)
    chain = Chain().eval()
    fast = eb.autobatch(chain, cells=[f"nets.{number}" for number in range(6)])
    elements = [(torch.randn(4), order) for order in ([0, 1, 2, 3, 4, 5], [5, 4, 3], [2, 4, 2])]
    with torch.no_grad():
        found = fast(elements)
        assert len(exports) == 2  # one for the tied weights
        for value, element in zip(found, elements, strict=True):
            torch.testing.assert_close(torch.as_tensor(value), chain(*element), rtol=1e-5, atol=1e-6)

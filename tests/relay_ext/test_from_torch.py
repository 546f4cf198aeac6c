"""Cells from PyTorch: imported per instance, run as stages, equal to the module, updated with it."""

from __future__ import annotations

import numpy as np
import pytest

import edbatch_tvm as eb
from edbatch_tvm.errors import CellError

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

H = 8


class Leaf(nn.Module):
    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.embedding = embedding
        self.linear = nn.Linear(H, H)

    def forward(self, word: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.linear(self.embedding(word)))


class ChildSum(nn.Module):
    """Any number of children, as matrices of rows."""

    def __init__(self) -> None:
        super().__init__()
        self.iou, self.forget, self.gate = nn.Linear(H, 3 * H), nn.Linear(H, H), nn.Linear(H, H)

    def forward(self, x: torch.Tensor, hs: torch.Tensor, cs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        i, o, u = torch.chunk(self.iou(hs.sum(dim=0, keepdim=True)), 3, dim=1)
        f = torch.sigmoid(self.forget(hs) + self.gate(x).repeat(len(hs), 1))
        c = torch.sigmoid(i) * torch.tanh(u) + (f * cs).sum(dim=0, keepdim=True)
        return torch.sigmoid(o) * torch.tanh(c), c


def run(model: eb.Model, cell: str, *operands: object, **attributes: object) -> list[np.ndarray]:
    """One call of `cell` on arrays."""
    b = model.builder()
    value = b.call(cell, *operands, **attributes)
    return model([b.finish(list(value) if isinstance(value, tuple) else [value])])[0]


def close(found: np.ndarray, wanted: torch.Tensor) -> None:
    expected = wanted.detach().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5 * max(np.abs(expected).max(), 1e-3))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("shape", [(H,), (1, H)])
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_recurrent_cells_are_stages(kind: str, shape: tuple[int, ...]) -> None:
    module = nn.LSTMCell(H, H) if kind == "lstm" else nn.GRUCell(H, H)
    x, h, c = torch.randn(shape), torch.randn(shape), torch.randn(shape)
    arguments = (x, (h, c)) if kind == "lstm" else (x, h)
    model = eb.compile(*eb.cells_from_torch({"cell": module}, {"cell": arguments}))
    assert model.paths == {"cell": "stage"}
    results = module(*arguments)
    found = run(model, "cell", *[t.numpy() for t in ((x, h, c) if kind == "lstm" else (x, h))])
    for one, other in zip(found, results if kind == "lstm" else [results], strict=True):
        close(one, other)


def test_a_lookup_is_a_stage_and_its_index_is_bounded() -> None:
    leaf = Leaf(nn.Embedding(5, H))
    cells = eb.cells_from_torch({"leaf": leaf}, {"leaf": (3,)})
    assert list(cells.params) == ["leaf.embedding.weight", "leaf.linear.weight", "leaf.linear.bias"]
    assert cells.params["leaf.linear.bias"] is leaf.linear.bias
    model = eb.compile(*cells)
    assert model.paths == {"leaf": "stage"}
    assert str(model.signature["leaf"]) == f"leaf(word: int64[] < 5) -> (float32[{H}])"
    close(run(model, "leaf", word=4)[0], leaf(torch.tensor(4)))
    with pytest.raises(eb.EdbatchError, match="5"):
        run(model, "leaf", word=5)


@pytest.mark.parametrize("children", [0, 1, 2, 5])
def test_variadic_operands_take_any_number_of_rows(children: int) -> None:
    cell = ChildSum()
    example = (torch.randn(1, H), torch.randn(3, H), torch.randn(3, H))
    model = eb.compile(*eb.cells_from_torch({"node": cell}, {"node": example}, {"node": ["hs", "cs"]}))
    assert [operand.variadic for operand in model.signature["node"].operands] == [False, True, True]
    x, hs, cs = torch.randn(1, H), torch.randn(children, H), torch.randn(children, H)
    found = run(model, "node", x.numpy(), list(hs.numpy()), list(cs.numpy()))
    for one, other in zip(found, cell(x, hs, cs), strict=True):
        close(one, other)


def test_one_tensor_is_one_weight() -> None:
    embedding = nn.Embedding(5, H)
    cells = eb.cells_from_torch({"a": Leaf(embedding), "b": Leaf(embedding)}, {"a": (0,), "b": (0,)})
    assert [name for name in cells.params if "embedding" in name] == ["a.embedding.weight"]
    assert len(cells.params) == 5


class Named(nn.Module):
    """Parts, a weight and a constant under names that a graph of PyTorch has for itself."""

    def __init__(self, part: str, weight: str, constant: str) -> None:
        super().__init__()
        self.names = part, weight, constant
        setattr(self, part, nn.Linear(H, H))
        setattr(self, weight, nn.Parameter(torch.randn(H)))
        self.register_buffer(constant, torch.randn(H))

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        part, weight, constant = (getattr(self, name) for name in self.names)
        return part(given * weight) + constant


@pytest.mark.parametrize("names", [("code", "graph", "meta"), ("graph", "recompile", "code"), ("module", "_code", "x")])
def test_parts_of_any_name(names: tuple[str, str, str]) -> None:
    module = Named(*names)
    cells = eb.cells_from_torch({"named": module}, {"named": (torch.randn(H),)})
    assert {f"named.{names[0]}.weight", f"named.{names[0]}.bias", f"named.{names[1]}"} == set(cells.params)
    model = eb.compile(*cells)
    given = torch.randn(H)
    assert [operand.name for operand in model.signature["named"].operands] == ["given"]
    close(run(model, "named", given.numpy())[0], module(given))


def test_refresh_takes_over_an_update() -> None:
    leaf = Leaf(nn.Embedding(5, H))
    model = eb.compile(*eb.cells_from_torch({"leaf": leaf}, {"leaf": (0,)}))
    before = run(model, "leaf", word=2)[0].copy()
    optimizer = torch.optim.SGD(leaf.parameters(), lr=0.5)
    leaf(torch.tensor(2)).sum().backward()
    optimizer.step()
    model.refresh()
    after = run(model, "leaf", word=2)[0]
    close(after, leaf(torch.tensor(2)))
    assert np.abs(after - before).max() > 1e-3


def test_cells_share_the_memory_of_weights_they_read_as_they_lie() -> None:
    class Bias(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.b = nn.Parameter(torch.randn(9, H))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.softmax(x + self.b, 1).sum(0)  # of many rows: no stage, so weights are not packed

    module = Bias()
    model = eb.compile(*eb.cells_from_torch({"cell": module}, {"cell": (torch.randn(H),)}))
    assert model.paths["cell"].startswith("general")
    x = torch.randn(H)
    with torch.no_grad():
        module.b.mul_(2)
    close(run(model, "cell", x.numpy())[0], module(x))


class Fft(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.fft.fft(x).real


class Branch(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


class Dropout(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(x, 0.5, self.training)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Fft(), r"cell 'cell' cannot be imported .*fft"),
        (Branch(), r"cell 'cell' cannot be exported .*hint: leave branches on values"),
        (Dropout(), r"cell 'cell' draws random numbers .*hint: call .eval\(\)"),
        (abs, r"cell 'cell' is a builtin_function_or_method; expected a torch.nn.Module"),
    ],
)
def test_what_cannot_be_a_cell_is_named(module: object, message: str) -> None:
    with pytest.raises(CellError, match=message):
        eb.cells_from_torch({"cell": module}, {"cell": (torch.randn(H),)})


def test_arguments_that_do_not_fit() -> None:
    with pytest.raises(CellError, match=r"no example inputs for the cells \['leaf'\]"):
        eb.cells_from_torch({"leaf": Leaf(nn.Embedding(5, H))}, {})
    with pytest.raises(
        CellError, match=r"variadic parameters \['kids'\] of cell 'node'; expected among \['x', 'hs', 'cs'\]"
    ):
        eb.cells_from_torch({"node": ChildSum()}, {"node": (torch.randn(1, H),) * 3}, {"node": ["kids"]})
    with pytest.raises(CellError, match=r"the example for 'hs' of cell 'node' has shape \(1, 8\); expected \[k, ...\]"):
        eb.cells_from_torch({"node": ChildSum()}, {"node": (torch.randn(1, H),) * 3}, {"node": ["hs", "cs"]})


class Scaled(nn.Module):
    """A parameter and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(H))
        self.register_buffer("shift", torch.ones(H))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x * self.scale + self.shift).float()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.complex64], ids=str)
@pytest.mark.parametrize("where", ["scale", "shift", "x"])
def test_numbers_that_are_neither_float32_nor_float64(where: str, dtype: torch.dtype) -> None:
    module, x = Scaled(), torch.ones(H)
    if where == "x":
        x = x.to(dtype)
    elif where == "scale":
        module.scale = nn.Parameter(module.scale.detach().to(dtype))
    else:
        module.shift = module.shift.to(dtype)
    what = {"scale": "parameter 'scale'", "shift": "buffer 'shift'", "x": "an example input"}[where]
    with pytest.raises(CellError, match=f"^{what} of cell 'f' is {dtype}; expected torch.float32 or torch.float64"):
        eb.cells_from_torch({"f": module}, {"f": (x,)})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None, {}), "modules in a NoneType; expected a mapping by name of cell"),
        (({}, None), "example inputs in a NoneType; expected a mapping by name of cell"),
        (({}, {}, ["f"]), "variadic parameters in a list; expected a mapping by name of cell"),
        (({3: Scaled()}, {3: ()}), "a cell called 3 among the modules; expected names that are texts"),
        (({"f": Scaled()}, {}), r"no example inputs for the cells \['f'\]"),
        (({"f": Scaled()}, {"f": torch.ones(H)}), "example inputs of cell 'f' in a Tensor; expected a tuple or list"),
        (({"f": 3}, {"f": ()}), "cell 'f' is a int; expected a torch.nn.Module"),
    ],
    ids=lambda part: "" if isinstance(part, str) else None,
)
def test_arguments_of_other_kinds(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(CellError, match=message):
        eb.cells_from_torch(*arguments)  # type: ignore[arg-type]

"""Programs traced in one pass are those of ``torch.export``; code that is unusual is left to it, and left as it was."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from edbatch_tvm.errors import CellError  # noqa: E402
from relay_ext import from_torch  # noqa: E402
from relay_ext.traced_program import TracedProgram, traced_program  # noqa: E402

H = 6


class Code(nn.Module):
    """A function of flat inputs that uses layers, one of which is to be found in two places."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.cell, self.linear, self.norm = nn.LSTMCell(H, H), nn.Linear(H, H), nn.BatchNorm1d(H)
        self.tied = nn.Linear(H, H, bias=False)
        self.tied.weight = self.linear.weight
        self.again = nn.ModuleList([self.linear])
        self.words = nn.Embedding(7, H)
        self.seen: list[Any] = []
        self.function = function
        self.eval()

    def forward(self, *flat: Any) -> Any:
        return self.function(self, *flat)


def step(net: Any, x: Any, h: Any) -> Any:
    return net.cell(x, (h, h))


def layers(net: Any, x: Any, h: Any) -> Any:
    return net.norm(F.gelu(net.linear(x))) + net.tied(h), F.layer_norm(net.again[0](h), (H,))


def written(_net: Any, x: Any, h: Any) -> Any:
    y = x * 2
    y[:, :2].sigmoid_()
    y[:, 2:] += h[:, 2:]
    i, f, g = y.chunk(3, 1)
    return i * g.tanh() + f, F.softmax(y, 1), y.max(1)[0]


def made(_net: Any, x: Any, h: Any) -> Any:
    zeros = x.new_zeros(x.shape)
    return torch.cat([x, zeros, torch.ones_like(h)], 1), torch.where(x > h, x, zeros), x.flatten().unsqueeze(0)


USUAL = [step, layers, written, made]


def lines(program: Any) -> list[str]:
    """What a graph computes, without what nobody reads."""
    nodes = list(program.graph.nodes)
    live = set()
    for node in reversed(nodes):
        if node.op in ("placeholder", "output") or any(user in live for user in node.users):
            live.add(node)
    number: dict[Any, int] = {}
    specs = {spec.arg.name: (spec.kind, spec.target) for spec in program.graph_signature.input_specs}
    parameters: dict[int, int] = {}

    def plain(argument: Any) -> Any:
        if isinstance(argument, torch.fx.Node):
            return f"%{number[argument]}"
        if isinstance(argument, list | tuple):
            return [plain(item) for item in argument]
        return {name: plain(one) for name, one in argument.items()} if isinstance(argument, dict) else repr(argument)

    found = []
    for node in nodes:
        if node not in live:
            continue
        if node.op == "placeholder" and specs[node.name][1] is not None:
            # A tensor that has two paths is one.
            identity = id(program.state_dict[specs[node.name][1]])
            number[node] = parameters.setdefault(identity, 1000 + len(parameters))
            continue
        number[node] = len(found)
        value = node.meta.get("val")
        shape = [str(extent) if type(extent) is int else "k" for extent in getattr(value, "shape", ())]
        target = node.name if node.op == "placeholder" else node.target
        found.append(f"{node.op} {target} {plain(node.args)} {plain(node.kwargs)} {shape}")
    return found


def both(function: Any, monkeypatch: Any, rows: bool) -> tuple[Any, Any, Any]:
    """The code, and its program by one pass and by ``torch.export``."""
    torch.manual_seed(0)
    code = Code(function)
    x, h = torch.randn(3, H), torch.randn(3, H)
    shapes = (({0: from_torch.rows_dimension()},) * 2,) if rows else None
    traced = from_torch.export_program("code", code, (x, h), shapes)
    monkeypatch.setattr(from_torch, "traced_program", lambda *_: None)
    return code, traced, from_torch.export_program("code", code, (x, h), shapes)


@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("function", USUAL)
def test_is_the_program_of_export(function: Any, rows: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    code, traced, exported = both(function, monkeypatch, rows)
    assert [type(traced) is TracedProgram, type(exported) is TracedProgram] == [True, False]
    before = dict(code.named_parameters())
    assert [lines(traced), traced.range_constraints.keys() != set()] == [lines(exported), rows]
    assert all(type(one) is nn.Parameter for one in before.values())
    assert all(path.removeprefix("module.") in dict(code.named_parameters(remove_duplicate=False))
               for path in traced.graph_signature.inputs_to_parameters.values())  # fmt: skip


def test_does_not_look_for_lines_of_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """To find where an extent comes from loads all of ``torch.export``."""
    shapes_of = pytest.importorskip("torch.fx.experimental.symbolic_shapes")

    def loads_all() -> set[str]:
        raise AssertionError("torch.export is loaded")

    monkeypatch.setattr(shapes_of, "uninteresting_files", loads_all)
    code, rows = Code(layers), {0: from_torch.rows_dimension()}
    inner = from_torch._inside(torch, code)
    assert traced_program(torch, inner, (torch.randn(3, H), torch.randn(3, H)), ((rows, rows),)) is not None


def counted(net: Any, x: Any, h: Any) -> Any:
    net.count = x
    return x + h


def listed(net: Any, x: Any, h: Any) -> Any:
    net.seen.append(x)
    return x + h


def into_input(_net: Any, x: Any, h: Any) -> Any:
    x.mul_(2)
    return x + h


def into_parameter(net: Any, x: Any, h: Any) -> Any:
    net.linear.weight.data.add_(1)
    return net.linear(x) + h


def into_buffer(net: Any, x: Any, h: Any) -> Any:
    net.norm.running_mean.add_(1)
    return x + h


def replaced(net: Any, x: Any, h: Any) -> Any:
    net.linear.weight = nn.Parameter(net.linear.weight * 2)
    return net.linear(x) + h


def read(_net: Any, x: Any, h: Any) -> Any:
    return x * float(h.sum())


def chosen(_net: Any, x: Any, h: Any) -> Any:
    return x if bool((x > h).all()) else h


def constant(_net: Any, x: Any, h: Any) -> Any:
    return x + h * torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])


def found(_net: Any, x: Any, h: Any) -> Any:
    return x[x > 0].sum() + h


UNUSUAL = [counted, listed, into_input, into_parameter, into_buffer, replaced, read, chosen, constant, found]


@pytest.mark.parametrize("function", UNUSUAL)
def test_unusual_code_is_left_as_it_was(function: Any) -> None:
    torch.manual_seed(0)
    code = Code(function)
    state = {path: (one, one.detach().clone()) for path, one in code.state_dict(keep_vars=True).items()}
    names, layers = vars(code).keys() | set(), dict(code.named_modules())
    x, h = torch.randn(3, H), torch.randn(3, H)
    with torch.no_grad():
        assert traced_program(torch, code, (x, h), None) is None
    assert (vars(code).keys(), code.seen, dict(code.named_modules())) == (names, [], layers)
    for path, (one, content) in state.items():
        assert code.state_dict(keep_vars=True)[path] is one
        torch.testing.assert_close(one, content, rtol=0, atol=0)


def by_count(_net: Any, x: Any, h: Any) -> Any:
    return x if x.shape[0] > 2 else h


def of_other_rows(_net: Any, x: Any, h: Any) -> Any:
    return x[:2] + h[:2] if x.shape[0] != 5 else x


@pytest.mark.parametrize("function", [by_count, of_other_rows])
def test_what_holds_for_some_numbers_of_rows_is_left(function: Any) -> None:
    shapes = (({0: from_torch.rows_dimension()},) * 2,)
    given = torch.randn(3, H), torch.randn(3, H)
    with torch.no_grad():
        assert traced_program(torch, Code(function), given, shapes) is None
    with pytest.raises(CellError):
        from_torch.export_program("code", Code(function), given, shapes)

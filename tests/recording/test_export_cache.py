"""Exports kept on disk: found by what the code is, and missed when anything changes that it computes with."""

from __future__ import annotations

import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import edbatch_tvm as eb
from edbatch_tvm.errors import CellError
from edbatch_tvm.recording import specialise
from edbatch_tvm.recording.code_digest import code_digest
from edbatch_tvm.recording.export_cache import answer_of, program_of
from edbatch_tvm.runtime import compilation_cache
from relay_ext.module_structure import module_structure

SOURCE = """
import torch
import helpers
from torch.nn import functional as F

SCALE = 2.0
TABLE = [1, 2]

def inner(x):
    return x * SCALE

def outer(x):
    return inner(x) + helpers.shift(x)

class Base(torch.nn.Module):
    def prepared(self, x):
        return x + 1.0

class Net(Base):
    factor = 3.0

    def __init__(self):
        super().__init__()
        self.join = torch.nn.Linear(8, 4)
        self.power = 2

    def node(self, left, right, weight=0.5):
        return torch.tanh(self.join(torch.cat([left, right]))) * weight

    def rows(self, states):
        return F.relu(outer(self.prepared(states))) * self.factor ** self.power

    def forward(self, tree):
        if isinstance(tree, int):
            return torch.full((4,), float(tree)).sin()
        return self.rows(torch.stack([self.node(*map(self, tree)) for _ in range(2)]))[0]
"""

HELPERS = """
def shift(x):
    return x.sin()

def unused(x):
    return x
"""


def namespace(source: str = SOURCE, helpers: str = HELPERS) -> types.ModuleType:
    """A module as a process has it that imports `source`."""
    sys.modules["helpers"] = helping = types.ModuleType("helpers")
    exec(helpers, vars(helping))
    made = types.ModuleType("users_model")
    exec(source, vars(made))
    del sys.modules["helpers"]
    return made


def digest(made: types.ModuleType, method: str = "rows", change: Callable[[Any], None] = lambda _: None) -> str | None:
    net = made.Net()
    change(net)
    return code_digest(module_structure(torch, getattr(net, method), net))


CHANGES = {
    "code": ("F.relu", "F.silu"),
    "constant in code": ("x + 1.0", "x + 2.0"),
    "global": ("SCALE = 2.0", "SCALE = 3.0"),
    "function that a function calls": ("return x * SCALE", "return x / SCALE"),
    "method of a base": ("return x + 1.0", "return x - 1.0"),
    "attribute of the class": ("factor = 3.0", "factor = 4.0"),
    "attribute": ("self.power = 2", "self.power = 3"),
    "default": ("weight=0.5", "weight=0.25"),
    "shape of a weight": ("Linear(8, 4)", "Linear(8, 5)"),
    "operator": ("torch.tanh", "torch.sin"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_changes_the_digest(what: str) -> None:
    usual = digest(namespace())
    assert usual is not None
    assert digest(namespace()) == usual
    before, after = CHANGES[what]
    assert before in SOURCE
    assert digest(namespace(SOURCE.replace(before, after))) not in (usual, None)


def doubled(_module: Any, *given: Any) -> Any:
    return given[-1] * 2


def halved(_module: Any, *given: Any) -> Any:
    return given[-1] / 2


@pytest.mark.parametrize("kind", ["forward_hook", "forward_pre_hook", "full_backward_hook", "full_backward_pre_hook"])
def test_hooks_count_as_code(kind: str) -> None:
    made = namespace()

    def hooked(*hooks: Any, **how: Any) -> str | None:
        return digest(made, change=lambda net: [getattr(net, f"register_{kind}")(one, **how) for one in hooks])

    assert hooked(doubled) == hooked(doubled)
    some = [hooked(), hooked(doubled), hooked(halved), hooked(doubled, halved), hooked(halved, doubled)]
    if kind.startswith("forward"):
        some.append(hooked(doubled, with_kwargs=True))
    assert None not in some
    assert len(set(some)) == len(some)


def test_hooks_of_the_state_do_not_count() -> None:
    made = namespace()
    assert digest(made, change=lambda net: net.register_state_dict_pre_hook(lambda *_: None)) == digest(made)


def test_a_large_tensor_has_no_digest() -> None:
    for fill in (1.0, 2.0):
        assert (
            digest(namespace(), change=lambda net, fill=fill: setattr(net, "big", torch.full((1 << 19,), fill))) is None
        )


def test_code_of_another_module_counts_where_it_is_used() -> None:
    usual = digest(namespace())
    assert digest(namespace(helpers=HELPERS.replace("x.sin()", "x.cos()"))) not in (usual, None)
    assert digest(namespace(helpers=HELPERS.replace("    return x\n", "    return -x\n"))) == usual


def test_lines_comments_and_values_of_weights_do_not_count() -> None:
    usual = digest(namespace())
    assert digest(namespace("\n# A comment.\n" + SOURCE)) == usual
    assert digest(namespace(), change=lambda net: net.join.weight.data.zero_()) == usual


def test_the_versions_count(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = digest(namespace())
    monkeypatch.setattr(torch, "__version__", "0.0")
    assert digest(namespace()) not in (usual, None)


class Opaque:
    """Nobody knows what an instance is."""


def test_what_cannot_be_read_has_no_digest() -> None:
    assert digest(namespace(), change=lambda net: setattr(net, "thing", Opaque())) is None
    assert (
        digest(namespace(SOURCE.replace("TABLE = [1, 2]", "TABLE = iter([1])").replace("SCALE\n", "SCALE, TABLE\n")))
        is None
    )


def test_a_replaced_function_of_torch_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = digest(namespace(), "node")
    monkeypatch.setattr(torch, "tanh", lambda x: x)
    assert digest(namespace(), "node") not in (usual, None)


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Names of what is exported, with a folder of its own for what is kept."""
    monkeypatch.setenv(compilation_cache.FOLDER_VARIABLE, str(tmp_path / "kept"))
    found: list[str] = []
    export = specialise.export_program

    def counted(name: str, *arguments: Any) -> Any:
        found.append(name)
        return export(name, *arguments)

    monkeypatch.setattr(specialise, "export_program", counted)
    return found


TREES = [((1, 2), 3), (4, (5, 6))]


def run(made: types.ModuleType, trees: Any = TREES) -> None:
    torch.manual_seed(0)
    net = made.Net().requires_grad_(False)
    fast = eb.autobatch(net, cells=["node", "rows"])
    for found, tree in zip(fast(list(trees)), trees, strict=True):
        torch.testing.assert_close(found, net(tree), rtol=1e-5, atol=1e-5)


def test_nothing_is_exported_a_second_time(exports: list[str]) -> None:
    run(namespace())
    assert exports
    exports.clear()
    run(namespace(), [(7, (8, 9)), ((2, 1), (3, 5))])  # other code objects, weights and elements
    assert not exports
    run(namespace(helpers=HELPERS.replace("x.sin()", "x.cos()")))
    assert exports


STRUCTURE = ("a structure", 1)


def test_files_that_are_not_what_was_kept(exports: list[str], tmp_path: Path) -> None:
    made: list[str] = []

    def answer() -> bool:
        made.append("answer")
        return True

    def refuse() -> Any:
        made.append("program")
        raise CellError("cell 'one' has no program", "another")

    def ask(cell: str) -> list[str]:
        made.clear()
        assert answer_of("holds", STRUCTURE, answer)
        with pytest.raises(CellError, match=f"cell '{cell}' has no program; expected another"):
            program_of(cell, STRUCTURE, refuse)
        return made

    assert ask("one") == ["answer", "program"]
    assert ask("two") == []
    files = sorted((tmp_path / "kept").glob("*.program"))
    assert len(files) == 2
    contents = [path.read_bytes() for path in files]
    for path, content in zip(files, reversed(contents), strict=True):  # each under the name of the other
        path.write_bytes(content)
    assert ask("one") == ["answer", "program"]
    for path in files:
        *content, last = path.read_bytes()
        path.write_bytes(bytes([*content, last ^ 1]))
    assert ask("one") == ["answer", "program"]
    assert ask("one") == []


def test_what_fails_for_want_of_memory_is_tried_again(exports: list[str]) -> None:
    made: list[str] = []

    def fail() -> Any:
        made.append("tried")
        raise CellError("no room") from MemoryError()

    for _ in range(2):
        assert not answer_of("holds", STRUCTURE, fail)
        with pytest.raises(CellError, match="no room"):
            program_of("cell", STRUCTURE, fail)
    assert len(made) == 4


def test_nothing_is_kept_without_a_folder(exports: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(compilation_cache.FOLDER_VARIABLE, "none")
    answers = iter([True, False])
    assert answer_of("holds", STRUCTURE, lambda: next(answers))
    assert not answer_of("holds", STRUCTURE, lambda: next(answers))


@pytest.mark.slow
def test_the_digest_is_that_of_another_process() -> None:
    code = (
        "import sys; sys.path.insert(0, '.')\n"
        "from tests.recording.test_export_cache import digest, namespace\n"
        "print(digest(namespace()), digest(namespace(), 'node'))"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [digest(namespace()), digest(namespace(), "node")]

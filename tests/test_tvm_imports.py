"""What differs between releases of TVM is imported in one module only."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from edbatch_tvm import tvm_compat

ROOT = Path(__file__).resolve().parents[1]

EQUAL_IN_RELEASES = (
    "tvm.IRModule",
    "tvm.compile",
    "tvm.cpu",
    "tvm.cuda",
    "tvm.error.InternalError",
    "tvm.ir.GlobalVar",
    "tvm.ir.Op",
    "tvm.ir.Range",
    "tvm.ir.transform.Pass",
    "tvm.relax",
    "tvm.rpc.connect_tracker",
    "tvm.script.ir",
    "tvm.script.ir_builder.IRBuilder",
    "tvm.script.relax",
    "tvm.target",
    "tvm.te",
    "tvm.topi",
    "tvm.transform",
)
"""What modules may take from TVM themselves: names that are the same from 0.20 to 0.27."""

CHANGED = ("tvm.relax.TensorType", "tvm.relax.TupleType")
"""Of these not."""


def names_of_tvm(source: str) -> Iterator[tuple[int, str]]:
    """Line and full name of everything of TVM that a module imports or reads through what it imported."""
    tree = ast.parse(source)
    alias: dict[str, str] = {}
    chains: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for one in node.names:
                if one.name.split(".")[0] in ("tvm", "tvm_ffi"):
                    alias[one.asname or one.name.split(".")[0]] = one.name if one.asname else one.name.split(".")[0]
                    if one.name != "tvm":
                        yield node.lineno, one.name
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("tvm", "tvm_ffi"):
            for one in node.names:
                alias[one.asname or one.name] = f"{node.module}.{one.name}"
                if f"{node.module}.{one.name}" not in ("tvm.ir", "tvm.rpc"):
                    yield node.lineno, f"{node.module}.{one.name}"
    for node in ast.walk(tree):  # outer attributes first: the inner ones are parts of them
        if isinstance(node, ast.Attribute) and id(node) not in chains:
            parts, inner = [], node
            while isinstance(inner, ast.Attribute):
                chains.add(id(inner))
                parts.append(inner.attr)
                inner = inner.value  # type: ignore[assignment]
            if isinstance(inner, ast.Name) and inner.id in alias:
                yield node.lineno, ".".join([alias[inner.id], *reversed(parts)])


def allowed(name: str) -> bool:
    def within(prefix: str) -> bool:
        return name == prefix or name.startswith(prefix + ".")

    return any(map(within, EQUAL_IN_RELEASES)) and not any(map(within, CHANGED))


def test_one_module_imports_what_differs_between_releases() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for folder in ("edbatch_tvm", "relay_ext", "schedules", "benchmarks")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if path != Path(tvm_compat.__file__)
        for line, name in names_of_tvm(path.read_text(encoding="utf-8"))
        if not allowed(name)
    ]
    assert not wrong, "import these through edbatch_tvm.tvm_compat"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from tvm import relax, tirx", ["tvm.tirx"]),
        ("import tvm\ntvm.compile(tvm.ir.load_json(text))", ["tvm.ir.load_json"]),
        ("import tvm_ffi", ["tvm_ffi"]),
        ("def f():\n    from tvm.s_tir import meta_schedule as ms", ["tvm.s_tir.meta_schedule"]),
        ("from tvm import relax\nisinstance(x, relax.TensorType)", ["tvm.relax.TensorType"]),
        ("from tvm.relax import op as R\nR.nn.relu(x)\nx.tirx.Var", []),
    ],
)
def test_every_form_of_an_import_is_seen(source: str, found: list[str]) -> None:
    assert [name for _, name in names_of_tvm(source) if not allowed(name)] == found


def test_what_the_module_names_is_there() -> None:
    assert [name for name in tvm_compat.__all__ if not hasattr(tvm_compat, name)] == []

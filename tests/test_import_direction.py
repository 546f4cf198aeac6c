"""Packages import in one direction: each only from those that stand before it in LAYERS."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

LAYERS = (
    "edbatch_tvm.errors",
    "edbatch_tvm.argument_checks",
    "edbatch_tvm.cached_property",
    "edbatch_tvm.fork_lock",
    "edbatch_tvm.bounded_cache",
    "edbatch_tvm.find_native",
    "edbatch_tvm.atomic_file",
    "edbatch_tvm.cache_files",
    "edbatch_tvm.c_extension",
    "edbatch_tvm.tvm_version",
    "edbatch_tvm.tvm_compat",
    "edbatch_tvm.graph",
    "edbatch_tvm.batching",
    "edbatch_tvm.memory",
    "schedules",
    "schedules.cpu",
    "schedules.tuning_records",
    "schedules.cuda",
    "edbatch_tvm.native",
    "relay_ext",
    "edbatch_tvm.tuning.kernels",
    "edbatch_tvm.runtime",
    "edbatch_tvm.backends",
    "edbatch_tvm.training",
    "edbatch_tvm.losses",
    "edbatch_tvm.compiler",
    "edbatch_tvm.flops",
    "edbatch_tvm.explanation",
    "edbatch_tvm.recording",
    "edbatch_tvm.checking",
    "edbatch_tvm.models",
    "edbatch_tvm.tuning.server",
    "edbatch_tvm.tuning.model",
    "edbatch_tvm.benchmarking",
    "edbatch_tvm.trainer",
    "edbatch_tvm.peers",
    "edbatch_tvm.cli",
    "edbatch_tvm.__main__",
    "edbatch_tvm",
)
"""The lowest first. A name with a package inside it stands for what no longer name covers."""

NUMPY_ONLY = [name for name in LAYERS[: LAYERS.index("edbatch_tvm.memory") + 1] if name != "edbatch_tvm.tvm_compat"]
"""These import neither TVM nor torch. :mod:`edbatch_tvm.find_native` names the native kernels by a string."""

ALLOWED_BACK = {("edbatch_tvm.runtime", "edbatch_tvm.compiler")}
"""``Model.save``, for as long as it is a method."""


def layer_of(module: str) -> str | None:
    """The longest name in LAYERS that `module` is, or lies in."""
    fitting = [name for name in LAYERS if module == name or module.startswith(name + ".")]
    return max(fitting, key=len, default=None)


def modules() -> Iterator[tuple[str, Path]]:
    for folder in ("edbatch_tvm", "relay_ext", "schedules"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and module of every import of a file, those inside functions and for type checkers included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            # `from package import module` imports the module.
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def test_every_package_has_its_place() -> None:
    assert [name for name, _ in modules() if layer_of(name) == "edbatch_tvm" and "." in name] == ["edbatch_tvm.tuning"]


def test_packages_import_from_lower_layers_only() -> None:
    wrong = []
    for name, path in modules():
        own = layer_of(name)
        assert own is not None, name
        for line, imported in imports(path):
            other = layer_of(imported)
            if other is None or other == own or (own, other) in ALLOWED_BACK:
                continue
            if LAYERS.index(other) > LAYERS.index(own):
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {own} imports {other}")
    assert not wrong


@pytest.mark.parametrize("foreign", ["tvm", "tvm_ffi", "torch"])
def test_low_layers_need_numpy_only(foreign: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}"
        for name, path in modules()
        if layer_of(name) in NUMPY_ONLY and name != "edbatch_tvm.tvm_version"
        for line, imported in imports(path)
        if imported.split(".")[0] == foreign
    ]
    assert not wrong


def test_no_property_takes_the_lock_of_functools() -> None:
    """A forked child would wait for it on Python 3.10 and 3.11: see :mod:`edbatch_tvm.cached_property`."""
    found = [
        str(path.relative_to(ROOT))
        for package in ("edbatch_tvm", "relay_ext", "schedules")
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom)
        and node.module == "functools"
        and any(name.name == "cached_property" for name in node.names)
    ]
    assert not found

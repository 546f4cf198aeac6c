"""The reference names everything public, and docstrings say what a caller has to know."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import edbatch_tvm as eb

ROOT = Path(__file__).resolve().parents[2]
LISTED = re.findall(
    r"\.\. auto(?:class|function|data|exception|module):: (\S+)",
    "".join(page.read_text() for page in sorted((ROOT / "docs" / "api").glob("*.rst"))),
)
PACKAGES = ("graph", "batching", "memory", "explanation", "runtime", "models", "native")


def test_every_public_name_is_listed() -> None:
    wanted = [f"edbatch_tvm.{name}" for name in eb.__all__]
    for package in PACKAGES:
        module = importlib.import_module(f"edbatch_tvm.{package}")
        wanted += [f"edbatch_tvm.{package}.{name}" for name in module.__all__ if name not in eb.__all__]
    missing = [name for name in wanted if name not in LISTED]
    assert not missing, f"add to a page of docs/api: {missing}"


def test_every_page_is_in_the_site() -> None:
    index = (ROOT / "docs" / "index.md").read_text().splitlines()
    missing = [page.stem for page in (ROOT / "docs").glob("*.md") if page.stem not in (*index, "README", "index")]
    assert not missing, f"add to a toctree of docs/index.md: {missing}"


def test_every_pass_is_listed() -> None:
    modules = [path.stem for path in (ROOT / "relay_ext").glob("*.py") if "module_pass(" in path.read_text()]
    missing = [name for name in modules if f"relay_ext.{name}" not in LISTED]
    assert not missing, f"add to docs/api/passes.rst: {missing}"


def test_what_is_listed_exists_once() -> None:
    assert len(set(LISTED)) == len(LISTED)
    for name in LISTED:
        module, _, attribute = name.rpartition(".")
        found = importlib.util.find_spec(module) if module else None
        assert found is not None, name
        assert hasattr(importlib.import_module(module), attribute) or importlib.util.find_spec(name), name


def public_callables() -> Iterator[tuple[str, Callable[..., Any]]]:
    """The public functions, and the public methods of the public classes."""
    for name in eb.__all__:
        thing = getattr(eb, name)
        if inspect.isfunction(thing):
            yield name, thing
        elif inspect.isclass(thing):
            for method, function in inspect.getmembers(thing, inspect.isfunction):
                if not method.startswith("_") and function.__module__.startswith(("edbatch_tvm", "relay_ext")):
                    yield f"{name}.{method}", function


CALLABLES = dict(public_callables())


@pytest.mark.parametrize("name", CALLABLES)
def test_docstring(name: str) -> None:
    function = CALLABLES[name]
    text = inspect.getdoc(function) or ""
    assert text, name
    parameters = [one for one in inspect.signature(function).parameters if one != "self"]
    if "." not in name and len(parameters) > 1:
        section = re.search(r"Parameters\n-+\n(.*?)(?:\n\w[\w ]*\n-+\n|\Z)", text, re.DOTALL)
        assert section is not None, f"{name}: no section Parameters"
        for parameter in parameters:
            assert re.search(rf"(?m)^[\w, *]*\b{parameter}\b[\w, ]*( :.*)?$", section[1]), f"{name}: {parameter}"
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    raised = {
        node.exc.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name)
    }
    for error in raised:
        assert re.search(r"Raises\n-+\n", text), f"{name}: no section Raises"
        assert error in text, f"{name}: {error}"

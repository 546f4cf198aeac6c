"""Modules in C: compiled once, taken from the package or the cache, refused with a reason."""

from __future__ import annotations

import os
import shutil
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from edbatch_tvm import c_extension
from edbatch_tvm.c_extension import digest_of_sources, find_compiler, load_extension

MODULE = """
#include <Python.h>
#include "number.h"
static PyObject *number(PyObject *module, PyObject *nothing) { return PyLong_FromLong(NUMBER); }
static PyMethodDef functions[] = {{"number", number, METH_NOARGS, ""}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "edbatch_small", NULL, -1, functions};
PyMODINIT_FUNC PyInit_edbatch_small(void) { return PyModule_Create(&definition); }
"""


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDBATCH_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "package" / "small_core"
    folder.mkdir(parents=True)
    (folder / "module.c").write_text(MODULE)
    (folder / "number.h").write_text("#define NUMBER 3\n")
    return folder


needs_compiler = pytest.mark.skipif(find_compiler() is None, reason="no C compiler")


def loaded(sources: Path) -> Any:
    return load_extension("edbatch_small", sources, "small")


@needs_compiler
def test_compiled_once_for_the_same_sources(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert loaded(sources).number() == 3
    monkeypatch.setattr(c_extension, "find_compiler", lambda: None)
    assert loaded(sources).number() == 3
    (sources / "number.h").write_text("#define NUMBER 4\n")
    with pytest.raises(FileNotFoundError, match="no C compiler on the PATH"):
        loaded(sources)
    monkeypatch.undo()


@needs_compiler
def test_no_folder_to_keep_it_in(sources: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EDBATCH_CACHE", str(tmp_path / "file" / "cache"))
    assert loaded(sources).number() == 3


@needs_compiler
def test_a_library_that_came_with_the_package(sources: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    loaded(sources)
    (library,) = (tmp_path / "cache").glob("small-*.so")
    monkeypatch.setattr(c_extension, "find_compiler", lambda: None)
    monkeypatch.setenv("EDBATCH_CACHE", str(tmp_path / "empty"))
    shutil.copy(library, sources.parent / f"edbatch_small{sysconfig.get_config_var('EXT_SUFFIX')}")
    with pytest.raises(FileNotFoundError):  # nobody says what it was compiled from
        loaded(sources)
    (sources.parent / "small_core.digest").write_text(digest_of_sources(sources))
    assert loaded(sources).number() == 3
    (sources / "number.h").write_text("#define NUMBER 5\n")
    with pytest.raises(FileNotFoundError):
        loaded(sources)


@needs_compiler
def test_what_does_not_compile(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (sources / "number.h").write_text("#error no number\n")
    with pytest.raises(OSError, match="no number"):
        loaded(sources)
    monkeypatch.setattr(c_extension, "_MOST_SECONDS", 1e-3)
    with pytest.raises(OSError, match="took more than"):
        loaded(sources)


def test_the_compiler_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "somecc -m64")
    assert find_compiler() == "somecc -m64"
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", os.devnull)
    assert find_compiler() is None


def test_without_headers(sources: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(c_extension, "find_compiler", lambda: "cc")
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"no Python\.h in "):
        loaded(sources)

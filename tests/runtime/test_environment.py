"""What a process finds around it, a full folder for instance: right, or one error, and never the end of it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tvm

import edbatch_tvm as eb
from edbatch_tvm.errors import EnvironmentMismatch, TargetError
from edbatch_tvm.models import get_workload

ROOT = Path(__file__).resolve().parents[2]

RUN = """
import sys
import numpy as np
import edbatch_tvm as eb
from edbatch_tvm.batching import native_kernels
from edbatch_tvm.errors import EdbatchError
from edbatch_tvm.models import get_workload
workload = get_workload("treelstm")
try:
    model = eb.compile(workload.cells(8), workload.weights(8))
    print("ran", len(model(workload.generate(2, model.cells))), native_kernels.label())
    model.save(sys.argv[1])
    print("saved", len(eb.load(sys.argv[1])(workload.generate(2, model.cells))))
except EdbatchError as error:
    print(type(error).__name__, error)
"""

LOAD = """
import sys
import edbatch_tvm as eb
from edbatch_tvm.errors import EdbatchError
from edbatch_tvm.models import get_workload
workload = get_workload("treelstm")
try:
    model = eb.load(sys.argv[1])
    print("loaded", len(model(workload.generate(2, model.cells))))
except EdbatchError as error:
    print(type(error).__name__, error)
"""

LIMIT = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"


def run(tmp_path: Path, code: str = RUN, **variables: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "model.edbatch")],
        cwd=ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip().splitlines()


@pytest.mark.slow
def test_no_compiler(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    ran, refused = run(tmp_path, PATH=str(empty), CXX="", CC="", EDBATCH_CACHE=str(tmp_path / "cache"))
    assert ran == "ran 2 native"
    assert refused.startswith("EnvironmentMismatch the kernels cannot be linked (no C compiler on the PATH); expected")


@pytest.mark.slow
def test_a_compiler_that_fails(tmp_path: Path) -> None:
    ran, refused = run(tmp_path, CXX="/bin/false", EDBATCH_CACHE=str(tmp_path / "cache"))
    assert ran == "ran 2 native"
    assert refused.startswith("EnvironmentMismatch the kernels cannot be linked")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="no such limit here")
def test_a_limit_on_the_size_of_files(tmp_path: Path) -> None:
    ran, refused = run(tmp_path, LIMIT + RUN, EDBATCH_CACHE=str(tmp_path / "cache"))
    assert ran == "ran 2 native"
    assert refused.startswith("EnvironmentMismatch the kernels cannot be linked (File too large)")


@pytest.mark.slow
def test_no_folder_for_temporary_files(tmp_path: Path) -> None:
    code = "import tempfile\ntempfile._candidate_tempdir_list = lambda: ['/nowhere']\n" + RUN
    ran, refused = run(tmp_path, code, EDBATCH_CACHE=str(tmp_path / "cache"))
    assert ran == "ran 2 native"
    assert refused.startswith("EnvironmentMismatch the kernels cannot be linked (No usable temporary directory")


@pytest.fixture(params=["size=16k", "size=64m,noexec", "size=64m,ro"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A small file system that is full soon, runs no code or is read-only; and its option."""
    where = tmp_path / "small"
    where.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", request.param, "tmpfs", str(where)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user cannot mount")
    yield str(where), request.param
    subprocess.run(["umount", "-l", str(where)], check=True)


@pytest.mark.slow
def test_folders_that_take_nothing(folder: tuple[str, str], tmp_path: Path) -> None:
    """As folder for temporary files, for caches, and to save to."""
    where, option = folder
    cache = str(tmp_path / "cache")
    assert run(tmp_path, EDBATCH_CACHE=cache)[:2] == ["ran 2 native", "saved 2"]
    loaded = run(tmp_path, LOAD, EDBATCH_CACHE=cache, TMPDIR=where)
    # A read-only one is passed over for /tmp, as by every program in Python.
    assert loaded[0].startswith(
        {
            "size=16k": "EnvironmentMismatch the kernels cannot be written to the folder for temporary files (No space",
            "size=64m,noexec": "EnvironmentMismatch no code can be loaded from the folder for temporary files",
            "size=64m,ro": "loaded 2",
        }[option]
    )
    for variables in ({"EDBATCH_CACHE": cache}, {"EDBATCH_CACHE": where}):
        ran, saved = run(tmp_path, TMPDIR=where, **variables)
        assert ran == "ran 2 native"
        assert saved.startswith(
            {
                "size=16k": "EnvironmentMismatch the kernels cannot be linked (No space left on device); expected",
                "size=64m,noexec": "EnvironmentMismatch no code can be loaded",
                "size=64m,ro": "saved 2",
            }[option]
        )
    if option != "size=64m,noexec":
        _, saved = run(Path(where), EDBATCH_CACHE=cache)
        assert re.match(r"ModelFileError model file .* cannot be written: (No space|Read-only file)", saved)


VERBS = [
    "run treelstm --hidden 8 --batch-size 4 --minibatches 1 --repeat 1",
    "learn treelstm --batch-size 4 --minibatches 2",
    "tune treelstm --hidden 8 --batch-size 8 --minibatches 1 --trials 2 --database {}",
    "explain treelstm --hidden 8 --batch-size 4",
]


def verb(words: str, database: Path, limit: str = "", **variables: str) -> None:
    """A verb of the command line does its work."""
    code = "import sys\nfrom edbatch_tvm.cli import main\nsys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", limit + code, *words.format(database).split()],
        cwd=ROOT,
        env={**os.environ, "EDBATCH_MODEL_CACHE": "none", **variables},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("words", VERBS, ids=lambda words: words.split()[0])
def test_verbs_in_folders_that_take_nothing(words: str, folder: tuple[str, str], tmp_path: Path) -> None:
    where, _ = folder
    verb(words, tmp_path / "database", TMPDIR=where, EDBATCH_CACHE=str(tmp_path / "cache"))
    verb(words, tmp_path / "other", TMPDIR=where, EDBATCH_CACHE=where)


@pytest.mark.slow
@pytest.mark.parametrize("words", VERBS, ids=lambda words: words.split()[0])
def test_verbs_under_a_limit_on_the_size_of_files(words: str, tmp_path: Path) -> None:
    verb(words, tmp_path / "database", LIMIT, EDBATCH_CACHE=str(tmp_path / "cache"))


def test_a_library_that_cannot_be_linked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tvm.support.cc, "get_cc", lambda: None)
    workload = get_workload("treelstm")
    model = eb.compile(workload.cells(8), workload.weights(8))
    with pytest.raises(EnvironmentMismatch, match=r"cannot be linked \(no C compiler on the PATH\); expected"):
        model.save(tmp_path / "model.edbatch")


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"mcpu": "haswel"}, "unknown mcpu 'haswel'; expected one that LLVM knows, such as haswell, broadwell"),
        ({"mcpu": "native"}, "unknown mcpu 'native'"),
        ({"mtriple": "foo-bar"}, "unknown mtriple 'foo'"),
        ({"mattr": ["+avx9"]}, "unknown mattr 'avx9'; expected one that LLVM knows, such as avx, avx2"),
        ({"mattr": ["avx2"]}, r"mattr 'avx2'; expected '\+avx2' or '-avx2'"),
    ],
    ids=str,
)
def test_a_target_that_llvm_does_not_know(attributes: dict[str, object], message: str) -> None:
    workload = get_workload("treelstm")
    triple = {"mtriple": "x86_64-linux-gnu"}
    with pytest.raises(TargetError, match=message):
        eb.compile(workload.cells(8), workload.weights(8), target={"kind": "llvm", **triple, **attributes})

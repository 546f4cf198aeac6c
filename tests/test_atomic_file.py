"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edbatch_tvm.atomic_file import replacing, write_text
from edbatch_tvm.batching import CostTable, FsmPolicy, load_policy, save_policy

ROOT = Path(__file__).resolve().parents[1]


def test_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "größer\n")
    write_text(path, "smaller\n")
    assert path.read_text(encoding="utf-8") == "smaller\n"
    assert [one.name for one in tmp_path.iterdir()] == ["file.txt"]


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o664, 0o755])
def test_a_file_keeps_its_permissions(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    path.chmod(mode)
    write_text(path, "new")
    assert stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.parametrize(("umask", "mode"), [(0o077, 0o600), (0o022, 0o644), (0o002, 0o664)])
def test_a_new_file_has_the_permissions_that_the_umask_leaves(umask: int, mode: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        write_text(tmp_path / "file.txt", "new")
        assert stat.S_IMODE((tmp_path / "file.txt").stat().st_mode) == mode
        assert os.umask(umask) == umask
    finally:
        os.umask(before)


def stopped_halfway(path: Path, error: type[BaseException]) -> None:
    with replacing(path) as file:
        file.write(b"half")
        raise error


def test_an_error_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "old")
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error):
            stopped_halfway(path, error)
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_links_and_pipes_stay(tmp_path: Path) -> None:
    path, link, pipe = tmp_path / "file.txt", tmp_path / "link", tmp_path / "pipe"
    path.write_text("old")
    link.symlink_to(path)
    write_text(link, "new")
    assert link.is_symlink()
    assert path.read_text() == "new"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE) as reader:
        write_text(pipe, "through")
        assert reader.communicate(timeout=20)[0] == b"through"


WRITERS = """
import signal
import sys
from edbatch_tvm.batching import CostTable, FsmPolicy, save_policy
from edbatch_tvm.atomic_file import write_text
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
number = 0
print("ready", flush=True)
while True:
    number += 1
    table = {(0,): 0, (1,): 1, **{(0, 1): number % 2}}
    save_policy(FsmPolicy("sort", tuple(f"cell{i}" for i in range(2)), table), "policy.json")
    CostTable({"leaf": {size: 1e-6 * size for size in range(1, 400 + number % 7)}}).save("costs.json")
    write_text("text.json", str(number) * 20000)
"""


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGKILL])
def test_stopped_at_any_point_files_are_usable(kind: signal.Signals, tmp_path: Path) -> None:
    save_policy(FsmPolicy("sort", ("cell0", "cell1"), {(0,): 0}), tmp_path / "policy.json")
    for delay in (0.0, 0.011, 0.023, 0.04):
        with subprocess.Popen(
            [sys.executable, "-c", WRITERS],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(delay)
            process.send_signal(kind)
            try:
                process.wait(timeout=20)
            finally:
                process.kill()
        assert load_policy(tmp_path / "policy.json").encoding == "sort"
        if (tmp_path / "costs.json").exists():
            assert CostTable.load(tmp_path / "costs.json").seconds("leaf", 1) == 1e-6
        if (tmp_path / "text.json").exists():
            assert len((tmp_path / "text.json").read_text()) % 20000 == 0


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"No space left on device: '.*/table'"), replacing(tmp_path / "table"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert list(tmp_path.iterdir()) == []

"""Timing through a TVM RPC tracker and a server, both on loopback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tvm.target import Target

from edbatch_tvm.errors import TargetError
from edbatch_tvm.tuning.kernels.remote_timer import RemoteTimer, Tracker
from edbatch_tvm.tuning.kernels.timing import TrialFailed
from tests.schedules.test_timing import TARGET, candidate

pytest.importorskip("cloudpickle")
pytest.importorskip("tornado")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def started(arguments: list[str], log: Path) -> Iterator[None]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent.parent)}
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,
        )
    try:
        yield
    finally:
        os.killpg(process.pid, 9)
        process.wait()


def connected(tracker: Tracker) -> RemoteTimer:
    deadline = time.monotonic() + 60
    while not registered(tracker):
        assert time.monotonic() < deadline, "no server"
        time.sleep(0.5)
    return RemoteTimer(Target(TARGET), tracker)


def registered(tracker: Tracker) -> bool:
    try:
        RemoteTimer(Target(TARGET), tracker).close()
    except TargetError:
        return False
    return True


def test_no_tracker() -> None:
    with pytest.raises(TargetError, match=r"no device 'here' at tracker 127.0.0.1:\d+ .*running tracker"):
        RemoteTimer(Target(TARGET), Tracker("127.0.0.1", free_port(), "here"))
    with pytest.raises(TargetError, match="tracker 'nonsense'; expected HOST:PORT"):
        Tracker.parse("nonsense", "here")
    with pytest.raises(TargetError, match="without a device key"):
        Tracker.parse("localhost:9190", "")


@pytest.mark.slow
def test_loopback(tmp_path: Path) -> None:
    port = free_port()
    tracker = ["tvm.exec.rpc_tracker", "--host", "127.0.0.1", "--port", str(port), "--port-end", str(port + 1)]
    server = [
        "edbatch_tvm.tuning.server",
        "--host",
        "127.0.0.1",
        "--tracker",
        f"127.0.0.1:{port}",
        "--key",
        "here",
    ]
    with started(tracker, tmp_path / "tracker"), started(server, tmp_path / "server"):
        timer = connected(Tracker("127.0.0.1", port, "here"))
        try:
            assert timer.threads >= 1
            little, much = timer.time([candidate(1), candidate(100)])
            assert 10 * min(little) < min(much)
            with pytest.raises(TrialFailed, match="remote"):
                timer.time([candidate(1, stride=1 << 20)])
            assert min(timer.time([candidate(1)])[0]) > 0
        finally:
            timer.close()
        with pytest.raises(TargetError, match="the tracker knows here"):
            RemoteTimer(Target(TARGET), Tracker("127.0.0.1", port, "elsewhere"))

"""A timer in a process of its own: one worker for many candidates, started again when a candidate kills it.

TVM's own local builder starts workers that spend longer on importing tensor intrinsics than they are given for a build.
This worker imports TVM once and lives until it crashes or hangs.
"""

from __future__ import annotations

import os
import pickle
import select
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, BinaryIO

from tvm.target import Target

from edbatch_tvm.tuning.kernels.timing import ROUNDS, Candidate, LocalTimer, TrialFailed

TIMEOUT = 60.0
"""Seconds that a request may take; the first one of a worker also imports TVM."""

_HEADER = 8


class WorkerTimer:
    """Times kernels in a worker process.

    Parameters
    ----------
    target : dict
        The target, as TVM takes it.
    timeout : float
        Seconds after which a request counts as hanging.

    Attributes
    ----------
    restarts : int
        Workers that died or hung so far.
    """

    def __init__(self, target: dict[str, Any], timeout: float = TIMEOUT) -> None:
        self.target = target
        self.timeout = timeout
        self.restarts = 0
        self._process: subprocess.Popen[bytes] | None = None

    def time(self, candidates: Sequence[Candidate], rounds: int = ROUNDS) -> list[list[float]]:
        """See :class:`edbatch_tvm.tuning.kernels.timing.Timer`."""
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            _send(process.stdin, (list(candidates), rounds))
            good, answer = _receive(process.stdout, self.timeout)
        except (OSError, EOFError, TimeoutError) as error:
            status = self._stop()
            self.restarts += 1
            ended = "did not answer in time" if isinstance(error, TimeoutError) else f"ended with status {status}"
            raise TrialFailed(f"the worker {ended}") from None
        if not good:
            raise TrialFailed(str(answer))
        times: list[list[float]] = answer
        return times

    def close(self) -> None:
        """End the worker."""
        if self._process is not None:
            self._stop()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            paths = os.pathsep.join(path for path in sys.path if path)
            self._process = subprocess.Popen(
                [sys.executable, "-m", "edbatch_tvm.tuning.kernels.timing_worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": paths},
            )
            assert self._process.stdin is not None
            _send(self._process.stdin, self.target)
        return self._process

    def _stop(self) -> int | None:
        process, self._process = self._process, None
        if process is None:
            return None
        process.kill()
        status = process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # what was not sent yet, to a worker that is gone
                    continue
        return status


def _send(pipe: BinaryIO | Any, message: Any) -> None:
    data = pickle.dumps(message)
    pipe.write(len(data).to_bytes(_HEADER, "little") + data)
    pipe.flush()


def _receive(pipe: Any, timeout: float | None) -> Any:
    size = int.from_bytes(_read(pipe, _HEADER, timeout), "little")
    return pickle.loads(_read(pipe, size, timeout))


def _read(pipe: Any, size: int, timeout: float | None) -> bytes:
    """`size` bytes of `pipe`; the pipe's buffer is passed by, so that waiting for it works."""
    data = b""
    while len(data) < size:
        if timeout is not None and not select.select([pipe], [], [], timeout)[0]:
            raise TimeoutError
        part = os.read(pipe.fileno(), size - len(data))
        if not part:
            raise EOFError
        data += part
    return data


def serve() -> None:
    """Answer requests on standard input until it ends."""
    answers = os.fdopen(os.dup(1), "wb")
    # What kernels or TVM print must not get between the answers.
    os.dup2(2, 1)
    requests = os.fdopen(os.dup(0), "rb", buffering=0)
    timer = LocalTimer(Target(_receive(requests, None)))
    while True:
        try:
            candidates, rounds = _receive(requests, None)
        except EOFError:
            return
        try:
            answer: Any = True, timer.time(candidates, rounds)
        except TrialFailed as error:
            answer = False, str(error)
        _send(answers, answer)


if __name__ == "__main__":
    serve()

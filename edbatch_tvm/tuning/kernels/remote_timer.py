"""A timer on another machine, through TVM's RPC tracker and servers.

Kernels are compiled here and linked there, so the machines need the same TVM and the remote one a C compiler; the
target says what the remote CPU is. A server runs every session in a process of its own: a candidate that crashes ends
its session, and the next one asks the tracker for another.
"""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tvm import rpc
from tvm.target import Target

from edbatch_tvm.bounded_cache import BoundedCache
from edbatch_tvm.errors import TargetError
from edbatch_tvm.tuning.kernels.timing import KEPT, ROUNDS, Candidate, TrialFailed, build, reason_of, time_calls
from edbatch_tvm.tuning.kernels.timing_inputs import TimingInputs
from edbatch_tvm.tvm_compat import runtime
from schedules.cpu.link import require_room

CONNECT_SECONDS = 5.0
"""Seconds to wait for a tracker to answer."""

SESSION_SECONDS = 600
"""Seconds after which a server ends a session."""


@dataclass(frozen=True)
class Tracker:
    """Where the tracker listens, and the key that the servers of a device have registered under."""

    host: str
    port: int
    key: str

    @classmethod
    def parse(cls, address: str, key: str) -> Tracker:
        """The tracker at ``HOST:PORT``.

        Raises
        ------
        TargetError
            If `address` has another form, or there is no key.
        """
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit():
            raise TargetError(f"tracker {address!r}", "HOST:PORT")
        if not key:
            raise TargetError("a tracker without a device key", "the key the servers were started with", "--rpc-key")
        return cls(host, int(port), key)


class RemoteTimer:
    """Times kernels on a device that a tracker knows.

    Parameters
    ----------
    target : tvm.target.Target
        Of the remote device.
    tracker : Tracker

    Raises
    ------
    TargetError
        If the tracker or a device cannot be reached.
    """

    def __init__(self, target: Target, tracker: Tracker) -> None:
        self.target = target
        self.tracker = tracker
        self._folder = tempfile.TemporaryDirectory(prefix="edbatch-tune-")
        self._libraries: BoundedCache[str, Any] = BoundedCache(KEPT)
        self._arrays: BoundedCache[TimingInputs, list[Any]] = BoundedCache(KEPT)
        self._names = 0
        self._session: Any = None
        try:
            self._connect()
        except Exception as error:
            self._folder.cleanup()
            raise TargetError(
                f"no device {tracker.key!r} at tracker {tracker.host}:{tracker.port} ({reason_of(error)})",
                "a running tracker and a free server",
                "see docs/tuning.md",
            ) from None

    @property
    def threads(self) -> int:
        """Worker threads of the remote device."""
        return int(self._connect().get_function("runtime.NumThreads")())

    def time(self, candidates: Sequence[Candidate], rounds: int = ROUNDS) -> list[list[float]]:
        """See :class:`edbatch_tvm.tuning.kernels.timing.Timer`."""
        try:
            session = self._connect()
            calls = [self._call(session, candidate) for candidate in candidates]
            return time_calls(calls, session.cpu(0), rounds)
        except Exception as error:
            self._disconnect()
            raise TrialFailed(f"remote: {reason_of(error)}") from None

    def close(self) -> None:
        """End the session."""
        self._disconnect()
        self._folder.cleanup()

    def _connect(self) -> Any:
        if self._session is None:
            # TVM would try to connect for a minute.
            socket.create_connection((self.tracker.host, self.tracker.port), CONNECT_SECONDS).close()
            tracker = rpc.connect_tracker(self.tracker.host, self.tracker.port)
            known = [str(one["key"]).removeprefix("server:") for one in tracker.summary()["server_info"]]
            if self.tracker.key not in known:
                # TVM would wait for one to come.
                raise RuntimeError(f"the tracker knows {', '.join(sorted(set(known))) or 'no servers'}")
            self._session = tracker.request(self.tracker.key, session_timeout=SESSION_SECONDS)
        return self._session

    def _disconnect(self) -> None:
        self._libraries.clear()
        self._arrays.clear()
        self._session = None

    def _call(self, session: Any, candidate: Candidate) -> tuple[Any, str, list[Any]]:
        device = session.cpu(0)
        module = self._libraries.get_or_make(candidate.module, lambda: self._upload(session, candidate.module))
        arrays = self._arrays.get_or_make(
            candidate.bench,
            lambda: [runtime.tensor(array, device=device) for array in candidate.bench.arrays()],
        )
        return module, candidate.bench.name, arrays

    def _upload(self, session: Any, module: str) -> Any:
        self._names += 1
        path = Path(self._folder.name) / f"kernel{self._names}.tar"
        library = build(module, self.target)
        require_room(library, self._folder.name)
        library.export_library(str(path))
        # Given a path, TVM leaves the file open.
        session.upload(bytearray(path.read_bytes()), path.name)
        path.unlink()
        return session.load_module(path.name)

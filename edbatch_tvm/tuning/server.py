"""``python -m edbatch_tvm.tuning.server``: an RPC server that lends this machine to tuning runs elsewhere.

TVM's own server (``python -m tvm.exec.rpc_server``) runs every session in a process of its own, but stops listening for
good when a session's process crashes, as a bad candidate's does. This one goes on.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from edbatch_tvm.errors import EdbatchError
from edbatch_tvm.runtime.threads import prepare_threads
from edbatch_tvm.tuning.kernels.remote_timer import Tracker


def listen(tracker: Tracker, host: str, port: int) -> None:
    """Serve sessions on `port` (0: any free one) until the process is ended."""
    from edbatch_tvm.tvm_compat import rpc_listen_loop

    prepare_threads()
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listening:
        listening.bind((host, port))
        listening.listen(1)
        bound = listening.getsockname()[1]
        print(f"serving as {tracker.key} on {host}:{bound}", flush=True)
        home = os.getcwd()
        while True:
            with _crash_reported():
                rpc_listen_loop(listening, bound, tracker.key, (tracker.host, tracker.port), None, None)
            os.chdir(home)


@contextmanager
def _crash_reported() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        print(f"a session ended: {error}", file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(prog="python -m edbatch_tvm.tuning.server", description=__doc__.splitlines()[0])
    parser.add_argument("--tracker", required=True, metavar="HOST:PORT", help="the tracker to register with")
    parser.add_argument("--key", required=True, metavar="KEY", help="the name that tuning runs ask for")
    parser.add_argument("--host", default="0.0.0.0", help="the address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=0, help="the port to listen on (any free one)")
    parsed = parser.parse_args(arguments)
    try:
        listen(Tracker.parse(parsed.tracker, parsed.key), parsed.host, parsed.port)
    except (EdbatchError, OSError) as error:
        print(f"edbatch: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Entry point: parse, run the verb, turn errors into one line and an exit code."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from edbatch_tvm.cli import bench, explain, learn, run, train, tune
from edbatch_tvm.errors import EdbatchError

VERBS = (run, train, learn, tune, bench, explain)
"""Modules with ``register(subparsers)``; a verb's function takes the parsed arguments."""

FAILED, USAGE, INTERRUPTED = 1, 2, 130


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"edbatch: error: {message} (hint: {self.prog} --help)\n")


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    top = _Parser(prog="edbatch", description="Automatic batching for dynamic neural networks on TVM.")
    verbs = top.add_subparsers(title="verbs", metavar="VERB", required=True)
    for verb in VERBS:
        verb.register(verbs)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line `arguments` (default: those of the process) and return the exit code."""
    open_streams()
    parsed = parser().parse_args(arguments)
    try:
        parsed.function(parsed)
    except KeyboardInterrupt:
        print("edbatch: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output left; point stdout elsewhere so that the interpreter's last flush does not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        if parsed.debug:
            raise
        print(f"edbatch: error: {_one_line(error)}", file=sys.stderr)
        return FAILED
    return 0


def open_streams() -> None:
    """Let what was closed by who started the process (``edbatch run ... >&-``) lead nowhere."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, EdbatchError | OSError):
        return text
    return f"{type(error).__name__}: {text} (hint: this is a bug; --debug shows where)"

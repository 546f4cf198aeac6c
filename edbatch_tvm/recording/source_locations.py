"""Places in the user's code: what errors and warnings of recorded models name."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType

import torch
import tvm

_PACKAGE = Path(__file__).parents[1]
_OURS = tuple(
    f"{folder}/"
    for folder in (
        *(_PACKAGE, _PACKAGE.parent / "relay_ext", _PACKAGE.parent / "schedules"),
        *(Path(module.__file__ or "").parent for module in (torch, tvm)),
    )
)


def is_users(file: str) -> bool:
    """Whether code of this file is neither this project's nor that of what it is built on."""
    return not file.startswith((*_OURS, "<frozen", "<string>"))


def users_place() -> tuple[str, int]:
    """File and line of the innermost code of the user's that runs."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not is_users(frame.f_code.co_filename):
        frame = frame.f_back
    return ("?", 0) if frame is None else (frame.f_code.co_filename, frame.f_lineno)


def place_of_error(error: BaseException) -> str:
    """File and line of the innermost code of the user's that an error came through; empty if there is none."""
    place = ""
    for trace in _traces(error.__traceback__):
        file = trace.tb_frame.f_code.co_filename
        if is_users(file):
            place = f"{file}:{trace.tb_lineno}"
    return place


def _traces(trace: TracebackType | None) -> Iterator[TracebackType]:
    while trace is not None:
        yield trace
        trace = trace.tb_next

"""What is not recorded is told: which operation, where in the user's code, and why."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from edbatch_tvm.errors import BreakWarning

if TYPE_CHECKING:
    from edbatch_tvm.recording.recorder import Recorder

_OURS = tuple(str(folder) for folder in (Path(__file__).parent, Path(torch.__file__).parent))


def users_place() -> tuple[str, int]:
    """File and line of the innermost code that is neither torch's nor this package's."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_OURS):
        frame = frame.f_back  # type: ignore[assignment]
    return ("?", 0) if frame is None else (frame.f_code.co_filename, frame.f_lineno)


def told(recorder: Recorder, operation: str, reason: Exception | None) -> None:
    """Note a break, and warn of it once for each place."""
    from edbatch_tvm.recording.recorder import Break

    file, line = users_place()
    one = Break(operation, f"{file}:{line}", "" if reason is None else str(reason))
    recorder.breaks.append(one)
    place = file, line, operation
    if place not in recorder.library.told:
        recorder.library.told.add(place)
        warnings.warn_explicit(
            f"{operation} is not batched: what it needs is computed, and PyTorch runs it"
            + (f" ({reason})" if reason is not None else ""),
            BreakWarning,
            file,
            line,
        )

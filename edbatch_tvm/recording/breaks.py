"""What is not recorded is told: which operation, where in the user's code, and why."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edbatch_tvm.errors import BreakWarning
from edbatch_tvm.recording.source_locations import users_place

if TYPE_CHECKING:
    from edbatch_tvm.recording.recorder import Recorder


@dataclass(frozen=True)
class Break:
    """An operation that was not recorded: what it needed was computed, and PyTorch ran it.

    Attributes
    ----------
    operation : str
    place : str
        File and line of the code that asked for it.
    reason : str
    """

    operation: str
    place: str
    reason: str

    def __str__(self) -> str:
        return f"{self.place}: {self.operation}" + (f" ({self.reason})" if self.reason else "")


def told(recorder: Recorder, operation: str, reason: Exception | None) -> None:
    """Note a break, and warn of it once for each place."""
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

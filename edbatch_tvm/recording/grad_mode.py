"""When elements switch the recording of gradients off and on: calls of cells are recorded where nothing asks for it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from edbatch_tvm.recording.recorder import Recorder

_set_grad_enabled: Any = torch._C._set_grad_enabled
_InferenceMode: Any = torch._C._InferenceMode


class _Here(threading.local):
    """The recorder that records in this thread, and the same if gradients are recorded."""

    running: Recorder | None = None
    recorder: Recorder | None = None


_here = _Here()


@contextmanager
def grad_mode_noted(recorder: Recorder) -> Iterator[None]:
    """A context in which the tape of a recorder knows where no gradients are recorded."""
    before = _here.running, _here.recorder
    _here.running, _here.recorder = recorder, recorder if recorder.tape is not None else None
    try:
        yield
    finally:
        _here.running, _here.recorder = before


def running_recorder() -> Recorder | None:
    """The recorder that records in this thread."""
    return _here.running


def training_recorder() -> Recorder | None:
    """The recorder that records in this thread, if gradients are recorded."""
    return _here.recorder


def _note(enabled: bool, before: bool) -> None:
    """Note that gradients are recorded or not from now on, and were or were not `before`."""
    recorder = _here.recorder
    if recorder is None or recorder.tape is None:
        return
    required = recorder.tape.required
    # Else PyTorch's own code has switched it off meanwhile, and will switch it back: it calls a hook.
    if required.is_on == before:
        required.switched(enabled, recorder.recorded)


def _set_and_note(enabled: bool) -> None:
    _note(enabled, torch.is_grad_enabled())
    _set_grad_enabled(enabled)


class _NotedInference:
    """A context of inference mode, which is noted."""

    def __init__(self, mode: bool) -> None:
        self._context = _InferenceMode(mode)

    def __enter__(self) -> Any:
        before = torch.is_grad_enabled()
        found = self._context.__enter__()
        _note(torch.is_grad_enabled(), before)
        return found

    def __exit__(self, *error: Any) -> Any:
        before = torch.is_grad_enabled()
        result = self._context.__exit__(*error)
        _note(torch.is_grad_enabled(), before)
        return result


NOTING: dict[str, Any] = {"_set_grad_enabled": _set_and_note, "_InferenceMode": _NotedInference}
"""What takes the place of functions of ``torch._C`` while elements run."""

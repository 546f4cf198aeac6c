"""Detached tensors: the memory of recorded ones, read as values that no gradient passes."""

from __future__ import annotations

from sys import getrefcount
from typing import TYPE_CHECKING, Any

import torch

from edbatch_tvm.errors import RecordingError
from edbatch_tvm.recording.lazy import LazyTensor, geometry_of, lazy_value, lazy_view, storage_of
from edbatch_tvm.recording.specs import spec_of
from edbatch_tvm.recording.strided_storage import Storage

if TYPE_CHECKING:
    from edbatch_tvm.recording.recorder import Recorder


class DetachedStorage(Storage):
    """The memory of another storage, whose rows are detached where they are read.

    Attributes
    ----------
    base : Storage
        The other; one of its own once it has been written into.
    """

    __slots__ = ("_own", "_recorder", "base")

    def __init__(self, recorder: Recorder, base: Storage) -> None:
        self._recorder = recorder
        self._own = False
        self.base = base

    @property
    def is_detached(self) -> bool:
        """Whether it still is the memory of another."""
        return not self._own

    # Those of the other, which may change; never the whole of a tensor, so that nobody takes its rows as they are.
    row: Any = property(lambda self: self.base.row)
    listed: Any = property(lambda self: self.base.listed)
    whole: Any = property(lambda self: None)
    spec: Any = property(lambda self: None)

    @property  # type: ignore[misc]
    def rows(self) -> list[int]:
        """The detached values."""
        return self.base.rows if self._own else [self._detached(value) for value in self.base.rows]

    def _detached(self, value: int) -> int:
        recorder, tape = self._recorder, self._recorder.tape
        assert tape is not None
        found = tape.known_detached.get(value)
        if found is None:
            if tape.required.is_constant(value) or recorder.finished:
                return value
            first = recorder.recorded
            source = lazy_value(recorder, value, spec_of((self.base.row,), recorder.dtype))
            found = recorder.value_of(recorder.operator(_times_one, (source,), {}))
            tape.required.detach(first, recorder.recorded)
            tape.known_detached[value] = found
        return found

    def own(self) -> None:
        """Be the only tensor's memory, which may be written into.

        Raises
        ------
        RecordingError
            If it is the memory of others, too.
        """
        if self._own:
            return
        if getrefcount(self.base) > _ALONE:
            raise RecordingError(
                "writing into a detached tensor, whose memory is that of the tensor it was detached from",
                "a tensor with memory of its own",
                "use tensor.detach().clone()",
            )
        self.base = Storage(list(self.rows), self.base.row, self.base.listed)
        self._own = True

    def join(self, value: int) -> None:
        """Let all rows be one, which is `value`."""
        self.own()
        self.base.join(value)


_ALONE = 2
"""What ``getrefcount`` says of the base that nobody else holds."""


def detached(recorder: Recorder, tensor: LazyTensor) -> torch.Tensor:
    """A tensor with the memory of another that no gradient passes."""
    if recorder.finished or not tensor.spec.size:
        return tensor.computed().detach()
    storage = storage_of(tensor)
    if not isinstance(storage, DetachedStorage):
        storage = DetachedStorage(recorder, storage)
    return lazy_view(recorder, storage, geometry_of(tensor), tensor.spec.dtype)


def shared(storage: Storage) -> Storage:
    """The storage whose memory it is: for reading numbers."""
    return storage.base if isinstance(storage, DetachedStorage) else storage


def writable(storage: Storage) -> Storage:
    """A storage that may be written into.

    Raises
    ------
    RecordingError
        If it is detached memory that others share.
    """
    if isinstance(storage, DetachedStorage):
        storage.own()
        return storage.base
    return storage


def _times_one(tensor: torch.Tensor) -> torch.Tensor:
    """A value of its own."""
    return tensor * 1

"""Memory of a device, and copies to and from it on a stream: of a GPU, or of the host in an emulation."""

from __future__ import annotations

import ctypes
from abc import ABC, abstractmethod
from collections import deque
from typing import Any

import numpy as np
import tvm

from edbatch_tvm.errors import TargetError
from edbatch_tvm.tvm_compat import raw_stream, runtime

_STAGED = 8
"""Uploads of a stream that may be under way at once."""


class DeviceMemory(ABC):
    """Memory of one device; copies are asynchronous on the current stream.

    Attributes
    ----------
    device : tvm.runtime.Device
    units : int
        Multiprocessors.
    in_forks : bool
        Whether a forked child of the process that made it can use it.
    """

    device: Any
    units: int
    in_forks = False

    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        """A tensor without content."""
        return runtime.empty(shape, dtype, self.device)

    def tensor(self, array: np.ndarray) -> Any:
        """A tensor with the content of `array`, ready for every stream."""
        tensor = self.empty(array.shape, str(array.dtype))
        if array.size:
            self.upload(array, tensor)
        self.synchronize()
        return tensor

    @property
    @abstractmethod
    def stream(self) -> int:
        """Handle of the current stream: that of ``tvm_ffi.use_torch_stream`` or ``use_raw_stream``."""

    @abstractmethod
    def upload(self, array: np.ndarray, tensor: Any, offset: int = 0) -> None:
        """Copy a contiguous array to a tensor, from its byte `offset` on; the array may change at once."""

    @abstractmethod
    def copy(self, source: Any, tensor: Any, offset: int, size: int) -> None:
        """Copy the first `size` bytes of a tensor to another one, from its byte `offset` on."""

    @abstractmethod
    def download(self, tensor: Any) -> np.ndarray:
        """The content of a tensor, after all that the current stream has to do."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait for the current stream."""

    @abstractmethod
    def let_wait(self, stream: int) -> None:
        """Make another stream wait for what the current one has to do."""


class HostMemory(DeviceMemory):
    """The host's memory, for emulated kernels; nothing is asynchronous."""

    in_forks = True

    def __init__(self, units: int = 2) -> None:
        self.device = tvm.cpu()
        self.units = units

    @property
    def stream(self) -> int:
        """See :meth:`DeviceMemory.stream`."""
        return 0

    def upload(self, array: np.ndarray, tensor: Any, offset: int = 0) -> None:
        """See :meth:`DeviceMemory.upload`."""
        flat = np.from_dlpack(tensor).reshape(-1).view(np.uint8)
        flat[offset : offset + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)

    def copy(self, source: Any, tensor: Any, offset: int, size: int) -> None:
        """See :meth:`DeviceMemory.copy`."""
        flat = np.from_dlpack(tensor).reshape(-1).view(np.uint8)
        flat[offset : offset + size] = np.from_dlpack(source).reshape(-1).view(np.uint8)[:size]

    def download(self, tensor: Any) -> np.ndarray:
        """See :meth:`DeviceMemory.download`."""
        return np.from_dlpack(tensor).copy()

    def synchronize(self) -> None:
        """Nothing is under way."""

    def let_wait(self, stream: int) -> None:
        """Nothing is under way."""


class CudaMemory(DeviceMemory):
    """An NVIDIA GPU, through the driver's own library: TVM copies on the default stream only.

    Raises
    ------
    TargetError
        If there is no GPU or no driver.
    """

    def __init__(self, number: int = 0) -> None:
        self.device = tvm.cuda(number)
        if not self.device.exist:
            raise TargetError(
                "no NVIDIA GPU or no driver on this machine",
                "one, to run target 'cuda'",
                "the CUDA source needs none: edbatch run WORKLOAD --target cuda --emit-source DIR",
            )
        self.units = int(self.device.multi_processor_count)
        self._driver = ctypes.CDLL("libcuda.so.1")
        # The context that TVM works in too; a thread that has called nothing yet has none.
        self._context = ctypes.c_void_p()
        self._driver.cuInit(0)
        self._driver.cuDevicePrimaryCtxRetain(ctypes.byref(self._context), ctypes.c_int(number))
        self._staged: deque[tuple[Any, int, Any]] = deque()

    @property
    def stream(self) -> int:
        """See :meth:`DeviceMemory.stream`."""
        return raw_stream(self.device)

    def upload(self, array: np.ndarray, tensor: Any, offset: int = 0) -> None:
        """See :meth:`DeviceMemory.upload`."""
        array = np.ascontiguousarray(array)
        staging, room = self._staging(array.nbytes)
        ctypes.memmove(staging, array.ctypes.data, array.nbytes)
        to, size = ctypes.c_uint64(tensor.data_ptr() + offset), ctypes.c_size_t(array.nbytes)
        self._call("cuMemcpyHtoDAsync_v2", to, staging, size, ctypes.c_void_p(self.stream))
        self._staged.append((staging, room, self._event()))

    def copy(self, source: Any, tensor: Any, offset: int, size: int) -> None:
        """See :meth:`DeviceMemory.copy`."""
        to, origin = ctypes.c_uint64(tensor.data_ptr() + offset), ctypes.c_uint64(source.data_ptr())
        self._call("cuMemcpyDtoDAsync_v2", to, origin, ctypes.c_size_t(size), ctypes.c_void_p(self.stream))

    def download(self, tensor: Any) -> np.ndarray:
        """See :meth:`DeviceMemory.download`."""
        array = np.empty(tuple(tensor.shape), str(tensor.dtype))
        source, stream = ctypes.c_uint64(tensor.data_ptr()), ctypes.c_void_p(self.stream)
        size = ctypes.c_size_t(array.nbytes)
        self._call("cuMemcpyDtoHAsync_v2", ctypes.c_void_p(array.ctypes.data), source, size, stream)
        self.synchronize()
        return array

    def synchronize(self) -> None:
        """See :meth:`DeviceMemory.synchronize`."""
        self._call("cuStreamSynchronize", ctypes.c_void_p(self.stream))

    def let_wait(self, stream: int) -> None:
        """See :meth:`DeviceMemory.let_wait`."""
        event = self._event()
        self._call("cuStreamWaitEvent", ctypes.c_void_p(stream), event, ctypes.c_uint(0))
        self._call("cuEventDestroy_v2", event)

    def _staging(self, size: int) -> tuple[Any, int]:
        """Pinned memory that no copy reads from any more, and its size: `size` bytes or more."""
        while self._staged:
            memory, room, event = self._staged[0]
            self._driver.cuCtxSetCurrent(self._context)
            if len(self._staged) < _STAGED and self._driver.cuEventQuery(event) != 0:
                break
            self._call("cuEventSynchronize", event)
            self._call("cuEventDestroy_v2", event)
            self._staged.popleft()
            if room >= size:
                return memory, room
            self._call("cuMemFreeHost", memory)
        memory, room = ctypes.c_void_p(), size + size // 4 + 1
        self._call("cuMemHostAlloc", ctypes.byref(memory), ctypes.c_size_t(room), ctypes.c_uint(0))
        return memory, room

    def _event(self) -> Any:
        event = ctypes.c_void_p()
        self._call("cuEventCreate", ctypes.byref(event), ctypes.c_uint(2))  # 2: without timing
        self._call("cuEventRecord", event, ctypes.c_void_p(self.stream))
        return event

    def _call(self, name: str, *arguments: Any) -> None:
        code = self._driver.cuCtxSetCurrent(self._context) or getattr(self._driver, name)(*arguments)
        if code:
            raise TargetError(f"{name} of the CUDA driver returned error {code}", "0")

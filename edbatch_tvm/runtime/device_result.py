"""Results that stay on a device until they are asked for."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np

from edbatch_tvm.graph.instance import InstanceGraph
from edbatch_tvm.memory.plan import Plan
from edbatch_tvm.runtime.device_memory import DeviceMemory
from edbatch_tvm.runtime.report import Report
from edbatch_tvm.runtime.result import Result


class DeviceArenas:
    """The arenas of one run on a device, and the stream that they are used on."""

    def __init__(self, tensors: list[Any], rows: tuple[int, ...], stream: int) -> None:
        self.tensors = tensors
        self.rows = rows
        self.stream = stream


class Lease:
    """The right to look at the arenas of a run: while it lives, no other run uses them.

    Parameters
    ----------
    give_back : callable
        Called with the arenas when the lease ends, unless a view has left for another library.
    """

    def __init__(self, arenas: DeviceArenas, give_back: Any) -> None:
        self.arenas = arenas
        self._end = weakref.finalize(self, give_back, arenas)
        self._end.atexit = False

    def let_go(self) -> None:
        """Leave the memory to the views of it; it is freed with the last one."""
        self._end.detach()


@dataclass(frozen=True, eq=False)
class ExternalRows:
    """External rows of one arena, of which the first are on the device.

    Attributes
    ----------
    arena : tensor
        The arena of another run, whose first row is zero.
    count : int
        How many of its rows, after the first, are external rows.
    more : array of shape ``[m, *spec.shape]``
        The rows after them, from the host.
    """

    arena: Any
    count: int
    more: np.ndarray

    def __len__(self) -> int:
        return self.count + len(self.more)


class DeviceArray:
    """One value on the device.

    ``torch.from_dlpack(array)`` shares its memory; ``array.numpy()`` and ``numpy.asarray(array)`` copy it to the host.
    """

    def __init__(self, tensor: Any, lease: Lease, memory: DeviceMemory) -> None:
        self._tensor = tensor
        self._lease = lease
        self._memory = memory
        self.shape = tuple(int(extent) for extent in tensor.shape)
        self.dtype = np.dtype(str(tensor.dtype))

    def __repr__(self) -> str:
        return f"DeviceArray(shape={list(self.shape)}, dtype={self.dtype}, device={self._memory.device})"

    def numpy(self) -> np.ndarray:
        """A copy on the host, after all that the current stream has to do."""
        return self._memory.download(self._tensor)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self.numpy()
        return array if dtype is None else array.astype(dtype)

    def __dlpack__(self, *, stream: int | None = None, **_: Any) -> Any:
        # 1 and 2 are the default streams, -1 is no wish; see the DLPack protocol.
        if stream is not None and stream > 2 and stream != self._memory.stream:
            self._memory.let_wait(stream)
        self._lease.let_go()
        return self._tensor.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        kind, number = self._tensor.__dlpack_device__()
        return int(kind), int(number)


class DeviceResult(Result):
    """What a model computed, on the device.

    ``result[i]`` is a :class:`DeviceArray`, or a list of them. :meth:`host` and :meth:`values` copy to the host.
    """

    def __init__(self, graph: InstanceGraph, plan: Plan, report: Report, lease: Lease, memory: DeviceMemory) -> None:
        super().__init__(graph, plan, report, [])
        self._lease = lease
        self._memory = memory

    def host(self) -> Result:
        """The same result as arrays of the host."""
        made = Result(self.graph, self.plan, self.report, self._downloaded())
        made._row = self._row
        return made

    def values(self, values: Any) -> np.ndarray:
        """See :meth:`~edbatch_tvm.runtime.result.Result.values`."""
        self._downloaded()
        return super().values(values)

    def arena(self, arena: int) -> np.ndarray:
        """See :meth:`~edbatch_tvm.runtime.result.Result.arena`; a copy on the host."""
        self._downloaded()
        return super().arena(arena)

    def arena_dtype(self, arena: int) -> np.dtype:
        """See :meth:`~edbatch_tvm.runtime.result.Result.arena_dtype`."""
        return np.dtype(self._signature.value_specs[arena].dtype)

    def tensor(self, arena: int) -> Any:
        """An arena on the device: ``[rows, padded elements]``; the result has to live as long as it is read."""
        return self._lease.arenas.tensors[arena]

    def synchronize(self) -> None:
        """Wait until it is computed."""
        self._memory.synchronize()

    def _downloaded(self) -> list[np.ndarray]:
        if not self._views:
            self._views = [self._memory.download(tensor) for tensor in self._lease.arenas.tensors]
        return self._views

    def _outputs_of(self, instance: int) -> Any:
        begin, end = self.graph.output_ptr[instance : instance + 2]
        values = [self.value(value) for value in self.graph.outputs[begin:end].tolist()]
        return values[0] if self.graph.scalar_output[instance] else values

    def value(self, value: int) -> Any:
        """See :meth:`~edbatch_tvm.runtime.result.Result.value`."""
        value = self._local(value)
        arena = self._arena(value)
        spec, tensor = self._signature.value_specs[arena], self._lease.arenas.tensors[arena]
        pitch = int(tensor.shape[1]) * np.dtype(spec.dtype).itemsize
        view = tensor._create_view(spec.shape, spec.dtype, int(self._row[value]) * pitch)
        return DeviceArray(view, self._lease, self._memory)

"""Running schedules on a device: weights and arenas stay there, a minibatch uploads one vector of tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from math import prod
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from edbatch_tvm.batching import ScheduleInfo
from edbatch_tvm.errors import GraphError, TargetError
from edbatch_tvm.fork_lock import fork_lock
from edbatch_tvm.graph import InstanceGraph, Signature
from edbatch_tvm.memory import Plan
from edbatch_tvm.runtime.artifact import Artifact
from edbatch_tvm.runtime.device_memory import DeviceMemory
from edbatch_tvm.runtime.device_result import DeviceArenas, DeviceResult, ExternalRows, Lease
from edbatch_tvm.runtime.executor import run_parts
from edbatch_tvm.runtime.kernels import Kernel, as_table
from edbatch_tvm.runtime.report import Report
from edbatch_tvm.runtime.threads import forked
from edbatch_tvm.tvm_compat import runtime
from relay_ext.gpu_cells import GpuProgram
from relay_ext.gpu_general import GeneralPart
from schedules.abi import ARGUMENTS, padded
from schedules.cuda.kernel_arguments import (
    ATTRIBUTES,
    BATCHES,
    COLUMNS,
    INDEX_AT,
    STEPS_AT,
    WORKSPACE,
    elements_of_place,
)
from schedules.cuda.kernels import SCHEDULE, SharedPart

Launch = Literal["schedule", "batch"]
"""One launch for a whole schedule, or one for every stage of every batch."""

_GROWTH = 1.25
_KEEP = 2


@dataclass
class _Workspace:
    """Memory of one stream that does not outlive a minibatch, by argument."""

    tensors: dict[str, Any] = field(default_factory=dict)
    room: dict[str, int] = field(default_factory=dict)


class DeviceExecutor:
    """The kernels of a model on a device, and all that they need; see :class:`~edbatch_tvm.runtime.executor.Executor`.

    Parameters
    ----------
    program : GpuProgram
    module : IRModule
        Its kernels, of the form `launch`.
    library, packs : tvm.runtime.Executable
        `module`, and the program's packing functions, compiled.
    weights : mapping of str to array
    blocks : int
        Size of the grid that runs a schedule.
    """

    fused = True
    threads = 1
    artifact: Artifact | None = None
    tuning_key = ""
    gradient_kernels: Callable[[], Any]
    """The kernels of :mod:`schedules.cuda.gradient_kernels`, compiled when they are first asked for."""

    def __init__(
        self,
        signature: Signature,
        program: GpuProgram,
        module: Any,
        library: Any,
        packs: Any,
        weights: Mapping[str, np.ndarray],
        memory: DeviceMemory,
        launch: Launch,
        blocks: int,
    ) -> None:
        self.signature = signature
        self.program = program
        self.memory = memory
        self.launch = launch
        self.blocks = blocks
        self.paths = program.paths
        self._packs = packs
        shared = [part for part in program.parts if isinstance(part, SharedPart)]
        self._stacked = {
            whole: (text, signature[part.type_id].name)
            for part in shared
            for text, whole in zip(part.part.arguments(), part.arguments(), strict=True)
            if whole != text
        }
        self._arguments = {var.name_hint: _texts(function) for var, function in module.functions.items()}
        self._functions = {name: library[name] for name in self._arguments}
        self.by_cell: dict[str, list[Kernel]] = {cell.name: [] for cell in signature}
        for part in program.parts:
            function = self._functions.get(part.name, self._functions.get(SCHEDULE))
            arguments = tuple(tuple(text.split(":", 1)) for text in part.arguments())
            for cell in program.cells_of(part, signature):
                self.by_cell[cell].append(Kernel(part.name, cell, arguments, function))  # type: ignore[arg-type]
        self.kernel_names = {cell: tuple(kernel.name for kernel in ones) for cell, ones in self.by_cell.items()}
        self._free: list[DeviceArenas] = []
        self._workspaces: dict[int, _Workspace] = {}
        self._lock = fork_lock()
        self.load(weights)

    def load(self, weights: Mapping[str, np.ndarray], rows: Mapping[str, np.ndarray] = MappingProxyType({})) -> None:
        """See :meth:`~edbatch_tvm.runtime.executor.Executor.load`; everything is uploaded."""
        tensors: dict[str, Any] = {}
        for text in sorted({text for texts in self._arguments.values() for text in texts}):
            plain, first = self._stacked.get(text, (text, ""))
            if plain.partition(":")[0] not in ("weight", "table", "packed"):
                continue
            if not first:
                tensors[text] = self.memory.tensor(self._array(plain, weights, {}))
                continue
            shape, dtype = self.program.shapes[plain]
            members = self.program.members[first]
            whole = np.zeros((len(members), elements_of_place(shape)), dtype)
            for row, (_, names) in zip(whole, members, strict=True):
                row[: prod(shape)] = self._array(plain, weights, names).reshape(-1)
            tensors[text] = self.memory.tensor(whole.reshape(-1))
        self._weights = tensors

    def _array(self, text: str, weights: Mapping[str, np.ndarray], names: Mapping[str, str]) -> np.ndarray:
        """What an argument is for a cell that calls its weights by `names`."""
        kind, _, name = text.partition(":")
        if kind == "packed":
            return self._packed(name, weights, names)
        array = weights[names.get(name, name)]
        return as_table(array) if kind == "table" else array

    def held(self) -> dict[str, np.ndarray]:
        """See :meth:`~edbatch_tvm.runtime.executor.Executor.held`."""
        return {}

    def _packed(self, stage: str, weights: Mapping[str, np.ndarray], names: Mapping[str, str]) -> np.ndarray:
        name = f"{stage}_pack"
        sources = [text.split(":", 1)[1] for text in _texts(self.program.packs[name])][:-1]
        packed = runtime.empty(self.program.shapes[f"packed:{stage}"][0], "float32")
        self._packs[name](*(runtime.tensor(weights[names.get(source, source)]) for source in sources), packed)
        return np.from_dlpack(packed)

    # A minibatch ------------------------------------------------------------------------------------------------

    def run(self, graph: InstanceGraph, plan: Plan, info: ScheduleInfo | None = None) -> DeviceResult:
        """Queue everything for a minibatch on the current stream; nothing waits for the device.

        Raises
        ------
        TargetError
            If the device is a GPU and this process was forked from another.
        """
        if forked() and not self.memory.in_forks:
            raise TargetError(
                "a CUDA model in a forked process, which has no device",
                "a process of its own",
                'multiprocessing.get_context("spawn")',
            )
        stream = self.memory.stream
        arenas = self._acquire(plan.arena_rows, stream)
        try:
            self._place_external(graph, arenas)
            launches = self._run(graph, plan, arenas)
        except BaseException:
            self._give_back(arenas)
            raise
        report = Report(graph, plan, info, self.paths, lambda: launches)
        return DeviceResult(graph, plan, report, Lease(arenas, self._give_back), self.memory)

    def parts(self, graph: InstanceGraph, plan: Plan) -> AbstractContextManager[Callable[[int, int], None]]:
        """See :meth:`~edbatch_tvm.runtime.executor.Executor.parts`."""
        return run_parts(self, graph, plan)

    def _run(self, graph: InstanceGraph, plan: Plan, arenas: DeviceArenas) -> int:
        slab, rows = self._sizes(plan)
        tables = pack_tables(self.signature, graph, plan, slab, self.program.types)
        counts = plan.steps[:, 1]
        blocks = self.blocks if self.launch == "schedule" else self._most_blocks(plan)
        with self._lock:
            workspace = self._workspaces.pop(arenas.stream, None) or _Workspace()
        self._make_room(workspace, "tables", len(tables), (), "int32")
        self.memory.upload(tables, workspace.tensors["tables"])
        for name, (width, domain) in self.program.scratch.items():
            need = plan.largest_batch if domain == "instances" else rows
            self._make_room(workspace, f"scratch:{name}", need, (width,), "float32")
        for text in sorted({text for texts in self._arguments.values() for text in texts}):
            if text.startswith("workspace:"):
                self._make_room(workspace, text, blocks * slab, (), text.partition(":")[2])
        known = {**self._weights, **workspace.tensors}
        known |= {f"arena:{number}": tensor for number, tensor in enumerate(arenas.tensors)}
        table = workspace.tensors["tables"]
        launches = 0
        if self.launch == "schedule":
            if len(counts):
                self._functions[SCHEDULE](table, self.blocks, *(known[text] for text in self._arguments[SCHEDULE]))
                launches = 1
        else:
            calls = [
                [
                    (self._functions[kernel.name], [known[text] for text in self._arguments[kernel.name]])
                    for kernel in self.by_cell[cell.name]
                ]
                for cell in self.signature
            ]
            for step, (type_id, count) in enumerate(plan.steps[:, :2].tolist()):
                for function, arguments in calls[type_id]:
                    function(table, step, count, *arguments)
                    launches += 1
        with self._lock:
            self._workspaces[arenas.stream] = workspace
        return launches

    def _sizes(self, plan: Plan) -> tuple[int, int]:
        """Elements of workspace a block needs, and the most variadic rows that a batch has."""
        slab = most = 0
        steps = plan.steps
        for part in self.program.parts:
            variadic = self.signature[part.type_id].variadic_count > 0
            code = part.part if isinstance(part, SharedPart) else part
            if not variadic and not isinstance(code, GeneralPart):
                continue
            types = [self.signature.type_id(cell) for cell in self.program.cells_of(part, self.signature)]
            longest = 0
            if variadic:
                for _, count, _, pointer in steps[np.isin(steps[:, 0], types), :4].tolist():
                    offsets = plan.index[pointer : pointer + count + 1]
                    most = max(most, int(offsets[-1] - offsets[0]))
                    longest = max(longest, int(np.diff(offsets).max(initial=0)))
            if isinstance(code, GeneralPart):
                slab = max(slab, code.workspace_elements(longest))
        return slab, most

    def _most_blocks(self, plan: Plan) -> int:
        """Blocks of the largest launch of a general cell."""
        return min(plan.largest_batch, 4 * self.program.machine.fill)

    def _make_room(self, workspace: _Workspace, name: str, need: int, rest: tuple[int, ...], dtype: str) -> None:
        if workspace.room.get(name, 0) < max(1, need):
            rows = int(max(1, need) * _GROWTH)
            workspace.room[name] = rows
            workspace.tensors[name] = self.memory.empty((rows, *rest), dtype)

    # Arenas -----------------------------------------------------------------------------------------------------

    def _acquire(self, rows: tuple[int, ...], stream: int) -> DeviceArenas:
        """Arenas of at least these numbers of rows, last used by `stream`, so that nothing has to wait; or new ones."""
        with self._lock:
            for position, arenas in enumerate(self._free):
                fits = all(need <= have for need, have in zip(rows, arenas.rows, strict=True))
                if fits and arenas.stream == stream:
                    return self._free.pop(position)
            if len(self._free) >= _KEEP:
                self._free.pop(0)
        room = tuple(int(count * _GROWTH) + 1 for count in rows)
        tensors = []
        for spec, count in zip(self.signature.value_specs, room, strict=True):
            if count * padded(spec.size) >= 2**31:
                raise GraphError(
                    f"{count} values of {spec}", "an arena of less than 2**31 elements", "smaller minibatches"
                )
            tensor = self.memory.empty((count, padded(spec.size)), spec.dtype)
            self.memory.upload(np.zeros(padded(spec.size), spec.dtype), tensor)
            tensors.append(tensor)
        return DeviceArenas(tensors, room, stream)

    def _give_back(self, arenas: DeviceArenas) -> None:
        with self._lock:
            if len(self._free) < _KEEP:
                self._free.append(arenas)

    def _place_external(self, graph: InstanceGraph, arenas: DeviceArenas) -> None:
        for arena, rows in enumerate(graph.external_data):
            tensor = arenas.tensors[arena]
            pitch = int(tensor.shape[1]) * np.dtype(self.signature.value_specs[arena].dtype).itemsize
            own: Any = rows
            if isinstance(own, ExternalRows):
                self.memory.copy(own.arena, tensor, 0, (1 + own.count) * pitch)
                self._upload_rows(own.more, arena, tensor, (1 + own.count) * pitch)
            else:
                self._upload_rows(own, arena, tensor, pitch)

    def _upload_rows(self, rows: np.ndarray, arena: int, tensor: Any, offset: int) -> None:
        """Rows of values, from byte `offset` of an arena on."""
        if len(rows):
            spec = self.signature.value_specs[arena]
            wide = np.zeros((len(rows), padded(spec.size)), spec.dtype)
            wide[:, : spec.size] = rows.reshape(len(rows), spec.size)
            self.memory.upload(wide, tensor, offset)


def pack_tables(
    signature: Signature, graph: InstanceGraph, plan: Plan, slab: int, types: np.ndarray | None = None
) -> np.ndarray:
    """Everything that kernels read of a minibatch, as one int32 vector; see :mod:`schedules.cuda.kernel_arguments`.

    `types` is the table of types of a program in which equal cells share kernels.

    Raises
    ------
    GraphError
        If an attribute does not fit into 32 bits.
    """
    parts: list[np.ndarray] = []
    rows = np.empty(0, np.int32) if types is None else types.reshape(-1)
    header = np.concatenate([np.zeros(ATTRIBUTES + len(signature.attribute_columns), np.int32), rows])
    at = len(header)

    def add(array: np.ndarray) -> int:
        nonlocal at
        parts.append(array.reshape(-1))
        begin, at = at, at + array.size
        return begin

    header[STEPS_AT] = add(plan.steps)
    header[COLUMNS] = plan.steps.shape[1]
    header[INDEX_AT] = add(plan.index)
    header[BATCHES] = len(plan.steps)
    header[WORKSPACE] = slab
    for number, (key, dtype, _) in enumerate(signature.attribute_columns):
        type_id, name = key
        if not graph.type_count[type_id]:
            continue
        rows = graph.attributes[key][plan.attribute_order[type_id]]
        if dtype.kind == "f":
            if dtype.itemsize != 4:
                raise GraphError(
                    f"attribute {name!r} of cell {signature[type_id].name!r} is {dtype}", "float32 on a GPU"
                )
            header[ATTRIBUTES + number] = add(rows.view(np.int32))  # kernels read the bits
            continue
        if dtype.itemsize > 4 and rows.size and not (rows.min() >= -(2**31) and rows.max() < 2**31):
            cell, most = signature[type_id].name, max(int(rows.max()), int(rows.min()), key=abs)
            raise GraphError(f"attribute {name!r} of cell {cell!r} is {most}", "32 bits on a GPU")
        header[ATTRIBUTES + number] = add(rows.astype(np.int32))
    return np.concatenate([header, *parts])


def _texts(function: Any) -> list[str]:
    return [str(text) for text in function.attrs[ARGUMENTS]]

"""Rounds in compiled code: what is recorded is merged, scheduled, planned and run in one call of ``native_core``.

A minibatch that reads values runs many small rounds, in which the Python of :mod:`edbatch_tvm.recording.flush` takes
longer than the kernels. Values stay where they were computed: each round adds rows to the arenas of the minibatch, so
that later rounds read them in their places, and nothing is copied from round to round. Calls of one cell with equal
operands and attributes are one node. What compiled code does not know, :mod:`~edbatch_tvm.recording.flush` computes.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from edbatch_tvm.batching import ScheduleInfo, lower_bound
from edbatch_tvm.batching.depth import DepthPolicy
from edbatch_tvm.batching.fsm import FsmPolicy
from edbatch_tvm.batching.policy import FrontierPolicy, Policy
from edbatch_tvm.batching.schedule import Schedule
from edbatch_tvm.cached_property import cached_property
from edbatch_tvm.find_native import backend_label, find_native
from edbatch_tvm.graph import InstanceGraph
from edbatch_tvm.memory import Plan, plan_memory
from edbatch_tvm.memory.plan import resolve_plan
from edbatch_tvm.native.build import load_library
from edbatch_tvm.native.cell_tables import BYTES, COUNTS, LOOKUPS, cell_tables
from edbatch_tvm.native.constants import FSM
from edbatch_tvm.native.kernels import RULES
from edbatch_tvm.recording.value_tables import present
from edbatch_tvm.runtime.cpu_executor import CpuExecutor
from edbatch_tvm.runtime.program import SINGLE_MULTIPLIES
from edbatch_tvm.runtime.report import Report
from edbatch_tvm.tvm_compat import ffi_addresses
from schedules.abi import padded

if TYPE_CHECKING:
    from edbatch_tvm.recording.lazy import LazyTensor
    from edbatch_tvm.recording.library import Library
    from edbatch_tvm.recording.recorder import Recorder
    from edbatch_tvm.runtime import Model

Rule = tuple[int, int, Any, Any]

_BY_DEPTH = -1
_NO_TABLE = np.zeros(1, np.uint64), np.zeros(1, np.int32)
_NUMBERS, _PLAN = 16, 6
"""Length of the numbers of a report, and where those of the plan begin."""

native: Any = None
"""``native_core``, while it is in use."""


class Engine:
    """What rounds of one compiled model need.

    Attributes
    ----------
    compiled : object
        The engine of ``native_core``; None for a model whose rounds Python computes.
    dtype : np.dtype
        Of the values.
    policy, rule : Policy, tuple
        The policy that was used last, and the rule of the kernels that it is.
    """

    def __init__(self, model: Model) -> None:
        executor = model.executor
        self.compiled: Any = None
        self.policy: Policy | None = None
        self.rule: Rule | None = None
        self.signature = signature = model.signature
        self.sizes = [spec.size for spec in signature.value_specs]
        self.dtype = np.dtype(next((spec.dtype for spec in signature.value_specs), "float32"))
        flat = all(spec.dtype == self.dtype and spec.shape == (spec.size,) for spec in signature.value_specs)
        flat = flat and self.dtype.name in ("float32", "float64")
        if (
            not isinstance(executor, CpuExecutor)
            or not (executor.fused and flat and model.granularity == "cell")
            or not set(executor.kernels.scratch_dtype.values()) <= {"float32", "float64"}
            or resolve_plan(model.plan_name) != "batch"
            or find_native("schedule") is None
            or find_native("plan") is None
            or len(executor.kernels.arguments) > native.MOST_INPUTS
        ):
            return
        self.executor = executor
        kernels, tables, program = executor.kernels, cell_tables(signature), executor.program
        levels, schedule, plan = load_library("levels"), load_library("schedule"), load_library("plan")
        functions = [schedule["schedule"], plan["fill"], levels["depth_schedule"], kernels.program]
        attributes = [
            (_item_bytes(attribute.spec), -1 if attribute.bound is None else attribute.bound)
            for cell in signature
            for attribute in cell.attributes
        ]
        inputs = []
        for kind, name in kernels.arguments:
            if kind == "arena":
                inputs.append((int(name), 0, 0, 0))
                continue
            of_rows = name in kernels.scratch_width["rows"]
            width = kernels.scratch_width["rows" if of_rows else "instances"][name]
            inputs.append((-1, of_rows, width, np.dtype(kernels.scratch_dtype[name]).itemsize))
        self.compiled = native.engine(
            (functions, kernels),
            (
                len(tables.cells),
                signature.stride,
                tables.operands.shape[1],
                tables.columns,
                kernels.loaded.types.shape[1],
                self.dtype.itemsize,
            ),
            tables.output_arena,
            tables.cells,
            tables.operands,
            np.array(self.sizes, np.int32),
            np.array([padded(size) for size in self.sizes], np.int32),
            np.cumsum([0, *(len(cell.attributes) for cell in signature)], dtype=np.int32),
            np.array(attributes, np.int64).reshape(-1, 2),
            np.array(kernels.attributes, np.int32).reshape(-1, 3),
            np.array(inputs, np.int32).reshape(-1, 4),
            program.multiplies,
            float(SINGLE_MULTIPLIES),
            np.array([*(function.__chandle__() for function in functions), *ffi_addresses()], np.int64),
        )

    def execute(self, values: Any, multiplies: float) -> bool:
        """Run a large round that is prepared, on several threads perhaps."""
        return self.executor.program.shared(multiplies, lambda tasks, board: bool(values.execute(tasks, board.words)))


def _item_bytes(spec: Any) -> int:
    """Bytes of an attribute that is one integer; 0 for others, which Python handles."""
    dtype = np.dtype(spec.dtype)
    return dtype.itemsize if spec.shape == () and dtype in (np.int32, np.int64) else 0


_ENGINES: weakref.WeakKeyDictionary[Model, Engine] = weakref.WeakKeyDictionary()


def _engine_of(model: Model) -> Engine:
    engine = _ENGINES.get(model)
    if engine is None:
        engine = _ENGINES[model] = Engine(model)
    return engine


def _rule_of(policy: Policy | None, names: Any) -> Rule | None:
    """The rule of a policy in the kernels, and a state machine's encoding and table; None for other policies."""
    if type(policy) is FsmPolicy and policy.type_names == names:
        table = policy.own_table
        return FSM, policy.code, table.key, table.action
    if type(policy) is DepthPolicy:
        return _BY_DEPTH, 0, *_NO_TABLE
    if isinstance(policy, FrontierPolicy) and policy.native and policy.trusted:
        return RULES[policy.name], 0, *_NO_TABLE
    return None


class RoundValues:
    """The values that rounds in compiled code have computed; for :class:`~edbatch_tvm.recording.computed.Computed`.

    Attributes
    ----------
    first : int
        The first of them that has no other place.
    """

    def __init__(self, engine: Engine, first: int) -> None:
        self.engine = engine
        self.first = first
        self.end = first
        self.compiled = native.values(engine.compiled)
        self._tensors: dict[int, tuple[Any, torch.Tensor]] = {}

    def run(self, recorded: Recorder | list[bytes], library: Library, places: np.ndarray | None) -> bytes | None:
        """Run a round; what a report says of it, or None if nothing was done.

        Parameters
        ----------
        recorded : Recorder or list of bytes
            Calls; packed ones of elements that were recorded before.
        library : Library
        places : int64 array, optional
            Of a recorder, tables and rows of values that are not in arenas; else addresses and bytes of tensors from
            outside.
        """
        engine = self.engine
        assert engine.rule is not None
        loaded = engine.executor.kernels.loaded  # once: another thread may refresh it
        found = self.compiled.run(recorded, library.type_ids, places, loaded.types, *engine.rule, True)
        if found is None:
            return None
        multiplies, facts = found
        return facts if multiplies < 0 or engine.execute(self.compiled, multiplies) else None

    def array(self, arena: int) -> np.ndarray:
        """The rows of an arena."""
        return np.asarray(self.compiled.arena(arena))[:, : self.engine.sizes[arena]]

    def tensor(self, value: int) -> torch.Tensor:
        """One value, flat: memory of its arena."""
        arena, row = self.compiled.place(value)
        owner = self.compiled.arena(arena)
        known = self._tensors.get(arena)
        if known is None or known[0] is not owner:
            known = self._tensors[arena] = owner, torch.from_numpy(self.array(arena))
        return known[1][row]

    def places(self, values: np.ndarray) -> np.ndarray:
        """Arenas and rows of values."""
        found = np.empty((2, len(values)), np.int64)
        self.compiled.find(np.ascontiguousarray(values, np.int64), found)
        return found

    def rows_of(self, values: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Values that lie together, together: positions in `values`, and a copy of their rows."""
        arenas, rows = self.places(values)
        for arena in present(arenas):
            members = np.flatnonzero(arenas == arena)
            yield members, self.array(arena)[rows[members]]

    def table_of(self, values: list[int], size: int) -> np.ndarray | None:
        """A copy of the rows of values of one size; None if they are not all here."""
        rows = np.empty((len(values), size), self.engine.dtype)
        return rows if self.compiled.copy(values, rows) else None

    def extremes_of(self, asked: Sequence[tuple[Any, LazyTensor]]) -> tuple[list[int], np.ndarray] | None:
        """Values, and the places of the largest or smallest numbers of each; None for other questions."""
        places = np.empty(len(asked), np.int64)
        values = self.compiled.extremes(asked, places)
        return None if values is None else (values, places)

    def all_places(self) -> np.ndarray:
        """Those of all values from the first on."""
        return self.places(np.arange(self.first, self.end))


def compute_natively(recorder: Recorder) -> Report | None:
    """Compute everything that is recorded in one call; None if nothing was done, since that is a round for Python."""
    if native is None or not recorder.types or recorder.records is not None or recorder.tape is not None:
        return None
    engine = _engine_for(recorder.library, len(recorder.types))
    if engine is None:
        return None
    begin = perf_counter()
    computed = recorder.computed
    values = computed.rounds
    if values is None or values.engine is not engine:
        computed.keep()
        values = RoundValues(engine, recorder.done)
    earlier = computed.places() if computed.last is not values and recorder.done else None
    facts = values.run(recorder, recorder.library, earlier)
    if facts is None:
        return None
    values.end = recorder.recorded
    computed.rounds = values
    recorder.finish_round(values)
    return _report(engine, facts, begin)


def compute_records(recorder: Recorder) -> Report | None:
    """Compute the elements that were recorded before in one call; None if that is something for Python."""
    records = recorder.records
    if native is None or records is None or recorder.types or recorder.tape is not None:
        return None
    engine = _engine_for(recorder.library, records.calls)
    together = None if engine is None else records.together()
    if engine is None or together is None:
        return None
    begin = perf_counter()
    values = RoundValues(engine, 0)
    facts = values.run(together[0], recorder.library, together[1])
    if facts is None or not records.take_computed(values):
        return None
    recorder.records = None
    return _report(engine, facts, begin)


def _engine_for(library: Library, calls: int) -> Engine | None:
    """The engine for rounds of this many calls; None for rounds that Python computes."""
    model = library.model if library.is_compiled else None
    policy = None if model is None else model.policy_for(calls)
    if model is None or policy is None:
        return None
    engine = _engine_of(model)
    if policy is not engine.policy:
        engine.policy, engine.rule = policy, _rule_of(policy, model.signature.names)
    return None if engine.compiled is None or engine.rule is None else engine


def _report(engine: Engine, facts: bytes, begin: float) -> Report:
    seconds = perf_counter() - begin
    assert engine.policy is not None
    return RoundReport(engine, engine.policy, facts, {"execute": seconds, "total": seconds})


class RoundReport(Report):
    """What one round did; graph, schedule and plan are made when they are asked for.

    The numbers that the graph reads are not kept: its external rows are zeros, and it has no attributes.
    """

    _engine: Engine
    _policy: Policy
    _facts: bytes

    def __init__(self, engine: Engine, policy: Policy, facts: bytes, seconds: dict[str, float]) -> None:
        self.__dict__.update(_engine=engine, _policy=policy, _facts=facts, seconds=seconds)
        self.__dict__["paths"] = engine.executor.paths

    @cached_property
    def _numbers(self) -> list[int]:
        numbers: list[int] = np.frombuffer(self._facts, np.int64, _NUMBERS).tolist()
        return numbers

    @property
    def calls(self) -> int:
        """Calls of cells that the nodes stand for."""
        return self._numbers[0]

    @property
    def batches(self) -> int:
        """Number of batches."""
        return self._numbers[4]

    @cached_property
    def _arrays(self) -> list[np.ndarray]:
        _, nodes, edges, others, batches = self._numbers[:5]
        arrays, at = [], 8 * _NUMBERS
        for count, dtype in (
            *((nodes + 1, np.int32), (edges, np.int32), (others, np.int32), (others, np.int32)),
            *((nodes, np.int32), (batches + 1, np.int32), (nodes, np.int16), (batches, np.int16)),
        ):
            arrays.append(np.frombuffer(self._facts, dtype, count, at).copy())
            at += arrays[-1].nbytes
        return arrays

    @cached_property
    def graph(self) -> InstanceGraph:
        """The graph; see the class."""
        operand_ptr, operand_value, row, arena, _, _, node_type, _ = self._arrays
        signature = self._engine.signature
        external: dict[str, Any] = {}
        if len(row) > 1:
            specs = signature.value_specs
            counts = [int(row[1:][arena[1:] == number].max(initial=0)) for number in range(len(specs))]
            external["external_spec"] = arena[1:].astype(np.int16)
            external["external_row"] = row[1:] - 1
            external["external_data"] = tuple(
                np.zeros((count, *spec.shape), spec.dtype) for count, spec in zip(counts, specs, strict=True)
            )
        graph = InstanceGraph(node_type, operand_ptr, operand_value, signature, **external)
        graph.checked = True
        return graph

    @cached_property
    def plan(self) -> Plan:
        """The plan of the schedule."""
        order, batch_ptr, _, batch_type = self._arrays[4:]
        schedule = Schedule.for_graph(self.graph, order, batch_ptr, batch_type)
        schedule.checked = True
        return plan_memory(schedule, self.graph, "batch")

    @cached_property
    def schedule(self) -> ScheduleInfo:
        """How the schedule was found."""
        policy, states = self._policy, 0
        name = policy.name
        if isinstance(policy, FsmPolicy):
            name, states = f"{name}-{policy.encoding}", len(policy.table)
        _, nodes, _, _, batches, misses = self._numbers[:6]
        bound, label = (lambda: lower_bound(self.graph)), backend_label("schedule")
        return ScheduleInfo(name, batches, nodes, batches, misses, states, 0.0, label, False, bound)

    @cached_property
    def kernel_calls(self) -> int:
        """Kernels that ran."""
        return self._engine.executor.program.calls_of(self._arrays[7])

    @property
    def operands(self) -> dict[str, int]:
        """Operands that are contiguous, broadcast, indexed."""
        counts = self._numbers[_PLAN + COUNTS : _PLAN + COUNTS + 3]
        return dict(zip(("contiguous", "broadcast", "indexed"), counts, strict=True))

    @property
    def lookups(self) -> int:
        """Batches' index attributes."""
        return self._numbers[_PLAN + LOOKUPS]

    @property
    def bytes_indexed(self) -> int:
        """Bytes of operand rows that kernels read through an index."""
        return self._numbers[_PLAN + BYTES]

    def __repr__(self) -> str:
        return f"RoundReport(batches={self.batches}, nodes={self._numbers[1]}, calls={self.calls})"

"""What runs a graph in one call of compiled code: it is scheduled, planned and run there.

``native_core`` of :mod:`edbatch_tvm.recording` has the code. Rounds of what is recorded are run so, and minibatches of
one instance.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from edbatch_tvm.batching.depth import DepthPolicy
from edbatch_tvm.batching.fsm import FsmPolicy
from edbatch_tvm.batching.policy import FrontierPolicy, Policy
from edbatch_tvm.find_native import find_native
from edbatch_tvm.memory.plan import resolve_plan
from edbatch_tvm.native.build import load_library
from edbatch_tvm.native.cell_tables import cell_tables
from edbatch_tvm.native.constants import FSM
from edbatch_tvm.native.kernels import RULES
from edbatch_tvm.runtime import shares
from edbatch_tvm.runtime.cpu_executor import CpuExecutor
from edbatch_tvm.runtime.program import SINGLE_MULTIPLIES
from edbatch_tvm.tvm_compat import ffi_addresses
from schedules.abi import padded

if TYPE_CHECKING:
    from edbatch_tvm.runtime.model import Model

Rule = tuple[int, int, Any, Any]

_BY_DEPTH = -1
_NO_TABLE = np.zeros(1, np.uint64), np.zeros(1, np.int32)


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

    def __init__(self, model: Model, native: Any) -> None:
        executor = model.executor
        self.native = native
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
            or executor.kernels.storage != "float32"
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
        functions = [schedule["schedule"], plan["fill"], levels["depth_schedule"], kernels.program, plan["cut"]]
        divide = plan["divide"]
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
            (functions, divide, kernels),
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
            program.split.most,
            program.kernels_of_type,
            program.effort,
            float(SINGLE_MULTIPLIES),
            shares.LARGEST_PERCENT,
            np.array(
                [
                    *(function.__chandle__() for function in functions),
                    divide.__chandle__() if program.divides else 0,
                    *ffi_addresses(),
                ],
                np.int64,
            ),
        )

    @property
    def threads(self) -> int:
        """Threads that the next large round or minibatch runs on."""
        return self.executor.program.tasks_for(float("inf"))

    def execute(self, values: Any, multiplies: float, shares: int) -> bool:
        """Run a large round that is prepared and divided into `shares`, on several threads perhaps."""
        program = self.executor.program
        return program.shared(multiplies, lambda tasks, board: bool(values.execute(tasks, board.words)), shares)


def _item_bytes(spec: Any) -> int:
    """Bytes of an attribute that is one integer, in whatever shape; 0 for others, which Python handles."""
    dtype = np.dtype(spec.dtype)
    return dtype.itemsize if spec.size == 1 and dtype in (np.int32, np.int64) else 0


_ENGINES: weakref.WeakKeyDictionary[Model, Engine] = weakref.WeakKeyDictionary()


def engine_for(model: Model, nodes: int, native: Any) -> Engine | None:
    """The engine for graphs of this many nodes; None where Python computes them."""
    policy = model.policy_for(nodes)
    if policy is None:
        return None
    engine = _ENGINES.get(model)
    if engine is None:
        engine = _ENGINES[model] = Engine(model, native)
    if policy is not engine.policy:
        engine.policy, engine.rule = policy, _rule_of(policy, model.signature.names)
    return None if engine.compiled is None or engine.rule is None else engine


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

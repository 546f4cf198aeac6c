"""Models whose cells run as grouped operators (granularity ``group``): the unfused form of a planned cell."""

from __future__ import annotations

import numpy as np
import pytest

import edbatch_tvm as eb
from edbatch_tvm.benchmarking.static_cells import PUBLISHED, static_cells
from edbatch_tvm.checking.reference import run_reference
from edbatch_tvm.models import get_workload
from relay_ext.group_ops import GroupOps, cell_plan
from relay_ext.signature import signature_of, weights_of
from relay_ext.split_cells import split_cells
from tests.random_cells import cells_for, reference_for
from tests.runtime.test_differential import random_signature
from tests.runtime.test_granularity import check

StaticCells = static_cells(8)


def instances(model: eb.Model, calls: int) -> list[eb.InstanceGraph]:
    rng = np.random.default_rng(6)
    made = []
    for cell in model.cells:
        for _ in range(calls):
            b = model.builder()
            values = b.call(cell.name, *(rng.uniform(-1, 1, o.spec.shape).astype(np.float32) for o in cell.operands))
            made.append(b.finish(list(values) if isinstance(values, tuple) else [values]))
    return made


@pytest.mark.slow
def test_static_cells_equal_the_fused_form() -> None:
    rng = np.random.default_rng(5)
    weights = {n: rng.uniform(-0.3, 0.3, s.shape).astype(np.float32) for n, s in weights_of(StaticCells).items()}
    fused, grouped = eb.compile(StaticCells, weights), eb.compile(StaticCells, weights, granularity="group")
    assert grouped.cells == signature_of(StaticCells)
    for left, right in zip(fused(instances(fused, 3)), grouped(instances(grouped, 3)), strict=True):
        for a, b in zip(left, right, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("name", PUBLISHED)
def test_gathers_are_the_only_copies(name: str) -> None:
    """Of the operators a cell runs, those that only move rows are the gathers of its plan."""
    plan = cell_plan(StaticCells, name)
    assert plan is not None
    split = split_cells(GroupOps()(StaticCells), fold_views=True)
    ops = signature_of(split.module).names
    calls = [ops[call.type_id] for call in split.bodies[split.cells.type_id(name)].calls]
    assert sum(op.startswith("concat") for op in calls) == plan.gathers
    assert not [op for op in calls if op.startswith(("strided_slice", "reshape", "expand_dims"))]


@pytest.mark.parametrize("name", ["treelstm", pytest.param("treegru", marks=pytest.mark.slow), "lattice-gru"])
def test_workloads_equal_the_reference(name: str) -> None:
    workload = get_workload(name)
    weights = workload.weights(16)
    model = eb.compile(workload.cells(16), weights, granularity="group", policy="lookahead")
    some = workload.generate(4, model.cells, 3)
    check(model, some, run_reference(model.merge_cells(some), workload.reference, weights))


@pytest.mark.parametrize("seed", [0, 3])
def test_random_models_equal_the_reference(seed: int) -> None:
    signature = random_signature(seed)
    mod = cells_for(signature, seed, general=True)
    rng = np.random.default_rng(seed)
    weights = {
        name: (rng.uniform(-1, 1, spec.shape) / np.sqrt(spec.shape[0])).astype(np.float32)
        for name, spec in weights_of(mod).items()
    }
    model = eb.compile(mod, weights, granularity="group")
    b = model.builder()
    values = []
    for cell in signature:
        operands = [
            [rng.uniform(-1, 1, o.spec.shape).astype(np.float32) for _ in range(3)]
            if o.variadic
            else rng.uniform(-1, 1, o.spec.shape).astype(np.float32)
            for o in cell.operands
        ]
        result = b.call(cell.name, *operands, **{a.name: 1 for a in cell.attributes})
        values += list(result) if isinstance(result, tuple) else [result]
    some = [b.finish(values)]
    reference = reference_for(signature, seed, True, weights)
    check(model, some, run_reference(model.merge_cells(some), reference, {}))

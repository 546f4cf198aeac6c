"""Every workload through the compiler under several policies: equal to the reference.

A workload is compiled once for all tests of this file.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest

from edbatch_tvm.batching import check_schedule, lower_bound
from edbatch_tvm.checking.comparison import compare
from edbatch_tvm.checking.reference import run_reference
from edbatch_tvm.compiler import compile_model
from edbatch_tvm.graph import InstanceGraph, merge
from edbatch_tvm.models import WORKLOADS, get_workload
from relay_ext.signature import signature_of
from schedules.cpu.machine import BASELINE, host_target, machine_of

HIDDEN, INSTANCES = 8, 4

GENERAL = {
    "bilstm-tagger-char": {"spell"},  # nothing but a concatenation
}
"""Cells that may take the general path; all others are stages."""

AT_THE_BOUND = ("treelstm", "bilstm-tagger", "treegru", "mvrnn", "lstm-nmt", "childsum-tree", "grid-lstm")
"""Workloads whose bound lookahead meets."""


@dataclass
class Compiled:
    model: Any
    instances: list[InstanceGraph]
    graph: InstanceGraph
    reference: list[tuple[np.ndarray, ...]]


@cache
def compiled(name: str) -> Compiled:
    workload = get_workload(name)
    mod, weights = workload.cells(HIDDEN), workload.weights(HIDDEN)
    instances = workload.generate(INSTANCES, signature_of(mod), seed=1)
    graph = merge(instances)
    reference = run_reference(graph, workload.reference, weights)
    return Compiled(compile_model(mod, weights), instances, graph, reference)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="x86 targets")
@pytest.mark.parametrize("mcpu", ["x86-64", "haswell"])
@pytest.mark.parametrize("name", ["treelstm", "grid-lstm"])
def test_processors_with_fewer_registers(name: str, mcpu: str) -> None:
    if mcpu == "haswell" and machine_of(host_target()) == BASELINE:
        pytest.skip("needs AVX2")
    workload, hidden = get_workload(name), 24
    mod, weights = workload.cells(hidden), workload.weights(hidden)
    instances = workload.generate(9, signature_of(mod), seed=2)
    graph = merge(instances)
    model = compile_model(mod, weights, target={"kind": "llvm", "mcpu": mcpu}, policy="lookahead")
    compare(graph, model(instances), run_reference(graph, workload.reference, weights)).require()


@pytest.mark.parametrize("policy", ["depth", "agenda", "lookahead", "auto"])
@pytest.mark.parametrize("name", WORKLOADS)
def test_equal_to_the_reference(name: str, policy: str) -> None:
    found = compiled(name)
    found.model.policy = policy
    result = found.model(found.instances)
    compare(found.graph, result, found.reference).require()
    check_schedule(found.graph, result.schedule)
    bound = lower_bound(found.graph)
    assert len(result.schedule) >= bound
    if policy == "lookahead" and name in AT_THE_BOUND:
        assert len(result.schedule) == bound
    assert result.report.bytes_gathered == 0


@pytest.mark.parametrize("name", WORKLOADS)
def test_cells_are_stages(name: str) -> None:
    paths = compiled(name).model.paths
    assert set(paths) == set(get_workload(name).reference)
    general = {cell for cell, path in paths.items() if path != "stage"}
    assert general <= GENERAL.get(name, set())


@pytest.mark.parametrize("name", WORKLOADS)
def test_one_instance_alone(name: str) -> None:
    found = compiled(name)
    found.model.policy = "depth"
    result = found.model(found.instances[:1])
    first = found.reference[: found.instances[0].num_nodes]
    compare(merge(found.instances[:1]), result, first).require()

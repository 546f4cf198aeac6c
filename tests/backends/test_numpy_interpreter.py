"""The interpreter of cells: every workload equals its reference in float64, and says what it cannot do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

import edbatch_tvm as eb
from edbatch_tvm.backends import backend_names
from edbatch_tvm.backends.independent_loops import nest_of
from edbatch_tvm.checking.comparison import LEAST_VALUE, compare
from edbatch_tvm.checking.reference import run_reference
from edbatch_tvm.errors import CellError, PlanError, TargetError
from edbatch_tvm.models import WORKLOADS, get_workload


@pytest.mark.parametrize("name", WORKLOADS)
def test_equals_the_reference(name: str) -> None:
    workload = get_workload(name)
    mod, weights = workload.cells(2), workload.weights(2)
    model = eb.compile(mod, weights, target="numpy", policy="depth", plan="order")
    graph = model.merge(workload.generate(1, model.cells, seed=1))
    schedule, info = model.schedule(graph)
    result = model.execute(graph, model.plan(graph, schedule), info)
    found = compare(graph, result, run_reference(graph, workload.reference, weights))
    assert found.largest_value >= LEAST_VALUE
    assert found.relative_error <= 1e-13
    assert (model.target, model.executor.threads, model.fused) == ("numpy", 1, True)


def test_at_other_granularities() -> None:
    workload = get_workload("treegru")
    weights = workload.weights(3)
    models = [
        eb.compile(workload.cells(3), weights, target="numpy", policy="depth", granularity=one)
        for one in ("cell", "op", "group")
    ]
    instances = workload.generate(1, models[0].cells, seed=2)
    first, *others = (model(instances)[0] for model in models)
    for other in others:
        np.testing.assert_allclose(np.asarray(other), np.asarray(first), rtol=0, atol=1e-13)


def test_which_loops_run_at_once() -> None:
    @T.prim_func(s_tir=True)
    def function(x: T.Buffer((4, 5), "float32"), y: T.Buffer((4,), "float32"), z: T.Buffer((6,), "float32")):
        for i, k in T.grid(4, 5):
            with T.sblock("sum"):
                a, b = T.axis.remap("SR", [i, k])
                with T.init():
                    y[a] = T.float32(0)
                y[a] = y[a] + x[a, b]
        for i in range(5):
            with T.sblock("reads its neighbour"):
                a = T.axis.spatial(5, i)
                z[a + 1] = z[a] + T.float32(1)
        for i in range(5):
            with T.sblock("computed place"):
                a = T.axis.spatial(5, i)
                y[a % 4] = x[0, a]
        for i in range(4):
            with T.sblock("reads itself elsewhere"):
                a = T.axis.spatial(4, i)
                y[a] = y[3 - a]

    body = function.body.block.body if hasattr(function.body, "block") else function.body
    first, *others = body.seq
    nest = nest_of(first)
    assert nest is not None
    assert [one.loop_var.name for one in nest.independent] == ["i"]
    assert [one.loop_var.name for one in nest.others] == ["k"]
    assert [nest_of(one) for one in others] == [None, None, None]


def test_what_it_does_not_do(tmp_path: Path) -> None:
    workload = get_workload("treegru")
    mod, weights = workload.cells(3), workload.weights(3)
    assert backend_names() == ("cpu", "cuda", "cuda-emulated", "numpy")
    with pytest.raises(TargetError, match="a model for 'numpy' cannot be saved"):
        eb.compile(mod, weights, target="numpy").save(tmp_path / "model.edb")
    with pytest.raises(PlanError, match="fused=False for target 'numpy'"):
        eb.compile(mod, weights, target="numpy", granularity="op", fused=False)
    with pytest.raises(TargetError, match="dtype 'bfloat16' for target 'numpy'"):
        eb.compile(mod, weights, target="numpy", dtype="bfloat16")
    with pytest.raises(TargetError, match="tuning for target 'numpy'"):
        eb.tune(mod, weights, [[]], target="numpy")

    @I.ir_module
    class Odd:
        @R.function
        def cell(x: R.Tensor((2,), "float32")):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                y = R.atan(x)
                R.output(y)
            return y

    with pytest.raises(CellError, match="operator 'atan' in cell 'cell'"):
        eb.compile(Odd, {}, target="numpy")

"""Backward graphs by the compiled kernel and by NumPy: the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edbatch_tvm as eb
from edbatch_tvm.models import WORKLOADS, get_workload
from edbatch_tvm.training.backward_types import BackwardGraph
from relay_ext.gradients.adjoint_inputs import can_pair
from tests.training.drawn import drawn_detached, drawn_minibatch


def require_equal(one: BackwardGraph, two: BackwardGraph) -> None:
    np.testing.assert_array_equal(one.graph.node_type, two.graph.node_type)
    np.testing.assert_array_equal(one.graph.operand_ptr, two.graph.operand_ptr)
    for name in ("operand_value", "external_spec", "external_row"):
        np.testing.assert_array_equal(getattr(one.graph, name), getattr(two.graph, name))
    assert one.schedule == two.schedule
    assert one.graph.attributes.keys() == two.graph.attributes.keys()
    for key, rows in one.graph.attributes.items():
        np.testing.assert_array_equal(rows, two.graph.attributes[key])
        assert rows.dtype == two.graph.attributes[key].dtype
    np.testing.assert_array_equal(one.cotangent, two.cotangent)
    np.testing.assert_array_equal(one.external_use, two.external_use)
    np.testing.assert_array_equal(one.external_of, two.external_of)
    for left, right in zip(one.groups, two.groups, strict=True):
        assert left.type_id == right.type_id
        assert left.section_types == right.section_types
        order = [np.argsort(group.forward) for group in (left, right)]  # any, where nothing runs
        for name in ("forward", "rows"):
            np.testing.assert_array_equal(getattr(left, name)[order[0]], getattr(right, name)[order[1]])
        for own, other in zip(left.sections, right.sections, strict=True):
            np.testing.assert_array_equal(own, other)


def compare(model: Any, result: Any, chosen: list[int], detached: np.ndarray | None) -> None:
    if model._backward.compiled is None:  # every other model takes two cotangents wherever it can
        adjoints = model.adjoints.cells.values()
        two = {type_id: can_pair(one) for type_id, one in enumerate(adjoints)} if len(adjoints) % 2 else {}
        model._backward._compile(two)
    makers = model._backward._graphs
    values = np.array(sorted(set(chosen)), np.int64)
    made = makers.make(result.graph, result.plan, values, detached)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edbatch_tvm.find_native.python_only", True)
        other = makers.make(result.graph, result.plan, values, detached)
    require_equal(made, other)


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_random_graphs(data: st.DataObject) -> None:
    """Variadic operands, with any number of rows; shared and repeated operands, external rows, detached nodes."""
    model, result, chosen = drawn_minibatch(data)
    compare(model, result, chosen, drawn_detached(data, result, chosen))


@pytest.mark.parametrize(
    "name", [name if name == "random-dag" else pytest.param(name, marks=pytest.mark.slow) for name in WORKLOADS]
)
def test_workload(name: str) -> None:
    workload = get_workload(name)
    model = eb.compile(workload.cells(4), workload.weights(4), target="numpy", training=True)
    result = model(workload.generate(3, model.cells, seed=1))
    outputs = np.unique(result.graph.outputs).tolist()
    for chosen in (outputs, outputs[::2]):
        compare(model, result, chosen, None)

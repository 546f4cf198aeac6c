"""Misuse of graphs, schedules and plans ends in one error: kernels trust what they get, so it is checked first."""

from __future__ import annotations

import copy
import gc
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edbatch_tvm as eb
from edbatch_tvm.batching import Policy, Run, Schedule, clear_cache
from edbatch_tvm.checking.reference import run_reference
from edbatch_tvm.errors import (
    EdbatchError,
    GraphError,
    ModelFileError,
    PlanError,
    PolicyError,
    TargetError,
    WeightError,
)
from edbatch_tvm.graph import InstanceGraph
from edbatch_tvm.models import get_workload

WORKLOAD = get_workload("treelstm")
WEIGHTS = WORKLOAD.weights(8)


@pytest.fixture(scope="module")
def model() -> eb.Model:
    return eb.compile(WORKLOAD.cells(8), WEIGHTS)


def instances(model: eb.Model, count: int, seed: int = 0) -> list[InstanceGraph]:
    return WORKLOAD.generate(count, model.cells, seed)


def assert_equal(result: eb.Result, meant: list[InstanceGraph]) -> None:
    """Assert that `result` is what running `meant` one node at a time gives."""
    for number, graph in enumerate(meant):
        values = run_reference(graph, WORKLOAD.reference, WEIGHTS)
        for found, value in zip(result[number], graph.outputs.tolist(), strict=True):
            np.testing.assert_allclose(found, values[value // graph.stride][value % graph.stride], rtol=0, atol=1e-5)


def assert_right(model: eb.Model, given: list[InstanceGraph], meant: list[InstanceGraph]) -> None:
    """Assert that `given` run as `meant` does one node at a time."""
    assert_equal(model(given), meant)


# One structure, other operands ----------------------------------------------------------------------------------


def swapped(model: eb.Model, swap: bool) -> InstanceGraph:
    b = model.builder()
    leaves = [b.call("leaf", word=1), b.call("leaf", word=2)]
    h, _ = b.call("internal", *(value for h, c in leaves for value in ((c, h) if swap else (h, c))))
    return b.finish([b.call("readout", h)])


@pytest.mark.parametrize("plan", ["batch", "order", "pq"])
def test_graphs_that_differ_in_output_slots_share_no_plan(model: eb.Model, plan: str) -> None:
    clear_cache()
    own = eb.compile(WORKLOAD.cells(8), WEIGHTS, plan=plan, policy="depth")
    for graph in (swapped(own, False), swapped(own, True)):
        assert_right(own, [graph], [graph])


def test_one_schedule_for_graphs_that_differ(model: eb.Model) -> None:
    first, second = swapped(model, False), swapped(model, True)
    kept, _ = eb.schedule(first, "depth")
    own = eb.compile(WORKLOAD.cells(8), WEIGHTS, policy=lambda graph: kept)
    assert_right(own, [first], [first])
    assert_right(own, [second], [second])


# Copies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda graph: pickle.loads(pickle.dumps(graph))])
def test_copies_lie_elsewhere(model: eb.Model, copied: Callable[[Any], Any]) -> None:
    originals = instances(model, 4)
    model(originals)  # finds and keeps where their arrays lie
    copies = [copied(graph) for graph in originals]
    meant = instances(model, 4)
    del originals
    gc.collect()
    noise = [np.full(size, -(2**31), np.int32) for size in range(1, 400)]
    assert_right(model, copies, meant)
    assert len(noise) == 399


@pytest.mark.parametrize("name", ["node_type", "operand_ptr", "operand_value", "outputs", "node_ptr"])
def test_arrays_of_a_checked_graph_are_read_only(model: eb.Model, name: str) -> None:
    (graph,) = instances(model, 1)
    for some in (graph, eb.graph.parse_graph(str(graph), model.cells)):
        with pytest.raises(ValueError, match="read-only"):
            getattr(some, name)[:] = 0
        with pytest.raises(ValueError, match="read-only"):
            some.attributes[0, "word"][:] = 10**9
    with pytest.raises(ValueError, match="read-only"):
        InstanceGraph.from_arrays([0], [0, 0], []).node_type[:] = 1


def rebuilt(graph: InstanceGraph, change: Callable[[np.ndarray], Any]) -> InstanceGraph:
    arrays = [change(np.array(getattr(graph, name))) for name in ("node_type", "operand_ptr", "operand_value")]
    return InstanceGraph(
        *arrays,
        graph.signature,
        attributes={key: np.array(rows) for key, rows in graph.attributes.items()},
        outputs=change(np.array(graph.outputs)),
    )


def read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def unaligned(array: np.ndarray) -> np.ndarray:
    moved = np.frombuffer(bytearray(array.nbytes + 1), array.dtype, len(array), offset=1)
    moved[:] = array
    return moved


@pytest.mark.parametrize(
    "change",
    [
        read_only,
        unaligned,
        lambda array: np.repeat(array, 3)[::3],
        lambda array: array.astype(array.dtype.newbyteorder(">")),
        lambda array: array.astype(np.int64),
    ],
    ids=["read-only", "unaligned", "strided", "big-endian", "int64"],
)
@pytest.mark.parametrize("count", [1, 3])
def test_arrays_of_any_layout(model: eb.Model, change: Callable[[np.ndarray], Any], count: int) -> None:
    meant = instances(model, count)
    assert_right(model, [rebuilt(graph, change) for graph in meant], meant)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda array: array.astype(object), "node_type is 1-D of object"),
        (lambda array: array.astype(np.uint64), "node_type is 1-D of uint64"),
        (lambda array: array.astype(float), "node_type is 1-D of float64"),
        (lambda array: array[:, None], "node_type is 2-D of int16"),
        (lambda array: array.tolist(), "node_type is a list"),
    ],
)
def test_arrays_of_other_kinds(model: eb.Model, change: Callable[[np.ndarray], Any], found: str) -> None:
    (graph,) = instances(model, 1)
    with pytest.raises(GraphError) as caught:
        model([rebuilt(graph, change)])
    assert str(caught.value) == f"instance 0: {found}; expected a one-dimensional array of signed integers"


def test_unchecked_graphs_are_checked_everywhere(model: eb.Model) -> None:
    (graph,) = instances(model, 1)

    def broken() -> InstanceGraph:
        return rebuilt(graph, lambda array: array * 1000)

    for use in (
        lambda: eb.schedule(broken(), "depth"),
        lambda: eb.schedule(broken(), "lookahead"),
        lambda: model.schedule(broken()),
        lambda: eb.lower_bound(broken()),
        lambda: eb.learn_policy([broken()]),
        lambda: eb.plan_memory(eb.schedule(graph)[0], broken()),
        lambda: model.execute(broken(), model.plan(graph, eb.schedule(graph)[0])),
    ):
        with pytest.raises(GraphError):
            use()


# Schedules and plans of others ----------------------------------------------------------------------------------


@settings(max_examples=60)
@given(data=st.data())
def test_schedules_put_together_by_hand(model: eb.Model, data: st.DataObject) -> None:
    graph = model.merge(instances(model, 2))
    good, _ = eb.schedule(graph, "depth")
    arrays = [np.array(good.order), np.array(good.batch_ptr), np.array(good.batch_type)]
    for _ in range(data.draw(st.integers(0, 2))):
        which = data.draw(st.integers(0, 2))
        position = data.draw(st.integers(0, len(arrays[which]) - 1))
        limits = np.iinfo(arrays[which].dtype)
        arrays[which][position] = data.draw(st.integers(-3, graph.num_nodes) | st.integers(limits.min, limits.max))
    schedule = Schedule.for_graph(graph, *arrays)
    try:
        plan = model.plan(graph, schedule)
    except PolicyError:
        return
    meant = instances(model, 2)
    assert_equal(model.execute(graph, plan), meant)


def test_a_plan_of_another_graph(model: eb.Model) -> None:
    small, large = model.merge(instances(model, 2)), model.merge(instances(model, 9, seed=1))
    plans = {graph: model.plan(graph, model.schedule(graph)[0]) for graph in (small, large)}
    for graph, other in ((small, large), (large, small)):
        with pytest.raises(PlanError, match="a plan of this graph"):
            model.execute(graph, plans[other])
    with pytest.raises(PlanError, match="nodes of the schedule"):
        model.plan(small, plans[large].schedule)
    again = model.merge(instances(model, 2))
    np.testing.assert_array_equal(model.execute(again, plans[small])[0][0], model.execute(small, plans[small])[0][0])


def test_a_model_of_another_size(model: eb.Model) -> None:
    wide = eb.compile(WORKLOAD.cells(16), WORKLOAD.weights(16))
    graph = model.merge(instances(model, 2))
    plan = model.plan(graph, model.schedule(graph)[0])
    with pytest.raises(GraphError, match=r"leaf\(.*float32\[8\].*expected leaf\(.*float32\[16\]"):
        wide.execute(graph, plan)
    with pytest.raises(GraphError, match=r"leaf\(.*float32\[8\].*expected leaf\(.*float32\[16\]"):
        wide(instances(model, 2))
    with pytest.raises(PlanError, match="a plan of this graph"):
        wide.execute(wide.merge(instances(wide, 2)), plan)


def test_a_policy_of_the_user_is_checked(model: eb.Model) -> None:
    class Careless(Policy):
        name = "careless"

        def run(self, graph: InstanceGraph) -> Run:
            everything = np.arange(graph.num_nodes, dtype=np.int32)
            ends = np.array([0, graph.num_nodes], np.int32)
            return Run(Schedule.for_graph(graph, everything, ends, np.zeros(1, np.int16)), self.name)

    graph = model.merge(instances(model, 2))
    with pytest.raises(PolicyError, match="one type per batch"):
        eb.schedule(graph, Careless())
    with pytest.raises(PolicyError, match="one type per batch"):
        eb.schedule(graph, eb.batching.PortfolioPolicy((Careless(),)))


# Anything else in place of a graph ------------------------------------------------------------------------------


@pytest.mark.parametrize("thing", [None, 5, "abc", iter([]), [None], [[]], {}, []])
def test_no_instances(model: eb.Model, thing: Any) -> None:
    model(instances(model, 2))  # after which the policy has been selected
    with pytest.raises(GraphError):
        model(thing)
    for use in (model.schedule, eb.schedule, lambda graph: model.execute(graph, None), lambda g: eb.plan_memory(g)):
        with pytest.raises(EdbatchError):
            use(thing)


def test_instances_without_nodes(model: eb.Model) -> None:
    empty = model.builder().finish()
    assert [len(model(group)) for group in ([empty], [empty, empty])] == [1, 2]
    assert model([empty])[0] == []
    first, second = instances(model, 2)
    mixed, alone = model([empty, first, empty, second, empty]), model([first, second])
    for mine, its in ((mixed[1], alone[0]), (mixed[3], alone[1])):
        np.testing.assert_allclose(mine, its, rtol=0, atol=1e-6)


def test_results_kept_alive(model: eb.Model) -> None:
    pool = instances(model, 12)
    kept, copies = [], []
    for number in range(30):
        result = model(pool[number % 8 : number % 8 + 1 + number % 4])
        kept.append([value for instance in result for value in instance])
        copies.append([value.copy() for value in kept[-1]])
    for mine, then in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(np.concatenate(mine), np.concatenate(then))


def test_values_that_are_none(model: eb.Model) -> None:
    result = model(instances(model, 2))
    for thing in ([2**70], "a", [[0]], [0.5], None, 3, [-1], [10**9]):
        with pytest.raises(GraphError):
            result.values(thing)


def test_attributes_and_outputs_of_no_shape(model: eb.Model) -> None:
    endless: list[Any] = []
    endless.append(endless)
    b = model.builder()
    b.call("leaf", word=endless)
    with pytest.raises(GraphError, match="attribute 'word' of 'leaf'"):
        b.finish()
    b.call("leaf", word=1)
    with pytest.raises(GraphError, match="declared output is a ndarray"):
        b.finish(np.array(0))


def test_weights_and_targets_that_do_not_fit(model: eb.Model) -> None:
    with pytest.raises(WeightError, match="weights in a int; expected a dict"):
        model.refresh(5)
    with pytest.raises(WeightError, match="weights in a list; expected a dict"):
        eb.compile(WORKLOAD.cells(8), list(WEIGHTS))
    with pytest.raises(TargetError, match=r"kernels for .*aarch64.* do not run here"):
        eb.compile(WORKLOAD.cells(8), WEIGHTS, target={"kind": "llvm", "mtriple": "aarch64-linux-gnu"})


# Which instance it is ----------------------------------------------------------------------------------------------


def _unchecked(graph: InstanceGraph, **changed: Any) -> InstanceGraph:
    """A graph that nobody checked, with some of its arrays changed."""
    copied = copy.deepcopy(graph)
    for name, value in changed.items():
        setattr(copied, name, value)
    copied.checked = False
    return copied


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda graph: {"attributes": {key: rows + 10**6 for key, rows in graph.attributes.items()}},
            r"index out of range: 'word' of node 0 \(leaf\)",
        ),
        (lambda graph: {"node_type": graph.node_type + np.int16(100)}, "node 0 has type id"),
        (lambda graph: {"operand_value": graph.operand_value * 0 + np.int32(10**6)}, "missing operand: node"),
        (lambda graph: {"operand_ptr": graph.operand_ptr[:-1]}, "operand_ptr has"),
        (lambda graph: {"outputs": graph.outputs + np.int32(10**6)}, "declared output"),
        (lambda graph: {"outputs": graph.outputs.astype("float32")}, "outputs is 1-D of float32"),
        (lambda graph: {"attributes": {}}, "no attribute 'word'"),
    ],
)
def test_what_is_wrong_with_an_instance_names_its_position(
    model: eb.Model, change: Callable[[InstanceGraph], dict[str, Any]], message: str
) -> None:
    given = instances(model, 4)
    given[2] = _unchecked(given[2], **change(given[2]))
    with pytest.raises(GraphError, match=f"^instance 2: {message}"):
        model(given)


def test_what_is_wrong_with_a_merged_graph_names_the_instance(model: eb.Model) -> None:
    given = instances(model, 4)
    merged = eb.merge(given)
    attributes = {key: rows.copy() for key, rows in merged.attributes.items()}
    key = next(iter(attributes))
    attributes[key][-1] = -1
    with pytest.raises(GraphError, match=r"'word' of node \d+ \(leaf\) of instance 3 is -1"):
        eb.validate(_unchecked(merged, attributes=attributes))


@pytest.mark.parametrize("use", [copy.copy, copy.deepcopy, pickle.dumps])
def test_models_are_not_copied(model: eb.Model, use: Any) -> None:
    """By ``spawn``, for instance, which pickles what a process is to run."""
    for thing in (model, [model], {"model": model}):
        if use is not copy.copy or thing is model:
            with pytest.raises(ModelFileError, match=r"a compiled model in a pickle or a copy; .*model\.save\(path\)"):
                use(thing)

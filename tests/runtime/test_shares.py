"""Minibatches divided into a share of the instances for each thread: the same rows, the same bits."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import edbatch_tvm as eb
from edbatch_tvm.batching import schedule
from edbatch_tvm.find_native import find_native
from edbatch_tvm.graph import InstanceGraph, Signature, merge, merge_equal_nodes
from edbatch_tvm.memory import PLANS, Plan, plan_memory
from edbatch_tvm.memory.steps_table import BROADCAST, COUNT, FIRST, INDEXED, POINTER, TYPE, CellLayout
from edbatch_tvm.models import get_workload
from edbatch_tvm.runtime import Model, program, round_engine, shares, threads
from relay_ext.signature import signature_of, weights_of
from tests.random_cells import cells_for
from tests.runtime.test_differential import random_signature
from tests.strategies import Minibatch, graphs, minibatches

pytestmark = pytest.mark.skipif(find_native("plan") is None, reason="no native kernels")

Read = tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]
ANY = 1 << 40


def reads(signature: Signature, plan: Plan, steps: np.ndarray) -> list[tuple[tuple[int, int], Read]]:
    """What each node of `steps` is, type and place among those of the type; the rows it writes, and those it reads."""
    found = []
    for step in steps.tolist():
        cell = signature[step[TYPE]]
        layout = CellLayout(len(cell.outputs), len(cell.operands))
        for n in range(step[COUNT]):
            operands = []
            for number, operand in enumerate(cell.operands):
                places = [n]
                if operand.variadic:
                    begin, end = plan.index[step[POINTER] + n : step[POINTER] + n + 2].tolist()
                    places = list(range(begin, end))
                base, stride = step[layout.base(number)], step[layout.stride(number)]
                where = [base if stride == BROADCAST else base + place for place in places]
                operands.append(tuple(plan.index[where].tolist() if stride == INDEXED else where))
            rows = tuple(step[layout.output(slot)] + n for slot in range(len(cell.outputs)))
            found.append(((step[TYPE], step[FIRST] + n), (rows, tuple(operands))))
    return found


def divided(graph: InstanceGraph, plan: Plan, count: int, most: int = ANY, percent: int = 1000, piece: int = 0) -> Any:
    """The steps of `count` shares, of which the largest may have `percent` of the mean.

    Nodes of all types have a work of 1, pieces one of `piece` besides.
    """
    assert graph.signature is not None
    types = len(graph.signature)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shares, "LARGEST_PERCENT", percent)
        work = np.repeat(np.array([[1], [piece]]), types, axis=1)
        return shares.divide(graph, plan, work, np.full(types, most, np.int64), count)


@given(
    minibatches(max_instances=6),
    st.integers(2, 4),
    st.sampled_from(["depth", "agenda"]),
    st.sampled_from([ANY, 2]),
    st.sampled_from([0, 3, 1000]),
)
def test_each_node_once_with_its_own_rows(minibatch: Minibatch, count: int, policy: str, most: int, piece: int) -> None:
    graph = merge(minibatch.instances)
    batches, _ = schedule(graph, policy)
    for name in PLANS:
        plan = plan_memory(batches, graph, name)
        found = divided(graph, plan, count, most, piece=piece)
        if found is None:
            continue
        steps, first = found
        assert (first[0], first[-1], len(first)) == (0, len(steps), count + 1)
        assert (steps[:, COUNT] > 0).all()
        assert (steps[:, COUNT] <= most).all()
        assert dict(reads(minibatch.signature, plan, steps)) == dict(reads(minibatch.signature, plan, plan.steps))
        assert len(reads(minibatch.signature, plan, steps)) == graph.num_nodes
        own = own_instances(graph, plan, steps, first)
        assert [instance for one in own for instance in one] == sorted(set(range(graph.num_instances)) - empty(graph))
        # The batches of a share in the order of the schedule.
        for begin, end in pairwise(first.tolist()):
            for type_id in range(len(minibatch.signature)):
                places = steps[begin:end][steps[begin:end, TYPE] == type_id][:, FIRST]
                assert (np.diff(places) > 0).all()


def empty(graph: InstanceGraph) -> set[int]:
    """Instances without nodes."""
    return set(np.flatnonzero(np.diff(graph.node_ptr) == 0).tolist())


def own_instances(graph: InstanceGraph, plan: Plan, steps: np.ndarray, first: np.ndarray) -> list[list[int]]:
    """The instances of each share, whose nodes no other share has."""
    node_of = {}
    seen: Counter[int] = Counter()
    for node in plan.order.tolist():
        kind = int(graph.node_type[node])
        node_of[kind, seen[kind]] = node
        seen[kind] += 1
    found = []
    for begin, end in pairwise(first.tolist()):
        nodes = [node_of[step[TYPE], step[FIRST] + n] for step in steps[begin:end].tolist() for n in range(step[COUNT])]
        own = np.searchsorted(graph.node_ptr, nodes, side="right") - 1
        for instance in set(own.tolist()):
            assert (own == instance).sum() == graph.node_ptr[instance + 1] - graph.node_ptr[instance]
        found.append(sorted(set(own.tolist())))
    return found


def trees(count: int) -> tuple[Any, list[InstanceGraph]]:
    workload = get_workload("treelstm")
    signature = signature_of(workload.cells(16))
    return signature, workload.generate(count, signature, seed=2)


def test_shares_have_nearly_equal_work() -> None:
    _, instances = trees(64)
    graph = merge(instances)
    plan = plan_memory(schedule(graph, "agenda")[0], graph)
    for count in (2, 3, 8):
        steps, first = divided(graph, plan, count)
        sizes = np.add.reduceat(steps[:, COUNT], first[:-1])
        assert sizes.max() - sizes.min() <= 2 * np.diff(graph.node_ptr).max()


@pytest.mark.parametrize("count", [2, 3])
def test_what_pieces_take_counts(count: int) -> None:
    """Small trees before large ones: the share of the large ones has more batches, so it gets fewer nodes."""
    _, instances = trees(64)
    graph = merge(sorted(instances, key=lambda one: one.num_nodes))
    plan = plan_memory(schedule(graph, "agenda")[0], graph)
    piece, apart = 10, []
    for counted in (0, piece):
        steps, first = divided(graph, plan, count, piece=counted)
        work = np.add.reduceat(steps[:, COUNT], first[:-1]) + piece * np.diff(first)
        apart.append(int(work.max() - work.min()))
    assert apart[1] < apart[0] / 2
    assert apart[1] <= 2 * np.diff(graph.node_ptr).max()


def test_what_is_not_divided() -> None:
    _, instances = trees(6)
    graph = merge(instances)
    batches, _ = schedule(graph, "agenda")
    plan = plan_memory(batches, graph)
    assert divided(graph, plan, 2) is not None
    assert divided(graph, plan, 2, percent=99) is None  # no shares are so equal
    assert divided(graph, plan, 7, percent=125) is None  # six instances
    one = merge(instances[:1])
    assert divided(one, plan_memory(schedule(one, "agenda")[0], one), 2, percent=125) is None
    equal = merge_equal_nodes(merge([*instances, *instances])).graph
    assert divided(equal, plan_memory(schedule(equal, "agenda")[0], equal), 2) is None
    mixed = Plan(**{**vars(plan), "order": plan.order[::-1]})
    assert divided(graph, mixed, 2) is None


@pytest.fixture(scope="module", autouse=True)
def always_shared() -> Any:
    """Several threads for every minibatch, however small, and more than TVM's pool may have."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(program, "SINGLE_MULTIPLIES", 0)
        patch.setattr(round_engine, "SINGLE_MULTIPLIES", 0)
        patch.setattr(program, "MOST_ALONE", 0)
        patch.setattr(shares, "LARGEST_PERCENT", 1000)
        yield
    threads._wanted = None


def values(result: eb.Result) -> list[bytes]:
    return [result.value(value).tobytes() for value in result.graph.outputs.tolist()]


def in_steps(model: Model, instances: list[InstanceGraph]) -> eb.Result:
    return model.run(model.prepare(instances))


@lru_cache(16)
def random_model(seed: int, general: bool) -> Model:
    signature = random_signature(seed)
    mod = cells_for(signature, seed, general)
    rng = np.random.default_rng(seed)
    weights = {name: rng.uniform(-0.3, 0.3, spec.shape).astype(spec.dtype) for name, spec in weights_of(mod).items()}
    return eb.compile(mod, weights, policy="agenda")


@given(st.data())
@pytest.mark.parametrize(("seed", "general"), [(3, False), (5, True)])
def test_the_same_bits(seed: int, general: bool, data: st.DataObject) -> None:
    model = random_model(seed, general)
    instances = data.draw(st.lists(graphs(model.signature, max_nodes=12), min_size=1, max_size=8))
    threads._wanted = 1
    expected = values(in_steps(model, instances))
    for count in (2, 3):
        threads._wanted = count
        assert values(in_steps(model, instances)) == expected
        assert values(model(instances)) == expected


@pytest.mark.parametrize(
    "name",
    [
        "treelstm",
        "childsum-tree",
        *(
            pytest.param(n, marks=pytest.mark.slow)
            for n in ("treegru", "lattice-lstm", "bilstm-tagger-char", "grid-lstm", "mvrnn", "random-dag", "lstm-nmt")
        ),
    ],
)
def test_workloads(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several kernels, whose scratch rows each share has for itself; variadic rows; in steps, and in one call."""
    workload = get_workload(name)
    model = eb.compile(workload.cells(16), workload.weights(16), policy="agenda", database="none")
    instances = workload.generate(9, model.cells, seed=3)
    threads._wanted = 1
    expected = values(in_steps(model, instances))
    whole = int(model.executor.program._boards[-1].words[0]) >> 32
    took = []
    divide = shares.divide
    monkeypatch.setattr(program, "divide", lambda *given: took.append(divide(*given)) or took[-1])
    for count in (2, 3):
        threads._wanted = count
        assert values(in_steps(model, instances)) == expected
        assert values(model(instances)) == expected
        board = model.executor.program._boards[-1].words.reshape(-1, 16)
        # Each share has a board of its own, on which its loops alone are counted: nobody waits for other shares.
        loops = [int(word) >> 32 for word in board[: count * (1 + count) : 1 + count, 0]]
        assert took[-1] is not None
        assert len(loops) == count
        assert 0 < min(loops) <= max(loops) <= whole < sum(loops)


def test_large_weights_stay_with_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    workload = get_workload("treelstm")
    model = eb.compile(workload.cells(16), workload.weights(16), policy="agenda", database="none")
    kernels = model.executor.kernels
    largest = max(kernels.packed_bytes(name) for name in model.cells.names)
    assert largest >= 8 * 16 * 16 * 4  # four gates, two children
    for most, divides in ((largest, True), (largest - 1, False)):
        monkeypatch.setattr(program, "MOST_WEIGHT_BYTES", most)
        assert program.Program(model.signature, kernels).divides is divides


@pytest.mark.parametrize(("percent", "expected"), [(1000, 2), (99, 1)])
def test_one_call_takes_the_same_bound(percent: int, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiled code of a minibatch in one call has no bound of its own."""
    monkeypatch.setattr(shares, "LARGEST_PERCENT", percent)
    workload = get_workload("treelstm")
    model = eb.compile(workload.cells(16), workload.weights(16), policy="agenda", database="none")
    found = []
    execute = round_engine.Engine.execute
    monkeypatch.setattr(round_engine.Engine, "execute", lambda *given: found.append(given[-1]) or execute(*given))
    threads._wanted = 2
    model(workload.generate(9, model.cells, seed=3))
    assert found == [expected]

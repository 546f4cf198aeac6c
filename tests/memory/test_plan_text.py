"""Plans as text: print, parse back, and texts that are no plan of the graph."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edbatch_tvm.batching import schedule
from edbatch_tvm.batching.graph_keys import same_rows
from edbatch_tvm.errors import PlanError
from edbatch_tvm.graph import InstanceGraph, merge
from edbatch_tvm.memory import PLANS, Plan, parse_plan, plan_memory
from edbatch_tvm.memory.layout import signature_of
from edbatch_tvm.memory.plan_with_copies import unfuse
from edbatch_tvm.memory.synthetic_signature import with_signature
from tests.batching.graphs import typed_dags
from tests.strategies import Minibatch, edited, minibatches


def assert_same(one: Plan, other: Plan) -> None:
    """Assert that two plans agree in every field."""
    assert type(one) is type(other)
    for field in fields(one):
        mine, its = getattr(one, field.name), getattr(other, field.name)
        if field.name == "attribute_order":
            assert mine.keys() == its.keys()
            assert all(np.array_equal(mine[key], its[key]) for key in mine)
        elif field.name == "graph":
            assert same_rows(mine, its)
        elif isinstance(mine, np.ndarray):
            np.testing.assert_array_equal(mine, its, err_msg=field.name)
        else:
            assert mine == its, field.name


@settings(max_examples=25)
@given(minibatch=minibatches(), name=st.sampled_from(PLANS), policy=st.sampled_from(["depth", "lookahead"]))
def test_text_parses_back(minibatch: Minibatch, name: str, policy: str) -> None:
    graph = merge(minibatch.instances)
    plan = plan_memory(schedule(graph, policy)[0], graph, name)
    assert_same(parse_plan(str(plan), graph), plan)
    unfused = unfuse(plan, signature_of(graph))
    assert_same(parse_plan(str(unfused), graph), unfused)


@given(graph=typed_dags(max_nodes=12), data=st.data())
def test_edited_text_parses_or_says_why(graph: InstanceGraph, data: st.DataObject) -> None:
    text = edited(data, str(plan_memory(schedule(graph, "depth")[0], graph, "order")))
    try:
        found = parse_plan(text, graph)
    except PlanError:
        pass  # any other exception fails
    else:
        assert_same(parse_plan(str(found), graph), found)
        for rows, column in zip(found.arena_rows, found.value_row.reshape(-1, 1).T, strict=True):
            assert sorted(column) == list(range(1, rows))  # a bare graph has one arena, and no external rows


@pytest.fixture
def diamond() -> InstanceGraph:
    return InstanceGraph.from_arrays([5, 5, 6, 6], [0, 0, 0, 2, 4], [0, 1, 1, 0])


TEXT = "plan batch\nschedule nodes=4 batches=2 types=5:5,6:6\n5: 0-1 @ 1\n6: 2-3 @ 3"


def test_text(diamond: InstanceGraph) -> None:
    plan = plan_memory(schedule(diamond, "depth")[0], diamond)
    assert str(plan) == TEXT
    assert parse_plan(TEXT.replace("0-1 @", "1 0 @"), diamond).value_row.tolist() == [2, 1, 3, 4]
    assert parse_plan(TEXT, merge([with_signature(diamond)])).operands == plan.operands


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "text that is no plan; expected a first line 'plan NAME', NAME one of batch, order, pq"),
        (TEXT.replace("plan batch", "plan best"), "text that is no plan"),
        ("plan batch", "text that is no schedule"),
        (TEXT.replace("0-1 @ 1", "0-1 1"), "line 3: '5: 0-1 1'; expected 'TYPE: NODE"),
        (TEXT.replace("6: 2-3", "x: 2-3"), "line 4: 'x: 2-3'; expected 'TYPE: NODE"),
        (
            TEXT.replace("@ 3", "@ 4"),
            r"results of batch 1 begin at row 4 of the arena of float32\[1\]; expected rows 1",
        ),
        (TEXT.replace("@ 3", "@ 2"), "results of batch 1 begin at row 2"),
        (TEXT.replace("@ 3", "@ 3 4"), r"batch 1 begins at rows \[3, 4\]; expected one row for each of its 1 outputs"),
        (TEXT.replace("5:5", "5:7"), "a plan of the cells 7, 6; expected 5, 6"),
        (TEXT.replace("0-1", "0 0"), "node 0 runs 2 times; expected once"),
    ],
)
def test_no_plan(text: str, message: str, diamond: InstanceGraph) -> None:
    with pytest.raises(PlanError, match=message):
        parse_plan(text, diamond)

"""What ``eb.explain`` says about runs of small models."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from xml.etree import ElementTree

import numpy as np
import pytest

import edbatch_tvm as eb
from edbatch_tvm.errors import GraphError
from edbatch_tvm.explanation import Explanation
from edbatch_tvm.explanation.graph_drawing import DRAWN_NODES
from edbatch_tvm.explanation.html import SHOWN
from edbatch_tvm.explanation.similar_cells import alike_cells
from edbatch_tvm.models import get_workload
from tests.explanation.cells import ALIKE

GRANULARITIES = ("cell", "op")


WORKLOAD = {"cell": get_workload("lattice-lstm"), "op": get_workload("treelstm")}


@lru_cache
def model(granularity: str = "cell", fused: bool = True) -> eb.Model:
    workload = WORKLOAD[granularity]
    cells, weights = workload.cells(16), workload.weights(16, 0)
    return eb.compile(cells, weights, policy="agenda", granularity=granularity, fused=fused)


@lru_cache
def explanation(granularity: str = "cell", instances: int = 3) -> Explanation:
    one = model(granularity)
    return eb.explain(one, WORKLOAD[granularity].generate(instances, one.cells, 0))


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_figures_add_up(granularity: str) -> None:
    one = explanation(granularity)
    assert sum(cell.nodes for cell in one.cells) == one.nodes == one.graph.num_nodes
    assert sum(cell.batches for cell in one.cells) == one.batches == len(one.steps)
    assert sum(cell.longest_path for cell in one.cells) == one.lower_bound
    for how, count in one.plan.operands.items():
        assert sum(cell.operands[how] for cell in one.cells) == count
    assert sum(cell.bytes_indexed for cell in one.cells) == one.plan.bytes_indexed
    for cell in one.cells:
        mine = [step for step in one.steps if step.cell == cell.cell]
        assert sum(cell.indexed_why.values()) == cell.operands["indexed"]
        assert sum(use.bytes for use in one.uses if use.cell == cell.cell) == cell.bytes_read
        assert cell.largest_batch == max(step.nodes for step in mine)
        assert mine[0].previous is None
        assert all(step.dependent + step.waiting + step.ready == step.nodes for step in mine[1:])
        assert cell.path in ("stage", "general")
        assert bool(cell.reason) == (cell.path == "general")
        assert len(cell.kernels) >= 1


def test_batches_take_time_and_leave_results_alone() -> None:
    one = model()
    instances = WORKLOAD["cell"].generate(2, one.cells, 1)
    before = one(instances)
    expected = [np.array(value) for value in before[0]]
    found = eb.explain(one, instances, repeat=2)
    assert all(step.seconds is not None and step.seconds >= 0 for step in found.steps)
    assert sum(step.seconds or 0 for step in found.steps) > 0
    for value, known in zip(before[0], expected, strict=True):
        np.testing.assert_array_equal(value, known)


def test_unfused_runs_are_explained() -> None:
    one = model("op", fused=False)
    found = eb.explain(one, WORKLOAD["op"].generate(2, one.cells, 0), repeat=1)
    assert all(step.seconds is not None for step in found.steps)


def test_without_times() -> None:
    one = model()
    found = eb.explain(one, WORKLOAD["cell"].generate(2, one.cells, 0), repeat=0)
    assert {cell.seconds for cell in found.cells} == {None}
    assert "µs" not in found.to_html().split("<h3>In order</h3>")[0].split("<h2>Batches</h2>")[1]
    assert all(event["dur"] == 1 for event in found.to_trace()["traceEvents"] if event.get("cat") == "batch")


def test_cells_alike() -> None:
    found = alike_cells(ALIKE)
    assert [(one.cell, one.differs) for one in found["small"]] == [("wide", "shape"), ("other", "weights")]
    assert found["small"][0].detail == "x is float32[4] here, float32[6] there"
    assert found["small"][1].detail == "weight W here, V there"
    assert found["apart"] == []


def test_table() -> None:
    text = str(explanation())
    assert re.search(r"3 instances, \d+ nodes in \d+ batches \(lower bound \d+\), policy agenda, plan batch", text)
    assert "weights: apart from word_arc, of the same operators, for weight char_embedding here" in text
    assert "policy: " in text
    assert "dependence: " in text
    assert max(map(len, text.splitlines()[:10])) <= 120


def test_page_needs_nothing_from_outside() -> None:
    html = explanation().to_html("a <title>")
    assert "<h1>a &lt;title&gt;</h1>" in html
    assert not re.search(r"https?:|<script|<link|<img|url\(", html)
    drawings = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(drawings) >= 4  # two timelines, the graph, the arenas
    for drawing in drawings:
        ElementTree.fromstring(drawing)
    assert html.count("<circle") >= 20


def test_a_large_graph_is_not_drawn() -> None:
    one = model()
    builder = one.builder()
    state = builder.call("start")
    for _ in range(DRAWN_NODES):
        state = builder.call("char_arc", *state, char=1)
    html = eb.explain(one, [builder.finish(state[0])], repeat=0).to_html()
    assert "too many to draw" in html


def test_a_long_chain_is_explained_in_a_page_of_limited_size() -> None:
    one = model()
    builder = one.builder()
    state = builder.call("start")
    for _ in range(SHOWN):
        state = builder.call("char_arc", *state, char=1)
    found = eb.explain(one, [builder.finish(state[0])], repeat=1)
    assert found.batches == len(found.steps) == SHOWN + 1
    assert all(step.seconds is not None for step in found.steps)
    assert [step.dependent for step in found.steps[2:]] == [1] * (SHOWN - 1)
    html = found.to_html()
    assert html.count(f"<p>The first {SHOWN:,} of {SHOWN + 1:,} batches.</p>") == 2  # timeline and table
    assert f"<p>The first {SHOWN:,} of {len(found.uses):,} operands.</p>" in html
    boxes = [drawing.count("<rect") for drawing in re.findall(r"<svg.*?</svg>", html, re.DOTALL)]
    assert max(boxes) <= len(found.plan.arena_rows) * (SHOWN + 1)
    assert re.search(r"<title>batches \d+ to \d+: \d+ rows</title>", html)  # a piece of an arena
    assert len(found.to_trace()["traceEvents"]) > SHOWN


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_trace(granularity: str) -> None:
    one = explanation(granularity)
    events = json.loads(json.dumps(one.to_trace()))["traceEvents"]
    batches = [event for event in events if event.get("cat") == "batch"]
    assert len(batches) == one.batches
    names = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    for event, step in zip(batches, one.steps, strict=True):
        assert names[event["tid"]] == step.cell
        assert event["args"]["nodes"] == step.nodes
    ends = [event["ts"] + event["dur"] for event in batches]
    assert all(end <= event["ts"] + 1e-6 for end, event in zip(ends, batches[1:], strict=False))
    host = [event["name"] for event in events if event.get("cat") == "host"]
    assert host == ["build", "schedule", "plan", "execute"]


def test_json_is_plain() -> None:
    found = json.loads(json.dumps(explanation().as_json()))
    assert found["batches"] == len(found["steps"])
    assert {"dependent", "waiting", "ready", "alike", "seconds", "bytes_read"} <= set(found["cells"][0])


def test_no_instances() -> None:
    with pytest.raises(GraphError):
        eb.explain(model(), [])

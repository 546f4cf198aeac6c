"""What ``eb.explain`` says about training steps."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

import edbatch_tvm as eb
from edbatch_tvm.errors import CellError
from edbatch_tvm.explanation import Explanation
from edbatch_tvm.models import get_workload

WORKLOAD = get_workload("treelstm")
H = 14


def compiled(**options: Any) -> tuple[Any, dict[str, np.ndarray], list[eb.InstanceGraph]]:
    weights = WORKLOAD.weights(H, 0)
    model = eb.compile(WORKLOAD.cells(H), weights, policy="lookahead", training=True, **options)
    return model, weights, WORKLOAD.generate(4, model.cells, 0)


@lru_cache
def explanation() -> Explanation:
    model, weights, instances = compiled()

    def change(gradients: Any) -> None:
        for name in gradients:
            weights[name] -= 0.01 * gradients[name]

    return eb.explain(model, instances, optimizer=change)


def test_both_passes_and_the_parts_of_a_step() -> None:
    one = explanation()
    step = one.training
    assert step is not None
    assert list(step.seconds) == ["forward", "backward", "weights", "optimizer", "refresh", "total"]
    assert all(seconds > 0 for seconds in step.seconds.values())
    assert step.seconds["total"] == pytest.approx(sum(list(step.seconds.values())[:-1]))
    backward = step.backward
    assert sum(cell.nodes for cell in backward.cells) == backward.nodes > 0
    assert sum(cell.batches for cell in backward.cells) == backward.batches == len(backward.steps)
    assert {cell.seconds for cell in backward.cells} == {None}
    nodes = {cell.cell: cell.nodes for cell in one.cells}
    # A leaf saves three rows of H numbers, an inner node five; a readout nothing.
    assert step.saved_bytes == {"leaf": 12 * H * nodes["leaf"], "internal": 20 * H * nodes["internal"]}


def test_a_model_that_saves_nothing() -> None:
    model, _, instances = compiled(memory="recompute")
    step = eb.explain(model, instances, repeat=0).training
    assert step is not None
    assert step.saved_bytes == {}
    assert "optimizer" not in step.seconds
    assert {cell.seconds for cell in step.backward.cells} == {None}


def test_forms() -> None:
    one = explanation()
    step = one.training
    assert step is not None
    text = str(one)
    assert "a step: " in text
    assert "gradients of weights" in text
    assert f"backward pass: {step.backward.nodes} nodes in {step.backward.batches} batches" in text
    assert all(cell.cell in text for cell in step.backward.cells)
    found = json.loads(json.dumps(one.as_json()))["training"]
    assert found["seconds"] == step.seconds
    assert len(found["backward"]["steps"]) == step.backward.batches
    html = one.to_html()
    assert "<h2>Training step</h2>" in html
    events = one.to_trace()["traceEvents"]
    batches = [[event for event in events if event.get("cat") == "batch" and event["pid"] == pid] for pid in (0, 1)]
    assert list(map(len, batches)) == [one.batches, step.backward.batches]
    assert batches[0][-1]["ts"] <= batches[1][0]["ts"]
    assert [event["name"] for event in events if event.get("cat") == "host" and event["pid"]] == [
        *("build", "plan", "execute", "weights")
    ]


def test_an_optimizer_without_training() -> None:
    model = eb.compile(WORKLOAD.cells(H), WORKLOAD.weights(H, 0))
    with pytest.raises(CellError, match="an optimizer for a model that does not train"):
        eb.explain(model, WORKLOAD.generate(1, model.cells, 0), optimizer=lambda _: None)

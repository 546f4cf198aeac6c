"""Minibatches of random models, and what of them a backward pass begins with, that hypothesis draws."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.strategies import graphs
from tests.training.test_backward import random_model


def drawn_minibatch(data: st.DataObject) -> tuple[Any, Any, list[int]]:
    """A model, the result of a minibatch, and the values whose cotangents are given."""
    model, _, _ = random_model(data.draw(st.integers(0, 2)))
    instances = data.draw(st.lists(graphs(model.cells, min_nodes=1, max_nodes=12), min_size=1, max_size=3))
    result = model(instances)
    stride = result.graph.stride
    everything = [
        node * stride + slot
        for node, type_id in enumerate(result.graph.node_type.tolist())
        for slot in range(len(model.cells[type_id].outputs))
    ]
    return model, result, data.draw(st.lists(st.sampled_from(everything), min_size=1, max_size=6))


def drawn_detached(data: st.DataObject, result: Any, chosen: list[int]) -> np.ndarray | None:
    """Which nodes are detached, or None; those of the chosen values are not."""
    if not data.draw(st.booleans()):
        return None
    flags = data.draw(st.lists(st.booleans(), min_size=result.graph.num_nodes, max_size=result.graph.num_nodes))
    detached = np.array(flags)
    detached[np.array(chosen) // result.graph.stride] = False
    return detached

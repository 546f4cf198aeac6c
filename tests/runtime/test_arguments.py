"""Values of every kind as arguments of the public functions: a right result, or one error of the package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edbatch_tvm as eb
from edbatch_tvm.batching import get_policy
from edbatch_tvm.errors import EdbatchError
from edbatch_tvm.graph import parse_graph
from edbatch_tvm.models import get_workload

WORKLOAD = get_workload("treelstm")
WEIGHTS = WORKLOAD.weights(8)
NAME = "U_iou" if "U_iou" in WEIGHTS else next(iter(WEIGHTS))

CYCLE: list[Any] = []
CYCLE.append(CYCLE)

VALUES: dict[str, Any] = {
    "none": None,
    "integer": 3,
    "negative": -1,
    "enormous": 2**70,
    "nan": float("nan"),
    "infinity": float("inf"),
    "bytes": b"x",
    "zero byte": "a\0b",
    "dict": {},
    "object": object(),
    "set": {1},
    "generator": (number for number in ()),
    "nested": [[1], [1, 2]],
    "cycle": CYCLE,
    "type": type(None),
    "float16": np.float16(1),
    "scalar array": np.array(0),
    "empty matrix": np.empty((0, 0)),
    "objects": np.array([None, "a"], object),
    "records": np.zeros(3, [("a", "f4")]),
    "complex": np.zeros(3, complex),
    "dates": np.zeros(3, "M8[s]"),
    "texts": np.array(["a", "b"]),
    "masked": np.ma.masked_array([1, 2], [0, 1]),
    "nan array": np.array([np.nan] * 3),
    "uint64": np.array([2**64 - 1], np.uint64),
}


@pytest.fixture(scope="module")
def model() -> eb.Model:
    return eb.compile(WORKLOAD.cells(8), WEIGHTS)


def calls(model: eb.Model) -> dict[str, Callable[[Any], Any]]:
    """What is called with each of the values."""
    cells = WORKLOAD.cells(8)
    graph = WORKLOAD.generate(1, model.cells, 0)[0]
    made, _ = eb.schedule(graph, "depth")
    plan = eb.plan_memory(made, graph)

    def leaf(**attributes: Any) -> Any:
        b = model.builder()
        return b.finish(*b.call("leaf", **attributes))

    def internal(value: Any) -> Any:
        b = model.builder()
        h, c = b.call("leaf", word=1)
        return b.finish(*b.call("internal", value, c, h, c))

    return {
        "node types": lambda value: eb.InstanceGraph.from_arrays(value, [0], []),
        "pointer": lambda value: eb.InstanceGraph.from_arrays([0], value, []),
        "operands": lambda value: eb.InstanceGraph.from_arrays([0], [0, 0], value),
        "networkx": eb.InstanceGraph.from_networkx,
        "text": parse_graph,
        "validate": eb.validate,
        "merge": eb.merge,
        "merge one": lambda value: eb.merge([value]),
        "merge two": lambda value: eb.merge([graph, value]),
        "lower_bound": eb.lower_bound,
        "schedule": eb.schedule,
        "policy": lambda value: None if isinstance(value, type) else eb.schedule(graph, value),
        "policy name": get_policy,
        "check": lambda value: eb.check_schedule(graph, value),
        "check graph": lambda value: eb.check_schedule(value, made),
        "plan schedule": lambda value: eb.plan_memory(value, graph),
        "plan graph": lambda value: eb.plan_memory(made, value),
        "plan name": lambda value: eb.plan_memory(made, graph, value),
        "learn": eb.learn_policy,
        "learn one": lambda value: eb.learn_policy([value]),
        "load": eb.load,
        "load_policy": eb.load_policy,
        "save_policy": lambda value: eb.save_policy(value, "policy.json"),
        "PQTree": lambda value: eb.PQTree(value),
        "PQTree.reduce": lambda value: eb.PQTree(4).reduce(value),
        "Builder": eb.Builder,
        "Signature": eb.Signature,
        "Signature of one": lambda value: eb.Signature([value]),
        "register_policy": lambda value: eb.register_policy(value, None),  # type: ignore[arg-type]
        "emit_source": lambda value: eb.emit_source(value),
        "cells_from_nn": lambda value: eb.cells_from_nn(value, {}),
        "cells": lambda value: eb.compile(value, WEIGHTS),
        "weights": lambda value: eb.compile(cells, value),
        "a weight": lambda value: eb.compile(cells, {**WEIGHTS, NAME: value}),
        "granularity": lambda value: eb.compile(cells, WEIGHTS, granularity=value),
        "plan": lambda value: eb.compile(cells, WEIGHTS, plan=value),
        "dtype": lambda value: eb.compile(cells, WEIGHTS, dtype=value),
        "fused": lambda value: eb.compile(cells, WEIGHTS, fused=value),
        "a size": lambda value: eb.compile(cells, WEIGHTS, sizes={"H": value}),
        "model": model,
        "instance": lambda value: model([value]),
        "second instance": lambda value: model([graph, value]),
        "model.schedule": model.schedule,
        "model.execute": lambda value: model.execute(value, plan),
        "plan of execute": lambda value: model.execute(graph, value),
        "a new weight": lambda value: model.refresh({**WEIGHTS, NAME: value}),
        "save": model.save,
        "cell": lambda value: model.builder().call(value),
        "word": lambda value: model([leaf(word=value)]),
        "operand": lambda value: model([internal(value)]),
        "output": lambda value: model([model.builder().finish(value)]),
        "explain": lambda value: eb.explain(model, value),
        "explain a model": lambda value: eb.explain(value, [graph]),
    }


def failure(call: Callable[[Any], Any], value: Any) -> str:
    """What is wrong with how `call` takes `value`; empty if it returns, or raises one line of the package."""
    try:
        call(value)
    except EdbatchError as error:
        return "more than one line" if "\n" in str(error) else ""
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def test_values_of_every_kind(model: eb.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    wrong = []
    for name, call in calls(model).items():
        for kind, value in VALUES.items():
            if said := failure(call, value):
                wrong.append(f"{name} of {kind}: {said}")
    assert not wrong, "\n".join(wrong)


FORMS: dict[str, Callable[[np.ndarray], Any]] = {
    "reversed": lambda array: array[::-1].copy()[::-1],
    "every second": lambda array: np.repeat(array, 2, axis=-1)[..., ::2],
    "Fortran": np.asfortranarray,
    "big endian": lambda array: array.astype(array.dtype.newbyteorder(">")),
    "a subclass": lambda array: array.view(np.ma.MaskedArray),
    "unaligned": lambda array: np.frombuffer(b"\0" + array.tobytes(), array.dtype, offset=1).reshape(array.shape),
}


@pytest.mark.parametrize("form", FORMS)
def test_arrays_of_every_form(model: eb.Model, form: str) -> None:
    """Weights, external rows and words: read as they are, or refused."""
    b = model.builder()
    row = np.arange(8, dtype="float32")

    def run(made: Callable[[np.ndarray], Any]) -> np.ndarray:
        h, c = b.call("internal", made(row), b.zero, b.zero, made(-row))
        return np.concatenate(model([b.finish([h, c, *b.call("leaf", word=made(np.array([3], "int32"))[0])])])[0])

    expected = run(lambda array: array)
    np.testing.assert_array_equal(run(FORMS[form]), expected)
    try:
        model.refresh({name: FORMS[form](np.asarray(weight)) for name, weight in WEIGHTS.items()})
        np.testing.assert_array_equal(run(lambda array: array), expected)
    except EdbatchError:
        assert form == "big endian"
    finally:
        model.refresh(WEIGHTS)

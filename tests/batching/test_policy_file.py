"""Policy files: what is written reads back; what is no policy, or another model's, is refused with the reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edbatch_tvm.batching import FsmPolicy, LearnStats, get_policy, learn_policy, load_policy, save_policy
from edbatch_tvm.errors import PolicyError
from edbatch_tvm.graph import InstanceGraph
from tests.batching.graphs import lattice, minibatches


def test_round_trip(tmp_path: Path) -> None:
    policy = learn_policy(minibatches(lattice, 0, 1, size=4), "tight")
    save_policy(policy, tmp_path / "lattice.json")
    again = load_policy(tmp_path / "lattice.json", policy.type_names)
    assert (again.table, again.encoding, again.type_names) == (policy.table, policy.encoding, policy.type_names)
    assert again.stats == policy.stats
    assert again.identity == policy.identity
    assert [path.name for path in tmp_path.iterdir()] == ["lattice.json"]


def document(**changes: Any) -> dict[str, Any]:
    """A policy file's contents."""
    return {
        "format": "edbatch-policy",
        "version": 1,
        "encoding": "sort",
        "cells": ["leaf", "internal"],
        "stats": {},
        "table": [[[0, 1], 1], [[0], 0]],
        **changes,
    }


def read(tmp_path: Path, text: str, names: tuple[str, ...] | None = None) -> FsmPolicy:
    """Load a file of this text."""
    path = tmp_path / "p.json"
    path.write_text(text)
    return load_policy(path, names)


def test_the_example_reads(tmp_path: Path) -> None:
    policy = read(tmp_path, json.dumps(document()), ("leaf", "internal"))
    assert policy.table == {(0, 1): 1, (0,): 0}
    assert policy.stats == LearnStats()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"p.json': is no JSON \(line 1: Expecting value\); expected a policy file"),
        ("[1]", "is no policy; expected an object with format 'edbatch-policy'"),
        ("[" * 100_000, r"is no JSON \(nested too deep\)"),
        (json.dumps(document(format="onnx")), "is no policy"),
        (json.dumps(document(version=2)), "version 2; expected version 1"),
        (json.dumps(document(encoding="size")), "encoding 'size'; expected one of base, max, sort, tight"),
        (json.dumps(document(cells="leaf")), "cells is no list of names"),
        (json.dumps(document(cells=["a", "a"])), "cells a, a; expected different names"),
        (json.dumps(document(table={})), "table is no list"),
        (json.dumps(document(table=[[[0, 1]]])), r"row 0 of the table is \[\[0, 1\]\]; expected \[\[state\], action\]"),
        (json.dumps(document(table=[[[0], 0.5]])), r"row 0 of the table is \[\[0\], 0.5\]"),
        (json.dumps(document(table=[[[0], True]])), "row 0 of the table is"),
        (json.dumps(document(table=[[[0], float("nan")]])), "holds NaN; expected whole numbers"),
        (json.dumps(document(table=[[[0], 0], [[0], 0]])), r"state \[0\] is in the table twice"),
        (
            json.dumps(document(table=[[[0, 2], 0]])),
            r"state \[0, 2\]; expected a state of encoding 'sort' over 2 cells",
        ),
        (json.dumps(document(table=[[[0, 0], 0]])), r"state \[0, 0\]; expected a state"),
        (json.dumps(document(table=[[[], 0]])), r"state \[\]; expected a state"),
        (json.dumps(document(table=[[[0], 1]])), r"action 1 in state \[0\]; expected one of the types that are ready"),
    ],
)
def test_broken_files(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        read(tmp_path, text)


def test_another_models_file(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="learned for cells leaf, internal; expected cells leaf, node"):
        read(tmp_path, json.dumps(document()), ("leaf", "node"))


def test_another_models_policy() -> None:
    graph = InstanceGraph.from_arrays([4], [0, 0], [])
    with pytest.raises(PolicyError, match="a policy learned for cells a; expected one for cells 4"):
        FsmPolicy("sort", ("a",), {(0,): 0})(graph)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"none\.json': cannot be read: No such file"):
        load_policy(tmp_path / "none.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PolicyError, match="is no text"):
        load_policy(tmp_path / "binary.json")


def test_what_cannot_be_saved(tmp_path: Path) -> None:
    policy = FsmPolicy("sort", ("a",), {(0,): 0})
    with pytest.raises(PolicyError, match=r"policy file 'a\.txt'; expected a name that ends in \.json"):
        save_policy(policy, tmp_path / "a.txt")
    with pytest.raises(PolicyError, match="cannot be written: No such file"):
        save_policy(policy, tmp_path / "missing" / "a.json")
    with pytest.raises(PolicyError, match="a DepthPolicy cannot be saved"):
        save_policy(get_policy("depth"), tmp_path / "a.json")  # type: ignore[arg-type]

"""Saved models: equal results in a fresh process without a compiler, and every reason to refuse one."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import edbatch_tvm as eb
from edbatch_tvm.batching import SearchPolicy
from edbatch_tvm.compiler import serialization
from edbatch_tvm.errors import ModelFileError, PlanError, PolicyError, WeightError
from edbatch_tvm.models import get_workload
from edbatch_tvm.runtime import Model
from tests.fuzz.mutations import broken_json

HIDDEN = 16
WORKLOAD = get_workload("treegru")


@pytest.fixture(scope="module")
def model() -> Model:
    return eb.compile(WORKLOAD.cells(HIDDEN), WORKLOAD.weights(HIDDEN), policy="lookahead")


@pytest.fixture(scope="module")
def file(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "model.edb"
    model.save(path)
    return path


def outputs(model: Model) -> np.ndarray:
    result = model(WORKLOAD.generate(3, model.signature, 1))
    return result.values(result.graph.outputs)


def edited(file: Path, to: Path, change: Callable[[dict[str, Any]], None], sealed: bool = True) -> Path:
    """A copy of `file` with another manifest; `sealed`: with the digest of that manifest."""
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    document = json.loads(members[serialization.MANIFEST])
    change(document)
    if sealed:
        document["sha256"][serialization.MANIFEST] = hashlib.sha256(serialization._said(document)).hexdigest()
    members[serialization.MANIFEST] = json.dumps(document).encode()
    with zipfile.ZipFile(to, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return to


FRESH = """
import sys
import tvm, numpy as np
import edbatch_tvm as eb
from edbatch_tvm.models import get_workload

def compile(*arguments, **named):
    raise SystemExit("something was compiled")

tvm.compile = compile
model = eb.load(sys.argv[1])
result = model(get_workload("treegru").generate(3, model.signature, 1))
np.save(sys.argv[2], result.values(result.graph.outputs))
"""


def test_equal_in_a_fresh_process_without_compiling(model: Model, file: Path, tmp_path: Path) -> None:
    expected = outputs(model)  # the native schedulers are in the cache now
    to = tmp_path / "outputs.npy"
    environment = {**os.environ, "PYTHONPATH": str(Path(eb.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FRESH, str(file), str(to)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert np.array_equal(np.load(to), expected)


def test_what_is_loaded_is_the_same(model: Model, file: Path, tmp_path: Path) -> None:
    loaded = eb.load(file)
    assert np.array_equal(outputs(loaded), outputs(model))
    assert (loaded.signature, loaded.paths, loaded.plan_name) == (model.signature, model.paths, model.plan_name)
    assert loaded.policy == "lookahead"
    loaded.save(tmp_path / "again.edb")
    assert np.array_equal(outputs(eb.load(tmp_path / "again.edb")), outputs(model))


def test_other_weights_policy_and_plan(model: Model, file: Path) -> None:
    other = WORKLOAD.weights(HIDDEN, seed=5)
    loaded = eb.load(file, params=other, policy="depth", plan="order")
    model.refresh(other)
    try:
        assert np.array_equal(outputs(loaded), outputs(model))
    finally:
        model.refresh()
    assert (loaded.policy, loaded.plan_name) == ("depth", "order")
    with pytest.raises(WeightError, match="missing weights"):
        eb.load(file, params={})


@pytest.mark.parametrize("option", ["auto", True, False])
def test_equal_nodes_are_saved(model: Model, tmp_path: Path, option: bool | str) -> None:
    before = model.equal_nodes
    try:
        model.equal_nodes = option  # type: ignore[assignment]
        model.save(tmp_path / "model.edb")
    finally:
        model.equal_nodes = before
    assert eb.load(tmp_path / "model.edb").equal_nodes == option


def test_a_learned_policy_is_saved(model: Model, tmp_path: Path) -> None:
    graphs = [model.merge(WORKLOAD.generate(8, model.signature, 3))]
    learned = eb.learn_policy(graphs)
    before, model.policy = model.policy, learned
    try:
        model.save(tmp_path / "model.edb")
    finally:
        model.policy = before
    found = eb.load(tmp_path / "model.edb").policy
    assert (found.encoding, found.table) == (learned.encoding, learned.table)


def test_what_cannot_be_saved(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Model, "granularity", "op")
        with pytest.raises(PlanError, match="a model that runs operators cannot be saved; expected granularity 'cell'"):
            model.save(tmp_path / "model.edb")
    before, model.policy = model.policy, SearchPolicy(3)
    try:
        with pytest.raises(PolicyError, match="cannot be saved; expected a registered one as it is"):
            model.save(tmp_path / "model.edb")
    finally:
        model.policy = before
    assert not list(tmp_path.iterdir())
    with pytest.raises(ModelFileError, match="cannot be written: No such file"):
        model.save(tmp_path / "nowhere" / "model.edb")


def test_refused_where_the_cpu_lacks_something(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edbatch_tvm.runtime import cpu_features

    flags = cpu_features.cpu_features().split()
    vector = [flag for flag in flags if flag not in ("avx2", "asimd")]
    monkeypatch.setattr(cpu_features, "cpu_features", lambda: " ".join(vector))
    with pytest.raises(ModelFileError, match=r"needs (avx2|neon), which this CPU does not have; .*mcpu"):
        eb.load(file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "is no saved model; expected format 'edbatch-model'"),
        ({"version": 7}, "version 7; expected version 3 .hint: compile and save it again"),
        ({"versions": {"apache-tvm": "0.1"}}, "saved with apache-tvm 0.1; expected apache-tvm 0.27"),
        ({"architecture": "vax"}, "is for vax; expected one for this machine"),
        ({"cells": [{"name": "leaf"}]}, "is broken .KeyError"),
        ({"cells": "leaf"}, "is broken"),
        ({"weights": {"b": {"shape": [-1], "dtype": "float32"}}}, "is broken .ValueError: a shape of"),
        ({"kernels": 3}, "is broken"),
        ({"plan": "other"}, "unknown plan 'other'"),
        ({"equal_nodes": 3}, "equal_nodes 3; expected 'auto', True or False"),
        ({"sha256": {"library.so": "0"}}, "library.so is damaged"),
    ],
)
def test_refused_with_a_reason(file: Path, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = edited(file, tmp_path / "model.edb", lambda document: document.update(change))
    with pytest.raises(ModelFileError, match=message):
        eb.load(path)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_manifests_of_other_types(file: Path, tmp_path: Path, data: st.DataObject) -> None:
    def change(document: dict[str, Any]) -> None:
        name = data.draw(st.sampled_from(sorted(document)))
        document[name] = data.draw(broken_json(document[name]))

    with zipfile.ZipFile(file) as archive:
        before = json.loads(archive.read(serialization.MANIFEST))
    path = edited(file, tmp_path / "model.edb", change, sealed=False)
    with zipfile.ZipFile(path) as archive:
        same = json.loads(archive.read(serialization.MANIFEST)) == before
    if not same:
        with pytest.raises(ModelFileError):
            eb.load(path)


def test_compressed_weights(file: Path, tmp_path: Path) -> None:
    large = io.BytesIO()
    np.savez_compressed(large, b=np.zeros(10**7, np.float32))

    def change(document: dict[str, Any]) -> None:
        document["sha256"][serialization.WEIGHTS] = hashlib.sha256(large.getvalue()).hexdigest()

    edited(file, tmp_path / "first.edb", change)
    with zipfile.ZipFile(tmp_path / "first.edb") as archive:
        members = {name: archive.read(name) for name in archive.namelist()} | {serialization.WEIGHTS: large.getvalue()}
    with zipfile.ZipFile(tmp_path / "model.edb", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(ModelFileError, match=r"weights\.npz is compressed"):
        eb.load(tmp_path / "model.edb")


def test_damaged_files(file: Path, tmp_path: Path) -> None:
    content = file.read_bytes()
    path = tmp_path / "model.edb"
    rng = np.random.default_rng(0)
    for _ in range(40):
        broken = bytearray(content[: rng.integers(len(content))] if rng.random() < 0.5 else content)
        for place in rng.integers(len(broken), size=20) if broken else ():
            broken[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(broken)
        with pytest.raises(ModelFileError):
            eb.load(path)


def test_no_saved_model(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="cannot be read: No such file"):
        eb.load(tmp_path / "nothing.edb")
    (tmp_path / "text.edb").write_text("no archive")
    with pytest.raises(ModelFileError, match="is no saved model, or a damaged one"):
        eb.load(tmp_path / "text.edb")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("a.txt", "a")
    with pytest.raises(ModelFileError, match=r"is no saved model; expected an archive that Model\.save wrote"):
        eb.load(tmp_path / "other.zip")


def test_nothing_is_unpickled(file: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return os._exit, (1,)

    pickled = io.BytesIO()
    np.savez(pickled, **{"W_out": np.array([Trap()], dtype=object)})
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members[serialization.WEIGHTS] = pickled.getvalue()
    document = json.loads(members[serialization.MANIFEST])
    document["sha256"][serialization.WEIGHTS] = hashlib.sha256(members[serialization.WEIGHTS]).hexdigest()
    members[serialization.MANIFEST] = json.dumps(document).encode()
    with zipfile.ZipFile(tmp_path / "model.edb", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(ModelFileError, match=r"is broken .ValueError: Object arrays cannot be loaded"):
        eb.load(tmp_path / "model.edb")

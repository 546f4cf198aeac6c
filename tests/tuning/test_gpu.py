"""Tuning for a GPU, on the emulated one: what is recorded, found again and refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edbatch_tvm.backends.cuda_emulated import EMULATED
from edbatch_tvm.cli import main
from edbatch_tvm.compiler import compile_model
from edbatch_tvm.errors import DatabaseError, TargetError
from edbatch_tvm.models import get_workload
from schedules.cuda.kernels import Occupancy

ARGUMENTS = "tune treelstm --hidden 8 --batch-size 2 --minibatches 1 --policy depth --trials 2 --target cuda-emulated"


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("records")
    assert main([*ARGUMENTS.split(), "--database", str(folder), "--json", str(folder / "report.json")]) == 0
    return folder, json.loads((folder / "report.json").read_text())


def test_the_fastest_is_recorded(tuned: tuple[Path, dict[str, Any]]) -> None:
    folder, report = tuned
    assert [trial["machine"] for trial in report["trials"]] == [
        {"fill": 128, "blocks_per_unit": 2},
        {"fill": 256, "blocks_per_unit": 2},
    ]
    assert report["best"]["seconds"] == min(trial["seconds"] for trial in report["trials"])
    assert report["max_relative_error"] < 1e-5
    (record,) = json.loads((folder / EMULATED / "cuda.json").read_text()).values()
    assert {name: record[name] for name in ("fill", "blocks_per_unit")} == report["best"]["machine"]


def test_and_found_again(tuned: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = tuned
    path = folder / EMULATED / "cuda.json"
    (key,) = json.loads(path.read_text())
    path.write_text(json.dumps({key: {"fill": 77, "blocks_per_unit": 1}}))
    workload = get_workload("treelstm")
    model = compile_model(workload.cells(8), workload.weights(8), target=EMULATED, database=folder)
    assert model.executor.tuning_key == key
    assert model.executor.program.machine == Occupancy(77, 1)
    other = compile_model(workload.cells(4), workload.weights(4), target=EMULATED, database=folder)
    assert other.executor.program.machine == Occupancy()


def test_what_is_refused(tmp_path: Path) -> None:
    workload = get_workload("treelstm")
    mod, weights = workload.cells(8), workload.weights(8)
    with pytest.raises(DatabaseError, match="no records of device 'cuda-emulated'"):
        compile_model(mod, weights, target=EMULATED, database=tmp_path)
    (tmp_path / EMULATED).mkdir()
    (tmp_path / EMULATED / "cuda.json").write_text('{"x": {"fill": 0, "blocks_per_unit": 1}}')
    with pytest.raises(DatabaseError, match="expected a file that edbatch tune wrote"):
        compile_model(mod, weights, target=EMULATED, database=tmp_path)
    with pytest.raises(TargetError, match="settings of a GPU for target 'llvm'"):
        compile_model(mod, weights, database=Occupancy())

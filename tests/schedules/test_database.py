"""The database of a device: what is kept, resumed, repaired and refused."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from tvm import IRModule, s_tir
from tvm.script import ir as I
from tvm.script import tirx as T
from tvm.target import Target

from edbatch_tvm.errors import DatabaseError
from edbatch_tvm.tuning.kernels.database import TuningDatabase, config_of, config_trace, trace_key

HASWELL = Target({"kind": "llvm", "mcpu": "haswell"})


@I.ir_module
class Double:
    @T.prim_func(s_tir=True)
    def main(x: T.Buffer((64,), "float32"), y: T.Buffer((64,), "float32")):
        for i in range(64):
            with T.sblock("double"):
                v = T.axis.spatial(64, i)
                y[v] = x[v] * T.float32(2)


def other() -> IRModule:
    return IRModule({"main": Double["main"].with_attr("other", 1)})


def third() -> IRModule:
    return IRModule({"main": Double["main"].with_attr("third", 1)})


def open_database(path: Path, create: bool = True, threads: int = 2) -> TuningDatabase:
    return TuningDatabase(path, HASWELL, threads, create)


def test_trials_are_there_again(tmp_path: Path) -> None:
    database = open_database(tmp_path)
    schedule = s_tir.Schedule(Double)
    (loop,) = schedule.get_loops(schedule.get_sblock("double"))
    factors = schedule.sample_perfect_tile(loop, 2)
    schedule.split(loop, factors)
    database.add_trial(Double, schedule.trace, [3e-6, 2e-6])
    database.add_trial(Double, config_trace(Double, "a"), [])
    database.add_trial(other(), config_trace(other(), "b"), [1e-6])
    trials = open_database(tmp_path).trials(Double)
    assert [min(seconds) for _, seconds in trials] == [2e-6, 1e10]
    assert trace_key(trials[0][0]) == trace_key(schedule.trace)
    assert config_of(trials[1][0]) == "a"
    assert open_database(tmp_path).trials_count() == 3


def test_keeping_replaces(tmp_path: Path) -> None:
    database = open_database(tmp_path)
    database.keep([(Double, config_trace(Double, "first"), 2e-6), (other(), config_trace(other(), "other"), 1e-6)])
    database.keep([(Double, config_trace(Double, "second"), 3e-6)])
    again = open_database(tmp_path, create=False)
    kept = [again.kept(module) for module in (Double, other())]
    assert [config_of(record.trace) for record in kept if record is not None] == ["second", "other"]
    again.keep([(Double, None, 0.0)])
    assert again.kept(Double) is None
    assert open_database(tmp_path, create=False).kept(other()) is not None
    assert sorted(path.name for path in again.path.iterdir()) == [
        "database_tuning_record.json",
        "database_workload.json",
        "digests.json",
    ]


@pytest.mark.parametrize("step", range(5))
def test_keeping_stopped_anywhere_leaves_records_that_go_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    database = open_database(tmp_path)
    database.keep([(Double, config_trace(Double, "first"), 2e-6), (other(), config_trace(other(), "other"), 1e-6)])
    replace, calls = os.replace, iter(range(5))

    def stopping(old: Any, new: Any) -> None:
        if next(calls) == step:
            raise KeyboardInterrupt
        replace(old, new)

    # Digests, workloads, records, digests; the fifth step is none.
    monkeypatch.setattr(os, "replace", stopping)
    with pytest.raises(KeyboardInterrupt) if step < 4 else nullcontext():
        database.keep([(Double, None, 0.0), (third(), config_trace(third(), "third"), 1e-6)])
    monkeypatch.undo()
    again = open_database(tmp_path, create=False)
    kept = [again.kept(module) for module in (Double, other(), third())]
    texts = [None if record is None else config_of(record.trace) for record in kept]
    assert texts == (["first", "other", None] if step < 3 else [None, "other", "third"])
    again.keep([(Double, config_trace(Double, "second"), 2e-6)])
    record = open_database(tmp_path, create=False).kept(Double)
    assert record is not None
    assert config_of(record.trace) == "second"


def test_a_line_cut_off_is_dropped(tmp_path: Path) -> None:
    database = open_database(tmp_path)
    database.add_trial(Double, config_trace(Double, "a"), [1e-6])
    digests, records = database.path / "digests.json", database.path / "trials_tuning_record.json"
    before = digests.read_bytes()
    database.add_trial(other(), config_trace(other(), "b"), [1e-6])
    # Killed while the record was being written.
    digests.write_bytes(before)
    records.write_text(records.read_text()[:-20])
    database = open_database(tmp_path)
    assert [config_of(trace) for trace, _ in database.trials(Double)] == ["a"]
    assert database.trials(other()) == []
    database.add_trial(Double, config_trace(Double, "c"), [1e-6])
    assert [config_of(trace) for trace, _ in open_database(tmp_path).trials(Double)] == ["a", "c"]


def test_what_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match=r"database .*nowhere; expected a folder \(hint: edbatch tune makes one\)"):
        open_database(tmp_path / "nowhere", create=False)
    with pytest.raises(DatabaseError, match="has records of no device; expected records of this one, haswell-2"):
        open_database(tmp_path, create=False)
    open_database(tmp_path, threads=4).keep([])
    with pytest.raises(DatabaseError, match="has records of haswell-4; expected records of this one, haswell-2"):
        open_database(tmp_path, create=False)
    path = open_database(tmp_path).path
    (path / "database_workload.json").write_text("nonsense\n")
    with pytest.raises(DatabaseError, match=r"database_workload.json is not as it was written; expected .*tune again"):
        open_database(tmp_path, create=False)
    (path / "database_workload.json").unlink()
    with pytest.raises(DatabaseError, match=r"database_workload.json is missing"):
        open_database(tmp_path, create=False)
    (path / "digests.json").write_text('{"database_workload.json": [[-1, ""]]}')
    with pytest.raises(DatabaseError, match=r"digests.json cannot be read \(ValueError\)"):
        open_database(tmp_path)


def test_a_tile_of_no_size_is_refused(tmp_path: Path) -> None:
    # TVM divides by it.
    database = open_database(tmp_path)
    schedule = s_tir.Schedule(Double)
    (loop,) = schedule.get_loops(schedule.get_sblock("double"))
    schedule.split(loop, schedule.sample_perfect_tile(loop, 2, decision=[4, 16]))
    database.keep([(Double, schedule.trace, 1e-6)])
    path = database.path / "database_tuning_record.json"
    text = path.read_text()
    assert "[4,16]" in text
    path.write_text(text.replace("[4,16]", "[4,0]"))
    with pytest.raises(DatabaseError, match="is not as it was written"):
        open_database(tmp_path, create=False)

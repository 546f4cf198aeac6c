"""``edbatch run`` around a model: figures, files, what is cached, what is learned from what."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edbatch_tvm.batching import parse_schedule
from edbatch_tvm.benchmarking import measure
from edbatch_tvm.cli import main
from edbatch_tvm.graph import parse_graph
from edbatch_tvm.models import WORKLOADS, get_workload
from tests.cli.fake_model import FakeModel

FIELDS = {
    "workload", "target", "dtype", "hidden", "batch_size", "minibatches", "instances", "nodes", "policy", "batches",
    "lower_bound", "policy_states", "policy_steps", "policy_misses", "learn_data", "seconds", "compile_seconds",
    "learn_seconds", "instances_per_second", "gflops", "peak_gflops", "operands", "lookups", "bytes_gathered",
    "bytes_indexed", "max_relative_error", "largest_value",
}  # fmt: skip


def run(tmp_path: Path, *arguments: str, code: int = 0) -> dict[str, Any]:
    """Run a workload of hidden size 4; the JSON it writes."""
    path = tmp_path / "report.json"
    assert main(["run", *arguments, "--hidden", "4", "--json", str(path)]) == code
    report: dict[str, Any] = json.loads(path.read_text())
    return report


@pytest.fixture
def trees(tmp_path: Path) -> Path:
    """A file of three trees: 5, 1 and 3 tree nodes."""
    path = tmp_path / "trees.txt"
    path.write_text("(3 (2 a) (4 (1 b) (0 c)))\n(2 one)\n(2 (2 d) (2 e))\n")
    return path


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize("name", WORKLOADS)
def test_fields(tmp_path: Path, name: str) -> None:
    report = run(tmp_path, name, "--batch-size", "3", "--minibatches", "2", "--check")
    assert set(report) >= FIELDS
    assert set(report["seconds"]) == {"build", "schedule", "plan", "execute", "total"}
    assert set(report["operands"]) == {"contiguous", "broadcast", "indexed"}
    assert (report["workload"], report["target"], report["dtype"]) == (name, "llvm", "float32")
    assert (report["minibatches"], report["instances"]) == (2, 6)
    assert report["max_relative_error"] == 0
    assert report["largest_value"] > 0.01
    assert report["batches"] >= report["lower_bound"] > 0


def test_sums_over_minibatches(tmp_path: Path, models: list[FakeModel], trees: Path) -> None:
    report = run(tmp_path, "treelstm", "--data", str(trees), "--batch-size", "2", "--policy", "depth")
    assert (report["minibatches"], report["instances"]) == (2, 3)
    assert report["nodes"] == 2 * (5 + 1 + 3)  # each tree node has a readout
    assert report["policy"] == "depth"
    assert report["operands"] == {"contiguous": 6, "broadcast": 4, "indexed": 2}
    assert (report["lookups"], report["bytes_indexed"], report["bytes_gathered"]) == (2, 16, 0)
    # Bounds: 1 leaf + 2 internal + 1 readout; 1 + 1 + 1.
    assert report["lower_bound"] == 4 + 3
    seconds = report["seconds"]
    assert report["instances_per_second"] == pytest.approx(3 / seconds["total"])
    work = get_workload("treelstm").multiply_adds(4)
    flops = 2 * (6 * work["leaf"] + 3 * work["internal"] + 9 * work["readout"])
    assert report["gflops"] == pytest.approx(flops / seconds["execute"] / 1e9)
    assert report["peak_gflops"] == 101  # the larger of 100 before and 101 after
    assert report["max_relative_error"] is None
    assert report["learn_data"] is None
    assert models[0].cache == [True, True]


def test_repeat_goes_around_the_caches(tmp_path: Path, models: list[FakeModel], trees: Path) -> None:
    run(tmp_path, "treelstm", "--data", str(trees), "--repeat", "3")
    assert models[0].cache == [False] * 4


def test_minibatches_limits(tmp_path: Path, models: list[FakeModel], trees: Path) -> None:
    arguments = ("--data", str(trees), "--batch-size", "1", "--minibatches", "2")
    assert run(tmp_path, "treelstm", *arguments)["instances"] == 2


@pytest.mark.usefixtures("models")
def test_seed_decides_data_and_weights(tmp_path: Path) -> None:
    arguments = ("treelstm", "--batch-size", "2", "--minibatches", "1", "--check")
    first, again, other = (run(tmp_path, *arguments, "--seed", seed) for seed in ("1", "1", "2"))
    assert (first["nodes"], first["largest_value"]) == (again["nodes"], again["largest_value"])
    assert (first["nodes"], first["largest_value"]) != (other["nodes"], other["largest_value"])


def test_wrong_results_are_an_error(
    tmp_path: Path, models: list[FakeModel], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    execute = FakeModel.execute

    def almost(self: FakeModel, *arguments: Any) -> Any:
        self.scale = 1 + 1e-4
        return execute(self, *arguments)

    monkeypatch.setattr(FakeModel, "execute", almost)
    report = run(tmp_path, "treelstm", "--batch-size", "2", "--check", code=1)
    assert report["max_relative_error"] == pytest.approx(1e-4, rel=0.01)
    assert "check failed: relative error 0.0001; expected 1e-05 or less" in capsys.readouterr().err


@pytest.mark.usefixtures("models")
def test_dump_parses_back(tmp_path: Path, trees: Path) -> None:
    folder = tmp_path / "deep" / "dump"
    run(tmp_path, "treelstm", "--data", str(trees), "--batch-size", "2", "--dump", str(folder))
    names = sorted(path.name for path in folder.iterdir())
    assert names == [f"minibatch-000{i}.{kind}.txt" for i in (0, 1) for kind in ("graph", "schedule")]
    graph = parse_graph((folder / names[0]).read_text())
    assert (graph.num_instances, graph.num_nodes) == (2, 12)
    assert parse_schedule((folder / names[1]).read_text()).num_nodes == 12


@pytest.mark.usefixtures("models")
def test_json_on_standard_output_stands_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "treelstm", "--hidden", "4", "--batch-size", "2", "--json", "-"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["workload"] == "treelstm"
    assert captured.err == ""


@pytest.mark.usefixtures("models")
def test_table_for_the_reader(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "treelstm", "--hidden", "4", "--batch-size", "2", "--check"]) == 0
    lines = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    assert {"workload", "policy", "batches", "instances/s", "milliseconds", "GFLOP/s", "relative error"} <= set(lines)


def test_fsm_learns_from_the_generator_by_default(tmp_path: Path, models: list[FakeModel], trees: Path) -> None:
    report = run(tmp_path, "treelstm", "--data", str(trees), "--policy", "fsm", "--batch-size", "2")
    assert report["learn_data"] == "generator"
    assert report["policy"] == "fsm-sort"
    assert report["policy_states"] > 0
    assert report["policy_steps"] == report["batches"]
    assert 0 <= report["policy_misses"] <= report["policy_steps"]
    assert report["learn_seconds"] > 0
    assert models[0].policy.encoding == "sort"


@pytest.mark.usefixtures("models")
def test_learner_and_encoding(tmp_path: Path, trees: Path) -> None:
    options = ["--policy", "fsm", "--learner", "paper", "--encoding", "max", "--batch-size", "2"]
    assert run(tmp_path, "treelstm", "--data", str(trees), *options)["policy"] == "fsm-max"


@pytest.mark.parametrize(("policy", "name"), [("search", "search-5"), ("best", "best (")])
def test_width_of_a_search(tmp_path: Path, models: list[FakeModel], trees: Path, policy: str, name: str) -> None:
    report = run(tmp_path, "treelstm", "--data", str(trees), "--policy", policy, "--width", "5", "--batch-size", "2")
    assert report["policy"].startswith(name)
    assert models[0].policy.name == policy
    assert report["batches"] == report["lower_bound"]


@pytest.mark.usefixtures("models")
def test_fsm_learns_from_a_file(tmp_path: Path, trees: Path) -> None:
    report = run(tmp_path, "treelstm", "--policy", "fsm", "--learn-data", str(trees), "--batch-size", "2")
    assert report["learn_data"] == str(trees)


@pytest.mark.usefixtures("models")
def test_learn_then_run(tmp_path: Path, trees: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy, figures = tmp_path / "tree.json", tmp_path / "learn.json"
    arguments = ["learn", "treelstm", "--data", str(trees), "--batch-size", "2", "--encoding", "base"]
    assert main([*arguments, "--output", str(policy), "--json", str(figures)]) == 0
    learned = json.loads(figures.read_text())
    assert (learned["minibatches"], learned["instances"]) == (2, 3)
    assert learned["batches"] == learned["lower_bound"]
    report = run(tmp_path, "treelstm", "--policy", str(policy), "--batch-size", "4")
    assert report["policy"] == "fsm-base"
    assert report["policy_states"] == learned["policy_states"]
    capsys.readouterr()
    assert main(["run", "bilstm-tagger", "--policy", str(policy), "--hidden", "4"]) == 1
    assert "learned for cells leaf, internal, readout; expected cells forward_layer1" in capsys.readouterr().err


def test_with_the_real_model(tmp_path: Path) -> None:
    report = run(tmp_path, "lattice-lstm", "--batch-size", "2", "--minibatches", "1", "--check")
    assert 0 < report["max_relative_error"] <= 1e-5
    assert report["bytes_gathered"] == 0
    assert report["lookups"] > 0
    assert report["peak_gflops"] > 0


def test_saved_and_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "peak_gflops", lambda **_: 100.0)  # which the test above measures
    path = tmp_path / "model.edb"
    command = ["run", "treelstm", "--hidden", "8", "--batch-size", "4", "--minibatches", "1", "--check"]
    assert main([*command, "--save", str(path)]) == 0
    assert main([*command, "--load", str(path)]) == 0
    assert main(["run", "treelstm", "--hidden", "4", "--load", str(path)]) == 1
    assert "expected float32[256,8]" in capsys.readouterr().err


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize("name", ["treelstm", "random-dag"])
def test_from_raw_items(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    report = run(tmp_path, name, "--batch-size", "3", "--minibatches", "2", "--from-raw", "--repeat", "2")
    assert (report["workload"], report["minibatches"], report["instances"], report["turns"]) == (name, 2, 6, 2)
    ways = {"built before", "Python builder", "builder", "arrays", "flat arrays"}
    assert set(report["seconds"]) in (ways, ways - {"builder"})
    assert set(report["build_microseconds"]) == set(report["seconds"]) - {"built before"}
    for stages in report["seconds"].values():
        assert set(stages) == {"build", "merge", "schedule", "plan", "execute", "total"}
        assert stages["total"] > 0
    assert report["file_nodes_per_second"] == {}
    assert "us a node" in capsys.readouterr().out


@pytest.mark.usefixtures("models")
def test_from_a_file(tmp_path: Path, trees: Path) -> None:
    report = run(tmp_path, "treelstm", "--data", str(trees), "--batch-size", "2", "--from-raw")
    assert (report["minibatches"], report["instances"], report["nodes"], report["turns"]) == (2, 3, 18, 5)
    assert set(report["file_nodes_per_second"]) == {"Python builder", "arrays"}

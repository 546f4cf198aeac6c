"""``edbatch bench cpu``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edbatch_tvm.cli import main
from edbatch_tvm.peers import compare, contenders
from edbatch_tvm.peers.first_result import in_fresh_processes
from edbatch_tvm.peers.markdown_tables import BEGIN, END, write_tables

SMALL = ["bench", "cpu", "--workloads", "treelstm", "--hidden", "8", "--batch-size", "2", "--repeat", "2"]


@pytest.fixture(autouse=True)
def rates(monkeypatch: pytest.MonkeyPatch) -> None:
    """No time for large matrix products."""
    monkeypatch.setattr(compare, "peak_gflops", lambda: 100.0)
    monkeypatch.setattr(compare, "fma_gflops", lambda: 200.0)


def test_all_that_runs_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    figures, page = tmp_path / "figures.json", tmp_path / "page.md"
    command = [*SMALL, "--peers", "hand", "eager", "depth", "unbatched", "--everywhere"]
    command += ["--results", str(tmp_path / "results"), "--json", str(figures), "--markdown", str(page)]
    assert main([*command, "--debug"]) == 0
    found = json.loads(figures.read_text())
    (row,) = found["rows"]
    assert set(row["peers"]) == {"hand", "eager", "depth", "unbatched"}
    assert all(peer["ratio"] > 0 for peer in row["peers"].values())
    assert row["instances"] == 8
    assert 0 < row["error"] <= 1e-5
    assert row["seconds"]["total"] >= row["seconds"]["execute"] > 0
    assert (found["peak_gflops"], found["fma_gflops"]) == (100, 200)
    assert capsys.readouterr().out.strip() in page.read_text()

    # Again: what the folder has is not measured anew, unless it is of other settings.
    def never(*_: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(compare, "measure_workload", never)
    assert main(command) == 0
    assert main([*command, "--seed", "1"]) == 1


def test_wrong_results_are_an_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    from edbatch_tvm.peers.torch_runs import ByHand

    right = ByHand.outputs
    monkeypatch.setattr(ByHand, "outputs", lambda self: right(self) * 1.001)
    assert main(SMALL) == 1
    assert "hand (by level) on treelstm differs from ours by 0.001" in capsys.readouterr().err


def test_without_torch(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(contenders, "find_spec", lambda name: None)
    assert main(SMALL) == 1
    assert "peers on PyTorch without torch; expected it installed" in capsys.readouterr().err


def test_dynet_needs_an_interpreter(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--peers", "dynet"]) == 1
    assert "the peer dynet without an interpreter; expected --dynet-python PATH" in capsys.readouterr().err


def test_tables_between_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_tables(page, "new")
    assert page.read_text() == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"


@pytest.mark.slow
def test_fresh_processes() -> None:
    figures = in_fresh_processes("treelstm", 16)
    for part in figures.values():
        assert set(part) == {"import", "compile", "first_run", "cpu"}
        assert all(seconds > 0 for seconds in part.values())

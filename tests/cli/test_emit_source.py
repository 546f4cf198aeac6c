"""``edbatch run --emit-source``: CUDA source without a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from edbatch_tvm.cli import main


def test_writes_one_file_for_each_kernel(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "source"
    assert main(["run", "treegru", "--hidden", "8", "--target", "cuda", "--emit-source", str(folder)]) == 0
    names = {path.name for path in folder.iterdir()}
    stages = {f"{cell}_stage{number}.cu" for cell in ("leaf", "internal") for number in (0, 1)}
    assert names == {*stages, "readout_stage0.cu", "edbatch_schedule.cu"}
    assert "cooperative_groups" in (folder / "edbatch_schedule.cu").read_text()
    assert "6 kernels" in capsys.readouterr().out


def test_has_to_be_a_cuda_target(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "treegru", "--target", "llvm", "--emit-source", str(tmp_path)]) != 0
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "CUDA source for target 'llvm'" in line


def test_running_for_a_gpu_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    import tvm

    if tvm.cuda(0).exist:
        pytest.skip("there is a GPU")
    arguments = ["run", "treelstm", "--hidden", "8", "--batch-size", "2", "--minibatches", "1", "--policy", "depth"]
    assert main([*arguments, "--target", "cuda"]) != 0
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "no NVIDIA GPU or no driver" in line

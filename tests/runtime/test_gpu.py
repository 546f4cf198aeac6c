"""Models on a GPU: ``pytest -m gpu``. Everything but the device itself is tested elsewhere by emulation."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edbatch_tvm as eb
from edbatch_tvm.checking.comparison import compare
from edbatch_tvm.checking.reference import run_reference
from edbatch_tvm.graph import merge
from edbatch_tvm.models import WORKLOADS, get_workload

pytestmark = pytest.mark.gpu
ROOT = Path(__file__).resolve().parents[2]


def model_of(workload: str, hidden: int, **options: Any) -> tuple[eb.Model, Any]:
    found = get_workload(workload)
    return eb.compile(found.cells(hidden), found.weights(hidden), target="cuda", **options), found


@pytest.mark.parametrize("launch", ["schedule", "batch"])
@pytest.mark.parametrize("hidden", [20, 64])
@pytest.mark.parametrize("workload", WORKLOADS)
def test_equal_to_the_reference(workload: str, hidden: int, launch: str) -> None:
    model, found = model_of(workload, hidden, launch=launch)
    instances = found.generate(8, model.signature, seed=1)
    graph = merge(instances)
    result = model(instances)
    compare(graph, result, run_reference(graph, found.reference, found.weights(hidden))).require()
    assert launch == "batch" or result.report.kernel_calls == 1


@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "synccheck"])
@pytest.mark.parametrize("workload", ["treegru", "childsum-tree"])
def test_compute_sanitizer(workload: str, tool: str) -> None:
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        pytest.skip("no compute-sanitizer")
    command = [sanitizer, "--tool", tool, "--error-exitcode", "9", sys.executable, "-m", "edbatch_tvm", "run", workload]
    options = "--hidden 20 --batch-size 4 --minibatches 1 --policy agenda --target cuda --check"
    done = subprocess.run([*command, *options.split()], cwd=ROOT, capture_output=True, text=True, check=False)
    if "Device not supported" in done.stdout + done.stderr:
        pytest.skip("compute-sanitizer does not support this device")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_memory_is_steady() -> None:
    model, found = model_of("treelstm", 64)
    driver = ctypes.CDLL("libcuda.so.1")

    def free() -> int:
        available, total = ctypes.c_size_t(), ctypes.c_size_t()
        assert driver.cuMemGetInfo_v2(ctypes.byref(available), ctypes.byref(total)) == 0
        return available.value

    minibatches = [found.generate(8, model.signature, seed=seed) for seed in range(20)]
    for turn in range(1000):
        model(minibatches[turn % len(minibatches)])
        if turn == 100:
            before = free()
    assert before - free() < 2**20


def test_outputs_stay_there_and_streams_are_kept() -> None:
    torch = pytest.importorskip("torch")
    import tvm_ffi

    model, found = model_of("treelstm", 64)
    instances = found.generate(8, model.signature, seed=1)
    expected = [np.asarray(one) for one in model(instances)]
    with tvm_ffi.use_torch_stream(torch.cuda.stream(torch.cuda.Stream())):
        results = [model(instances) for _ in range(8)]
        tensors = [torch.from_dlpack(one) for one in results[-1]]
        assert {tensor.device.type for tensor in tensors} == {"cuda"}
        torch.cuda.current_stream().synchronize()
    for tensor, array in zip(tensors, expected, strict=True):
        np.testing.assert_array_equal(tensor.cpu().numpy(), array)


def test_another_architecture_is_refused() -> None:
    from edbatch_tvm.errors import TargetError

    found = get_workload("treelstm")
    with pytest.raises(TargetError, match="target arch 'sm_50'"):
        eb.compile(found.cells(8), found.weights(8), target={"kind": "cuda", "arch": "sm_50"})

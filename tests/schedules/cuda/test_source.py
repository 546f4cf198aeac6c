"""CUDA source: golden text of each form of kernel, figures of all of them, and what the compilers make of them."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tvm import IRModule, tirx
from tvm.target import Target

from edbatch_tvm.backends.cuda import gpu_sources
from edbatch_tvm.errors import TargetError
from edbatch_tvm.models import WORKLOADS, get_workload
from relay_ext.gpu_cells import gpu_program
from relay_ext.index_bounds import with_index_bounds
from relay_ext.pipeline import cell_passes, run_passes
from relay_ext.signature import signature_of
from schedules.cuda import tiles
from schedules.cuda.kernels import COOPERATIVE, LAUNCH_PARAMETERS, SCHEDULE
from schedules.cuda.product_precision import PRODUCTS
from schedules.cuda.tiles import SHARED_BYTES
from schedules.cuda.tir_pipeline import cuda_source, gpu_pipeline
from tests.golden import Golden

SM90 = Target({"kind": "cuda", "arch": "sm_90a"}, host="llvm")


@cache
def program(workload: str, hidden: int, dtype: str = "float32") -> Any:
    mod = get_workload(workload).cells(hidden)
    fused = run_passes(mod, cell_passes())
    return gpu_program(fused, with_index_bounds(signature_of(mod), fused), products=PRODUCTS[dtype])


def kernel_text(source: str) -> str:
    """The kernel without what TVM puts before every one."""
    return source[source.rindex('extern "C" __global__') :]


@pytest.mark.parametrize(
    ("form", "dtype"), [("wide", "float32"), ("narrow", "float32"), ("wide", "bfloat16"), ("narrow", "tfloat32")]
)
def test_a_tile(form: str, dtype: str, golden: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    one = program("lstm-nmt", 32, dtype)
    readout = replace(one, parts=one.parts[-1:])
    (tile,) = (tile for tile in tiles.tiles_of(one.parts[-1].stage, PRODUCTS[dtype]) if tile.name == form)
    for module in ("kernels", "stage_code", "tiles"):
        monkeypatch.setattr(f"schedules.cuda.{module}.tiles_of", lambda *_: [tile])
    golden(f"cuda/tile-{form}-{dtype}.cu", kernel_text(cuda_source(readout.batch_kernels(), SM90)))


@pytest.mark.parametrize(
    ("workload", "kernel"),
    [
        ("lattice-gru", "join_stage0"),
        ("childsum-tree", "internal_stage1"),
        ("mvrnn", "internal_stage0"),
        ("mvrnn", "internal_stage1"),
        ("bilstm-tagger-char", "spell"),
    ],
)
def test_a_kernel(workload: str, kernel: str, golden: Golden) -> None:
    module = program(workload, 8).batch_kernels()
    golden(f"cuda/{workload}-{kernel}.cu", kernel_text(cuda_source(IRModule({kernel: module[kernel]}), SM90)))


@pytest.mark.parametrize("workload", sorted(WORKLOADS))
def test_figures_of_every_kernel(workload: str, golden: Golden) -> None:
    module, whole = program(workload, 8).batch_kernels(), program(workload, 8).schedule_kernels()
    lines = [figures(var.name_hint, f) for one in (module, whole) for var, f in one.functions.items()]
    golden(f"cuda/source_counts/{workload}.txt", "\n".join(lines))


def figures(name: str, kernel: Any) -> str:
    """One line of what stands in the source of a kernel."""
    text = kernel_text(cuda_source(IRModule({name: kernel}), SM90))
    count = {
        "lines": len(text.splitlines()),
        "block barriers": text.count("cta_sync("),
        "grid barriers": text.count("grid_sync("),
        "copies": text.count("edbatch_copy_16("),
        "shared bytes": sum(4 * int(size) for size in re.findall(r"__shared__ .*\[(\d+)\];", text)),
    }
    assert count["shared bytes"] <= SHARED_BYTES
    return f"{name}: " + ", ".join(f"{number} {what}" for what, number in count.items())


def test_only_the_kernel_with_grid_barriers_is_launched_cooperatively() -> None:
    one = program("treelstm", 8)
    plain = ["blockIdx.x", "threadIdx.x"]
    assert launch_parameters(one.schedule_kernels()) == {f"{SCHEDULE}_kernel": [*plain, COOPERATIVE]}
    assert all(parameters == plain for parameters in launch_parameters(one.batch_kernels()).values())


def launch_parameters(module: Any) -> dict[str, list[str]]:
    """What the compiled kernels of a module are launched with."""
    lowered = gpu_pipeline()(tirx.transform.BindTarget(SM90)(module))
    kernels = {var.name_hint: f for var, f in lowered.functions.items() if var.name_hint.endswith("_kernel")}
    return {name: [str(tag) for tag in f.attrs[LAUNCH_PARAMETERS]] for name, f in kernels.items()}


# Compilers ------------------------------------------------------------------------------------------------------

NVCC = shutil.which("nvcc")
MOST_SPILLED = 64
"""Bytes of registers that a kernel may keep in memory."""


def compiled(source: str, arch: str, folder: Path) -> dict[str, int]:
    """Registers, spilled bytes and shared memory of a kernel, as nvcc's assembler reports them."""
    (folder / "kernel.cu").write_text(source)
    number = arch.removeprefix("sm_")
    command = [str(NVCC), "-w", "-std=c++17", f"-gencode=arch=compute_{number},code={arch}", "-Xptxas", "-v", "--cubin"]
    done = subprocess.run(
        [*command, "-o", "kernel.cubin", "kernel.cu"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = {"shared": 0}
    for name, pattern in (("registers", r"Used (\d+) registers"), ("shared", r"(\d+) bytes smem")):
        found.update((name, int(value)) for value in re.findall(pattern, done.stderr))
    found["spilled"] = sum(map(int, re.findall(r"(\d+) bytes spill stores", done.stderr)))
    return found


@pytest.mark.skipif(NVCC is None, reason="no nvcc")
@pytest.mark.parametrize(
    ("workload", "dtype", "arch"),
    [
        ("treelstm", "float32", "sm_80"),
        ("treelstm", "bfloat16", "sm_90a"),
        *(
            pytest.param(name, dtype, arch, marks=pytest.mark.slow)
            for name in WORKLOADS
            for dtype in (PRODUCTS if name == "treelstm" else ("float32", "bfloat16"))
            for arch in ("sm_80", "sm_90a")
            if (name, dtype, arch) not in (("treelstm", "float32", "sm_80"), ("treelstm", "bfloat16", "sm_90a"))
        ),
    ],
)
def test_compiles(workload: str, dtype: str, arch: str, tmp_path: Path) -> None:
    target = Target({"kind": "cuda", "arch": arch}, host="llvm")
    one = program(workload, 64, dtype)
    found = compiled(cuda_source(one.schedule_kernels(), target), arch, tmp_path)
    # Two blocks of 256 threads have to fit on a multiprocessor with 65,536 registers.
    assert found["registers"] <= 128
    assert found["spilled"] <= MOST_SPILLED
    assert found["shared"] <= SHARED_BYTES


def test_threads_may_exchange_values_through_memory() -> None:
    assert "__restrict__" not in cuda_source(program("treegru", 8).schedule_kernels(), SM90)


def test_sources_by_name() -> None:
    mod = get_workload("treelstm").cells(8)
    fused = run_passes(mod, cell_passes())
    sources = gpu_sources(fused, with_index_bounds(signature_of(mod), fused), SM90)
    assert list(sources) == ["leaf_stage0", "internal_stage0", "readout_stage0", SCHEDULE]
    assert "tanhf(" in sources["internal_stage0"]


def test_no_gpu_is_one_clear_line() -> None:
    import tvm

    from edbatch_tvm.compiler import compile_model

    if tvm.cuda(0).exist:
        pytest.skip("there is a GPU")
    workload = get_workload("treelstm")
    for target in ("cuda", {"kind": "cuda", "arch": "sm_80"}):
        with pytest.raises(TargetError, match="no NVIDIA GPU or no driver") as caught:
            compile_model(workload.cells(8), workload.weights(8), target=target)
        assert "\n" not in str(caught.value)

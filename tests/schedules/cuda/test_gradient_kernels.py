"""Kernels of the backward pass for GPUs: sums over nodes, and sections of adjoints as source and machine code."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tvm import IRModule
from tvm.target import Target

from edbatch_tvm.models import WORKLOADS, get_workload
from edbatch_tvm.training.backward_cells import section_functions
from edbatch_tvm.tvm_compat import runtime
from relay_ext.gpu_cells import gpu_program
from relay_ext.gradients.adjoint_cells import adjoint_cells
from relay_ext.gradients.sections import backward_cell
from relay_ext.index_bounds import with_index_bounds
from relay_ext.pipeline import cell_passes, run_passes
from relay_ext.push_splits import PushSplits
from relay_ext.renaming import module_of
from relay_ext.signature import signature_of
from schedules.cuda.execution_model import EmulatedThreads
from schedules.cuda.gradient_kernels import PRODUCT, SUMS, gradient_kernels
from schedules.cuda.tir_pipeline import build_kernels, cuda_source
from tests.golden import Golden
from tests.schedules.cuda.test_source import MOST_SPILLED, NVCC, SM90, compiled, kernel_text


@pytest.fixture(scope="module")
def libraries() -> list[Any]:
    """Threads forwards and backwards: none depends on what another one of its phase does."""
    target = Target({"kind": "llvm", "opt-level": 0})
    return [build_kernels(gradient_kernels(EmulatedThreads(backwards)), target) for backwards in (False, True)]


@pytest.mark.parametrize(
    ("count", "lefts", "rights", "piece"), [(1, 1, 1, 512), (16, 32, 64, 512), (70, 33, 5, 64), (129, 3, 70, 64)]
)
def test_products(libraries: list[Any], count: int, lefts: int, rights: int, piece: int) -> None:
    """Rows that lie anywhere, some of them twice; columns that do not fill a tile."""
    rng = np.random.default_rng(count)
    left, right = (rng.standard_normal(3000).astype(np.float32) for _ in range(2))
    begins = [rng.integers(0, 2900, count).astype(np.int32) for _ in range(2)]
    tables = np.concatenate([np.zeros(3, np.int32), *begins])
    pieces = -(-count // piece)
    found = []
    for library in libraries:
        out = runtime.tensor(np.full(5 + pieces * lefts * rights, np.nan, np.float32))
        given = [runtime.tensor(one) for one in (tables, left, right)]
        library[PRODUCT](*given, out, 3, 3 + count, count, piece, lefts, rights, 5)
        found.append(out.numpy())
    assert found[0].tobytes() == found[1].tobytes()
    x = np.stack([left[at : at + lefts] for at in begins[0]]).astype(np.float64)
    d = np.stack([right[at : at + rights] for at in begins[1]]).astype(np.float64)
    for number, part in enumerate(found[0][5:].reshape(pieces, lefts, rights)):
        own = slice(number * piece, (number + 1) * piece)
        np.testing.assert_allclose(part, x[own].T @ d[own], rtol=0, atol=1e-4)


def test_sums_of_rows(libraries: list[Any]) -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal(900).astype(np.float32)
    begins, starts = rng.integers(0, 850, 40).astype(np.int32), np.array([0, 1, 1, 30, 40], np.int32)
    tables = np.concatenate([begins, starts])
    found = []
    for library in libraries:
        out = runtime.tensor(np.full((4, 50), np.nan, np.float32))
        flat = out._create_view((200,), "float32", 0)
        library[SUMS](runtime.tensor(tables), runtime.tensor(rows), flat, 0, 40, 4, 37, 0, 50)
        found.append(out.numpy()[:, :37])
    assert found[0].tobytes() == found[1].tobytes()
    own = np.stack([rows[at : at + 37] for at in begins]).astype(np.float64)
    expected = [own[begin:end].sum(axis=0) for begin, end in pairwise(starts)]
    np.testing.assert_allclose(found[0], expected, rtol=0, atol=1e-5)


@cache
def backward_program(workload: str, hidden: int) -> Any:
    """The sections of all adjoints of a workload for a GPU."""
    mod = run_passes(get_workload(workload).cells(hidden), [PushSplits()])
    cells = {place: backward_cell(name, one) for place, (name, one) in enumerate(adjoint_cells(mod).cells.items())}
    sections = module_of(section_functions(cells))
    fused = run_passes(sections, cell_passes())
    return gpu_program(fused, with_index_bounds(signature_of(sections), fused))


@pytest.mark.parametrize("kernel", [PRODUCT, SUMS, "internal_adjoint_stage0", "internal_adjoint1_stage1"])
def test_source(kernel: str, golden: Golden) -> None:
    module = gradient_kernels() if kernel in (PRODUCT, SUMS) else backward_program("childsum-tree", 8).batch_kernels()
    golden(f"cuda/{kernel}.cu", kernel_text(cuda_source(IRModule({kernel: module[kernel]}), SM90)))


@pytest.mark.skipif(NVCC is None, reason="no nvcc")
@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
def test_sums_compile(arch: str, tmp_path: Path) -> None:
    target = Target({"kind": "cuda", "arch": arch}, host="llvm")
    found = compiled(cuda_source(gradient_kernels(), target), arch, tmp_path)
    assert found["registers"] <= 128
    assert found["spilled"] == 0


@pytest.mark.skipif(NVCC is None, reason="no nvcc")
@pytest.mark.parametrize(
    "workload", [name if name == "childsum-tree" else pytest.param(name, marks=pytest.mark.slow) for name in WORKLOADS]
)
def test_sections_compile(workload: str, tmp_path: Path) -> None:
    found = compiled(cuda_source(backward_program(workload, 64).schedule_kernels(), SM90), "sm_90a", tmp_path)
    assert found["registers"] <= 128
    assert found["spilled"] <= MOST_SPILLED


@pytest.mark.skipif(NVCC is None, reason="no nvcc")
def test_comparisons_compile(tmp_path: Path) -> None:
    """What hides ``x == y`` from TVM's simplifier is a number again for the CUDA compiler."""
    kernel = "largest_adjoint_stage0"
    source = cuda_source(IRModule({kernel: backward_program("random-dag", 8).batch_kernels()[kernel]}), SM90)
    assert "== (" in kernel_text(source)
    assert compiled(source, "sm_90a", tmp_path)["spilled"] == 0

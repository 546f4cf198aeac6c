"""The lowering is made of ordinary TVM passes: one Sequential, seen by TVM's instruments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tvm
from tvm.ir.instrument import PassTimingInstrument, pass_instrument

import edbatch_tvm as eb
from edbatch_tvm.backends import CompileOptions, find_backend
from edbatch_tvm.compiler.lower import lower_cells
from edbatch_tvm.errors import CellError
from edbatch_tvm.models import get_workload
from relay_ext.bind_sizes import BindSizes
from relay_ext.check_cells import CheckCells
from relay_ext.pipeline import cell_passes, kernel_passes, lowering, pipeline, program_passes, run_passes
from relay_ext.signature import signature_of
from relay_ext.split_cells import SplitCells
from schedules.cpu.machine import host_target, machine_of

NAMES = [
    "CheckCells",
    "ShareCells",
    "LegalizeCells",
    "FuseCells",
    "GuardIndices",
    "StrictFloats",
    "StageCells",
    "BatchCells",
    "WorkshareLoops",
    "JoinModelKernels",
]


@pass_instrument
class Seen:
    """Names of the passes that ran."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def run_before_pass(self, _mod: tvm.IRModule, info: tvm.ir.transform.PassInfo) -> None:
        self.names.append(info.name)


@pytest.mark.parametrize("name", ["treelstm", "mvrnn", "childsum-tree"])
def test_one_sequential_is_the_lowering(name: str) -> None:
    mod = get_workload(name).cells(8)
    signature, target = signature_of(mod), host_target()
    seen = Seen()
    with tvm.transform.PassContext(instruments=[seen]):
        together = lowering(signature, target)(mod)
    assert [one for one in seen.names if one in NAMES] == NAMES
    assert "edbatch.lowering" in seen.names
    kernels = [*kernel_passes(signature, machine_of(target)), *program_passes(signature, target)]
    one_by_one = run_passes(mod, [*cell_passes(share=True), *kernels])
    tvm.ir.assert_structural_equal(together, one_by_one)


def test_passes_mix_with_those_of_tvm() -> None:
    mod = get_workload("treelstm").cells(8)
    passes = [BindSizes({}), SplitCells(), tvm.relax.transform.CanonicalizeBindings(), *cell_passes(share=True)]
    seen = Seen()
    with tvm.transform.PassContext(instruments=[seen]):
        tvm.transform.Sequential(passes)(mod)
    ours = [name for name in seen.names if name in {"BindSizes", "SplitCells", *NAMES}]
    assert ours[:2] == ["BindSizes", "SplitCells"]
    assert ours[-6:] == NAMES[:6]


def test_compile_runs_in_the_callers_pass_context() -> None:
    workload = get_workload("treelstm")
    timing = PassTimingInstrument()
    with tvm.transform.PassContext(instruments=[timing]):
        eb.compile(workload.cells(8), workload.weights(8, 0))
        profile = timing.render()
    for name in NAMES:
        assert f"{name}: " in profile


CPU, PROGRAM = NAMES[:8], NAMES[8:]
GPU = ["CheckCells", "ShareCells", "LegalizeCells", "FuseCells", "GuardIndices", "StrictFloats"]
GROUPED = ["BindSizes", "CheckCells", "GroupOps", "LiftWeights", "SplitCells"]


@pytest.mark.parametrize(
    ("target", "options", "expected"),
    [
        ("llvm", {}, ["BindSizes", *CPU, *PROGRAM]),
        ("llvm", {"granularity": "op"}, ["BindSizes", "SplitCells", *CPU, *PROGRAM]),
        ("llvm", {"granularity": "group"}, [*GROUPED, *CPU, *PROGRAM]),
        (
            "llvm",
            {"granularity": "group-declared", "fused": False},
            [*GROUPED, *CPU, "AddGatherKernels", *PROGRAM],
        ),
        ("cuda-emulated", {}, ["BindSizes", *GPU]),
        ("cuda-emulated", {"granularity": "op"}, ["BindSizes", "SplitCells", *GPU]),
    ],
)
def test_the_module_is_dumped_after_every_pass(
    target: str, options: dict[str, Any], expected: list[str], tmp_path: Path
) -> None:
    workload = get_workload("treegru")
    chosen = CompileOptions(**options)
    backend = find_backend(target)
    lowered = lower_cells(workload.cells(4), workload.weights(4), backend, chosen, dump_dir=tmp_path)
    names = [path.stem.partition("_")[::2] for path in sorted(tmp_path.iterdir())]
    assert names == [(f"{number:02d}", name) for number, name in enumerate(expected)]
    listed = pipeline(chosen.granularity, backend.passes(signature_of(lowered.nodes), chosen))
    assert [one.info.name for one in listed] == expected
    assert sorted(tmp_path.iterdir())[-1].read_text() == lowered.module.script()


def test_a_dump_dir_that_takes_no_files_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "inside"):
        with pytest.raises(CellError, match=r"dump_dir '.*file.*' cannot be written: "):
            run_passes(get_workload("treelstm").cells(4), [CheckCells()], folder)

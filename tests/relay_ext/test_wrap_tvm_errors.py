"""What no check foresaw is one error that names the cell and its operators, and keeps the cause."""

from __future__ import annotations

from typing import Any

import pytest
import tvm

import edbatch_tvm as eb
from edbatch_tvm.backends import cpu_kernel_cache
from edbatch_tvm.errors import CellError
from edbatch_tvm.models import get_workload
from relay_ext.split_program import KernelCode


@pytest.mark.parametrize("target", ["llvm", "cuda-emulated"])
def test_an_error_of_tvm_names_the_cell_and_its_operators(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of an intrinsic that code generation does not know."""
    build, build_kernel = tvm.compile, cpu_kernel_cache.compile_kernel
    unknown = tvm.error.InternalError("Traceback\n  a line\nunknown intrinsic tirx.foo")

    def failing(module: tvm.IRModule, *arguments: Any, **named: Any) -> Any:
        if "internal" in module.script():
            raise unknown
        return build(module, *arguments, **named)

    def failing_kernel(kernel: KernelCode, *arguments: Any) -> bytes:
        """What is compiled for a CPU has no names."""
        if any("internal" in name for name in kernel.names):
            raise unknown
        return build_kernel(kernel, *arguments)

    monkeypatch.setattr(tvm, "compile", failing)
    monkeypatch.setattr(cpu_kernel_cache, "compile_kernel", failing_kernel)
    workload = get_workload("treelstm")
    expected = r"cell 'internal' cannot be compiled \(InternalError: unknown intrinsic tirx.foo\).*relax\.sigmoid"
    with pytest.raises(CellError, match=expected) as caught:
        eb.compile(workload.cells(11), workload.weights(11, 0), target=target)
    assert isinstance(caught.value.__cause__, tvm.error.InternalError)
    assert "\n" not in str(caught.value)


def test_an_error_of_a_pass_does_so_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from relay_ext import legalize_cells

    check = legalize_cells._check_lowered

    def failing(cell: str, node: Any) -> None:
        if cell == "internal":
            raise AttributeError("'NoneType' object has no attribute 'values'")
        check(cell, node)

    monkeypatch.setattr(legalize_cells, "_check_lowered", failing)
    workload = get_workload("treelstm")  # of a size that nothing else compiles: what is kept needs no pass
    with pytest.raises(CellError, match=r"cell 'internal' cannot be compiled .*'values'.*relax\.sigmoid"):
        eb.compile(workload.cells(13), workload.weights(13, 0))


def test_a_full_disk_is_no_fault_of_a_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tvm, "compile", full)
    workload = get_workload("treelstm")
    with pytest.raises(OSError, match="No space left"):
        eb.compile(workload.cells(9), workload.weights(9, 0), target={"kind": "llvm", "mcpu": "haswell"})

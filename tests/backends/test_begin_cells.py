"""Cells whose compilation has begun before all cells of a model are known: the model takes over what is done."""

from __future__ import annotations

import os
import threading
from typing import Any

import numpy as np
import pytest
from tvm import IRModule

import edbatch_tvm as eb
from edbatch_tvm.backends import cpu_cells, cpu_kernel_cache
from edbatch_tvm.compiler import begin_cells
from edbatch_tvm.runtime import compilation_cache
from relay_ext.split_program import KernelCode
from tests.backends.test_cpu_kernel_cache import Two, array, check_two

H = 8
KERNELS = 3
"""Of the cells of Two."""


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The threads that compile kernels, in a process that has compiled none; a kernel each."""
    monkeypatch.setenv(compilation_cache.FOLDER_VARIABLE, "none")
    cpu_cells.forget_cells()
    found: list[str] = []
    compile_kernel = cpu_kernel_cache.compile_kernel

    def counted(kernel: KernelCode, *arguments: Any) -> bytes:
        found.append(threading.current_thread().name)
        return compile_kernel(kernel, *arguments)

    monkeypatch.setattr(cpu_kernel_cache, "compile_kernel", counted)
    return found


def weights() -> dict[str, np.ndarray]:
    return {"table": array(5, H), "W": array(H, H)}


def begin(mod: IRModule, params: dict[str, np.ndarray], **options: Any) -> None:
    """Begin with each cell, as if the others were not known yet."""
    for name, wanted in (("leaf", "table"), ("node", "W")):
        begin_cells(IRModule({name: mod[name]}), {wanted: params[wanted]}, **options)


@pytest.mark.parametrize("options", [{}, {"storage": "bfloat16"}, {"granularity": "op"}], ids=str)
def test_what_has_begun_is_taken_over(compiled: list[str], options: dict[str, Any]) -> None:
    params = weights()
    wanted = eb.compile(Two, params, **options)
    kernels = len(compiled)
    assert kernels > 0
    cpu_cells.forget_cells()
    begin(Two, params, **options)
    model = eb.compile(Two, params, **options)
    assert len(compiled) == 2 * kernels
    assert all(name.startswith("edbatch-compile") for name in compiled)
    results = []
    for one in (wanted, model):
        b = one.builder()
        results.append(one([b.finish(b.call("node", b.call("leaf", word=1), b.call("leaf", word=4)))])[0])
    np.testing.assert_array_equal(*results)


def test_other_options_are_compiled_anew(compiled: list[str]) -> None:
    params = weights()
    begin(Two, params, fast_math=False)
    check_two(eb.compile(Two, params), params)
    assert len(compiled) == 2 * KERNELS


def test_no_thread_stays(compiled: list[str]) -> None:
    params = weights()
    begin(Two, params)
    eb.compile(Two, params)
    left = [one for one in threading.enumerate() if one.name.startswith("edbatch-compile")]
    for one in left:
        one.join(10)
    assert not any(one.is_alive() for one in left)


def test_what_fails_ahead_is_said_by_who_compiles(compiled: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    params = weights()

    def full(*_: Any) -> bytes:
        raise ValueError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(cpu_kernel_cache, "compile_kernel", full)
        begin(Two, params)
        with pytest.raises(eb.EdbatchError, match="no room"):
            eb.compile(Two, params)
    check_two(eb.compile(Two, params), params)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_waits_for_what_has_begun(compiled: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    params = weights()
    running = threading.Semaphore(0)
    ended: list[bool] = []
    compile_kernel = cpu_kernel_cache.compile_kernel

    def slow(kernel: KernelCode, *arguments: Any) -> bytes:
        running.release()
        code = compile_kernel(kernel, *arguments)
        ended.append(True)
        return code

    monkeypatch.setattr(cpu_kernel_cache, "compile_kernel", slow)
    begin(Two, params)
    running.acquire()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            eb.compile(Two, params)  # by threads of its own
            status = 0 if len(ended) == 2 * KERNELS else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(ended) == KERNELS
    check_two(eb.compile(Two, params), params)
    assert len(ended) == KERNELS


def test_the_cells_of_a_model_begin_while_it_is_recorded(compiled: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")

    class Chain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)

        def forward(self, steps: int) -> Any:
            h = self.first(torch.ones(4))
            seen.append(len(compiled) + running())
            for _ in range(steps):
                h = torch.tanh(self.second(h))
            return h

    def running() -> int:
        return len(cpu_kernel_cache._RUNNING._codes)

    seen: list[int] = []
    model = Chain()
    with torch.no_grad():
        results = eb.autobatch(model, [model.first, model.second])([2, 3])
        assert seen[0] > 0
        for steps, found in zip((2, 3), results, strict=True):
            torch.testing.assert_close(found, model(steps))

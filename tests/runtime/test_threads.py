"""Threads: how many, set at any time, beside torch, and several callers at once."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import weakref
from typing import Any

import numpy as np
import pytest
import tvm_ffi

import edbatch_tvm as eb
from edbatch_tvm.errors import TargetError
from edbatch_tvm.find_native import find_native
from edbatch_tvm.models import get_workload
from edbatch_tvm.models.workload import Workload
from edbatch_tvm.runtime import program, round_engine, threads

HIDDEN = 32


@pytest.fixture(scope="module")
def workload() -> Workload:
    return get_workload("treelstm")


@pytest.fixture(scope="module")
def model(workload: Workload) -> eb.Model:
    return eb.compile(workload.cells(HIDDEN), workload.weights(HIDDEN, 0), policy="depth")


@pytest.fixture(scope="module")
def instances(workload: Workload, model: eb.Model) -> list[eb.InstanceGraph]:
    return workload.generate(12, model.signature)


@pytest.fixture(autouse=True)
def as_before() -> Any:
    yield
    threads._wanted = None


@pytest.fixture
def always_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "SINGLE_MULTIPLIES", 0)
    monkeypatch.setattr(program, "MOST_ALONE", 0)


def outputs(result: eb.Result) -> np.ndarray:
    return np.concatenate([np.ravel(value) for one in result for value in (one if isinstance(one, list) else [one])])


def test_any_number_at_any_time(model: eb.Model, instances: list[eb.InstanceGraph], always_shared: None) -> None:
    wanted = outputs(model(instances)).copy()
    for count in [1, eb.get_num_threads(), 1, eb.get_num_threads()]:
        eb.set_num_threads(count)
        assert eb.get_num_threads() == count
        np.testing.assert_array_equal(outputs(model(instances)), wanted)
        assert tvm_ffi.get_global_func("runtime.NumThreads")() == count


def test_numbers_that_are_refused() -> None:
    most = threads.largest_number()
    for count in (0, -1, most + 1, 1.5, True):
        with pytest.raises(TargetError, match=f"expected a number from 1 to {most}"):
            eb.set_num_threads(count)  # type: ignore[arg-type]


def test_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TVM_NUM_THREADS", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert eb.get_num_threads() == threads.physical_cores()
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert eb.get_num_threads() == 3
    monkeypatch.setenv("TVM_NUM_THREADS", "5")
    assert eb.get_num_threads() == 5
    eb.set_num_threads(4)
    assert eb.get_num_threads() == 4


@pytest.mark.skipif(
    find_native("run minibatches in one call") is None or threads.physical_cores() < 2 or sys.platform != "linux",
    reason="no native kernels, one core, or a system that says nothing about cores",
)
def test_others_leave_the_core_of_the_caller(
    model: eb.Model, instances: list[eb.InstanceGraph], always_shared: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(round_engine, "SINGLE_MULTIPLIES", 0)
    monkeypatch.setattr(round_engine, "_ENGINES", weakref.WeakKeyDictionary())
    wanted = outputs(model.run(model.prepare(instances))).copy()
    eb.set_num_threads(2)
    allowed = os.sched_getaffinity(0)
    found: list[Any] = []

    def call(cores: set[int]) -> None:
        """From a thread, whose pool is its own: which cores the threads have that this starts."""
        before = set(os.listdir("/proc/self/task"))
        os.sched_setaffinity(0, cores)
        right = all(np.array_equal(outputs(model(instances)), wanted) for _ in range(3))
        own = [os.sched_getaffinity(int(one)) for one in set(os.listdir("/proc/self/task")) - before]
        found.append((right, sorted(map(len, own))))

    for cores in (allowed, {min(allowed)}):
        caller = threading.Thread(target=call, args=(cores,))
        caller.start()
        caller.join()
    (right, others), (right_alone, others_alone) = found
    assert right
    assert right_alone
    assert others == [len(allowed) - 1]
    assert others_alone == [1]  # as new threads have them: the caller's


def test_several_callers_at_once(model: eb.Model, instances: list[eb.InstanceGraph], always_shared: None) -> None:
    wanted = [outputs(model(instances[:count])).copy() for count in range(1, 6)]
    wrong: list[int] = []

    def work(count: int) -> None:
        for turn in range(15):
            eb.set_num_threads(1 + turn % threads.largest_number())
            if not np.array_equal(outputs(model(instances[:count])), wanted[count - 1]):
                wrong.append(count)

    callers = [threading.Thread(target=work, args=(count,)) for count in (1, 3, 5)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


def test_beside_torch(model: eb.Model, instances: list[eb.InstanceGraph], always_shared: None) -> None:
    torch = pytest.importorskip("torch")
    wanted = outputs(model(instances)).copy()
    left = torch.ones(256, 256)
    for _ in range(20):
        product = left @ left
        np.testing.assert_array_equal(outputs(model(instances)), wanted)
        assert float(product[0, 0]) == 256.0


def test_a_core_that_is_taken(model: eb.Model) -> None:
    taken = program.Program(model.signature, model.executor.kernels)
    taken._learn_from(pace=1.0, tasks=2, yields=0)
    assert taken._alone == 0
    taken._learn_from(pace=1.0, tasks=2, yields=1)  # perhaps the end of large work
    assert taken._alone == 1
    taken._learn_from(pace=2.0, tasks=1, yields=0)
    taken._learn_from(pace=1.0, tasks=2, yields=1)  # it was
    assert taken._next_alone == 0
    alone = []
    for _ in range(7):
        taken._learn_from(pace=3.0, tasks=2, yields=1)
        alone.append(taken._alone)
    assert alone == [1, 3, 7, 15, 31, program.MOST_ALONE, program.MOST_ALONE]


POOL = """
import tvm_ffi
from edbatch_tvm.runtime import threads
threads.prepare_threads()
threads.use_threads()
print(tvm_ffi.get_global_func("runtime.NumThreads")(), threads.get_num_threads())
"""


@pytest.mark.parametrize("variable", [None, "OMP_NUM_THREADS"])
def test_the_pool_has_the_wanted_size(variable: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TVM_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    if variable is not None:
        monkeypatch.setenv(variable, "3")
    done = subprocess.run([sys.executable, "-c", POOL], capture_output=True, text=True, check=True)
    count = 3 if variable is not None else threads.physical_cores()
    assert done.stdout.split() == [str(count), str(count)]


@pytest.mark.parametrize("text", ["99999999999", "1000000", "-3", "0", "two", "²", "4,2", "1.5"])
def test_numbers_of_threads_that_no_machine_has(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TVM_NUM_THREADS", text)
    for function in (threads.prepare_threads, eb.get_num_threads):
        with pytest.raises(TargetError, match=rf"TVM_NUM_THREADS={text}; expected a number from 1 to"):
            function()
    # The other variable is not ours alone: what is no number for this pool is not taken.
    monkeypatch.setenv("TVM_NUM_THREADS", "")
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    threads.prepare_threads()
    assert os.environ["TVM_NUM_THREADS"] == str(threads.physical_cores())

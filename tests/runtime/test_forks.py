"""Forked processes: a child runs models, on one thread, and never waits for threads that only its parent has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import edbatch_tvm as eb
from edbatch_tvm.errors import TargetError
from edbatch_tvm.models import get_workload
from edbatch_tvm.runtime import device_executor

ROOT = Path(__file__).resolve().parents[2]

COMMON = """
import multiprocessing, os, sys, threading, warnings
import numpy as np
import edbatch_tvm as eb
from edbatch_tvm.models import get_workload
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 on forks of processes with threads
workload = get_workload("treelstm")
model = eb.compile(workload.cells(48), workload.weights(48))
instances = workload.generate(24, model.cells, 0)
def outputs():
    return np.concatenate([np.concatenate(values) for values in model(instances)])
expected = outputs()
def right():
    return bool(np.allclose(outputs(), expected, rtol=0, atol=1e-5))
"""

PLAIN = """
child = os.fork()
if not child:
    threads = []
    for _ in range(2):
        threads.append(threading.Thread(target=outputs))
        threads[-1].start()
    for thread in threads:
        thread.join()
    os._exit(0 if right() else 3)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), right())
"""

EXIT = """
child = os.fork()
if not child:
    sys.exit(0 if right() else 3)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), right())
"""

POOL = """
def work(number):
    return right()
with multiprocessing.get_context("fork").Pool(2) as pool:
    print(*pool.map(work, range(4)), right())
"""

COMPILE = """
def work(number):
    own = eb.compile(workload.cells(16), workload.weights(16))
    return len(own(workload.generate(3, own.cells, number)))
with multiprocessing.get_context("fork").Pool(1) as pool:
    print(*pool.map(work, range(2)))
"""

BUSY = """
stop = threading.Event()
def run():
    while not stop.is_set():
        outputs()
threads = [threading.Thread(target=run) for _ in range(2)]
for thread in threads:
    thread.start()
codes = []
for _ in range(4):
    child = os.fork()
    if not child:
        os._exit(0 if right() else 3)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
stop.set()
for thread in threads:
    thread.join()
print(*codes)
"""

MANY = """
import time
stop = threading.Event()
def run():
    seed = 10
    while not stop.is_set():  # new graphs, whose properties are computed
        model(workload.generate(8, model.cells, seed))
        seed += 1
thread = threading.Thread(target=run)
thread.start()
codes = []
for number in range(200):
    child = os.fork()
    if not child:
        os._exit(0 if right() and len(model(workload.generate(3, model.cells, 1000 + number))) == 3 else 3)
    for _ in range(10_000):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        time.sleep(0.002)
    else:
        os.kill(child, 9)
        status = os.waitpid(child, 0)[1]
    codes.append(os.waitstatus_to_exitcode(status))
stop.set()
thread.join()
print(len(codes), set(codes))
"""

LOADER = """
import torch
class Trees(torch.utils.data.Dataset):
    def __len__(self):
        return 24
    def __getitem__(self, index):
        b = model.builder()
        pair = b.call("internal", *b.call("leaf", word=index), *b.call("leaf", word=index + 1))
        return b.finish(b.call("readout", pair[0]))
loader = torch.utils.data.DataLoader(
    Trees(), batch_size=6, num_workers=2, collate_fn=list, multiprocessing_context="fork"
)
loaded = [np.array(model(batch)[5]) for batch in loader]
here = [np.array(model([Trees()[index]])[0]) for index in (5, 11, 17, 23)]
print(len(loaded), np.allclose(loaded, here, rtol=0, atol=1e-5))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (PLAIN, "0 True"),
        (POOL, "True True True True True"),
        pytest.param(EXIT, "0 True", marks=pytest.mark.slow),
        pytest.param(COMPILE, "3 3", marks=pytest.mark.slow),
        pytest.param(BUSY, "0 0 0 0", marks=pytest.mark.slow),
        pytest.param(MANY, "200 {0}", marks=pytest.mark.slow),
        pytest.param(LOADER, "4 True", marks=pytest.mark.slow),
    ],
    ids=["fork", "pool", "exit", "compile", "busy", "many", "torch"],
)
def test_a_forked_child_runs_models(code: str, expected: str) -> None:
    if "torch" in code:
        pytest.importorskip("torch")
    done = subprocess.run(
        [sys.executable, "-c", COMMON + code], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.stdout.strip(), done.returncode) == (expected, 0), done.stderr[-2000:]


def test_a_device_is_not_for_forked_children(monkeypatch: pytest.MonkeyPatch) -> None:
    workload = get_workload("treelstm")
    model = eb.compile(workload.cells(8), workload.weights(8), target="cuda-emulated")
    monkeypatch.setattr(model.executor.memory, "in_forks", False)
    monkeypatch.setattr(device_executor, "forked", lambda: True)
    with pytest.raises(TargetError, match=r"a CUDA model in a forked process, .*spawn"):
        model(workload.generate(1, model.cells))

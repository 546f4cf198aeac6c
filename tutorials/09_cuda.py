"""
CUDA, with and without a GPU
============================

The same cells become kernels for GPUs: one for every stage of every batch, or a single one that stays on the device
and steps through the whole schedule. This script needs no GPU. It looks at the source, runs the kernels emulated on
the CPU, and runs them on a GPU only if there is one.
"""

# %%
# The source
# ----------
# ``eb.emit_source`` needs neither weights nor a device. It gives a kernel for each stage, and ``edbatch_schedule``,
# which holds all of them and waits at a barrier of the whole grid between batches.

from __future__ import annotations

import re

import matplotlib.pyplot as plt
import numpy as np
import tvm

import edbatch_tvm as eb
from edbatch_tvm.models import get_workload

H = 16
workload = get_workload("treelstm")
cells, weights = workload.cells(H), workload.weights(H, 0)
sources = eb.emit_source(cells, target={"kind": "cuda", "arch": "sm_90a"})
for name, source in sources.items():
    print(f"{name:<20} {len(source.splitlines()):>5} lines")

# %%
# Every kernel has the same few arguments. All that differs between batches stands in one vector of tables, which is
# uploaded once for a minibatch: a kernel is told a step, and looks up how many nodes it has, and where their operands
# and results lie. An operand whose stride is negative is read through the index, in the kernel.

body = sources["readout_stage0"].split("readout_stage0_kernel(")[-1].splitlines()
lines = [line for line in body if re.search(r"= tables_ptr\[|stride0 <|= \(base0", line)]
print("\n".join(lines[:12]))

# %%
# Emulated
# --------
# The target ``cuda-emulated`` runs the same kernels as loops over blocks and threads on the CPU. It is slow and for
# tests: barriers, shared memory and the table all are there. Here it is compared with the kernels for CPUs.

minibatch = workload.generate(8, eb.compile(cells, weights).cells, 0)


def outputs(target: str, launch: str) -> tuple[list[np.ndarray], eb.Report]:
    """Results of the minibatch, and the report."""
    model = eb.compile(cells, weights, target=target, policy="lookahead", launch=launch)
    result = model(minibatch)
    return [np.asarray(value) for instance in result for value in instance], result.report


calls = {}
expected, report = outputs("llvm", "schedule")
calls["llvm"] = report.kernel_calls
targets = ["cuda-emulated", "cuda"] if tvm.cuda(0).exist else ["cuda-emulated"]
for target in targets:
    for launch in ("batch", "schedule"):
        found, report = outputs(target, launch)
        error = max(np.abs(a - b).max() for a, b in zip(found, expected, strict=True))
        calls[f"{target}\nlaunch={launch!r}"] = report.kernel_calls
        print(f"{target}, launch={launch!r}: {report.kernel_calls} launches, largest difference {error:.1e}")
        assert error < 1e-5

# %%
# A launch costs a GPU several microseconds, as much as a small batch takes. With ``launch="schedule"``, the default, a
# minibatch is one launch, however long its schedule is.

figure, axis = plt.subplots(figsize=(7, 2.6), layout="constrained")
bars = axis.barh(list(calls), list(calls.values()), color=["#bab0ac", *["#4e79a7", "#f28e2b"] * len(targets)])
axis.bar_label(bars, padding=3)
axis.set(xlabel="kernel calls for a minibatch of 8 trees")
axis.invert_yaxis()
axis.spines[["top", "right"]].set_visible(False)
plt.show()

"""
Memory plans
============

A batch writes its results to consecutive rows. Whether the rows it *reads* are consecutive too decides if a kernel
reads straight through memory or row by row through an index. A memory plan orders the rows so that more reads are
straight.
"""

# %%
# Three plans
# -----------
# ``batch`` keeps the order of the schedule. ``order`` orders the nodes within each batch for their readers.
# ``pq`` asks a PQ tree over the whole minibatch for an order, once for each structure of graph.

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np

import edbatch_tvm as eb
from edbatch_tvm.memory import indexed_operands, parse_plan
from edbatch_tvm.models import get_workload
from relay_ext.group_ops import cell_plan
from relay_ext.signature import signature_of

workload = get_workload("treelstm")
cells = workload.cells(64)
graph = eb.merge(workload.generate(16, signature_of(cells), 0))
schedule, _ = eb.schedule(graph, policy="lookahead")
plans = {name: eb.plan_memory(schedule, graph, name) for name in ("batch", "order", "pq")}
for name, plan in plans.items():
    print(f"{name:<6} {plan.operands}, {plan.bytes_indexed:,} bytes through the index")
assert plans["pq"].bytes_indexed <= plans["order"].bytes_indexed <= plans["batch"].bytes_indexed

# %%
# What stays indexed says why; no plan can avoid some of it, such as a value that is read twice.

for one in indexed_operands(graph, plans["pq"])[:4]:
    print(one)

# %%
# A plan prints as the schedule with the nodes of each batch in the order of their rows, and after ``@`` the first row
# of each output. The text parses back.

text = str(plans["order"])
print("\n".join(line[:100] for line in text.splitlines()[:5]))
assert str(parse_plan(text, graph)) == text

# %%
# The arena
# ---------
# One buffer holds all values of one shape. Each batch fills a block of rows (colour), and the lines show which rows the
# first operand of the inner nodes is read from: crossing lines are reads out of order.

figure, axes = plt.subplots(1, 3, figsize=(9, 4), layout="constrained", sharey=True)
internal = graph.nodes_of(graph.type_names.index("internal"))
first = graph.operand_value[graph.operand_ptr[internal]]
batch_of = np.empty(graph.num_nodes, int)
batch_of[schedule.order] = np.repeat(np.arange(len(schedule)), np.diff(schedule.batch_ptr))
for axis, (name, plan) in zip(axes, plans.items(), strict=True):
    written = plan.value_row.reshape(graph.num_nodes, graph.stride)[internal, 0]
    read = plan.value_row[first]
    axis.scatter(read, written, s=6, c=batch_of[internal] % 10, cmap="tab10")
    share = plan.operands["indexed"] / sum(plan.operands.values())
    axis.set(title=f"{name}: {share:.0%} of operands indexed", xlabel="row read (h of the left child)")
axes[0].set_ylabel("row written (h)")
plt.show()

# %%
# A straight line of slope one is a contiguous read. ``batch`` scatters; ``order`` and ``pq`` draw more and longer
# lines.
#
# Inside a cell
# -------------
# The same tree works on the operators of one cell, when operators are what is batched (``eb.compile(...,
# granularity="group")``): it finds an order of the gates in which every batch of operators reads and writes in place.

plan = cell_plan(cells, "internal")
print(plan)
print(plan.tree)
print(f"{plan.gathers} gathers, in the order of declaration {cell_plan(cells, 'internal', planned=False).gathers}")

# %%
# A PQ tree holds all orders in which each of some sets is consecutive; ``( )`` may be permuted, ``[ ]`` reversed.

tree = eb.PQTree(6)
for together in ([0, 1], [1, 2], [3, 4, 5]):
    tree.reduce(together)
    print(together, "->", tree)

"""
The state machine: learn, inspect, save
=======================================

On a word lattice no simple rule is good: characters, words and joins alternate without an order. A finite state machine
learned on some minibatches comes near to what search finds, at the price of a table look-up for each batch.
"""

# %%
# Minibatches to learn from
# -------------------------
# Twelve workloads come with the package, with generators that have the statistics of real data. Learning looks at
# graphs alone; nothing is compiled.

from __future__ import annotations

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt

import edbatch_tvm as eb
from edbatch_tvm.batching import SearchPolicy
from edbatch_tvm.models import get_workload
from relay_ext.signature import signature_of

workload = get_workload("lattice-lstm")
signature = signature_of(workload.cells(8))
instances = workload.generate(256, signature, 0)
minibatches = [eb.merge(instances[at : at + 32]) for at in range(0, 256, 32)]
learn_on, unseen = minibatches[:5], minibatches[5:]
print(repr(minibatches[0]))

# %%
# Learn
# -----
# The default learner imitates searched schedules and then improves the table; ``learner="paper"`` is the Q-learning of
# Chen et al. (ICML 2023).

learned = eb.learn_policy(learn_on, encoding="tight")
paper = eb.learn_policy(learn_on, learner="paper")
print(learned, learned.stats)
print(paper, paper.stats)

# %%
# Inspect
# -------
# A state is what the machine sees of the ready nodes. In the encoding ``tight`` it lists the ready types by number of
# nodes; a bit tells whether running the type now lowers the number of batches that must still follow. The table says
# which type to run.

for state, action in sorted(learned.table.items(), key=lambda entry: (len(entry[0]), entry[0]))[:12]:
    ready = " > ".join(learned.type_names[word >> 1] + ("!" if word & 1 else "") for word in state)
    print(f"{ready:<50} run {learned.type_names[action]}")

# %%
# Save
# ----
# A policy file is JSON. It names the cells it is for, and is refused for others. ``edbatch learn`` writes the same, and
# ``eb.compile(..., policy="lattice.json")`` reads it.

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "lattice.json"
    learned.save(path)
    again = eb.load_policy(path)
    print(path.stat().st_size, "bytes")
assert again.table == learned.table

# %%
# On minibatches it has not seen
# ------------------------------
# No schedule has fewer batches than the lower bound; what search finds shows how near one can come.

policies = {name: name for name in ("depth", "agenda", "ratio", "lookahead")}
policies |= {"fsm (paper)": paper, "fsm": learned, "search": SearchPolicy(8)}
bound = sum(map(eb.lower_bound, unseen))
ratios = {name: sum(len(eb.schedule(g, policy)[0]) for g in unseen) / bound for name, policy in policies.items()}
for name, ratio in ratios.items():
    print(f"{name:<12} {ratio:.3f} x the bound")
assert ratios["fsm"] < ratios["agenda"]

_, info = eb.schedule(unseen[0], learned)
print(info)

# %%

figure, axis = plt.subplots(figsize=(8, 3), layout="constrained")
colours = ["#bab0ac"] * 4 + ["#f28e2b", "#4e79a7", "#59a14f"]
bars = axis.barh(list(ratios), list(ratios.values()), color=colours)
axis.bar_label(bars, fmt="%.2f", padding=3)
axis.axvline(1, color="#36424e", linewidth=1)
axis.set(xlabel="batches over the lower bound, on unseen minibatches")
axis.invert_yaxis()
axis.spines[["top", "right"]].set_visible(False)
plt.show()

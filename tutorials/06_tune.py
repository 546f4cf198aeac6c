"""
Tune kernels for a device
=========================

How many rows a kernel takes at once, how it unrolls, how many columns a thread has: what is fastest depends on the
machine and on the sizes of the batches. Tuning measures candidates on this machine, for the batch sizes that occur in
your data, and keeps what is right and faster.
"""

# %%
# What is tuned
# -------------
# Minibatches of real or realistic data. Their schedules say which batch sizes matter: here a step of
# all sentences is a batch, of 24 nodes.

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from tvm.script import ir as I
from tvm.script import relax as R

import edbatch_tvm as eb
from edbatch_tvm.graph import Builder
from relay_ext.signature import signature_of

H, WORDS, TRIALS = 32, 100, 8


@I.ir_module
class Sentence:
    @R.function
    def step(
        h: R.Tensor((H,), "float32"),
        word: R.Tensor((), "int32"),
        embedding: R.Tensor((WORDS, H), "float32"),
        W: R.Tensor((2 * H, H), "float32"),
    ):
        R.func_attr({"num_input": 2})
        h_next = R.tanh(R.matmul(R.concat([R.take(embedding, word, axis=0), h], axis=0), W))
        return h_next


rng = np.random.default_rng(0)
weights = {"embedding": rng.normal(size=(WORDS, H)), "W": rng.normal(size=(2 * H, H)) / np.sqrt(2 * H)}
weights = {name: array.astype("float32") for name, array in weights.items()}


def sentence(length: int) -> eb.InstanceGraph:
    """A sentence of random words."""
    b = Builder(signature_of(Sentence))
    h = b.zero
    for word in rng.integers(WORDS, size=length):
        h = b.call("step", h, word=word)
    return b.finish(h)


minibatches = [[sentence(20) for _ in range(24)] for _ in range(3)]
sizes: Counter[int] = Counter()
for minibatch in minibatches:
    for _, nodes in eb.schedule(eb.merge(minibatch), policy="agenda")[0]:
        sizes[len(nodes)] += 1
print(sorted(sizes.items(), reverse=True))

# %%
# Tune
# ----
# ``trials`` is the number of candidates in total: a few take seconds and give a first look, hundreds are for real use.
# ``edbatch tune treelstm --data FILE`` does the same from the command line. Candidates run in a worker process, so that
# a crash ends only that process; ``isolate=False`` saves starting it.

folder = tempfile.TemporaryDirectory()
database = Path(folder.name) / "records"
ratios: list[float] = []
report = eb.tune(
    Sentence,
    weights,
    minibatches,
    trials=TRIALS,
    database=database,
    policy="agenda",
    isolate=False,
    progress=lambda _, ratio: ratios.append(float("nan") if ratio is None else ratio),
)
print(f"{report.trials} trials, {report.failed} failed, {report.seconds:.0f} s, for {report.device}")
for outcome in report.kernels:
    for gain in outcome.gains:
        print(f"{outcome.name:<18} {gain.load!s:<14} {gain.gain:5.2f} x  {gain.choice}")

# %%
# Verified
# --------
# The tuned build is run on fresh data against the default build: records that give other results, or no gain as a
# whole, are dropped.

print(report.verification)

# %%
# Use the records
# ---------------
# A database is a folder of text. It belongs to a device: another one refuses it, and a second run makes no trial twice.

again = eb.tune(Sentence, weights, minibatches, trials=TRIALS, database=database, policy="agenda", isolate=False)
print(f"second run: {again.trials} trials, {again.known} known")
tuned = eb.compile(Sentence, weights, policy="agenda", database=database)
plain = eb.compile(Sentence, weights, policy="agenda", database="none")
for mine, its in zip(tuned(minibatches[0]), plain(minibatches[0]), strict=True):
    np.testing.assert_allclose(mine, its, atol=1e-5)

# %%
# Every dot is a candidate. The first one of each kernel is the default, so dots below the line are gains.

figure, axis = plt.subplots(figsize=(7, 2.6), layout="constrained")
axis.plot(range(1, len(ratios) + 1), ratios, "o", color="#4e79a7", label="candidate")
axis.plot(range(1, len(ratios) + 1), np.fmin.accumulate(ratios), drawstyle="steps-post", color="#f28e2b", label="best")
axis.axhline(1, color="#36424e", linewidth=1, label="default")
axis.set(xlabel="trial", ylabel="time over the default's", ylim=(0, None))
axis.legend(frameon=False, ncols=3)
plt.show()
folder.cleanup()

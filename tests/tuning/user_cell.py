"""A cell outside the stage form, as a user may write it: a softmax over the rows of a matrix between two products."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import IRModule
from tvm.script import ir as I
from tvm.script import relax as R

import edbatch_tvm as eb

WORDS = 100


def cells(H: int) -> IRModule:
    """A binary tree whose inner nodes look up four mixtures of `H` / 4 vectors each."""

    @I.ir_module
    class Mixture:
        @R.function
        def leaf(word: R.Tensor((), "int32"), table: R.Tensor((WORDS, H), "float32")):
            R.func_attr({"num_input": 1})
            x = R.take(table, word, axis=0)
            return x

        @R.function
        def mix(
            a: R.Tensor((H,), "float32"),
            b: R.Tensor((H,), "float32"),
            W: R.Tensor((2 * H, H), "float32"),
            V: R.Tensor((H, H), "float32"),
        ):
            R.func_attr({"num_input": 2})
            scores = R.reshape(R.matmul(R.concat((a, b), axis=0), W), (H // 4, 4))
            s = R.reshape(R.nn.softmax(scores, axis=0), (H,))
            y = R.tanh(R.matmul(s, V))
            return y

    return Mixture


def weights(H: int) -> dict[str, np.ndarray]:
    """Seeded weights; those of the softmax are of a size at which it does not magnify rounding."""
    rng = np.random.default_rng(0)
    shapes = {"table": (WORDS, H), "W": (2 * H, H), "V": (H, H)}
    drawn = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    return {**drawn, "W": drawn["W"] / np.float32(H) ** 0.5}


def _leaf(word: Any, table: np.ndarray) -> tuple[np.ndarray, ...]:
    return (table[word],)


def _mix(a: np.ndarray, b: np.ndarray, W: np.ndarray, V: np.ndarray) -> tuple[np.ndarray, ...]:
    x = (np.concatenate([a, b]) @ W).reshape(-1, 4)
    e = np.exp(x - x.max(0))
    return (np.tanh((e / e.sum(0)).reshape(-1) @ V),)


REFERENCE = {"leaf": _leaf, "mix": _mix}


def minibatches(signature: eb.Signature, count: int, size: int, seed: int) -> list[list[eb.InstanceGraph]]:
    """Balanced trees over random sentences."""
    rng, builder = np.random.default_rng(seed), eb.Builder(signature)

    def tree() -> eb.InstanceGraph:
        level = [builder.call("leaf", word=int(word)) for word in rng.integers(0, WORDS, rng.integers(3, 20))]
        while len(level) > 1:
            pairs = zip(level[::2], level[1::2], strict=False)
            level = [builder.call("mix", a, b) for a, b in pairs] + level[len(level) - len(level) % 2 :]
        return builder.finish(level[0])

    return [[tree() for _ in range(size)] for _ in range(count)]

"""A model of a kind not shipped: a child-sum TreeLSTM, any number of children, a forget gate per child."""

from __future__ import annotations

import numpy as np
from tvm.script import ir as I
from tvm.script import relax as R

import edbatch_tvm as eb

H, WORDS = 24, 10


def cells() -> object:
    @I.ir_module
    class ChildSum:
        @R.function
        def node(
            word: R.Tensor((), "int32"),
            h: R.Tensor(("k", H), "float32"),
            c: R.Tensor(("k", H), "float32"),
            embedding: R.Tensor((WORDS, H), "float32"),
            W: R.Tensor((H, 4 * H), "float32"),
            U: R.Tensor((H, 3 * H), "float32"),
            U_f: R.Tensor((H, H), "float32"),
        ):
            R.func_attr({"num_input": 3})
            with R.dataflow():
                x = R.split(R.matmul(R.take(embedding, word, axis=0), W), 4, axis=-1)
                s = R.split(R.matmul(R.sum(h, axis=0), U), 3, axis=-1)
                i = R.sigmoid(R.add(x[0], s[0]))
                o = R.sigmoid(R.add(x[1], s[1]))
                u = R.tanh(R.add(x[2], s[2]))
                f = R.sigmoid(R.add(R.matmul(h, U_f), x[3]))
                c_new = R.add(R.multiply(i, u), R.sum(R.multiply(f, c), axis=0))
                h_new = R.multiply(o, R.tanh(c_new))
                R.output(h_new, c_new)
            return (h_new, c_new)

    return ChildSum


def reference(w: dict[str, np.ndarray], tree: tuple) -> tuple[np.ndarray, np.ndarray]:
    word, *children = tree
    states = [reference(w, child) for child in children]
    sigmoid = lambda a: 1 / (1 + np.exp(-a))  # noqa: E731
    x = np.split(w["embedding"][word] @ w["W"], 4)
    s = np.split(sum((h for h, _ in states), np.zeros(H)) @ w["U"], 3)
    c = sigmoid(x[0] + s[0]) * np.tanh(x[2] + s[2])
    c = c + sum(sigmoid(h @ w["U_f"] + x[3]) * c_child for h, c_child in states)
    return sigmoid(x[1] + s[1]) * np.tanh(c), c


def random_tree(rng: np.random.Generator, depth: int = 4) -> tuple:
    children = rng.integers(0, 4) if depth else 0
    return (int(rng.integers(WORDS)), *(random_tree(rng, depth - 1) for _ in range(children)))


def test_child_sum_tree_lstm(rng: np.random.Generator) -> None:
    shapes = {"embedding": (WORDS, H), "W": (H, 4 * H), "U": (H, 3 * H), "U_f": (H, H)}
    weights = {name: rng.uniform(-0.3, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}
    model = eb.compile(cells(), weights)

    def instance(tree: tuple) -> eb.InstanceGraph:
        b = model.builder()

        def call(tree: tuple) -> tuple:
            word, *children = tree
            states = [call(child) for child in children]
            return b.call("node", [h for h, _ in states], [c for _, c in states], word=word)

        return b.finish(call(tree)[0])

    trees = [random_tree(rng) for _ in range(20)]
    result = model([instance(tree) for tree in trees])
    wide = {name: weight.astype(np.float64) for name, weight in weights.items()}
    for tree, h in zip(trees, result, strict=True):
        np.testing.assert_allclose(h, reference(wide, tree)[0], rtol=0, atol=1e-5)
    assert result.report.batches == result.report.lower_bound == 5

"""Small matrices times vectors, beside loops of PyTorch operations: ``python -m benchmarks.small_matrices``.

The likelihood of a phylogenetic tree: every node has a vector of `states` numbers for each site of an alignment. That
of an inner node is the product, element by element, of what its two children have, each multiplied by the matrix of its
branch. The trees are random; the vectors of the taxa are rows of a table. Beside it two loops of PyTorch operations
compute the same, one node at a time and one level of the tree at a time. All run in turns, forward only; the times are
medians in milliseconds, and results are compared in the same run.
"""

# TVMScript annotates parameters with calls, which no type checker follows.
# mypy: disable-error-code="valid-type,no-untyped-def"

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch
from tvm.script import ir as I
from tvm.script import relax as R

import edbatch_tvm as eb

D = "float64"


def state_major(taxa: int, states: int, sites: int) -> Any:
    """Cells of values ``[states, sites]``: each row of a matrix product lies along the sites."""
    N, K, S = taxa, states, sites

    @I.ir_module
    class StateMajor:
        @R.function
        def inner(x: R.Tensor((K, S), D), y: R.Tensor((K, S), D), P: R.Tensor((K, K), D), Q: R.Tensor((K, K), D)):
            R.func_attr({"num_input": 4})
            with R.dataflow():
                z = R.multiply(R.matmul(P, x), R.matmul(Q, y))
                R.output(z)
            return z

        @R.function
        def one_taxon(
            x: R.Tensor((K, S), D),
            P: R.Tensor((K, K), D),
            Q: R.Tensor((K, K), D),
            taxon: R.Tensor((), "int32"),
            table: R.Tensor((N, K, S), D),
        ):
            R.func_attr({"num_input": 4})
            with R.dataflow():
                z = R.multiply(R.matmul(P, x), R.matmul(Q, R.take(table, taxon, axis=0)))
                R.output(z)
            return z

        @R.function
        def two_taxa(
            P: R.Tensor((K, K), D),
            Q: R.Tensor((K, K), D),
            a: R.Tensor((), "int32"),
            b: R.Tensor((), "int32"),
            table: R.Tensor((N, K, S), D),
        ):
            R.func_attr({"num_input": 4})
            with R.dataflow():
                z = R.multiply(R.matmul(P, R.take(table, a, axis=0)), R.matmul(Q, R.take(table, b, axis=0)))
                R.output(z)
            return z

    return StateMajor


def site_major(taxa: int, states: int, sites: int) -> Any:
    """Cells of values ``[sites, states]``: the vectors of the sites follow one another."""
    N, K, S = taxa, states, sites

    @I.ir_module
    class SiteMajor:
        @R.function
        def inner(x: R.Tensor((S, K), D), y: R.Tensor((S, K), D), P: R.Tensor((K, K), D), Q: R.Tensor((K, K), D)):
            R.func_attr({"num_input": 4})
            with R.dataflow():
                z = R.multiply(R.matmul(x, R.permute_dims(P)), R.matmul(y, R.permute_dims(Q)))
                R.output(z)
            return z

        @R.function
        def one_taxon(
            x: R.Tensor((S, K), D),
            P: R.Tensor((K, K), D),
            Q: R.Tensor((K, K), D),
            taxon: R.Tensor((), "int32"),
            table: R.Tensor((N, S, K), D),
        ):
            R.func_attr({"num_input": 4})
            with R.dataflow():
                y = R.take(table, taxon, axis=0)
                z = R.multiply(R.matmul(x, R.permute_dims(P)), R.matmul(y, R.permute_dims(Q)))
                R.output(z)
            return z

        @R.function
        def two_taxa(
            P: R.Tensor((K, K), D),
            Q: R.Tensor((K, K), D),
            a: R.Tensor((), "int32"),
            b: R.Tensor((), "int32"),
            table: R.Tensor((N, S, K), D),
        ):
            R.func_attr({"num_input": 4})
            with R.dataflow():
                x = R.take(table, a, axis=0)
                y = R.take(table, b, axis=0)
                z = R.multiply(R.matmul(x, R.permute_dims(P)), R.matmul(y, R.permute_dims(Q)))
                R.output(z)
            return z

    return SiteMajor


LAYOUTS = {"state-major": state_major, "site-major": site_major}


@dataclass(frozen=True)
class Tree:
    """A random binary tree: inner node ``taxa + i`` joins the two nodes ``joins[i]``."""

    taxa: int
    joins: list[tuple[int, int]]

    def levels(self) -> list[list[int]]:
        """The inner nodes by depth, from the taxa up."""
        depth, found = [0] * self.taxa, {}
        for node, (left, right) in enumerate(self.joins, self.taxa):
            depth.append(1 + max(depth[left], depth[right]))
            found.setdefault(depth[node], []).append(node)
        return [found[level] for level in sorted(found)]


def random_tree(taxa: int, rng: np.random.Generator) -> Tree:
    """Two roots chosen at random are joined until there is one."""
    roots, joins = list(range(taxa)), []
    for node in range(taxa, 2 * taxa - 1):
        left, right = (roots.pop(int(rng.integers(len(roots)))) for _ in range(2))
        joins.append((left, right))
        roots.append(node)
    return Tree(taxa, joins)


def instance_of(model: eb.Model, tree: Tree, matrices: np.ndarray) -> eb.InstanceGraph:
    """The tree as an instance; `matrices` has that of the branch above each node."""
    b, values = model.builder(), [None] * tree.taxa
    for left, right in tree.joins:
        if right < tree.taxa <= left:
            left, right = right, left
        P, Q = matrices[left], matrices[right]
        match left < tree.taxa, right < tree.taxa:
            case True, True:
                values.append(b.call("two_taxa", P=P, Q=Q, a=left, b=right))
            case True, False:
                values.append(b.call("one_taxon", x=values[right], P=Q, Q=P, taxon=left))
            case _:
                values.append(b.call("inner", x=values[left], y=values[right], P=P, Q=Q))
    return b.finish(values[-1])


def by_nodes(tree: Tree, table: torch.Tensor, matrices: torch.Tensor, product: Callable[..., Any]) -> torch.Tensor:
    """A loop over nodes."""
    values = list(table)
    for left, right in tree.joins:
        values.append(product(matrices[left], values[left]) * product(matrices[right], values[right]))
    return values[-1]


def by_levels(
    plan: list[torch.Tensor], rows: torch.Tensor, first: int, matrices: torch.Tensor, product: Callable[..., Any]
) -> torch.Tensor:
    """A loop over levels; values lie in `rows`, those of taxa first, and `plan` has what each level reads."""
    at = first
    for nodes, places in plan:
        both = product(matrices[nodes], rows[places])
        end = at + len(both) // 2
        torch.mul(both[: end - at], both[end - at :], out=rows[at:end])
        at = end
    return rows[at - 1]


def level_plan(tree: Tree) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """For each level the children, left ones first, and the rows where their values lie."""
    place, at, plan = {node: node for node in range(tree.taxa)}, tree.taxa, []
    for level in tree.levels():
        nodes = [tree.joins[node - tree.taxa][side] for side in (0, 1) for node in level]
        plan.append((torch.tensor(nodes), torch.tensor([place[node] for node in nodes])))
        for node in level:
            place[node] = at
            at += 1
    return plan


def measure(layout: str, taxa: int, states: int, sites: int, policy: str, repeat: int) -> dict[str, float]:
    """Median milliseconds of each contender; they are compared with PyTorch's loop over nodes."""
    rng = np.random.default_rng(0)
    tree = random_tree(taxa, rng)
    last_sites = layout == "state-major"
    table = rng.random((taxa, states, sites) if last_sites else (taxa, sites, states)) + 0.5
    matrices = rng.random((2 * taxa - 1, states, states))
    matrices /= matrices.sum(-1, keepdims=True)
    model = eb.compile(LAYOUTS[layout](taxa, states, sites), {"table": table}, policy=policy)
    instance = instance_of(model, tree, matrices)
    given, factors = torch.from_numpy(table), torch.from_numpy(matrices)
    product = (lambda P, x: P @ x) if last_sites else (lambda P, x: x @ P.transpose(-1, -2))
    rows = torch.cat([given, torch.empty((taxa - 1, *given.shape[1:]), dtype=given.dtype)])
    plan = level_plan(tree)
    contenders: dict[str, Callable[[], Any]] = {
        "ours": lambda: model([instance])[0],
        "nodes": lambda: by_nodes(tree, given, factors, product),
        "levels": lambda: by_levels(plan, rows, taxa, factors, product),
    }
    expected = contenders["nodes"]()
    for name, run in contenders.items():
        error = float((torch.as_tensor(np.asarray(run())) - expected).abs().max() / expected.abs().max())
        if not error <= 1e-13:
            raise SystemExit(f"{name} differs by {error}")
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeat):
        for name, run in contenders.items():
            begin = perf_counter()
            run()
            times[name].append((perf_counter() - begin) * 1e3)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--taxa", type=int, default=512)
    parser.add_argument("--states", type=int, nargs="+", default=[4])
    parser.add_argument("--sites", type=int, default=2000)
    parser.add_argument("--layouts", nargs="+", choices=list(LAYOUTS), default=list(LAYOUTS))
    parser.add_argument("--policies", nargs="+", default=["postorder", "lookahead"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=15)
    arguments = parser.parse_args()
    eb.set_num_threads(arguments.threads)
    torch.set_num_threads(arguments.threads)
    print(f"{'layout':12} {'states':>6} {'policy':10} {'ours':>8} {'nodes':>8} {'levels':>8} {'ratio':>6}")
    for layout in arguments.layouts:
        for states in arguments.states:
            for policy in arguments.policies:
                found = measure(layout, arguments.taxa, states, arguments.sites, policy, arguments.repeat)
                ours, nodes, levels = (found[name] for name in ("ours", "nodes", "levels"))
                times = f"{ours:8.2f} {nodes:8.2f} {levels:8.2f} {min(nodes, levels) / ours:6.2f}"
                print(f"{layout:12} {states:6} {policy:10} {times}", flush=True)


if __name__ == "__main__":
    main()

"""Batches as an engineer writes them by hand: phase by phase, in a phase level by level, in a level type by type."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from edbatch_tvm.graph import InstanceGraph

PHASES: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "lstm-nmt": (("source", "target"), ("encoder",), ("decoder",), ("readout",)),
    "bilstm-tagger-char": (
        ("word", *(f"char_{side}_layer{layer}" for side in ("forward", "backward") for layer in (1, 2))),
        ("spell",),
        tuple(f"{side}_layer{layer}" for side in ("forward", "backward") for layer in (1, 2)),
        ("tag",),
    ),
}
"""Cells of the phases, one after another, of workloads that have others than :func:`phases_of` finds."""

CLOSING = frozenset({"join"})
"""Cells that end a level: they come after its other cells, and what they make is of the same level."""


def phases_of(graph: InstanceGraph) -> tuple[tuple[str, ...], ...]:
    """Cells without operands; those in between; cells that nothing reads."""
    assert graph.signature is not None
    read = set(graph.node_type[graph.operand_node[graph.operand_node >= 0]].tolist())
    first = tuple(cell.name for cell in graph.signature if not cell.operands)
    last = tuple(
        cell.name for number, cell in enumerate(graph.signature) if number not in read and cell.name not in first
    )
    middle = tuple(name for name in graph.signature.names if name not in first and name not in last)
    return first, middle, last


def hand_batches(graph: InstanceGraph, phases: Sequence[Sequence[str]]) -> list[tuple[int, np.ndarray]]:
    """Batches of `graph`, each a type id and its nodes.

    Parameters
    ----------
    graph : InstanceGraph
        A minibatch.
    phases : sequence of sequences of str
        Cells of each phase. No phase reads a later one.
    """
    assert graph.signature is not None
    names = graph.signature.names
    phase_of = {name: number for number, cells in enumerate(phases) for name in cells}
    phase = [phase_of[name] for name in names]
    weight = [0 if name in CLOSING else 1 for name in names]
    pointer, producer, types = graph.operand_ptr.tolist(), graph.operand_node.tolist(), graph.node_type.tolist()
    level: list[int] = []
    batches: dict[tuple[int, int, int, int], list[int]] = defaultdict(list)
    for node, kind in enumerate(types):
        own = phase[kind]
        before = (p for p in producer[pointer[node] : pointer[node + 1]] if p >= 0 and phase[types[p]] == own)
        level.append(max((level[p] for p in before), default=0) + weight[kind])
        batches[own, level[node], 1 - weight[kind], kind].append(node)
    return [(key[3], np.array(nodes, np.int64)) for key, nodes in sorted(batches.items())]

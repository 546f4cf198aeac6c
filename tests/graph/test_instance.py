"""Views of an instance graph: repr, operand producers, operand slots; and what importing the package costs."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import numpy as np
from hypothesis import given

from edbatch_tvm.graph import Builder, InstanceGraph, format_graph, merge
from edbatch_tvm.graph.validate import operand_slots
from tests.graph.cells import TREE
from tests.graph.test_text import golden
from tests.strategies import Minibatch, bare_graphs, minibatches


def test_repr_names_sizes_only() -> None:
    assert repr(InstanceGraph.from_arrays([4, 4, 2], [0, 0, 0, 2], [0, 1])) == (
        "InstanceGraph(node_type=[3], operand_value=[2], types=2)"
    )
    assert repr(golden()) == (
        "InstanceGraph(node_type=[6], operand_value=[10], types=5, node_ptr=[3], outputs=[2], external=[2])"
    )
    assert repr(TREE) == "Signature(leaf, pair, join, readout, scale)"
    large = merge([golden()] * 1000)
    assert len(repr(large)) < 120
    assert len(format_graph(large)) > 100_000


@given(minibatches())
def test_operand_node_and_slots(minibatch: Minibatch) -> None:
    graph = merge(minibatch.instances)
    slots, producers = [], []
    for node in range(graph.num_nodes):
        cell = minibatch.signature[int(graph.node_type[node])]
        values = graph.operand_value[graph.operand_ptr[node] : graph.operand_ptr[node + 1]].tolist()
        producers += [value // graph.stride if value >= 0 else -1 for value in values]
        repeat = (len(values) - cell.fixed_arity) // (cell.variadic_count or 1)
        for slot, operand in enumerate(cell.operands):
            slots += [slot] * (repeat if operand.variadic else 1)
    assert operand_slots(graph).tolist() == slots
    assert operand_slots(graph).dtype == np.int16
    assert graph.operand_node.tolist() == producers
    assert graph.operand_node.dtype == np.int32
    read = [set(producers[begin:end]) - {-1} for begin, end in pairwise(graph.operand_ptr.tolist())]
    ptr, user, waits = graph.uses
    assert waits.tolist() == [len(nodes) for nodes in read]
    assert [user[begin:end].tolist() for begin, end in pairwise(ptr.tolist())] == [
        [other for other, nodes in enumerate(read) if node in nodes] for node in range(graph.num_nodes)
    ]
    assert {array.dtype for array in graph.uses} == {np.dtype(np.int32)}


@given(bare_graphs())
def test_types(graph: InstanceGraph) -> None:
    assert graph.type_count.sum() == graph.num_nodes
    everything = np.concatenate([graph.nodes_of(kind) for kind in range(graph.num_types)] or [[]])
    assert sorted(everything.tolist()) == list(range(graph.num_nodes))


def test_importing_the_graph_package_loads_no_framework() -> None:
    code = (
        "import sys; import edbatch_tvm.graph; "
        "print(*sorted({'tvm', 'tvm_ffi', 'torch', 'networkx', 'tqdm'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""


def test_calls_are_cheap() -> None:
    """A call appends to flat lists: no work per call that grows with the graph."""
    b = Builder(TREE)
    h, c = b.call("leaf", word=1)
    for _ in range(20_000):
        h, c = b.call("pair", h, c, h, c)
    graph = b.finish(h)
    assert graph.num_nodes == 20_001
    assert len(graph.operand_value) == 80_000

"""Bare graphs, given as arrays without cells, as graphs whose values have a shape."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edbatch_tvm.graph.instance import InstanceGraph
from edbatch_tvm.graph.spec import CellSignature, Operand, Signature, ValueSpec


def with_signature(graph: InstanceGraph, shape: Sequence[int] = (1,)) -> InstanceGraph:
    """`graph` itself if it has a signature, else the same nodes over cells made up from them.

    A type whose nodes all have one arity becomes a cell with that many operands; any other type becomes a cell with a
    variadic operand. All values are float32 of `shape`.
    """
    if graph.signature is not None:
        return graph
    spec = ValueSpec(tuple(shape))
    arity = np.diff(graph.operand_ptr)
    cells = []
    for type_id, name in enumerate(graph.type_names):
        found = np.unique(arity[graph.node_type == type_id])
        if len(found) > 1:
            operands: tuple[Operand, ...] = (Operand("x", spec, variadic=True),)
        else:
            operands = tuple(Operand(f"x{i}", spec) for i in range(int(found.sum())))
        cells.append(CellSignature(name, operands, (), (spec,)))
    dressed = InstanceGraph(
        graph.node_type,
        graph.operand_ptr,
        graph.operand_value,
        Signature(cells),
        outputs=graph.outputs,
        node_ptr=graph.node_ptr,
        output_ptr=graph.output_ptr,
    )
    dressed.checked = graph.checked
    return dressed

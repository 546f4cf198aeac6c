"""Graphs too large for their index types are refused before anything is allocated."""

from __future__ import annotations

import numpy as np
import pytest

from edbatch_tvm.errors import CellError, DataError, GraphError
from edbatch_tvm.graph import Builder, CellSignature, InstanceGraph, Signature, ValueSpec, merge, parse_graph

WIDE = Signature([CellSignature("wide", (), (), (ValueSpec((1,)),) * 64)])


def test_more_values_than_int32() -> None:
    count = 2**24
    zeros = np.broadcast_to(np.int32(0), count + 1)  # no memory behind it
    graph = InstanceGraph(np.broadcast_to(np.int16(0), count), zeros, np.empty(0, np.int32), WIDE)
    graph.checked = True
    with pytest.raises(GraphError, match=r"a minibatch of 33554432 nodes; expected values that fit int32"):
        merge([graph, graph])


def test_more_types_than_int16() -> None:
    cells = [CellSignature(f"c{number}", (), (), (ValueSpec((1,)),)) for number in range(32768)]
    with pytest.raises(CellError, match="32768 cells; expected at most 32767"):
        Signature(cells)
    last = Builder(Signature(cells[:-1]))
    graph = last.finish(last.call("c32766"))
    assert graph.node_type.tolist() == [32766]
    with pytest.raises(GraphError, match="40000 different types"):
        InstanceGraph.from_arrays(range(40000), [0] * 40001, [])


@pytest.mark.parametrize("value", [2**31 - 1, 2**31, -(2**31) - 1, 2**63, 10**30])
def test_operands_of_any_size(value: int) -> None:
    with pytest.raises(GraphError):
        InstanceGraph.from_arrays([0, 0], [0, 0, 1], [value])


@pytest.mark.parametrize("value", [2**31, 2**63, 10**30])
def test_operands_of_any_size_in_text(value: int) -> None:
    with pytest.raises(DataError, match="line 3"):
        parse_graph(f"instance\n %0 = 7()\n %1 = 7(%{value})")

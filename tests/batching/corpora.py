"""Graphs of the real inputs in the folder ``shared/data`` beside the project; a test skips where it is missing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edbatch_tvm.graph import InstanceGraph, merge
from tests.batching.graphs import INTERNAL, LEAF, READOUT, Arrays, bilstm, lattice_graph

DATA = Path(__file__).parents[3] / "shared" / "data"


def data_file(name: str) -> Path:
    """A file of the real inputs; skips the test where there is none."""
    path = DATA / name
    if not path.is_file():
        pytest.skip(f"no {name} in the folder shared/data beside the project")
    return path


def read_trees(name: str) -> list[InstanceGraph]:
    """Parse trees."""
    graphs = []
    for line in data_file(name).read_text().splitlines():
        arrays = Arrays()
        open_children: list[list[int]] = []
        done: list[int] = []
        for bracket in re.findall(r"\(|\)", line):
            if bracket == "(":
                open_children.append([])
                continue
            children = open_children.pop()
            node = arrays.add(INTERNAL if children else LEAF, *children)
            done.append(node)
            if open_children:
                open_children[-1].append(node)
        for node in done:
            arrays.add(READOUT, node)
        graphs.append(arrays.graph())
    return graphs


def read_sentences(name: str, limit: int) -> list[InstanceGraph]:
    """Tagged sentences."""
    lines = data_file(name).read_text().splitlines()[:limit]
    return [bilstm(len(line.split())) for line in lines if line.split()]


def read_lattices(name: str) -> list[InstanceGraph]:
    """Word lattices."""
    lines = iter(line for line in data_file(name).read_text().splitlines() if line.strip())
    graphs = []
    for _ in range(int(next(lines))):
        count = int(next(lines))
        next(lines)
        arcs = []
        for _ in range(count):
            numbers = [int(number) for number in next(lines).split()]
            arcs.append(numbers[1 : 1 + 2 * numbers[0] : 2])
        graphs.append(lattice_graph(arcs))
    return graphs


def in_minibatches(instances: list[InstanceGraph], size: int = 64) -> list[InstanceGraph]:
    """Minibatch graphs in file order; the last may be short."""
    return [merge(instances[begin : begin + size]) for begin in range(0, len(instances), size)]

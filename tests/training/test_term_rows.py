"""The addresses of rows by the compiled kernel are those that NumPy finds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edbatch_tvm as eb
from edbatch_tvm.models import WORKLOADS, get_workload
from edbatch_tvm.training.gradient_layout import GradientLayout, TypeTerms
from edbatch_tvm.training.row_sources import PassRows
from edbatch_tvm.training.term_rows import TermRows
from tests.training.drawn import drawn_minibatch
from tests.training.test_backward import random_cotangents


def backward_rows(model: Any, result: Any, chosen: list[int]) -> PassRows:
    """The rows of a backward pass."""
    found: list[PassRows] = []

    class Noted(PassRows):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            found.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edbatch_tvm.training.backward_model.PassRows", Noted)
        result.backward(random_cotangents(result, chosen), retain=True)
    return found[0]


def compare(model: Any, result: Any, chosen: list[int]) -> int:
    """Compare all rows of all terms; how many."""
    rows = backward_rows(model, result, chosen)
    own = model._backward
    types = []
    layout = GradientLayout()
    for place, type_id in enumerate(rows.made.types):
        sections = own._types[type_id].sections
        cells = [own.compiled.signature[section.type_id] for section in sections]
        per_row = [section.per_row for section in sections]
        types.append(TypeTerms(type_id, model.signature[type_id], own.cells[type_id].terms, cells, per_row))
        layout.add(place, types[-1])
    wanted = [one for product in layout.products for column in product.rows for one in column]
    wanted += [one for table in layout.tables for column in table.rows for one in column]
    itemsize = 8 if model.target == "numpy" else 4
    found, starts, memory = TermRows(wanted, types, model.signature, own.compiled.signature, itemsize).addresses(rows)
    assert starts[-1] == len(found)
    for one, begin, end in zip(wanted, starts[:-1], starts[1:], strict=True):
        place = rows.groups[one.place].place(one.source)
        if one.source.kind == "attribute":  # copied, so it lies elsewhere: its numbers are the same
            values = []
            for at in found[begin:end].tolist():
                array = next(each for each in memory if lies_in(each, at))
                values.append(array[(at - start_of(array)) // array.strides[0]])
            np.testing.assert_array_equal(np.array(values).reshape(len(place.rows), -1), place.memory[place.rows])
            continue
        first = start_of(place.memory) + place.rows * place.memory.strides[0]
        each = np.arange(one.each) * one.width * itemsize
        np.testing.assert_array_equal(found[begin:end], (first[:, None] + each).ravel())
    return len(found)


def start_of(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


def lies_in(array: np.ndarray, address: int) -> bool:
    return start_of(array) <= address < start_of(array) + len(array) * array.strides[0]


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_random_graphs(data: st.DataObject) -> None:
    """Variadic operands with any number of rows, external rows, zeros, nodes without a cotangent."""
    compare(*drawn_minibatch(data))


@pytest.mark.parametrize(
    "name", [one if one == "childsum-tree" else pytest.param(one, marks=pytest.mark.slow) for one in WORKLOADS]
)
def test_workload(name: str) -> None:
    workload = get_workload(name)
    model = eb.compile(workload.cells(4), workload.weights(4), target="numpy", training=True)
    result = model(workload.generate(3, model.cells, seed=1))
    assert compare(model, result, result.graph.outputs.tolist())

"""How large the indices of a cell may be: the rows of the tables that they read."""

from __future__ import annotations

import pytest
from tvm.script import ir as I
from tvm.script import relax as R

from edbatch_tvm.errors import CellError
from relay_ext.index_bounds import with_index_bounds
from relay_ext.signature import signature_of
from tests.relay_ext.conftest import lower_to

H = 16


@I.ir_module
class Lookup:
    @R.function
    def cell(word: R.Tensor((), "int32"), query: R.Tensor((H,), "float32"), table: R.Tensor((9, H), "float32")):
        R.func_attr({"num_input": 2})
        with R.dataflow():
            y = R.add(query, R.take(table, word, axis=0))
            R.output(y)
        return y


def test_bounds_of_index_attributes() -> None:
    mod = lower_to(Lookup, "FuseCells")
    assert with_index_bounds(signature_of(Lookup), mod)["cell"].attributes[0].bound == 9


def test_an_index_of_unknown_range_is_refused() -> None:
    @I.ir_module
    class Shifted:
        @R.function
        def cell(word: R.Tensor((), "int32"), table: R.Tensor((9, H), "float32")):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                y = R.take(table, R.add(word, R.const(1, "int32")), axis=0)
                R.output(y)
            return y

    @I.ir_module
    class Clipped:
        @R.function
        def cell(word: R.Tensor((), "int32"), table: R.Tensor((9, H), "float32")):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                y = R.take(table, word, axis=0, mode="clip")
                R.output(y)
            return y

    with pytest.raises(CellError, match=r"cell 'cell' indexes 'table' with .*, whose range is not known"):
        with_index_bounds(signature_of(Shifted), lower_to(Shifted, "FuseCells"))
    assert with_index_bounds(signature_of(Clipped), lower_to(Clipped, "FuseCells"))["cell"].attributes[0].bound is None

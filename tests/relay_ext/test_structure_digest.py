"""Digests of code are equal for equal code, and for nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

from edbatch_tvm.tvm_compat import structural_equal, tirx
from relay_ext.structure_digest import structure_digest

KINDS = (tirx.ForKind.SERIAL, tirx.ForKind.PARALLEL, tirx.ForKind.VECTORIZED, tirx.ForKind.UNROLLED)


def loops(
    kind: int = KINDS[0], names: tuple[str, str] = ("i", "j"), value: float = 1.0, align: int = 64, kept: str = "f"
) -> tirx.PrimFunc:
    """Two loops around a store; equal names are one string, which moves the place of all that follows."""
    outer, inner = (tirx.Var(name, "int32") for name in names)
    buffer = tirx.decl_buffer((4, 4), "float32", "buffer", data_alignment=align)
    store = tirx.BufferStore(buffer, tirx.FloatImm("float32", value), [outer, inner])
    body = tirx.For(outer, 0, 4, KINDS[0], tirx.For(inner, 0, 4, kind, store))
    return tirx.PrimFunc([buffer], body).with_attr("global_symbol", kept)


CODE: dict[str, Any] = {
    **{f"kind {kind}": loops(kind) for kind in KINDS},
    "value": loops(value=2.0),
    "fraction": loops(value=1.5),
    "alignment": loops(align=32),
    "attribute": loops(kept="g"),
}


@pytest.mark.parametrize("names", [("i", "i"), ("i", "buffer"), ("a", "b")])
def test_names_of_variables_do_not_count(names: tuple[str, str]) -> None:
    for kind in KINDS:
        assert structure_digest(loops(kind, names)) == structure_digest(loops(kind))
        assert structure_digest(loops(kind, names), names=True) != structure_digest(loops(kind), names=True)


def test_everything_else_counts() -> None:
    digests = {name: structure_digest(code) for name, code in CODE.items()}
    for one, code in CODE.items():
        for other, another in CODE.items():
            assert (digests[one] == digests[other]) == structural_equal(code, another), (one, other)
    assert len(set(digests.values())) == len(CODE)


def test_places_in_files_do_not_count() -> None:
    @I.ir_module
    class One:
        @R.function
        def cell(x: R.Tensor((3,), "float32")):
            y = R.tanh(R.add(x, x))
            return y

    @I.ir_module
    class Another:
        @R.function
        def cell(x: R.Tensor((3,), "float32")):

            y = R.tanh(
                R.add(x, x),
            )
            return y

    one, another = One["cell"], Another["cell"]
    assert structure_digest(one, names=True) == structure_digest(another, names=True)


def constant(values: list[float]) -> relax.Function:
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((2,), "float32"))
    with builder.function("cell", [x]):
        with builder.dataflow():
            out = builder.emit_output(R.add(x, relax.const(np.array(values, "float32"))))
        builder.emit_func_output(out)
    return builder.finalize()["cell"]


def test_constants_count() -> None:
    assert structure_digest(constant([1, 2])) == structure_digest(constant([1, 2]))
    assert structure_digest(constant([1, 2])) != structure_digest(constant([1, 3]))

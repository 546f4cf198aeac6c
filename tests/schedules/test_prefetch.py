"""Rows of the next tile are asked for where a stage has no products, and the results are those of NumPy."""

from __future__ import annotations

import re

import numpy as np
import pytest
from tvm.script import ir as I
from tvm.script import relax as R

import edbatch_tvm as eb
from relay_ext.pipeline import cell_passes, kernel_passes, run_passes
from relay_ext.signature import signature_of
from schedules.cpu.machine import AVX2, AVX512, Machine

N = 300
"""Columns of a row; a tile has several rows, and the last chunk is masked."""


@I.ir_module
class Cells:
    @R.function
    def soft(word: R.Tensor((), "int32"), x: R.Tensor((N + 5,), "float32"), table: R.Tensor((9, N), "float32")):
        R.func_attr({"num_input": 2})
        part = R.strided_slice(x, [0], [5], [N + 5])
        y = R.nn.softmax(R.add(part, R.take(table, word, axis=0)), axis=-1)
        return y

    @R.function
    def of_product(x: R.Tensor((N,), "float32"), W: R.Tensor((N, N), "float32")):
        R.func_attr({"num_input": 1})
        y = R.nn.softmax(R.matmul(x, W), axis=-1)
        return y


@pytest.mark.parametrize("machine", [AVX2, AVX512], ids=["avx2", "avx512"])
def test_what_is_read_and_written_is_asked_for_but_beside_products(machine: Machine) -> None:
    passes = [*cell_passes(), *kernel_passes(signature_of(Cells), machine)]
    functions = run_passes(Cells, passes).functions.items()
    kernels = {str(var.name_hint): str(kernel) for var, kernel in functions}
    asked = [line for line in _text(kernels, "soft").splitlines() if "llvm.prefetch" in line]
    places = [re.search(r"address_of\((\w+)\[", line) for line in asked]
    read_and_written = {place.group(1).rstrip("0123456789") for place in places if place}
    assert read_and_written == {"arena", "table"}
    assert "llvm.prefetch" not in _text(kernels, "of_product")


def _text(kernels: dict[str, str], cell: str) -> str:
    """The kernels of a cell."""
    found = [text for name, text in kernels.items() if name.startswith(cell)]
    assert found
    return "\n".join(found)


def test_every_batch_size_is_right() -> None:
    rng = np.random.default_rng(0)
    table, weight = (rng.normal(size=shape).astype("float32") for shape in ((9, N), (N, N)))
    model = eb.compile(Cells, {"table": table, "W": weight})
    builder = model.builder()
    for batch in (1, 2, 5, 17, 70):
        rows, words = rng.normal(size=(batch, N + 5)).astype("float32"), rng.integers(0, 9, batch)
        pairs = zip(words, rows, strict=True)
        results = model([builder.finish(builder.call("soft", word=word, x=row)) for word, row in pairs])
        powers = np.exp(rows[:, 5:].astype("float64") + table[words])
        assert np.allclose(np.stack(list(results)), powers / powers.sum(1, keepdims=True), rtol=1e-5, atol=0)

"""pow of float32 as polynomials: what C gives, for every special number."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tvm
from tvm.script.ir_builder import IRBuilder
from tvm.target import Target

from edbatch_tvm.tvm_compat import builder_tirx as T
from edbatch_tvm.tvm_compat import tirx
from schedules.cpu.machine import host_target
from schedules.cpu.tir_pipeline import KERNEL_PIPELINE

N = 4096

SPECIAL = (
    *(0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 2.0, -2.0, 3.0, -3.0, 0.5, -0.5, 2.5, -2.5, 127.0, 128.0, -126.0),
    *(
        1e-45,
        -1e-45,
        1e38,
        -1e38,
        3.4e38,
        1e-38,
        16777216.0,
        16777217.0,
        -16777219.0,
        1e10,
        -1e10,
        1 - 6e-8,
        1 + 1.2e-7,
    ),
)


@pytest.fixture(scope="module", params=["host", "haswell"])
def power(request: pytest.FixtureRequest) -> Any:
    with IRBuilder() as builder, T.prim_func():
        T.func_name("power")
        x, y, z = (T.arg(name, T.buffer((N,), "float32")) for name in "xyz")
        T.func_attr({"global_symbol": "power", "tirx.noalias": True})
        with T.serial(0, N // 16) as i, T.vectorized(0, 16) as j:
            T.buffer_store(z, tirx.pow(x[i * 16 + j], y[i * 16 + j]), [i * 16 + j])
    target = host_target() if request.param == "host" else Target({"kind": "llvm", "mcpu": "haswell"})
    compiled = tvm.compile(tvm.IRModule({"power": builder.get()}), target=target, tir_pipeline=KERNEL_PIPELINE)

    def run(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        results = []
        for begin in range(0, len(x), N):
            pair = [tvm.runtime.tensor(np.resize(one[begin : begin + N], N).astype(np.float32)) for one in (x, y)]
            results.append(tvm.runtime.tensor(np.empty(N, np.float32)))
            compiled["power"](*pair, results[-1])
        return np.concatenate([one.numpy() for one in results])[: len(x)]

    return run


def expected(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.power(x.astype(np.float64), y.astype(np.float64)).astype(np.float32)


def test_special_numbers(power: Any) -> None:
    x, y = (one.ravel().astype(np.float32) for one in np.meshgrid(SPECIAL, SPECIAL))
    wanted, found = expected(x, y), power(x, y)
    np.testing.assert_allclose(found, wanted, rtol=1e-7, atol=0)
    numbers = ~np.isnan(wanted)
    np.testing.assert_array_equal(np.signbit(found)[numbers], np.signbit(wanted)[numbers])


@pytest.mark.parametrize("bases", ["of any size", "near 1", "small"])
def test_errors_are_those_of_rounding(power: Any, bases: str) -> None:
    rng = np.random.default_rng(0)
    x, y = {
        "of any size": (np.exp(rng.uniform(-87, 87, 2 * N)), rng.uniform(-1, 1, 2 * N)),
        "near 1": (1 + rng.uniform(-1e-3, 1e-3, 2 * N), rng.uniform(-8e4, 8e4, 2 * N)),
        "small": (rng.uniform(0, 4, 2 * N), rng.uniform(-20, 20, 2 * N)),
    }[bases]
    x, y = x.astype(np.float32), y.astype(np.float32)
    wanted = expected(x, y)
    normal = (wanted > 1.2e-38) & np.isfinite(wanted)
    np.testing.assert_allclose(power(x, y)[normal], wanted[normal], rtol=1.3e-7)

"""What a CPU target offers: vector lanes and registers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm.target import Target, codegen


@dataclass(frozen=True)
class Machine:
    """The vector unit of a CPU.

    Attributes
    ----------
    lanes : int
        Columns of a chunk of float32 (:meth:`lanes_of` has those of other dtypes).
    registers : int
        Vector registers that hold a chunk each.
    reserved : int
        Registers that a tile needs beside its accumulators and weights.
    gates : int
        Sums for one row and chunk that are computed at once, at most: with more, a tile of several rows does not fit.
    fused : bool
        Whether a multiplication and an addition are one instruction, which rounds once.
    short : bool
        Whether a vector of half of the lanes takes half of the time on some of these CPUs, and no longer on any.
    """

    lanes: int
    registers: int
    reserved: int = 1
    gates: int = 4
    fused: bool = True
    short: bool = False

    def lanes_of(self, dtype: str) -> int:
        """Columns of a chunk of this dtype: as many as the same bytes hold."""
        return self.lanes * 4 // np.dtype(dtype).itemsize


AVX512 = Machine(lanes=16, registers=32, gates=8, short=True)
AVX2 = Machine(lanes=8, registers=16)
BASELINE = Machine(lanes=8, registers=8, gates=2, fused=False)


def machine_of(target: Target) -> Machine:
    """The machine that `target` describes."""
    with target:
        if _has(target, "avx512f"):
            return AVX512
        if _has(target, "avx2") or str(target.attrs.get("mtriple", "")).startswith(("aarch64", "arm64")):
            return AVX2
    return BASELINE


def _has(target: Target, feature: str) -> bool:
    return bool(codegen.target_has_features([feature], target))


def host_target() -> Target:
    """The LLVM target of this machine's CPU, with its features."""
    return Target({"kind": "llvm", "mcpu": codegen.llvm_get_system_cpu()})

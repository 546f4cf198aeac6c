"""Seeded weights for any module of cells."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from edbatch_tvm.flops import contractions
from relay_ext.signature import cell_functions, weight_params, weights_of


def initial_weights(mod: Any, seed: int = 0) -> dict[str, np.ndarray]:
    """Uniform ±1/sqrt(fan-in) weights for every weight parameter of `mod`.

    The fan-in of a matrix is the extent that its products sum over, of an embedding table 1 (a lookup adds nothing
    up), of a bias that of the matrix of its width in the same cell, and of any other its first extent. Each weight
    has a random stream of its own, from the seed and its name: adding a cell does not change the weights of the others.

    Parameters
    ----------
    mod : tvm.IRModule
        Cells with the ``num_input`` attribute; weights are shared between cells by name.
    seed : int

    Returns
    -------
    dict of str to float32 array
    """
    specs = weights_of(mod)
    fan_in: dict[str, int] = {}
    for name, function in cell_functions(mod).items():
        found = contractions(name, function).fan_in
        weights = weight_params(function)
        by_width = {specs[w.name].shape[-1]: found[w.name] for w in weights if found.get(w.name, 1) > 1}
        for param in weights:
            shape = specs[param.name].shape
            alone = shape[0] if shape else 1
            fan_in.setdefault(
                param.name, found.get(param.name, by_width.get(shape[0], alone) if len(shape) == 1 else alone)
            )
    arrays = {}
    for name, spec in specs.items():
        limit = fan_in[name] ** -0.5
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        arrays[name] = rng.uniform(-limit, limit, spec.shape).astype(spec.dtype)
    return arrays

"""Steps on rows of tables have the numbers of PyTorch's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")


def gradient(rng: np.random.Generator, size: tuple[int, int], rows: int) -> Any:
    index = torch.from_numpy(np.sort(rng.permutation(size[0])[:rows]))
    values = torch.from_numpy(rng.standard_normal((rows, size[1])).astype(np.float32))
    return torch.sparse_coo_tensor(index[None], values, size, is_coalesced=True, check_invariants=True)


@pytest.mark.parametrize("size", [(40, 7), (300, 150)])
def test_sparse_adam(size: tuple[int, int]) -> None:
    from edbatch_tvm.trainer.row_steps import sparse_adam_step

    rng = np.random.default_rng(0)
    start = torch.from_numpy(rng.standard_normal(size).astype(np.float32))
    one, other = start.clone(), start.clone()
    ours, theirs = (torch.optim.SparseAdam([table], 3e-2, eps=1e-6) for table in (one, other))
    for rows in (5, 17, 0, 1, 40, 9):
        one.grad = gradient(rng, size, rows)
        other.grad = one.grad.clone()
        sparse_adam_step(ours)
        theirs.step()
        assert torch.equal(one, other)
    assert ours.state[one].keys() == theirs.state[other].keys()
    for name, kept in ours.state[one].items():
        assert kept == theirs.state[other][name] if name == "step" else torch.equal(kept, theirs.state[other][name])
    assert not torch.equal(one, start)

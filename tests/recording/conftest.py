"""Everything here needs torch and greenlet."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest

from edbatch_tvm.errors import CellWarning

torch = pytest.importorskip("torch")
pytest.importorskip("greenlet")


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    """Every test starts from the same seed and records no gradients; its elements need not call all cells."""
    torch.manual_seed(0)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", CellWarning)
        yield

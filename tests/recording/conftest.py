"""Everything here needs torch and greenlet."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("greenlet")


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    """Every test starts from the same seed and records no gradients."""
    torch.manual_seed(0)
    with torch.no_grad():
        yield

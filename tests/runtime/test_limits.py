"""Arenas larger than int32 offsets reach are refused before they are allocated."""

from __future__ import annotations

import pytest

from edbatch_tvm.errors import PlanError
from edbatch_tvm.graph import ValueSpec
from edbatch_tvm.runtime.arenas import ArenaPool


def test_rows_times_width() -> None:
    pool = ArenaPool([ValueSpec((4096,)), ValueSpec((3,))])
    with pytest.raises(PlanError, match=r"600000 values of float32\[4096\] in one minibatch; expected at most 524286"):
        pool.acquire([600_000, 1])
    arenas = pool.acquire([10, 5])
    assert arenas.fits([10, 5])

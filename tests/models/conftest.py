"""Workloads with the signatures of their cells, made once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest

from edbatch_tvm.graph import Signature
from edbatch_tvm.models import WORKLOADS, get_workload
from edbatch_tvm.models.workload import Workload
from relay_ext.signature import signature_of

HIDDEN = 6


@dataclass(frozen=True)
class Case:
    workload: Workload
    signature: Signature
    weights: dict[str, np.ndarray]


@cache
def case(name: str) -> Case:
    found = get_workload(name)
    return Case(found, signature_of(found.cells(HIDDEN)), found.weights(HIDDEN, seed=3))


@pytest.fixture(params=WORKLOADS)
def every(request: pytest.FixtureRequest) -> Case:
    """Each workload in turn."""
    return case(request.param)


@pytest.fixture
def trees() -> Case:
    return case("treelstm")


@pytest.fixture
def sentences() -> Case:
    return case("bilstm-tagger")


@pytest.fixture
def lattices() -> Case:
    return case("lattice-lstm")

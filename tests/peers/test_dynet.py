"""The peer DyNet: its worker's equations on a stand-in, and what is said where there is no DyNet."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from edbatch_tvm.errors import EnvironmentMismatch
from edbatch_tvm.peers.dynet_run import DyNet, write_minibatch
from edbatch_tvm.peers.dynet_worker import Minibatch
from tests.peers.conftest import Example

pytest.importorskip("torch")

from tests.peers import fake_dynet


def test_worker(every: Example, tmp_path: Path) -> None:
    write_minibatch(tmp_path / "minibatch.npz", every.name, every.graph, every.weights)
    minibatch = Minibatch(fake_dynet, tmp_path / "minibatch.npz")
    seconds = minibatch.run()
    assert set(seconds) == {"build", "forward"}
    minibatch.outputs(tmp_path / "outputs.npy")
    every.check(np.load(tmp_path / "outputs.npy"))


def test_python_without_dynet() -> None:
    with pytest.raises(
        EnvironmentMismatch, match=r"no DyNet: its process ended .*dynet_config.*hint: docs/performance\.md"
    ):
        DyNet(sys.executable, threads=1)


def test_no_such_python(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentMismatch, match=r"no DyNet: .*nowhere does not run"):
        DyNet(tmp_path / "nowhere", threads=1)

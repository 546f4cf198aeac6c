"""Training steps of the peers, and ours beside them: the gradients of all are those of PyTorch in float64."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edbatch_tvm.cli import main
from edbatch_tvm.peers import training
from edbatch_tvm.peers.dynet_run import write_minibatch
from edbatch_tvm.peers.dynet_worker import Minibatch
from tests.peers.conftest import Example, example

torch = pytest.importorskip("torch")

from edbatch_tvm.peers.torch_training import FORMS, ByLevel, OneByOne, PackedTagger  # noqa: E402  (needs torch)
from tests.peers import fake_dynet  # noqa: E402


def labels_of(case: Example) -> np.ndarray:
    return np.random.default_rng(3).integers(0, case.expected.shape[1], len(case.expected))


def reference(case: Example) -> dict[str, np.ndarray]:
    run = OneByOne(case.name, case.graph, case.weights, labels_of(case), torch.float64)
    np.testing.assert_allclose(run.logits().detach().numpy(), case.expected, atol=1e-6 * np.abs(case.expected).max())
    run.run()
    return run.gradients()


def check(found: Any, expected: dict[str, np.ndarray], tolerance: float) -> None:
    assert set(found) == set(expected)
    for name, wanted in expected.items():
        assert np.abs(wanted).max() > 0, name
        assert np.abs(found[name] - wanted).max() <= tolerance * np.abs(wanted).max(), name


@pytest.mark.parametrize("name", training.TRAINED)
def test_peers(name: str, tmp_path: Path) -> None:
    case = example(name)
    expected, labels = reference(case), labels_of(case)
    runs: list[Any] = [ByLevel(name, case.graph, case.weights, labels, form, torch.float64) for form in FORMS]
    if name == "bilstm-tagger":
        runs.append(PackedTagger(name, case.graph, case.weights, labels, torch.float64))
    for run in runs:
        for _ in range(2):
            run.run()
        check(run.gradients(), expected, 1e-12)
    write_minibatch(tmp_path / "minibatch.npz", name, case.graph, case.weights, labels)
    minibatch = Minibatch(fake_dynet, tmp_path / "minibatch.npz")
    for _ in range(2):  # gradients do not add up
        assert set(minibatch.train()) == {"build", "step", "loss"}
    minibatch.gradients(tmp_path / "gradients.npz")
    check(np.load(tmp_path / "gradients.npz"), expected, 1e-12)


SMALL = ["bench", "training", "--workloads", "treelstm", "--hidden", "6", "--batch-size", "2", "--repeat", "2"]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No time for the rate of multiply-adds, and a policy that is not learned."""
    from edbatch_tvm.batching.api import as_policy

    monkeypatch.setattr(training, "fma_gflops", lambda clock: 200.0)
    monkeypatch.setattr(training, "_policy", lambda name, signature, *_: as_policy("agenda", signature.names))


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    figures = tmp_path / "figures.json"
    assert main([*SMALL, "--batch-size", "1", "2", "--json", str(figures), "--debug"]) == 0
    found = json.loads(figures.read_text())
    assert [row["batch_size"] for row in found["rows"]] == [1, 2]
    for row in found["rows"]:
        assert set(row["peers"]) == {"hand", "eager", "dynet"}
        assert row["peers"]["dynet"]["note"].startswith("no interpreter")
        for peer in ("hand", "eager"):
            assert row["peers"][peer]["ratio"] > 0
            assert 0 < row["peers"][peer]["error"] <= 1e-5
        assert sum(row["seconds"].values()) >= row["seconds"]["total"] > 0
    printed = capsys.readouterr().out
    assert "| treelstm | 6 | 2 |" in printed
    assert "Not run: DyNet: no interpreter that has it" in printed

    assert main([*SMALL, "--clock", "cpu", "--threads", "2"]) == 1
    assert "processor time of several threads; expected --clock wall, or --threads 1" in capsys.readouterr().err

    right = ByLevel.gradients
    monkeypatch.setattr(ByLevel, "gradients", lambda self: {name: 1.001 * one for name, one in right(self).items()})
    assert main([*SMALL, "--peers", "hand"]) == 1
    assert "by hand (by level, slices) on treelstm differs from ours by 0.001" in capsys.readouterr().err

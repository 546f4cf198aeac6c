"""``edbatch train``: it learns, goes on where it was stopped, and its checkpoints run."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edbatch_tvm.cli import main
from edbatch_tvm.models.checkpoint import Checkpoint, load_checkpoint

pytest.importorskip("torch")

TREES = "(3 (2 a) (4 (1 b) (0 c)))\n(2 one)\n(2 (2 d) (2 e))\n(0 (1 bad) (2 one))\n(4 (4 good) (2 one))\n"
TAGS = "The|O cat|I-MISC in|O Rome|I-LOC\nRome|I-LOC\nThe|O dog|I-MISC\n"
LATTICES = "2\n3\n0 7 7\n0 \n1 0 300\n2 1 4 0 9\n\n2\n0 5\n0\n1 0 4\n"
DATA = {
    "treelstm": TREES,
    "treelstm-2type": TREES,
    "treegru": TREES,
    "mvrnn": TREES,
    "childsum-tree": TREES,
    "bilstm-tagger": TAGS,
    "lattice-lstm": LATTICES,
    "lattice-gru": LATTICES,
}


def train(tmp_path: Path, workload: str, *arguments: str) -> dict[str, Any]:
    """Train on the sample of a workload, small and fast; the JSON that it writes."""
    data, path = tmp_path / "data.txt", tmp_path / "figures.json"
    data.write_text(DATA[workload])
    words = ["train", workload, "--data", str(data), "--dev", str(data), "--hidden", "6", "--batch-size", "2"]
    assert main([*words, "--json", str(path), "--debug", *arguments]) == 0
    figures: dict[str, Any] = json.loads(path.read_text())
    return figures


def equal(one: Checkpoint, other: Checkpoint) -> bool:
    """Whether two checkpoints have equal bits of weights and state, and equal losses."""
    figures = [[(e["loss"], e["dev_loss"], e["dev_accuracy"]) for e in c.epochs] for c in (one, other)]
    states = [{f"{w}:{n}": a for w, kept in c.state.items() for n, a in kept.items()} for c in (one, other)]
    return figures[0] == figures[1] and all(
        found.keys() == wanted.keys() and all(np.array_equal(found[name], wanted[name]) for name in wanted)
        for found, wanted in ((one.weights, other.weights), states)
    )


def test_learns_its_own_data(tmp_path: Path) -> None:
    figures = train(tmp_path, "treelstm", "--epochs", "60", "--lr", "0.03")
    first, last = figures["epochs"][0], figures["epochs"][-1]
    assert last["loss"] < 0.1 * first["loss"]
    assert last["dev_accuracy"] == last["dev_root_accuracy"] == 1
    assert figures["flops"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("workload", DATA)
def test_every_workload_with_labels_learns(tmp_path: Path, workload: str) -> None:
    epochs = train(tmp_path, workload, "--epochs", "30", "--lr", "0.03")["epochs"]
    assert epochs[-1]["loss"] < 0.5 * epochs[0]["loss"]
    assert (epochs[-1]["dev_root_accuracy"] is None) == (DATA[workload] is not TREES)


@pytest.mark.parametrize(
    "optimizer",
    [
        ["adam"],
        *(
            pytest.param(words, marks=pytest.mark.slow)
            for words in (["sgd", "--momentum", "0.9"], ["adagrad"], ["sgd"])
        ),
    ],
    ids=lambda words: "".join(words[::2]),
)
def test_goes_on_with_equal_bits(tmp_path: Path, optimizer: list[str]) -> None:
    words = ["--optimizer", *optimizer, "--seed", "3"]
    whole, parts = tmp_path / "whole.npz", tmp_path / "parts.npz"
    train(tmp_path, "treelstm", *words, "--epochs", "4", "--checkpoint", str(whole))
    for epochs in ("1", "4"):
        train(tmp_path, "treelstm", *words, "--epochs", epochs, "--checkpoint", str(parts))
    assert equal(load_checkpoint(whole), load_checkpoint(parts))


def test_ctrl_c_between_steps_loses_no_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edbatch_tvm.trainer.run import Training

    whole, parts = tmp_path / "whole.npz", tmp_path / "parts.npz"
    train(tmp_path, "treelstm", "--epochs", "3", "--checkpoint", str(whole))
    step, calls = Training._step, []

    def stopped(self: Training, *arguments: Any) -> float:
        calls.append(1)
        if len(calls) == 5:  # the second step of three of the second epoch
            signal.raise_signal(signal.SIGINT)
        return step(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "_step", stopped)
        words = ["train", "treelstm", "--data", str(tmp_path / "data.txt"), "--dev", str(tmp_path / "data.txt")]
        words += ["--hidden", "6", "--batch-size", "2", "--epochs", "3", "--checkpoint", str(parts)]
        assert main(words) == 130
    found = load_checkpoint(parts)
    assert (found.epoch, found.step, len(found.epochs)) == (1, 2, 1)
    train(tmp_path, "treelstm", "--epochs", "3", "--checkpoint", str(parts))
    assert equal(load_checkpoint(whole), load_checkpoint(parts))


@pytest.mark.slow
def test_kill_and_ctrl_c_at_any_moment_leave_a_checkpoint(tmp_path: Path) -> None:
    """Twenty times, at random moments; each run goes on from what the one before has left."""
    path, data = tmp_path / "run.npz", tmp_path / "data.txt"
    data.write_text(TREES)
    words = ["train", "treelstm", "--data", str(data), "--dev", str(data), "--hidden", "6", "--epochs", "100000"]
    words += ["--batch-size", "2", "--dropout", "0.2"]
    draw, before = random.Random(0), (-1, 0)
    for turn in range(20):
        process = subprocess.Popen(
            [sys.executable, "-m", "edbatch_tvm", *words, "--checkpoint", str(path)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while not path.exists() or load_checkpoint(path).epoch <= before[0]:
            assert process.poll() is None
            time.sleep(0.02)
        time.sleep(draw.uniform(0, 0.3))
        # Killed; stopped between two steps; stopped at once, perhaps while it writes.
        for number in [(signal.SIGKILL,), (signal.SIGINT,), (signal.SIGINT, signal.SIGINT)][turn % 3]:
            os.kill(process.pid, number)
            time.sleep(draw.uniform(0, 0.01))
        process.wait()
        found = load_checkpoint(path)
        assert found.epoch == len(found.epochs)
        assert before < (found.epoch, found.step) < (100000, 0)
        assert sorted(one.name for one in tmp_path.iterdir() if one.suffix in (".npz", ".txt")) == [
            *("data.txt", "run.npz")
        ]
        before = found.epoch, found.step


@pytest.mark.slow
def test_checkpoints_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, figures = tmp_path / "run.npz", tmp_path / "run.json"
    train(tmp_path, "treelstm", "--epochs", "2", "--vocabulary", "3", "--checkpoint", str(path))
    found = load_checkpoint(path)
    assert found.vocabularies["word"].words == ("one", "a", "b")
    words = ["--data", str(tmp_path / "data.txt"), "--checkpoint", str(path), "--json", str(figures)]
    assert main(["run", "treelstm", *words, "--check"]) == 0
    report = json.loads(figures.read_text())
    assert (report["hidden"], report["policy"]) == (6, found.policy)
    assert report["max_relative_error"] < 1e-5
    assert main(["explain", "treelstm", *words, "--memory"]) == 0
    assert main(["bench", "costs", "treelstm", "--checkpoint", str(path), "--batch-size", "2"]) == 0
    capsys.readouterr()
    for wrong, said in (
        (["run", "bilstm-tagger"], "a checkpoint of treelstm"),
        (["run", "treelstm", "--hidden", "7"], "float32"),
        (["bench", "costs", "treegru"], "a checkpoint of treelstm"),
        (["bench", "cpu", "--hidden", "7"], "float32"),
        (["bench", "training", "--workloads", "lattice-lstm"], "a checkpoint of treelstm"),
    ):
        assert main([*wrong, "--checkpoint", str(path)]) == 1
        assert said in capsys.readouterr().err


@pytest.mark.slow
def test_checkpoints_run_beside_peers(tmp_path: Path) -> None:
    """Their weights are those that the peers compute with: results and gradients are compared."""
    path, figures = tmp_path / "run.npz", tmp_path / "bench.json"
    train(tmp_path, "treelstm", "--epochs", "2", "--checkpoint", str(path))
    words = ["--checkpoint", str(path), "--peers", "hand", "--batch-size", "2", "--repeat", "2", "--json", str(figures)]
    for part in ("cpu", "training"):
        assert main(["bench", part, *words, "--debug"]) == 0
        (row,) = json.loads(figures.read_text())["rows"]
        assert (row["workload"], row["hidden"]) == ("treelstm", 6)


def trained(tmp_path: Path, workload: str = "treelstm", **options: Any) -> Any:
    """A run that is ready for its first step."""
    from edbatch_tvm.trainer.options import TrainOptions
    from edbatch_tvm.trainer.run import Training

    data = tmp_path / "data.txt"
    data.write_text(DATA[workload])
    return Training(TrainOptions(workload, data, data, hidden=6, batch_size=2, **options))


def test_dropped_numbers_are_those_of_the_masks(tmp_path: Path) -> None:
    """Losses are those of masked states; masks depend on the instance and the epoch, not on the minibatch."""
    run = trained(tmp_path, dropout=0.5, seed=4)
    seen: dict[tuple[int, int], list[Any]] = {}
    for epoch in (0, 1):
        run.checkpoint.epoch = epoch
        for chosen in ([0, 1], [2, 0], [1, 2, 0]):
            result = run._dropped(run._masks, chosen, [run._train.graphs[one] for one in chosen])
            graph, model = result.graph, run.model
            drop, mask = model.cells.type_id("drop"), graph.attributes[model.cells.type_id("drop"), "mask"]
            assert set(np.unique(mask).tolist()) == {0, 2}
            weights = run._optimizer.weights
            for node, row in zip(graph.nodes_of(drop).tolist(), mask, strict=True):
                state = result.value(int(graph.operand_value[graph.operand_ptr[node]]))
                np.testing.assert_array_equal(result.value(node * graph.stride), state * row)
            assert all(np.isfinite(value.numpy()).all() for value in weights.values())
            ends = np.cumsum([0, *(len(run._train.graphs[one].nodes_of(drop)) for one in chosen)])
            for place, one in enumerate(chosen):
                seen.setdefault((epoch, one), []).append(mask[ends[place] : ends[place + 1]])
    for masks in seen.values():
        assert all(np.array_equal(one, masks[0]) for one in masks)
    assert not np.array_equal(seen[0, 0][0], seen[1, 0][0])
    assert not np.array_equal(seen[0, 0][0][:1], seen[0, 2][0][:1])


def test_statistics_of_masks() -> None:
    from edbatch_tvm.trainer.dropout import Masks

    masks = Masks(0.3, 1, 200)
    rows = masks.rows(2, range(50), [20] * 50)
    assert set(np.unique(rows).tolist()) == {0.0, float(np.float32(1 / 0.7))}
    dropped = rows == 0
    assert abs(dropped.mean() - 0.3) < 5 * (0.21 / rows.size) ** 0.5
    # No two rows or columns go together.
    for one in (dropped, dropped.T):
        related = np.corrcoef(one[:200].astype(float)) - np.eye(min(200, len(one)))
        assert abs(related).max() < 6 / one.shape[1] ** 0.5
    np.testing.assert_array_equal(masks.rows(2, [7], [20]), rows[140:160])


@pytest.mark.slow
@pytest.mark.parametrize("words", [["--dropout", "0.4"], ["--policy", "fsm"], ["--policy", "depth"]], ids=" ".join)
def test_goes_on_with_dropout_and_policies(tmp_path: Path, words: list[str]) -> None:
    whole, parts = tmp_path / "whole.npz", tmp_path / "parts.npz"
    train(tmp_path, "treelstm", *words, "--epochs", "3", "--checkpoint", str(whole))
    for epochs in ("1", "3"):
        train(tmp_path, "treelstm", *words, "--epochs", epochs, "--checkpoint", str(parts))
    assert equal(load_checkpoint(whole), load_checkpoint(parts))
    if words[0] == "--policy":
        assert load_checkpoint(whole).policy == words[1]


@pytest.mark.slow
@pytest.mark.parametrize("workload", DATA)
def test_every_workload_learns_with_dropout(tmp_path: Path, workload: str) -> None:
    epochs = train(tmp_path, workload, "--epochs", "30", "--lr", "0.03", "--dropout", "0.2")["epochs"]
    assert epochs[-1]["loss"] < 0.7 * epochs[0]["loss"]


def test_options_that_do_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, data, other = tmp_path / "run.npz", tmp_path / "data.txt", tmp_path / "other.txt"
    train(tmp_path, "treelstm", "--epochs", "1", "--checkpoint", str(path))
    other.write_text("(3 word)\n")
    base = ["--data", str(data), "--dev", str(data), "--batch-size", "2", "--checkpoint", str(path)]
    capsys.readouterr()
    for words, said in (
        (["treelstm", *base, "--hidden", "7"], "hidden 6"),
        (["treelstm", *base, "--hidden", "6", "--lr", "1"], "lr 0.001"),
        (["treelstm", *base, "--hidden", "6", "--dropout", "0.5"], "dropout 0.0"),
        (["treelstm", *base, "--hidden", "6", "--policy", "depth"], "policy auto"),
        (["treelstm", *base, "--hidden", "6", "--data", str(other)], "the same --data"),
        (["grid-lstm", *base], "lattice-gru"),
        (["treelstm", "--data", str(data), "--dev", str(tmp_path / "none")], "none"),
    ):
        assert main(["train", *words]) == 1
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1

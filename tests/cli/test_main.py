"""Exit codes, one-line errors, help."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edbatch_tvm.cli import main
from tests.cli.fake_model import FakeModel


def fail(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command line that fails; its one line of error."""
    code: int | str | None
    try:
        code = main(arguments)
    except SystemExit as error:
        code = error.code
    captured = capsys.readouterr()
    assert code not in (0, None)
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("edbatch: ")
    return captured.err


USAGE = [
    ([], "the following arguments are required: VERB"),
    (["fly"], "invalid choice: 'fly'"),
    (["run"], "the following arguments are required: WORKLOAD"),
    (["run", "gru"], "argument WORKLOAD: invalid choice: 'gru'"),
    (["run", "treelstm", "--hidden", "0"], "argument --hidden: '0' is no integer of 1 or more"),
    (["run", "treelstm", "--batch-size", "many"], "argument --batch-size: 'many' is no integer of 1 or more"),
    (["run", "treelstm", "--repeat", "-1"], "argument --repeat: '-1' is no integer of 0 or more"),
    (["run", "treelstm", "--encoding", "long"], "argument --encoding: invalid choice: 'long'"),
    (["run", "treelstm", "--seed", "-1"], "argument --seed: '-1' is no integer of 0 or more"),
    (["run", "treelstm", "--json", "no/such/folder.json"], "'no/such/folder.json' is no file in an existing folder"),
    (["learn", "treelstm", "--output", "policy.txt"], "argument --output: 'policy.txt' does not end in .json"),
    (["learn", "treelstm", "--policy", "fsm"], "unrecognized arguments: --policy fsm"),
]


@pytest.mark.parametrize(("arguments", "message"), USAGE)
def test_usage(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    error = fail(capsys, *arguments)
    assert message in error
    assert "--help" in error


def test_unknown_plan(capsys: pytest.CaptureFixture[str]) -> None:
    error = fail(capsys, "run", "treelstm", "--plan", "best")
    assert error == "edbatch: error: unknown plan 'best'; expected one of auto, batch, order, pq\n"


@pytest.mark.usefixtures("models")
def test_broken_data_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "trees.txt"
    path.write_text("(2 good)\n(2 (2 bad)\n")
    error = fail(capsys, "run", "treelstm", "--data", str(path))
    assert error.startswith(f"edbatch: error: {path}, line 2: 1 brackets are not closed")


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize("verb", ["run", "learn"])
def test_data_file_without_instances(capsys: pytest.CaptureFixture[str], tmp_path: Path, verb: str) -> None:
    path = tmp_path / "trees.txt"
    path.write_text("\n")
    error = fail(capsys, verb, "treelstm", "--data", str(path))
    assert error == f"edbatch: error: 0 instances in {path}; expected 1 or more\n"


@pytest.mark.usefixtures("models")
def test_missing_data_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    error = fail(capsys, "run", "treelstm", "--data", str(tmp_path / "none.txt"))
    assert error.startswith("edbatch: error: no data file ")


@pytest.mark.usefixtures("models")
def test_learning_from_what_is_measured(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "trees.txt"
    path.write_text("(2 good)\n")
    arguments = ("run", "treelstm", "--policy", "fsm", "--data", str(path), "--learn-data", str(path))
    assert f"{path} both to learn from and to measure on; expected two files" in fail(capsys, *arguments)


@pytest.mark.usefixtures("models")
def test_unknown_policy(capsys: pytest.CaptureFixture[str]) -> None:
    error = fail(capsys, "run", "treelstm", "--policy", "magic")
    assert "unknown policy 'magic'; expected one of agenda" in error


@pytest.mark.usefixtures("models")
def test_file_that_is_no_policy(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_text("{}")
    error = fail(capsys, "run", "treelstm", "--policy", str(path))
    assert f"policy file '{path}': is no policy" in error


def test_bug_is_one_line_and_debug_shows_it(
    capsys: pytest.CaptureFixture[str], models: list[FakeModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeModel, "plan", lambda *_: dict[str, int]()["no\nplan"])
    arguments = ("run", "treelstm", "--hidden", "4", "--batch-size", "2")
    error = fail(capsys, *arguments)
    assert error == "edbatch: error: KeyError: 'no\\nplan' (hint: this is a bug; --debug shows where)\n"
    with pytest.raises(KeyError):
        main([*arguments, "--debug"])


def test_interrupt(
    capsys: pytest.CaptureFixture[str], models: list[FakeModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(FakeModel, "plan", interrupt)
    assert main(["run", "treelstm", "--hidden", "4", "--batch-size", "2"]) == 130
    assert capsys.readouterr().err == "edbatch: interrupted\n"


def test_help_names_the_verbs_and_is_fast() -> None:
    code = (
        "import sys; from edbatch_tvm.cli import main\ntry: main(['--help'])\nfinally: assert 'tvm' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "run" in done.stdout
    assert "learn" in done.stdout


def test_module_runs_as_a_command() -> None:
    done = subprocess.run([sys.executable, "-m", "edbatch_tvm", "run"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("edbatch: error: ")


INTERRUPTED = """
import os, signal, sys, threading
from edbatch_tvm.cli import main
threading.Timer(float(sys.argv[1]), os.kill, (os.getpid(), signal.SIGINT)).start()
sys.exit(main(["learn", "lattice-lstm", "--learner", "paper", "--output", sys.argv[2]]))
"""


@pytest.mark.parametrize("seconds", [0.2, pytest.param(6.0, marks=pytest.mark.slow)])
def test_a_real_interrupt_while_learning(seconds: float, tmp_path: Path) -> None:
    policy = tmp_path / "policy.json"
    policy.write_text("old")
    command = [sys.executable, "-c", INTERRUPTED, str(seconds), str(policy)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    if done.returncode == 0:  # learned before the signal came
        assert policy.read_text() != "old"
        return
    assert (done.returncode, done.stderr) == (130, "edbatch: interrupted\n")
    assert policy.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["policy.json"]


def test_closed_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["run", "treelstm", "--data", "missing.txt"]) == 1
    with sys.stdout, sys.stderr:
        sys.stdout.flush()
        sys.stderr.flush()

"""What an installed wheel has to do, without torch and outside of the source tree; run by ``make test-wheel``.

Not collected by pytest: it runs in environments that have only what the wheel asks for.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np

import edbatch_tvm as eb
from edbatch_tvm.checking.reference import run_reference
from edbatch_tvm.errors import EnvironmentMismatch
from edbatch_tvm.models import get_workload

VERBS = (
    ("run", "treelstm", "--hidden", "16", "--batch-size", "8", "--minibatches", "1", "--check"),
    ("learn", "treelstm", "--batch-size", "8", "--minibatches", "2", "--output", "policy.json"),
    ("run", "treelstm", "--hidden", "16", "--batch-size", "8", "--minibatches", "1", "--policy", "policy.json"),
    ("explain", "treelstm", "--hidden", "16", "--batch-size", "4", "--html", "page.html"),
    (
        "bench",
        "batching",
        "--workloads",
        "treelstm",
        "--batch-size",
        "4",
        "--minibatches",
        "1",
        "--seeds",
        "1",
        "--widths",
        "1",
    ),
)


def library() -> None:
    """Compile, run against the reference, save and load."""
    workload = get_workload("treelstm")
    weights = workload.weights(16)
    model = eb.compile(workload.cells(16), weights)
    instances = workload.generate(6, model.cells)
    saved = Path("model.eb")
    model.save(saved)
    for one in (model, eb.load(saved)):
        result = one(instances)
        for number, graph in enumerate(instances):
            values = run_reference(graph, workload.reference, weights)
            for found, value in zip(result[number], graph.outputs.tolist(), strict=True):
                expected = values[value // graph.stride][value % graph.stride]
                np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    with suppress(EnvironmentMismatch):
        eb.cells_from_torch({"leaf": object()}, {"leaf": ()})
        raise AssertionError("cells_from_torch without torch")


def command(*arguments: str) -> str:
    """Output of the command ``edbatch``."""
    program = Path(sys.executable).with_name("edbatch")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        raise AssertionError(f"edbatch {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def main() -> None:
    """Run everything in a folder of its own."""
    home = Path(eb.__file__).parent
    assert "site-packages" in home.parts, f"{home} is not an installed package"
    assert importlib.util.find_spec("torch") is None, "torch is installed here"
    assert (home / "py.typed").is_file()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        library()
        for arguments in VERBS:
            assert command(*arguments).strip(), arguments
        assert json.loads(Path("policy.json").read_text())["format"] == "edbatch-policy"
        assert Path("page.html").stat().st_size > 1000
    print(f"smoke test passed: Python {sys.version.split()[0]}, NumPy {np.__version__}, {home}")


if __name__ == "__main__":
    main()

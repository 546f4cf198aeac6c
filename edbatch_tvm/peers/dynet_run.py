"""DyNet with its automatic batching, in a process of the Python that has it; see ``dynet_worker.py``."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from edbatch_tvm.errors import EnvironmentMismatch
from edbatch_tvm.graph import InstanceGraph

WORKER = Path(__file__).with_name("dynet_worker.py")

MEMORY_MB = 4096
"""Memory that DyNet takes ahead, for the values of all nodes of its graph."""

HINT = "docs/performance.md says how DyNet was built here; --dynet-python names its interpreter"


class DyNet:
    """A process that runs DyNet.

    Parameters
    ----------
    python : str or Path
        The interpreter that has DyNet.
    threads : int

    Raises
    ------
    EnvironmentMismatch
        If there is no such interpreter, or it cannot import DyNet.
    """

    def __init__(self, python: str | Path, threads: int) -> None:
        counts = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")} | counts
        self._folder = TemporaryDirectory(prefix="edbatch-dynet-")
        self._log = open(Path(self._folder.name) / "log.txt", "w+", encoding="utf-8")  # noqa: SIM115
        try:
            self._process = subprocess.Popen(
                [str(python), "-u", str(WORKER), str(MEMORY_MB)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                text=True,
                env=environment,
            )
        except OSError as error:
            self._log.close()
            self._folder.cleanup()
            raise EnvironmentMismatch(f"no DyNet: {python} does not run ({error.strerror})", "", HINT) from None
        self.version = self._answer()["version"]

    def load(
        self,
        workload: str,
        graph: InstanceGraph,
        weights: Mapping[str, np.ndarray],
        labels: np.ndarray | None = None,
    ) -> None:
        """Hand over a minibatch; for training with a class for each declared output."""
        path = Path(self._folder.name) / "minibatch.npz"
        write_minibatch(path, workload, graph, weights, labels)
        self._ask({"load": str(path)})

    def run(self) -> tuple[float, float]:
        """Run the minibatch once: seconds to make DyNet's graph, and of the forward pass."""
        answer = self._ask({"run": True})
        return answer["build"], answer["forward"]

    def train(self, clock: str = "wall") -> tuple[float, float, float]:
        """A training step: seconds to make DyNet's graph, seconds of the step, the loss; ``cpu``: of the processor."""
        answer = self._ask({"train": clock})
        return answer["build"], answer["step"], answer["loss"]

    def gradients(self) -> dict[str, np.ndarray]:
        """The gradients of the last step, of the weights as written."""
        path = Path(self._folder.name) / "gradients.npz"
        self._ask({"gradients": str(path)})
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}

    def outputs(self) -> np.ndarray:
        """Declared outputs of the last run, one per row."""
        path = Path(self._folder.name) / "outputs.npy"
        self._ask({"outputs": str(path)})
        return np.load(path, allow_pickle=False)

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._log.close()
        self._folder.cleanup()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        """The next line of JSON; DyNet may print lines of its own before."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                if "error" in answer:
                    raise EnvironmentMismatch(f"DyNet failed: {answer['error']}")
                return answer
        self._process.wait()
        self._log.seek(0)
        said = self._log.read().strip().splitlines() or ["no message"]
        self.close()
        raise EnvironmentMismatch(f"no DyNet: its process ended ({said[-1]})", "", HINT)


def write_minibatch(
    path: Path,
    workload: str,
    graph: InstanceGraph,
    weights: Mapping[str, np.ndarray],
    labels: np.ndarray | None = None,
) -> None:
    """Write a minibatch for the worker: arrays of the graph, weights, and what the cells look like, as ``.npz``."""
    assert graph.signature is not None
    cells = [
        {
            "name": cell.name,
            "operands": [{"name": o.name, "shape": list(o.spec.shape), "variadic": o.variadic} for o in cell.operands],
            "attributes": [a.name for a in cell.attributes],
        }
        for cell in graph.signature
    ]
    tables = [name for name in weights if "embedding" in name or name == "matrices"]
    about = {"workload": workload, "stride": graph.stride, "cells": cells, "tables": tables}
    arrays: dict[str, Any] = {f"weight {name}": array for name, array in weights.items()}
    for (kind, name), rows in graph.attributes.items():
        arrays[f"attribute {kind} {name}"] = rows
    if labels is not None:
        arrays["labels"] = labels
    np.savez(
        path,
        about=np.array(json.dumps(about)),
        node_type=graph.node_type,
        operand_ptr=graph.operand_ptr,
        operand_value=graph.operand_value,
        outputs=graph.outputs,
        **arrays,
    )

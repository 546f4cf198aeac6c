"""Time from cells to the first result in a process that has done nothing before.

``python -m edbatch_tvm.peers.first_result WORKLOAD HIDDEN`` prints JSON: seconds to import, to compile and to run the
first instance.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import Any

from edbatch_tvm.errors import EdbatchError


def first_result(workload: str, hidden: int) -> dict[str, float]:
    """Seconds of import, compilation and first run in this process; right only where nothing was done before.

    ``cpu`` are the seconds of processor time from cells to the result, which a busy machine does not lengthen.
    """
    begin = perf_counter()
    from edbatch_tvm.compiler import compile_model
    from edbatch_tvm.models import get_workload
    from relay_ext.signature import signature_of

    found = get_workload(workload)
    imported = perf_counter()
    mod, weights = found.cells(hidden), found.weights(hidden)
    instances = found.generate(1, signature_of(mod), 0)
    made, used = perf_counter(), process_time()
    model = compile_model(mod, weights)
    compiled = perf_counter()
    model(instances)
    end = perf_counter()
    return {
        "import": imported - begin,
        "compile": compiled - made,
        "first_run": end - compiled,
        "cpu": process_time() - used,
    }


def in_fresh_processes(workload: str, hidden: int) -> dict[str, dict[str, float]]:
    """:func:`first_result` in new processes: one with an empty cache of native schedulers, the next with what it left.

    Returns
    -------
    dict
        ``{"empty_cache": {...}, "cached": {...}}``
    """
    with TemporaryDirectory(prefix="edbatch-cache-") as cache:
        return {state: _in_fresh_process(workload, hidden, cache) for state in ("empty_cache", "cached")}


def _in_fresh_process(workload: str, hidden: int, cache: str) -> dict[str, float]:
    root = str(Path(__file__).resolve().parents[2])
    paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    environment: dict[str, Any] = {**os.environ, "EDBATCH_CACHE": cache, "PYTHONPATH": paths}
    command = [sys.executable, "-m", "edbatch_tvm.peers.first_result", workload, str(hidden)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise EdbatchError(f"the first result of {workload} failed in a fresh process: {said}")
    figures: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return figures


if __name__ == "__main__":
    print(json.dumps(first_result(sys.argv[1], int(sys.argv[2]))))

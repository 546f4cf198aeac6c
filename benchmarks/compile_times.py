"""Time to compile many equal cells, one more cell, and many equal PyTorch networks; each in processes of its own.

python -m benchmarks.compile_times [--parts PART ...]

======== ==================================================================================
part     what is timed
======== ==================================================================================
equal    500 cells that differ in their weights alone
more     ten different cells; these and one more; that one by itself, as if nothing were known
networks 17 networks of five layers through ``eb.autobatch``, to the first result
======== ==================================================================================

Every part runs in a process without compiled cells, and again in one that finds what the first kept; the native
schedulers are there both times. Seconds of wall time and of processor time, imports not counted.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import Any

EQUAL, NETWORKS, LAYERS, SIZE = 500, 17, 5, 32
WORKLOADS = ("treelstm", "mvrnn", "childsum-tree", "lattice-gru")
MORE = 11


def timed(what: str, run: Callable[[], Any]) -> None:
    """Run, and print how long it took."""
    begin, used = perf_counter(), process_time()
    run()
    print(f"  {what:32} {perf_counter() - begin:7.2f} s, of a processor {process_time() - used:7.2f} s", flush=True)


def weights_for(mod: Any) -> dict[str, Any]:
    """Random weights for cells."""
    import numpy as np

    from relay_ext.signature import weights_of

    rng = np.random.default_rng(0)
    return {name: (rng.normal(size=spec.shape) / 8).astype(spec.dtype) for name, spec in weights_of(mod).items()}


def equal() -> None:
    """Cells of one structure, with a product, a table and a vector each."""
    import tvm
    from tvm import relax
    from tvm.script import relax as R

    import edbatch_tvm.compiler as compiler
    from edbatch_tvm.tvm_compat import TensorType

    def cell(number: int) -> Any:
        builder = relax.BlockBuilder()
        h, word = relax.Var("h", TensorType((SIZE,), "float32")), relax.Var("word", TensorType((), "int32"))
        shapes = {"W": (SIZE, SIZE), "table": (6, SIZE), "b": (SIZE,)}
        W, table, b = (relax.Var(f"{n}{number}", TensorType(shape, "float32")) for n, shape in shapes.items())
        with builder.function("cell", [h, word, W, table, b], attrs={"num_input": 2}):
            with builder.dataflow():
                row = builder.emit(R.take(table, word, axis=0))
                out = builder.emit_output(R.tanh(R.add(R.add(R.matmul(h, W), row), b)))
            builder.emit_func_output(out)
        return builder.finalize()["cell"].with_attr("global_symbol", f"cell{number}")

    mod = tvm.IRModule({f"cell{number}": cell(number) for number in range(EQUAL)})
    weights = weights_for(mod)
    timed(f"{EQUAL} equal cells", lambda: compiler.compile_model(mod, weights))


def more() -> None:
    """Cells of several workloads in one model, and one more."""
    import edbatch_tvm.compiler as compiler
    from edbatch_tvm.backends.cpu_cells import forget_cells
    from edbatch_tvm.models import get_workload
    from relay_ext.renaming import module_of, renamed
    from relay_ext.signature import cell_functions, weight_params

    cells = {}
    for workload in WORKLOADS:
        for name, function in cell_functions(get_workload(workload).cells(64)).items():
            label = f"{workload}_{name}".replace("-", "_")
            names = {one.name: f"{label}_{one.name}" for one in weight_params(function)}
            cells[label] = renamed(function, names)

    def compiled(what: str, which: slice) -> None:
        mod = module_of(dict(list(cells.items())[which]))
        weights = weights_for(mod)
        timed(what, lambda: compiler.compile_model(mod, weights))

    compiled(f"{MORE - 1} different cells", slice(MORE - 1))
    compiled("these and one more", slice(MORE))
    os.environ["EDBATCH_MODEL_CACHE"] = "none"
    forget_cells()
    compiled("the one alone, anew", slice(MORE - 1, MORE))


def networks() -> None:
    """Networks of one structure, each a cell."""
    import torch

    import edbatch_tvm as eb

    class Stack(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers = [part for _ in range(LAYERS) for part in (torch.nn.Linear(SIZE, SIZE), torch.nn.Tanh())]
            self.layers = torch.nn.Sequential(*layers)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layers(x)  # type: ignore[no-any-return]

    class Networks(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stacks = torch.nn.ModuleList(Stack() for _ in range(NETWORKS))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for stack in self.stacks:
                x = stack(x)
            return x

    model = Networks().requires_grad_(False)
    fast = eb.autobatch(model, cells=[f"stacks.{number}" for number in range(NETWORKS)])
    rows = list(torch.randn(4, SIZE))
    timed(f"{NETWORKS} networks of {LAYERS} layers", lambda: fast(rows))


PARTS = {"equal": equal, "more": more, "networks": networks}


def main() -> None:
    """Run the parts that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--inside", choices=PARTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        from edbatch_tvm.native.build import LIBRARIES, load_library

        for library in LIBRARIES:
            load_library(library)
        PARTS[arguments.inside]()
        return
    print(f"load of the machine {os.getloadavg()[0]:.1f}, {os.cpu_count()} processors")
    for part in arguments.parts:
        with TemporaryDirectory() as folder:
            for state in ("nothing is kept", "what was kept is found"):
                print(f"{part}, {state}:", flush=True)
                paths = str(Path(__file__).resolve().parents[1])
                environment = {**os.environ, "EDBATCH_MODEL_CACHE": f"{folder}/models", "PYTHONPATH": paths}
                command = [sys.executable, "-m", "benchmarks.compile_times", "--inside", part]
                subprocess.run(command, env=environment, check=True)


if __name__ == "__main__":
    main()

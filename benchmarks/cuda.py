"""The table for GPUs: builds, checks and times everything in one command and writes one JSON.

``python benchmarks/cuda.py [--json cuda.json] [--seconds 420] [--workloads ...] [--hidden ...] [--batch ...]``

On a machine with an NVIDIA GPU, nvcc (or NVRTC) and PyTorch. Nothing is downloaded: where TVM is not installed, the
wheels of apache-tvm and apache-tvm-ffi for this Python, unpacked in a folder ``tvm-site`` in the project or beside it,
or that folder as ``tvm-site.tar.xz``, will do. ``--emulate`` goes through all of it, at sizes that take seconds, with
the kernels as loops on the CPU; its times mean nothing.

What is compared, for every workload, hidden size, batch size and dtype, in instances per second:

========= ==========================================================================================================
schedule  ours, one launch for the whole schedule; `total` with merging, scheduling, planning and the upload of tables
batch     ours, one launch for each stage of each batch
step      ours, a training step: forward and backward pass, and the packing of new weights; in float32, up to hidden
          size 256. `gradient_error` is against the target ``numpy`` in float64
hand      PyTorch, batched by hand level by level (:class:`edbatch_tvm.peers.torch_runs.ByHand`), eager
graph     the same, captured as a CUDA graph and replayed
floor     bytes over measured bandwidth or arithmetic over measured rate, whichever is more, plus launches times the
          measured time of one
========= ==========================================================================================================
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tarfile
import tempfile
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def find_tvm() -> None:
    """Make ``import tvm`` work from a folder or archive beside the project, if it is not installed."""
    try:
        import tvm  # noqa: F401
    except ImportError:
        folder = ROOT.parent / "tvm-site"
        for base in (ROOT, ROOT.parent):
            archive = base / "tvm-site.tar.xz"
            if (base / "tvm-site").is_dir():
                folder = base / "tvm-site"
            elif archive.is_file():
                folder = Path(tempfile.mkdtemp(prefix="tvm-site-"))
                with tarfile.open(archive) as packed:
                    packed.extractall(folder, filter="data")
        sys.path.insert(0, str(folder))
        os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])


find_tvm()

import numpy as np  # noqa: E402
import torch  # noqa: E402

from edbatch_tvm.backends.cuda import cuda_target  # noqa: E402
from edbatch_tvm.checking.comparison import compare  # noqa: E402
from edbatch_tvm.checking.reference import run_reference  # noqa: E402
from edbatch_tvm.compiler import compile_model  # noqa: E402
from edbatch_tvm.flops import multiply_adds_of_graph  # noqa: E402
from edbatch_tvm.graph import InstanceGraph  # noqa: E402
from edbatch_tvm.models import WORKLOADS, get_workload  # noqa: E402
from edbatch_tvm.peers.torch_runs import ByHand  # noqa: E402
from edbatch_tvm.training.backward_cells import (  # noqa: E402
    float_arenas,
    section_functions,
    sum_cell,
    sum_name,
)
from relay_ext.gpu_cells import gpu_program  # noqa: E402
from relay_ext.gradients.adjoint_cells import adjoint_cells  # noqa: E402
from relay_ext.gradients.sections import backward_cell  # noqa: E402
from relay_ext.index_bounds import with_index_bounds  # noqa: E402
from relay_ext.pipeline import cell_passes, run_passes  # noqa: E402
from relay_ext.push_splits import PushSplits  # noqa: E402
from relay_ext.renaming import module_of  # noqa: E402
from relay_ext.signature import signature_of  # noqa: E402
from schedules.cuda.gradient_kernels import gradient_kernels  # noqa: E402
from schedules.cuda.nvcc import machine_code  # noqa: E402
from schedules.cuda.product_precision import PRODUCTS  # noqa: E402
from schedules.cuda.tir_pipeline import cuda_source  # noqa: E402

FIRST = ("treelstm", "lattice-lstm", "mvrnn", "bilstm-tagger", "treegru", "lattice-gru")
"""Workloads of the aims; the others follow while there is time."""

LARGEST_TRAINED = 256
"""Largest hidden size of training steps: kernels of adjoints compile for minutes."""

TOLERANCE = {"float32": 1e-5, "bfloat16": 5e-2}
"""Largest difference from the reference over its largest value."""


@dataclass
class Rates:
    """What the machine does at best, measured."""

    device: str
    bytes_per_second: float
    flops_per_second: dict[str, float]
    launch_seconds: float


@dataclass
class Row:
    """Figures of one workload at one size; seconds are of one minibatch."""

    workload: str
    hidden: int
    batch: int
    dtype: str
    nodes: int = 0
    batches: int = 0
    launches: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    instances_per_second: dict[str, float] = field(default_factory=dict)
    relative_error: float | None = None
    gradient_error: float | None = None
    bytes: int = 0
    flops: int = 0
    over_floor: float | None = None
    failed: dict[str, str] = field(default_factory=dict)


class Bench:
    """One run of the whole table.

    Parameters
    ----------
    emulate : bool
        On the CPU, to check the program itself.
    deadline : float
        When to begin nothing more, as :func:`time.perf_counter` has it.
    """

    def __init__(self, emulate: bool, deadline: float) -> None:
        self.emulate = emulate
        self.deadline = deadline
        self.target = "cuda-emulated" if emulate else "cuda"
        self.torch_device = "cpu" if emulate else "cuda"
        self.repeats = 2 if emulate else 20
        self.rates = self._rates()

    def seconds(self, run: Any) -> float:
        """Median time of `run` with the device idle before and after."""
        times = []
        run()
        for _ in range(self.repeats):
            self._wait()
            begin = perf_counter()
            run()
            self._wait()
            times.append(perf_counter() - begin)
            if perf_counter() > self.deadline:
                break
        return median(times)

    def _wait(self) -> None:
        if not self.emulate:
            torch.cuda.synchronize()

    def _rates(self) -> Rates:
        size, side = (2**16, 128) if self.emulate else (2**28, 8192)
        device = self.torch_device
        source = torch.zeros(size, device=device)
        to = torch.empty_like(source)
        bandwidth = 2 * source.nbytes / self.seconds(lambda: to.copy_(source))
        flops = {}
        torch.backends.cuda.matmul.allow_tf32 = False
        for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
            one = torch.randn(side, side, device=device).to(dtype)
            flops[name] = 2 * side**3 / self.seconds(lambda one=one: one @ one)
        small = torch.zeros(32, device=device)
        many = 200

        def launch() -> None:
            for _ in range(many):
                small.add_(1)

        name = "emulated" if self.emulate else torch.cuda.get_device_name()
        return Rates(name, bandwidth, flops, self.seconds(launch) / many)

    def row(self, workload: str, hidden: int, batch: int, dtype: str, models: dict[str, Any]) -> Row:
        """Check and time one size; `models` are kept for the next batch size."""
        found = get_workload(workload)
        mod, weights = found.cells(hidden), found.weights(hidden)
        if not models:
            for launch in ("schedule", "batch"):
                models[launch] = compile_model(mod, weights, target=self.target, launch=launch, dtype=dtype)
        instances = found.generate(batch, signature_of(mod), seed=1)
        row = Row(workload, hidden, batch, dtype)
        results: dict[str, np.ndarray] = {}
        graph = models["schedule"].merge(instances)
        schedule, info = models["schedule"].schedule(graph)
        row.nodes, row.batches = graph.num_nodes, len(schedule)
        for launch in ("schedule", "batch"):
            model = models[launch]
            plan = model.plan(graph, schedule)
            result = model.execute(graph, plan, info)
            row.launches[launch] = result.report.kernel_calls
            results[launch] = _flat(result)
            if launch == "schedule":
                row.relative_error = self._error(found, graph, weights, result, hidden * batch)
            row.seconds[launch] = self.seconds(lambda model=model, plan=plan: model.execute(graph, plan, info))
        row.seconds["total"] = self.seconds(lambda: models["schedule"](instances))
        if dtype == "float32" and hidden <= LARGEST_TRAINED:
            self._step(row, mod, weights, models, instances, hidden * batch)
        self._hand(row, workload, graph, weights, dtype, results)
        self._floor(row, mod, graph, weights, plan)
        row.instances_per_second = {name: batch / seconds for name, seconds in row.seconds.items()}
        tolerance = TOLERANCE[dtype]
        if row.relative_error is not None and not row.relative_error <= tolerance:
            row.failed["check"] = f"relative error {row.relative_error:.2g}, more than {tolerance:g}"
        if row.gradient_error is not None and not row.gradient_error <= tolerance:
            row.failed["check"] = f"relative error of a gradient {row.gradient_error:.2g}, more than {tolerance:g}"
        return row

    def _step(self, row: Row, mod: Any, weights: Any, models: dict[str, Any], instances: Any, size: int) -> None:
        """A training step; all outputs have random cotangents."""
        try:
            if "training" not in models:
                models["training"] = compile_model(mod, weights, target=self.target, training=True)
            model = models["training"]
            result = model(instances)
            rng = np.random.default_rng(0)
            values = np.unique(result.graph.outputs).tolist()
            cotangents = {value: rng.standard_normal(np.shape(result.value(value)), np.float32) for value in values}
            if size <= 2048:
                exact = compile_model(mod, weights, target="numpy", training=True)
                right, found = exact(instances).backward(cotangents), result.backward(cotangents, retain=True)
                row.gradient_error = max(_difference(found[name], right[name]) for name in right)

            def step() -> None:
                model(instances).backward(cotangents)
                model.refresh(weights)

            row.seconds["step"] = self.seconds(step)
        except Exception as error:
            row.failed["step"] = _line(error)

    def _error(self, found: Any, graph: InstanceGraph, weights: Any, result: Any, size: int) -> float | None:
        """Against the float64 reference where that takes no minutes; larger sizes are held against PyTorch."""
        if size > 2048:
            return None
        return compare(graph, result, run_reference(graph, found.reference, weights)).relative_error

    def _hand(
        self, row: Row, workload: str, graph: InstanceGraph, weights: Any, dtype: str, ours: dict[str, np.ndarray]
    ) -> None:
        kind = torch.float32 if dtype == "float32" else torch.bfloat16
        try:
            hand = ByHand(workload, graph, weights, device=self.torch_device, dtype=kind)
            row.seconds["hand"] = self.seconds(hand.run)
            theirs = hand.outputs().reshape(-1)
            difference = max(float(np.abs(theirs - mine).max()) for mine in ours.values())
            relative = difference / max(float(np.abs(theirs).max()), 1e-30)
            # In bfloat16 the two differ by what both round.
            if row.relative_error is None and dtype == "float32":
                row.relative_error = relative
        except Exception as error:
            row.failed["hand"] = _line(error)
            return
        if self.emulate:
            return
        try:
            captured = torch.cuda.CUDAGraph()
            with torch.cuda.graph(captured):
                hand.run()
            row.seconds["graph"] = self.seconds(captured.replay)
        except Exception as error:
            row.failed["graph"] = _line(error)

    def _floor(self, row: Row, mod: Any, graph: InstanceGraph, weights: Any, plan: Any) -> None:
        """Weights and tables once, every value written once, every operand row read once."""
        assert graph.signature is not None
        width = {"float32": 4, "bfloat16": 2}[row.dtype]
        sizes = np.array([spec.size for spec in graph.signature.value_specs])
        arenas = graph.signature.output_arena[graph.node_type]
        written = int(sizes[arenas[arenas >= 0]].sum())
        producer, slot = graph.operand_value // graph.stride, graph.operand_value % graph.stride
        known = graph.operand_value >= 0
        read = int(sizes[arenas[producer[known], slot[known]]].sum())
        row.bytes = width * (sum(array.size for array in weights.values()) + written + read)
        row.flops = 2 * multiply_adds_of_graph(mod, graph)
        work = max(row.bytes / self.rates.bytes_per_second, row.flops / self.rates.flops_per_second[row.dtype])
        row.seconds["floor"] = work + row.launches["schedule"] * self.rates.launch_seconds
        row.over_floor = row.seconds["schedule"] / row.seconds["floor"]


def _flat(result: Any) -> np.ndarray:
    """Declared outputs of all instances, one after another."""
    arrays = [one if isinstance(one, list) else [one] for one in result.host()]
    return np.concatenate([np.asarray(array).reshape(-1) for instance in arrays for array in instance])


def _difference(found: np.ndarray, right: np.ndarray) -> float:
    """Largest difference over the largest value."""
    return float(np.abs(found - right).max(initial=0) / max(float(np.abs(right).max(initial=0)), 1e-30))


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def compile_ahead(workload: str, hidden: int, dtype: str, arch: str) -> str:
    """Compile the kernels of a model into the cache, in a process of its own."""
    cells = get_workload(workload).cells(hidden)
    modules = [cells]
    if dtype == "float32" and hidden <= LARGEST_TRAINED:
        modules += training_modules(cells)
        machine_code(cuda_source(gradient_kernels(), cuda_target(arch)), arch)
    for mod in modules:
        single = run_passes(mod, cell_passes(share=True))
        program = gpu_program(single, with_index_bounds(signature_of(mod), single), products=PRODUCTS[dtype])
        machine_code(cuda_source(program.schedule_kernels(), cuda_target(arch)), arch)
        if mod is cells:
            machine_code(cuda_source(program.batch_kernels(), cuda_target(arch)), arch)
    return f"{workload} {hidden} {dtype}"


def training_modules(mod: Any) -> list[Any]:
    """What a training step runs: the cells with what they save, and the cells of the backward pass."""
    adjoints = adjoint_cells(run_passes(mod, [PushSplits()]))
    cells = {place: backward_cell(name, one) for place, (name, one) in enumerate(adjoints.cells.items())}
    signature = signature_of(adjoints.forward)
    arenas = float_arenas(signature, signature_of(mod))
    sums = {sum_name(arena): sum_cell(signature.value_specs[arena]) for arena in arenas}
    return [adjoints.forward, module_of(sums | section_functions(cells))]


def sizes_of(options: argparse.Namespace) -> list[tuple[str, int, str, list[int]]]:
    """Workload, hidden size, dtype and batch sizes, the most important first."""
    found = []
    for workload in sorted(options.workloads, key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST)):
        for hidden in options.hidden:
            if workload == "mvrnn" and hidden > 256:
                continue
            batches = [batch for batch in options.batch if not (workload == "mvrnn" and batch > 64)]
            found += [(workload, hidden, dtype, batches) for dtype in options.dtypes]
    # Size 512 is what the aims are stated for.
    return sorted(found, key=lambda one: (one[2] != "float32", one[1] != 512))


def main() -> None:
    """Run the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, default=Path("cuda.json"), help="where the figures go (%(default)s)")
    parser.add_argument("--seconds", type=float, default=420, help="begin no row later than this (%(default)s)")
    parser.add_argument("--workloads", nargs="+", default=list(WORKLOADS), choices=WORKLOADS)
    parser.add_argument("--hidden", nargs="+", type=int, default=[128, 256, 512, 1024])
    parser.add_argument("--batch", nargs="+", type=int, default=[8, 64, 256])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"], choices=list(TOLERANCE))
    parser.add_argument("--emulate", action="store_true", help="on the CPU, at tiny sizes")
    options = parser.parse_args()
    if options.emulate:
        options.hidden, options.batch = [8], [2]
    begin = perf_counter()
    bench = Bench(options.emulate, begin + options.seconds)
    print(f"{bench.rates}", flush=True)
    report: dict[str, Any] = {"rates": asdict(bench.rates), "rows": [], "not_run": []}
    wanted = sizes_of(options)
    pool = None
    if not options.emulate:
        arch = str(cuda_target(None).attrs["arch"])
        pool = ProcessPoolExecutor(min(len(wanted), os.cpu_count() or 1), get_context("spawn"))
        ahead = {pool.submit(compile_ahead, name, hidden, dtype, arch): 0 for name, hidden, dtype, _ in wanted}
        # The first rows wait for their kernels; later ones are compiled while those run.
        next(as_completed(ahead), None)
    for workload, hidden, dtype, batches in wanted:
        models: dict[str, Any] = {}
        for batch in batches:
            if perf_counter() > bench.deadline:
                report["not_run"].append([workload, hidden, batch, dtype])
                continue
            try:
                row = bench.row(workload, hidden, batch, dtype, models)
            except Exception as error:
                row = Row(workload, hidden, batch, dtype, failed={"schedule": _line(error)})
            report["rows"].append(asdict(row))
            print(_text(row), flush=True)
    if pool is not None:
        pool.shutdown(cancel_futures=True)
    report["seconds"] = perf_counter() - begin
    options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    failed = [row for row in report["rows"] if {"check", "schedule"} & set(row["failed"])]
    print(f"{len(report['rows'])} rows, {len(failed)} wrong, {len(report['not_run'])} not run: {options.json}")
    sys.exit(1 if failed else 0)


def _text(row: Row) -> str:
    """One row for a reader."""
    rates = ", ".join(f"{name} {rate:.0f}" for name, rate in row.instances_per_second.items())
    error = "" if row.relative_error is None else f", error {row.relative_error:.1e}"
    error += "" if row.gradient_error is None else f", of gradients {row.gradient_error:.1e}"
    failed = "".join(f"; {name}: {reason}" for name, reason in row.failed.items())
    return f"{row.workload} H={row.hidden} B={row.batch} {row.dtype}: {rates} instances/s{error}{failed}"


if __name__ == "__main__":
    main()

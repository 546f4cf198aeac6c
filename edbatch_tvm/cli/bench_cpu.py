"""``edbatch bench cpu``: our speed beside PyTorch's and DyNet's on this CPU."""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edbatch_tvm.cli.options import add_checkpoint, new_file, not_negative, positive, use_checkpoint
from edbatch_tvm.cli.output import track, write_json
from edbatch_tvm.errors import EdbatchError
from edbatch_tvm.models import WORKLOADS
from edbatch_tvm.peers import PEERS

if TYPE_CHECKING:
    from edbatch_tvm.peers.compare import BenchOptions


def register(parts: Any) -> None:
    """Add the part to the verb ``bench``."""
    summary = "Compare speed on this CPU with PyTorch by hand and one node at a time, DyNet, and our other ways to run."
    parser: argparse.ArgumentParser = parts.add_parser("cpu", help=summary, description=summary)
    parser.set_defaults(function=bench_cpu)
    add = parser.add_argument
    add("--workloads", nargs="+", choices=WORKLOADS, metavar="NAME", help=f"{', '.join(WORKLOADS)} (all)")
    parser.set_defaults(default_workloads=list(WORKLOADS))
    add_checkpoint(parser, [64, 128, 256, 512])
    add("--batch-size", type=positive, nargs="+", default=[1, 8, 64, 256], metavar="N", help="(1 8 64 256)")
    add("--peers", nargs="*", choices=PEERS, default=["hand"], metavar="PEER", help=f"{', '.join(PEERS)} (hand)")
    add("--everywhere", action="store_true", help="run all peers at all sizes; without it slow ones only at a few")
    add("--minibatches", type=not_negative, default=0, metavar="N", help="of a size; 0: enough for 8 instances (0)")
    add("--repeat", type=positive, default=7, metavar="R", help="turns of a size at most, medians count (%(default)s)")
    add(
        "--budget", type=positive, default=2, metavar="S", help="no turn begins after S seconds of a size (%(default)s)"
    )
    add("--threads", type=positive, metavar="N", help="of all contenders (the physical cores)")
    add("--data-root", type=Path, metavar="DIR", help="folder of data files; without it instances are generated")
    add("--dynet-python", type=Path, metavar="PATH", help="interpreter that has DyNet, for the peer dynet")
    add("--compile-times", type=positive, nargs="*", metavar="H", help="time cells to first result in fresh processes")
    add(
        "--results",
        type=Path,
        metavar="DIR",
        help="keep a file a workload and hidden size; what is there is not redone",
    )
    add("--seed", type=not_negative, default=0, metavar="N", help="of instances and weights (%(default)s)")
    add("--json", type=new_file, metavar="FILE", help="write the figures as JSON; - for standard output")
    add("--markdown", type=new_file, metavar="FILE", help="write the tables, between their marks where FILE has them")
    add("--debug", action="store_true", help="show where an error comes from")


def bench_cpu(arguments: argparse.Namespace) -> None:
    """Run the part ``cpu``."""
    from edbatch_tvm.peers.compare import BenchOptions, machine
    from edbatch_tvm.peers.markdown_tables import tables, write_tables

    use_checkpoint(arguments)
    threads = _set_threads(arguments.threads, arguments.peers)
    options = BenchOptions(
        peers=tuple(arguments.peers),
        hidden=tuple(arguments.hidden),
        batch_sizes=tuple(arguments.batch_size),
        minibatches=arguments.minibatches,
        repeat=arguments.repeat,
        budget=arguments.budget,
        everywhere=arguments.everywhere,
        data_root=arguments.data_root,
        seed=arguments.seed,
        checkpoint=arguments.checkpoint,
    )
    dynet, reason = _start_dynet(arguments, threads)
    try:
        about = machine(threads, dynet)
        parts = [
            _workload(name, hidden, options, about, dynet, reason, arguments.results)
            for name, hidden in track([(n, h) for n in arguments.workloads for h in arguments.hidden], "sizes")
        ]
    finally:
        if dynet is not None:
            dynet.close()
    figures: dict[str, Any] = {
        "machine": about,
        **{rate: max((part["rates"][rate] for part in parts), default=0.0) for rate in ("peak_gflops", "fma_gflops")},
        "rows": [row for part in parts for row in part["rows"]],
        "first_result": _first_results(arguments),
    }
    text = tables(figures)
    if str(arguments.json) != "-":
        print(text)
    write_json(arguments.json, figures)
    if arguments.markdown is not None:
        write_tables(arguments.markdown, text)


def _set_threads(given: int | None, peers: list[str]) -> int:
    """Set the same number of threads everywhere."""
    from edbatch_tvm.peers.contenders import OF_TORCH, require_torch
    from edbatch_tvm.runtime.threads import get_num_threads, set_num_threads

    if given is not None:
        set_num_threads(given)
    threads = get_num_threads()
    if OF_TORCH & set(peers):
        require_torch().set_num_threads(threads)
    return threads


def _start_dynet(arguments: argparse.Namespace, threads: int) -> tuple[Any, str]:
    """DyNet, or why there is none."""
    from edbatch_tvm.peers.dynet_run import HINT, DyNet

    if "dynet" not in arguments.peers:
        return None, ""
    if arguments.dynet_python is None:
        raise EdbatchError("the peer dynet without an interpreter", "--dynet-python PATH", HINT)
    return DyNet(arguments.dynet_python, threads), ""


def _workload(
    name: str, hidden: int, options: BenchOptions, about: dict[str, Any], dynet: Any, reason: str, folder: Path | None
) -> dict[str, Any]:
    """Figures of a workload at a hidden size, from the folder of results where they are there already."""
    from edbatch_tvm.peers.compare import measure_workload

    own = {"hidden": hidden, "machine": about}
    if options.checkpoint is not None:
        own["checkpoint"] = hashlib.sha256(options.checkpoint.read_bytes()).hexdigest()
    settings = json.loads(json.dumps({**asdict(options), **own}, default=str))
    path = None if folder is None else folder / f"{name}-h{hidden}.json"
    if path is not None and path.is_file():
        known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if known.get("settings") == settings:
            return known
    rows, rates = measure_workload(name, hidden, options, dynet, reason)
    part: dict[str, Any] = {"settings": settings, "rates": rates, "rows": [asdict(row) for row in rows]}
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, part)
    return part


def _first_results(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    from edbatch_tvm.peers.first_result import in_fresh_processes

    if arguments.compile_times is None:
        return []
    wanted = [(name, hidden) for name in arguments.workloads for hidden in arguments.compile_times or [128]]
    return [
        {"workload": name, "hidden": hidden, **in_fresh_processes(name, hidden)}
        for name, hidden in track(wanted, "fresh processes")
    ]

"""``edbatch bench training``: a training step beside PyTorch's and DyNet's on this CPU."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edbatch_tvm.cli.options import add_checkpoint, new_file, not_negative, positive, use_checkpoint
from edbatch_tvm.cli.output import track, write_json

WORKLOADS = ("treelstm", "lattice-lstm", "bilstm-tagger")
PEERS = ("hand", "eager", "dynet")


def register(parts: Any) -> None:
    """Add the part to the verb ``bench``."""
    summary = "Compare a training step on this CPU with PyTorch by level and one node at a time, and DyNet."
    parser: argparse.ArgumentParser = parts.add_parser("training", help=summary, description=summary)
    parser.set_defaults(function=bench_training)
    add = parser.add_argument
    add("--workloads", nargs="+", choices=WORKLOADS, metavar="NAME", help=f"{', '.join(WORKLOADS)} (all)")
    parser.set_defaults(default_workloads=list(WORKLOADS))
    add_checkpoint(parser, [64, 128, 256])
    add("--batch-size", type=positive, nargs="+", default=[1, 64, 256], metavar="N", help="(1 64 256)")
    add(
        "--peers",
        nargs="*",
        choices=PEERS,
        default=list(PEERS),
        metavar="PEER",
        help=f"{', '.join(PEERS)} (all; dynet where --dynet-python has it)",
    )
    add("--repeat", type=positive, default=7, metavar="R", help="turns of a size at most, medians count (%(default)s)")
    add(
        "--budget", type=positive, default=5, metavar="S", help="no turn begins after S seconds of a size (%(default)s)"
    )
    add(
        "--clock", choices=("wall", "cpu"), default="wall", help="cpu: processor time, for a busy machine (%(default)s)"
    )
    add("--threads", type=positive, default=1, metavar="N", help="of all contenders (%(default)s)")
    add("--data-root", type=Path, metavar="DIR", help="folder of data files; without it instances are generated")
    add("--dynet-python", type=Path, metavar="PATH", help="interpreter that has DyNet, for the peer dynet")
    add("--seed", type=not_negative, default=0, metavar="N", help="of instances, labels and weights (%(default)s)")
    add("--json", type=new_file, metavar="FILE", help="write the figures as JSON; - for standard output")
    add("--debug", action="store_true", help="show where an error comes from")


def bench_training(arguments: argparse.Namespace) -> None:
    """Run the part ``training``."""
    from edbatch_tvm.errors import EdbatchError, EnvironmentMismatch
    from edbatch_tvm.peers.compare import BenchOptions, machine
    from edbatch_tvm.peers.contenders import OF_TORCH, require_torch
    from edbatch_tvm.peers.dynet_run import HINT, DyNet
    from edbatch_tvm.peers.training import measure_training, training_table
    from edbatch_tvm.runtime.threads import set_num_threads

    use_checkpoint(arguments)
    if arguments.clock == "cpu" and arguments.threads > 1:
        raise EdbatchError("processor time of several threads", "--clock wall, or --threads 1")
    set_num_threads(arguments.threads)
    if OF_TORCH & set(arguments.peers):
        require_torch().set_num_threads(arguments.threads)
    options = BenchOptions(
        peers=tuple(arguments.peers),
        hidden=tuple(arguments.hidden),
        batch_sizes=tuple(arguments.batch_size),
        repeat=arguments.repeat,
        budget=arguments.budget,
        data_root=arguments.data_root,
        seed=arguments.seed,
        checkpoint=arguments.checkpoint,
    )
    dynet, reason = None, f"no interpreter that has it; --dynet-python names one ({HINT})"
    if "dynet" in arguments.peers and arguments.dynet_python is not None:
        try:
            dynet = DyNet(arguments.dynet_python, arguments.threads)
        except EnvironmentMismatch as error:
            reason = str(error)
    rows: list[Any] = []
    rate = 0.0
    try:
        about = machine(arguments.threads, dynet)
        for name, hidden in track([(n, h) for n in arguments.workloads for h in arguments.hidden], "sizes"):
            found, own_rate = measure_training(name, hidden, options, dynet, reason, arguments.clock)
            rows += found
            rate = max(rate, own_rate)
    finally:
        if dynet is not None:
            dynet.close()
    if str(arguments.json) != "-":
        versions = ", ".join(f"{name} {about[name]}" for name in ("tvm", "numpy", "torch", "dynet") if name in about)
        said = f"threads: {arguments.threads}, clock: {arguments.clock}, fused multiply-adds {rate:.0f} GFLOP/s"
        print(f"{about['cpu']}, {said}, {versions}\n")
        print(training_table(rows, rate))
    figures = {"machine": about, "clock": arguments.clock, "fma_gflops": rate, "rows": [asdict(row) for row in rows]}
    write_json(arguments.json, figures)

"""``edbatch train``: train a workload on a labelled data file."""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edbatch_tvm.batching import AUTO, policy_names
from edbatch_tvm.cli.options import new_file, not_negative, positive
from edbatch_tvm.cli.output import print_pairs, print_under_bars, training_bar, write_json
from edbatch_tvm.models import WORKLOADS
from edbatch_tvm.trainer.options import OPTIMIZERS, TrainOptions

if TYPE_CHECKING:
    from edbatch_tvm.trainer.run import EpochReport, Training


def register(verbs: Any) -> None:
    """Add the verb to `verbs`."""
    summary = "Train a workload on a data file with labels."
    parser: argparse.ArgumentParser = verbs.add_parser("train", help=summary, description=summary)
    parser.set_defaults(function=train)
    add = parser.add_argument
    add("workload", metavar="WORKLOAD", choices=WORKLOADS, help=", ".join(WORKLOADS))
    add("--data", type=Path, required=True, metavar="PATH", help="instances to train on")
    add("--dev", type=Path, required=True, metavar="PATH", help="instances to measure accuracy on after each epoch")
    add(
        "--epochs",
        type=positive,
        default=10,
        metavar="N",
        help="epochs, those of the checkpoint included (%(default)s)",
    )
    add("--hidden", type=positive, default=128, metavar="H", help="hidden and embedding size (%(default)s)")
    add("--batch-size", type=positive, default=64, metavar="N", help="instances of a minibatch (%(default)s)")
    add("--optimizer", choices=tuple(OPTIMIZERS), default="adam", help="%(choices)s (%(default)s)")
    rates = ", ".join(f"{name} {rate:g}" for name, rate in OPTIMIZERS.items())
    add("--lr", type=_rate, metavar="X", help=f"learning rate ({rates})")
    add("--momentum", type=_momentum, default=0.0, metavar="X", help="of sgd (%(default)s)")
    add(
        "--dropout",
        type=_probability,
        default=0.0,
        metavar="P",
        help="drop numbers of what outputs are computed from with this probability, in training (%(default)s)",
    )
    add(
        "--policy",
        choices=policy_names(),
        default=AUTO,
        metavar="NAME",
        help="batching policy: %(choices)s; fsm learns one from the data file (%(default)s)",
    )
    add(
        "--vocabulary",
        type=positive,
        metavar="N",
        help="words with an embedding of their own, the most frequent ones (all of the data file)",
    )
    add("--seed", type=not_negative, default=0, metavar="N", help="of weights and of the order (%(default)s)")
    add(
        "--checkpoint",
        type=new_file,
        metavar="FILE",
        help="go on from this file, if it exists; it is written after each epoch and on Ctrl-C",
    )
    add("--json", type=new_file, metavar="FILE", help="write the figures as JSON; - for standard output")
    add("--debug", action="store_true", help="show where an error comes from")


def train(arguments: argparse.Namespace) -> None:
    """Run the verb."""
    from edbatch_tvm.benchmarking.fma_peak import fma_gflops
    from edbatch_tvm.trainer.run import Training

    options = TrainOptions(**{field.name: getattr(arguments, field.name) for field in fields(TrainOptions)})
    training = Training(options)
    quiet = str(arguments.json) == "-"
    if not quiet:
        print_pairs(_head(training))
        sys.stdout.flush()
    with training_bar(training.steps) as show:
        for report in training.epochs(show):
            if not quiet:
                print_under_bars(_line(report))
    peak = fma_gflops()
    epochs = training.checkpoint.epochs
    if epochs and not quiet:
        # The first epoch also compiles the backward cells.
        best = min(figures["seconds"]["total"] for figures in epochs)
        rate = training.flops / best / 1e9
        print_pairs(
            [
                ("best epoch", f"{best:.2f} s, {rate:.1f} GFLOP/s; this machine's multiply-adds {peak:.1f}"),
                ("of an epoch", _parts(epochs[-1]["seconds"])),
            ]
        )
    head = {field: getattr(options, field) for field in ("workload", "hidden", "batch_size", "optimizer", "seed")}
    figures = {"lr": options.rate, "flops": training.flops, "fma_gflops": peak, "epochs": epochs}
    write_json(arguments.json, head | figures)


def _head(training: Training) -> list[tuple[str, str]]:
    options, at = training.options, training.checkpoint
    train, dev = training.instances
    words = ", ".join(f"{len(one.words)} {name}s" for name, one in at.vocabularies.items())
    rows = [
        ("workload", f"{options.workload}, hidden {options.hidden}, vocabulary {words}, {len(at.labels)} labels"),
        ("data", f"{options.data}: {train} instances, {training.steps} steps; {options.dev}: {dev} instances"),
        ("optimizer", f"{options.optimizer}, learning rate {options.rate:g}"),
    ]
    if training.resumed:
        rows.append(("goes on", f"after {at.epoch} epochs and {at.step} steps"))
    return rows


def _line(report: EpochReport) -> str:
    accuracy = f"dev accuracy {report.dev_accuracy:.4f}"
    if report.dev_root_accuracy is not None:
        accuracy = f"dev accuracy {report.dev_root_accuracy:.4f} at the root, {report.dev_accuracy:.4f} of all nodes"
    seconds = f"{report.seconds['total']:.2f} s"
    return f"epoch {report.epoch:>3}  loss {report.loss:.4f}, dev loss {report.dev_loss:.4f}, {accuracy}; {seconds}"


def _parts(seconds: dict[str, float]) -> str:
    names = ("forward", "backward", "optimizer", "refresh", "other")
    return ", ".join(f"{name} {100 * seconds[name] / seconds['total']:.0f} %" for name in names)


def _rate(text: str) -> float:
    return _number(text, lambda rate: 0 < rate < math.inf, "a number above 0")


def _momentum(text: str) -> float:
    return _number(text, lambda momentum: 0 <= momentum < 1, "a number from 0 to below 1")


def _probability(text: str) -> float:
    return _number(text, lambda p: 0 <= p < 1, "a probability from 0 to below 1")


def _number(text: str, fits: Any, expected: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not fits(number):
        raise argparse.ArgumentTypeError(f"{text!r} is not {expected}")
    return number

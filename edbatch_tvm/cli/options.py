"""Options that several verbs share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edbatch_tvm.batching import AUTO, ENCODINGS, LEARNERS
from edbatch_tvm.models import WORKLOADS


def add_verb(verbs: Any, name: str, summary: str, function: Any) -> argparse.ArgumentParser:
    """A verb with a workload and the options that every verb has."""
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=summary, description=summary)
    parser.set_defaults(function=function)
    parser.add_argument("workload", metavar="WORKLOAD", choices=WORKLOADS, help=", ".join(WORKLOADS))
    parser.add_argument(
        "--batch-size", type=positive, default=64, metavar="N", help="instances of a minibatch (%(default)s)"
    )
    parser.add_argument(
        "--encoding",
        choices=(AUTO, *ENCODINGS),
        default=AUTO,
        help="what a learned policy sees of a frontier: %(choices)s; auto takes the better of sort and tight, judged on"
        " minibatches held back from learning (%(default)s)",
    )
    parser.add_argument(
        "--learner",
        choices=LEARNERS,
        default=LEARNERS[0],
        help="how a policy is learned: %(choices)s; paper is Q-learning as published (%(default)s)",
    )
    parser.add_argument(
        "--granularity",
        choices=("cell", "op"),
        default="cell",
        help="what is batched: cells, or each of their operators by itself (%(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=not_negative,
        default=0,
        metavar="N",
        help="of weights, generated data and learning (%(default)s)",
    )
    parser.add_argument(
        "--json", type=new_file, metavar="FILE", help="write the figures as JSON; - for standard output"
    )
    parser.add_argument("--debug", action="store_true", help="show where an error comes from")
    return parser


def add_hidden(parser: argparse.ArgumentParser, default: int, what: str) -> None:
    """The options ``--hidden`` and ``--checkpoint``; see :func:`hidden_size`."""
    parser.add_argument("--hidden", type=positive, metavar="H", help=f"{what} ({default}, or that of the checkpoint)")
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="weights, vocabulary and policy that edbatch train wrote (random weights, words modulo 256)",
    )
    parser.set_defaults(default_hidden=default)


def add_checkpoint(parser: argparse.ArgumentParser, default: list[int]) -> None:
    """The options ``--hidden``, of several sizes, and ``--checkpoint``; see :func:`use_checkpoint`."""
    sizes = " ".join(map(str, default))
    parser.add_argument("--hidden", type=positive, nargs="+", metavar="H", help=f"({sizes}, or that of the checkpoint)")
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="weights and vocabulary that edbatch train wrote, for its workload alone (random weights of each)",
    )
    parser.set_defaults(default_hidden=default)


def use_checkpoint(arguments: argparse.Namespace) -> None:
    """Let the workloads and hidden sizes be those that were given, those of the checkpoint, or the verb's own."""
    found = None
    if arguments.checkpoint is not None:
        from edbatch_tvm.models.checkpoint import load_checkpoint

        found = load_checkpoint(arguments.checkpoint)
    if arguments.workloads is None:
        arguments.workloads = arguments.default_workloads if found is None else [found.workload]
    if arguments.hidden is None:
        arguments.hidden = arguments.default_hidden if found is None else [found.hidden]


def hidden_size(arguments: argparse.Namespace) -> int:
    """The hidden size: the one that was given, that of the checkpoint, or the verb's own."""
    if arguments.hidden is not None:
        return int(arguments.hidden)
    if arguments.checkpoint is None:
        return int(arguments.default_hidden)
    from edbatch_tvm.models.checkpoint import load_checkpoint

    return load_checkpoint(arguments.checkpoint).hidden


def positive(text: str) -> int:
    """An integer of 1 or more, for argparse."""
    return _at_least(1, text)


def not_negative(text: str) -> int:
    """An integer of 0 or more, for argparse."""
    return _at_least(0, text)


def new_file(text: str) -> Path:
    """A file to write in a folder that exists, for argparse: better to know before an hour of work than after."""
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is no file in an existing folder")
    return path


def policy_file(text: str) -> Path:
    """A policy file to write, for argparse."""
    path = new_file(text)
    if path.suffix != ".json":
        raise argparse.ArgumentTypeError(f"{text!r} does not end in .json")
    return path


def _at_least(least: int, text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least:
        raise argparse.ArgumentTypeError(f"{text!r} is no integer of {least} or more")
    return number

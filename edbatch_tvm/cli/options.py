"""Options that several verbs share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edbatch_tvm.batching.encoding import ENCODINGS
from edbatch_tvm.models import WORKLOADS


def add_verb(verbs: Any, name: str, summary: str, function: Any) -> argparse.ArgumentParser:
    """A verb with a workload and the options that every verb has."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        name, help=summary, description=summary, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.set_defaults(function=function)
    parser.add_argument("workload", metavar="WORKLOAD", choices=WORKLOADS, help=", ".join(WORKLOADS))
    parser.add_argument("--batch-size", type=positive, default=64, metavar="N", help="instances of a minibatch")
    parser.add_argument("--encoding", choices=ENCODINGS, default="sort", help="state encoding of a learned policy")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of weights, generated data and learning")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON; - for standard output")
    parser.add_argument("--debug", action="store_true", help="show where an error comes from")
    return parser


def positive(text: str) -> int:
    """An integer of 1 or more, for argparse."""
    return _at_least(1, text)


def not_negative(text: str) -> int:
    """An integer of 0 or more, for argparse."""
    return _at_least(0, text)


def _at_least(least: int, text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least:
        raise argparse.ArgumentTypeError(f"{text!r} is no integer of {least} or more")
    return number

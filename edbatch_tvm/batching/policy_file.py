"""Policy files: learned tables as versioned JSON. Reading one executes nothing."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, fields
from typing import Any, NoReturn

from edbatch_tvm.argument_checks import as_path
from edbatch_tvm.atomic_file import write_text
from edbatch_tvm.batching.encoding import ENCODINGS
from edbatch_tvm.batching.fsm import FsmPolicy, LearnStats
from edbatch_tvm.errors import PolicyError

FORMAT = "edbatch-policy"
VERSION = 1


def save_policy(policy: FsmPolicy, path: str | os.PathLike[str]) -> None:
    """Write `policy` to a file; a reader sees the old file or the whole new one.

    Parameters
    ----------
    policy : FsmPolicy
    path : path
        Must end in ``.json``.

    Raises
    ------
    PolicyError
        If `policy` has no table, or the path cannot be written.
    """
    if not isinstance(policy, FsmPolicy):
        raise PolicyError(f"a {type(policy).__name__} cannot be saved", "a learned FsmPolicy")
    target = as_path("policy file", path, PolicyError)
    if target.suffix != ".json":
        raise PolicyError(f"policy file {target.name!r}", "a name that ends in .json")
    try:
        write_text(target, policy_text(policy))
    except OSError as error:
        raise PolicyError(f"policy file {str(target)!r} cannot be written: {error.strerror}") from error


def policy_text(policy: FsmPolicy) -> str:
    """What :func:`save_policy` writes."""
    head = json.dumps(
        {
            "format": FORMAT,
            "version": VERSION,
            "encoding": policy.encoding,
            "cells": list(policy.type_names),
            "stats": asdict(policy.stats),
        },
        indent=1,
    )
    rows = ",\n".join("  " + json.dumps([list(state), action]) for state, action in sorted(policy.table.items()))
    return f'{head[:-2]},\n "table": [\n{rows}\n ]\n}}\n'


def load_policy(path: str | os.PathLike[str], type_names: tuple[str, ...] | None = None) -> FsmPolicy:
    """Read a policy that :func:`save_policy` wrote.

    Parameters
    ----------
    path : path
    type_names : tuple of str, optional
        Cell names of the model it has to fit.

    Raises
    ------
    PolicyError
        If the file cannot be read, is no policy or a broken one, is of another version, or was learned for other cells.
    """
    name = str(path)
    try:
        text = as_path("policy file", path, PolicyError).read_text(encoding="utf-8")
    except OSError as error:
        raise PolicyError(f"policy file {name!r}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise PolicyError(f"policy file {name!r}: is no text", "a policy file written by save_policy") from None
    return parse_policy(text, name, type_names)


def parse_policy(text: str, name: str, type_names: tuple[str, ...] | None = None) -> FsmPolicy:
    """The policy that a file called `name` has, by its text; see :func:`load_policy`."""

    def refuse(given: str, expected: str = "", hint: str = "") -> NoReturn:
        raise PolicyError(f"policy file {name!r}: {given}", expected, hint)

    try:
        document = json.loads(text, parse_constant=lambda constant: refuse(f"holds {constant}", "whole numbers"))
    except PolicyError:
        raise
    except json.JSONDecodeError as error:
        refuse(f"is no JSON (line {error.lineno}: {error.msg})", "a policy file written by save_policy")
    except (ValueError, RecursionError) as error:
        where = "nested too deep" if isinstance(error, RecursionError) else "a number of too many digits"
        refuse(f"is no JSON ({where})", "a policy file written by save_policy")
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        refuse("is no policy", f"an object with format {FORMAT!r}")
    if document.get("version") != VERSION:
        refuse(f"version {document.get('version')!r}", f"version {VERSION}", "learn the policy again")
    encoding, cells = document.get("encoding"), document.get("cells")
    if encoding not in ENCODINGS:
        refuse(f"encoding {encoding!r}", f"one of {', '.join(ENCODINGS)}")
    if not isinstance(cells, list) or not all(isinstance(cell, str) for cell in cells):
        refuse("cells is no list of names", "the names of the model's cells")
    if type_names is not None and tuple(cells) != tuple(type_names):
        refuse(
            f"learned for cells {', '.join(cells)}", f"cells {', '.join(type_names)}", "learn a policy for this model"
        )
    table = {}
    for index, row in enumerate(_rows(document.get("table"), refuse)):
        if not _is_row(row):
            refuse(f"row {index} of the table is {json.dumps(row)[:60]}", "[[state], action] of whole numbers")
        state = tuple(row[0])
        if state in table:
            refuse(f"state {row[0]} is in the table twice", "each state once")
        table[state] = row[1]
    try:
        return FsmPolicy(encoding, tuple(cells), table, _stats(document.get("stats")))
    except PolicyError as error:
        refuse(error.given, error.expected, error.hint)


def _rows(table: Any, refuse: Any) -> list[Any]:
    if not isinstance(table, list):
        refuse("table is no list", "a list of [[state], action]")
    rows: list[Any] = table
    return rows


def _is_row(row: Any) -> bool:
    return (
        isinstance(row, list)
        and len(row) == 2
        and isinstance(row[0], list)
        and all(type(word) is int for word in row[0])
        and type(row[1]) is int
    )


def _stats(stats: Any) -> LearnStats:
    """The statistics of a file as far as they are known here; nothing depends on them."""
    if not isinstance(stats, dict):
        return LearnStats()
    names = {field.name for field in fields(LearnStats)}
    known: dict[str, Any] = {name: value for name, value in stats.items() if name in names}
    return LearnStats(**known)

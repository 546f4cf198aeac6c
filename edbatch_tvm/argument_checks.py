"""Arguments of public functions that are of another type: one error, whatever they are."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from edbatch_tvm.errors import EdbatchError


def require_type(value: Any, wanted: type, expected: str, error: type[EdbatchError]) -> None:
    """Refuse what is no instance of `wanted`.

    Raises
    ------
    EdbatchError
        Of the class `error`.
    """
    if not isinstance(value, wanted):
        raise error(f"a {type(value).__name__}", expected)


def require_choice(what: str, value: Any, choices: Collection[str], error: type[EdbatchError]) -> None:
    """Refuse anything that is not one of the texts `choices`.

    Raises
    ------
    EdbatchError
        Of the class `error`.
    """
    if not isinstance(value, str) or value not in choices:
        raise error(f"unknown {what} {value!r:.60}", f"one of {', '.join(choices)}")


def require_unmasked(what: str, array: Any, error: type[EdbatchError]) -> None:
    """Refuse an array that has masked elements: what lies under a mask would be computed with.

    Raises
    ------
    EdbatchError
        Of the class `error`.
    """
    if isinstance(array, np.ma.MaskedArray) and np.ma.is_masked(array):
        raise error(f"{what} is an array with masked elements", "an array without a mask", "array.filled(value)")


def as_path(what: str, value: Any, error: type[EdbatchError]) -> Path:
    """A path that was given as a text or a path.

    Raises
    ------
    EdbatchError
        Of the class `error`.
    """
    if not isinstance(value, str | os.PathLike) or not isinstance(os.fspath(value), str) or "\0" in os.fspath(value):
        raise error(f"{what} is {value!r:.60}", "a path")
    return Path(value)

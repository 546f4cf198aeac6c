"""Reading data files line by line, with errors that name the file and the line."""

from __future__ import annotations

import codecs
from pathlib import Path

from edbatch_tvm.errors import DataError

_SHOWN = 200
"""Characters of a broken line that an error shows."""


def read_lines(path: str | Path) -> list[str]:
    """The lines of a UTF-8 text file without their ends; line ``i`` of the file is item ``i - 1``.

    Raises
    ------
    DataError
        If the file is missing, unreadable or not UTF-8.
    """
    lines = read_text(path)[1].split("\n")
    if not lines[-1]:
        lines.pop()
    return [line.rstrip("\r") for line in lines]


def read_text(path: str | Path) -> tuple[bytes, str]:
    """The bytes of a UTF-8 text file, and its text; a byte order mark at the beginning is no part of them.

    Raises
    ------
    DataError
        If the file is missing, unreadable or not UTF-8.
    """
    try:
        raw = Path(path).read_bytes()
    except FileNotFoundError:
        raise DataError(f"no data file {path}", "an existing file") from None
    except OSError as error:
        raise DataError(f"data file {path} cannot be read: {error.strerror}") from None
    raw = raw.removeprefix(codecs.BOM_UTF8)  # some editors write one: it would become part of the first word
    try:
        return raw, raw.decode()
    except UnicodeDecodeError as error:
        raise broken_line(
            path, raw.count(b"\n", 0, error.start) + 1, "bytes that are no UTF-8", "a text file"
        ) from None


def broken_line(path: str | Path, line: int, given: str, expected: str) -> DataError:
    """The error for line `line` (from 1) of `path`."""
    shown = given if len(given) <= _SHOWN else f"{given[: _SHOWN // 2]} ... {given[-_SHOWN // 2 :]}"
    return DataError(f"{path}, line {line}: {shown}", expected)

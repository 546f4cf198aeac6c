"""Imported programs kept on disk: a later process that meets the same code need not export it again.

``torch.export`` alone takes seconds to import, and half a second for each cell. What is kept is found by the digest of
the code (:mod:`edbatch_tvm.recording.code_digest`), of what it is called with and of all versions; code that cannot be
read is exported in every process. Compiled cells are compared with the model's own code all the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from typing import Any

from edbatch_tvm.errors import CellError
from edbatch_tvm.recording.code_digest import code_digest
from edbatch_tvm.runtime.compilation_cache import PROGRAM_SUFFIX, digest_of, find_file, folder, keep_file
from edbatch_tvm.tvm_compat import load_json, save_json
from relay_ext.importer import ImportedProgram

_TRANSIENT = (MemoryError, OSError, RecursionError)
"""What may not fail in another process."""


def program_of(cell: str, structure: Hashable, make: Callable[[], ImportedProgram]) -> ImportedProgram:
    """The program of code of this structure: what an earlier process kept, or what `make` returns.

    Parameters
    ----------
    cell : str
        What the cell is called in errors.

    Raises
    ------
    CellError
        If `make` raises one, or an earlier process kept one.
    """
    name = _name("program", structure)
    kept = _found(name)
    if "refused" in kept:
        raise CellError(*(text.replace(repr(kept["cell"]), repr(cell)) for text in kept["refused"]))
    if "function" in kept:
        with suppress(ValueError, TypeError, RuntimeError):  # TVM does not read it
            return ImportedProgram(load_json(kept["function"]), kept["paths"])
    try:
        made = make()
    except CellError as error:
        if type(error) is CellError and not isinstance(error.__cause__, _TRANSIENT):
            _keep(name, {"cell": cell, "refused": [error.given, error.expected, error.hint]})
        raise
    _keep(name, {"function": save_json(made.function), "paths": made.paths})
    return made


def answer_of(question: str, structure: Hashable, find: Callable[[], bool]) -> bool:
    """Whether something holds for code of this structure: what an earlier process found out, or what `find` returns.

    It does not hold where `find` raises a CellError.
    """
    name = _name(question, structure)
    kept = _found(name)
    if "answer" in kept:
        return kept["answer"] is True
    try:
        found = find()
    except CellError as error:
        if isinstance(error.__cause__, _TRANSIENT):
            return False
        found = False
    _keep(name, {"answer": found})
    return found


def _found(name: str | None) -> dict[str, Any]:
    """What :func:`_keep` wrote; nothing where there is none, or another name."""
    content = None if name is None else find_file(name)
    try:
        kept = {} if content is None else json.loads(content)
    except ValueError:
        return {}
    return kept if kept.get("name") == name else {}


def _keep(name: str | None, what: Mapping[str, Any]) -> None:
    if name is not None:
        keep_file(name, json.dumps({"name": name, **what}).encode())


def _name(what: str, structure: Hashable) -> str | None:
    """The name of a file; None where nothing is kept."""
    code = code_digest(structure) if folder() is not None else None
    return None if code is None else digest_of({"what": what, "code": code}) + PROGRAM_SUFFIX

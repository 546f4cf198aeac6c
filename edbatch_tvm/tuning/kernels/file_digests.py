"""Digests of a database's files: what is read is what was written.

TVM takes the workloads and traces of a database as they are, and a changed byte can end the process: a tile of size 0
is divided by. ``digests.json`` says of each file how many of its bytes are known and their SHA-256. What follows them
in a file that is appended to, because the process was killed meanwhile, is dropped.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from edbatch_tvm.atomic_file import replacing, write_text
from edbatch_tvm.errors import DatabaseError

NAME = "digests.json"

State = tuple[int, str]
"""Number of bytes and their SHA-256."""


class Digests:
    """The digests of the files in `folder`.

    Raises
    ------
    DatabaseError
        If they cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._states: dict[str, list[State]] = {}
        if self._path.is_file():
            try:
                document = json.loads(self._path.read_bytes())
                self._states = {name: [_state(entry) for entry in entries] for name, entries in document.items()}
            except (ValueError, TypeError, AttributeError, RecursionError, OSError) as error:
                raise DatabaseError(
                    f"{self._path} cannot be read ({type(error).__name__})", "the digests of a database's files"
                ) from None

    def check(self, path: Path, appended: bool) -> None:
        """Compare a file with what was written; of one that is `appended` to, cut off an end that is not known.

        Raises
        ------
        DatabaseError
            If it is something else.
        """
        content = path.read_bytes()
        if not content and path.name not in self._states:
            return
        for size, digest in sorted(self._states.get(path.name, ()), reverse=True):
            if (size <= len(content) if appended else size == len(content)) and sha256(
                content[:size]
            ).hexdigest() == digest:
                if size < len(content):
                    with replacing(path) as file:
                        file.write(content[:size])
                return
        raise DatabaseError(
            f"{path} is not as it was written",
            f"what {NAME} beside it has the digest of",
            "restore both, or tune again",
        )

    def write(self, paths: Iterable[Path]) -> None:
        """Note the files as they are now."""
        self._states |= {path.name: [_state_of(path)] for path in paths}
        self._store()

    def announce(self, coming: Mapping[Path, Path]) -> None:
        """Note that each file may soon be replaced by another, too."""
        for path, other in coming.items():
            self._states.setdefault(path.name, []).append(_state_of(other))
        self._store()

    def _store(self) -> None:
        write_text(self._path, json.dumps(self._states, indent=1, sort_keys=True) + "\n")


def _state_of(path: Path) -> State:
    content = path.read_bytes()
    return len(content), sha256(content).hexdigest()


def _state(entry: Any) -> State:
    size, digest = entry
    if type(size) is not int or size < 0 or type(digest) is not str:
        raise ValueError(entry)
    return size, digest

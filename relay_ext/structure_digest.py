"""Digests of code: equal for equal code, in every process."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from edbatch_tvm.tvm_compat import fields_of, save_json

_LITERALS = frozenset(["int", "float", "bool", "None", "ffi.String"])
_NAMES = frozenset(["name", "name_hint"])


def structure_digest(code: Any, names: bool = False) -> str:
    """The SHA-256 of functions or modules, without the places in files where they are written.

    Parameters
    ----------
    code : object, or list of objects
        What :func:`~edbatch_tvm.tvm_compat.save_json` takes.
    names : bool
        Whether the names of variables count. Without them the digest is equal for what is structurally equal.
    """
    graph = json.loads(save_json(code))
    text = "\n".join(_canonical(graph["nodes"], graph["root_index"], names))
    return hashlib.sha256(text.encode()).hexdigest()


def _canonical(nodes: Sequence[Mapping[str, Any]], root: int, names: bool) -> Iterator[str]:
    """Kind and content of each node that counts; literals are written where they are used.

    Nodes come after those they refer to, in the order in which these are first met, so that equal graphs give equal
    texts. A string has a node of its own wherever it is first used: strings are not counted.
    """
    wanted = bytearray(len(nodes))
    wanted[root] = True
    for at in range(len(nodes) - 1, -1, -1):
        if wanted[at]:
            for _, value, refers in _content(nodes[at], names):
                if refers:
                    wanted[value] = True
    known = [""] * len(nodes)
    count = 0
    for at, node in enumerate(nodes):
        if not wanted[at]:
            continue
        if node["type"] in _LITERALS:
            known[at] = f"{node['type']} {json.dumps(node.get('data'))}"
            continue
        known[at] = str(count)
        count += 1
        fields = [
            f"{name}={known[value] if refers else json.dumps(value)}" for name, value, refers in _content(node, names)
        ]
        yield f"{node['type']}({', '.join(fields)})"


def _content(node: Mapping[str, Any], names: bool) -> Iterator[tuple[str, Any, bool]]:
    """What a node consists of: name, value, and whether the value is the place of another node."""
    kind, data = node["type"], node.get("data")
    if kind in _LITERALS:
        return
    if isinstance(data, list):
        yield from (("", place, True) for place in data)
    elif isinstance(data, dict):
        fields = _fields(kind)
        for name, value in data.items():
            number, ignored = fields.get(name, (False, False))
            if not ignored or (names and name in _NAMES):
                yield name, value, type(value) is int and not number
    elif data is not None:
        yield "", data, False


@cache
def _fields(kind: str) -> dict[str, tuple[bool, bool]]:
    return fields_of(kind)

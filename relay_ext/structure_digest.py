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
            data = nodes[at].get("data")
            if type(data) is list:
                for place in data:
                    wanted[place] = True
            elif type(data) is dict:
                for name in _fields(nodes[at]["type"], names)[0]:
                    if type(data.get(name)) is int:
                        wanted[data[name]] = True
    known = [""] * len(nodes)
    count = 0
    for at, node in enumerate(nodes):
        if not wanted[at]:
            continue
        kind, data = node["type"], node.get("data")
        if kind in _LITERALS:
            known[at] = f"{kind} {json.dumps(data)}"
            continue
        if type(data) is list:
            content = [known[place] for place in data]
        elif type(data) is dict:
            places, numbers = _fields(kind, names)
            values = [data.get(name) for name in places]
            content = [known[value] if type(value) is int else json.dumps(value) for value in values]
            content += [str(data.get(name)) for name in numbers]
        else:
            content = [json.dumps(data)]
        known[at] = str(count)
        count += 1
        yield f"{kind}({', '.join(content)})"


@cache
def _fields(kind: str, names: bool) -> tuple[list[str], list[str]]:
    """The fields that count of nodes of a kind: those with places of other nodes or texts, and those with numbers."""
    counted = {
        name: number for name, (number, ignored) in fields_of(kind).items() if not ignored or (names and name in _NAMES)
    }
    return [name for name, number in counted.items() if not number], [name for name in counted if counted[name]]

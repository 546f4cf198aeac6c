"""Broken forms of valid files: bytes changed anywhere, and JSON with values of other types and sizes."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

PIECES = (
    b"\0",
    b"\xff\xfe",
    b"\n",
    b"-1",
    b"0",
    b"99999999999999999999",
    b"9" * 5000,
    b"1e999",
    b"NaN",
    b"0-2147483647",
    b"(" * 3000,
    b"[" * 3000,
    b" ",
    b"%1",
    b"{}",
    b"\xe2\x80\xa8",
    b"\xd9\xa3",
)
"""What is put in: other numbers, deep nesting, line ends and digits of other alphabets."""

VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    2**31,
    2**63,
    10**400,
    0.5,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "x",
    "../../etc/passwd",
    [],
    [[]],
    {},
    {"": []},
)


@st.composite
def broken_bytes(draw: DrawFn, sample: bytes) -> bytes:
    """`sample` after one to three edits."""
    content = bytearray(sample)
    for _ in range(draw(st.integers(1, 3))):
        begin = draw(st.integers(0, len(content)))
        end = min(len(content), begin + draw(st.sampled_from((0, 1, 4, 40))))
        kind = draw(st.sampled_from(("flip", "put", "cut", "double", "end")))
        if kind == "flip" and begin < len(content):
            content[begin] ^= 1 << draw(st.integers(0, 7))
        elif kind == "put":
            content[begin:end] = draw(st.sampled_from(PIECES))
        elif kind == "cut":
            del content[begin:end]
        elif kind == "double":
            content[begin:begin] = content[begin:end] * 3
        elif kind == "end":
            del content[begin:]
    return bytes(content)


@st.composite
def broken_json(draw: DrawFn, document: Any) -> Any:
    """`document` with one value anywhere replaced, taken away, or given another name."""
    root: Any = [json.loads(json.dumps(document))]
    holder, key = root, 0
    while isinstance(holder[key], dict | list) and holder[key] and draw(st.integers(0, 5)):
        holder = holder[key]
        key = draw(st.sampled_from(sorted(holder) if isinstance(holder, dict) else range(len(holder))))
    action = draw(st.sampled_from(("replace", "remove", "rename")))
    if action == "replace" or holder is root:
        holder[key] = draw(st.sampled_from(VALUES))
    elif action == "rename" and isinstance(holder, dict):
        holder[f"{key}_"] = holder.pop(key)
    else:
        del holder[key]
    return root[0]

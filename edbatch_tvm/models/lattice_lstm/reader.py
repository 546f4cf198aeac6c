"""Reader of word lattices.

The file begins with the number of sentences. A sentence is its number of nodes, its nodes' tags on one line, and for
each node a line ``k from_1 id_1 ... from_k id_k`` of incoming arcs; empty lines between sentences are passed over.
"""

from __future__ import annotations

from pathlib import Path

from edbatch_tvm.errors import DataError
from edbatch_tvm.models.flat_items import FlatLattices
from edbatch_tvm.models.labelled import Labels, Number
from edbatch_tvm.models.lattice_lstm.build import Arc
from edbatch_tvm.models.line_reader import broken_line, read_lines, read_text
from edbatch_tvm.models.native_reader import native_reader
from edbatch_tvm.models.vocabulary import VOCABULARY
from edbatch_tvm.models.workload import ReadOptions

_DIGITS = 18
"""Digits of the longest number."""


def read_lattices(path: str | Path, _: ReadOptions) -> list[list[list[Arc]]]:
    """The lattices of a file, in file order; tags are counted and dropped, ids taken modulo 256.

    Raises
    ------
    DataError
        Naming the file and the line that does not have this form.
    """
    return [
        [[(source, label % VOCABULARY) for source, label in arcs] for arcs in incoming]
        for incoming, _ in read_tagged_lattices(path)
    ]


def read_lattice_arrays(path: str | Path, _: ReadOptions) -> FlatLattices | None:
    """The same in arrays; None where :func:`read_lattices` is to read the file."""
    native = native_reader()
    return None if native is None else native.lattices(read_text(path)[0])


def read_lattice_tags(path: str | Path, _: ReadOptions) -> list[tuple[list[list[Arc]], Labels]]:
    """The lattices of a file, in file order, and the tags of their nodes; a node where a sentence starts has none.

    Raises
    ------
    DataError
        Naming the file and the line that does not have this form.
    """
    return [
        (incoming, [str(tag) if arcs else None for arcs, tag in zip(incoming, tags, strict=True)])
        for incoming, tags in read_tagged_lattices(path)
    ]


def numbered_lattice(incoming: list[list[Arc]], number: Number) -> list[list[Arc]]:
    """A lattice, with rows in place of the ids of characters and words."""
    return [
        [(source, number("char" if source == node - 1 else "word", label)) for source, label in arcs]
        for node, arcs in enumerate(incoming)
    ]


def read_tagged_lattices(path: str | Path) -> list[tuple[list[list[Arc]], list[int]]]:
    """The lattices of a file, in file order, with ids as they stand there; and the tags of their nodes.

    Raises
    ------
    DataError
        Naming the file and the line that does not have this form.
    """
    lines = _Lines(path)
    count = lines.number("the number of sentences")
    lattices = [_lattice(lines) for _ in range(count)]
    lines.skip_empty()
    if not lines.at_end:
        lines.position += 1
        raise lines.error("more sentences", f"the end of the file: its first line says {count}")
    return lattices


def _lattice(lines: _Lines) -> tuple[list[list[Arc]], list[int]]:
    lines.skip_empty()
    size = lines.number("a sentence's number of nodes")
    if size < 1:
        raise lines.error(f"a sentence of {size} nodes", "1 or more")
    tags = lines.numbers("the tags of the nodes")
    if len(tags) != size:
        raise lines.error(f"{len(tags)} tags", f"{size}, one a node")
    return [_arcs(lines, node) for node in range(size)], tags


def _arcs(lines: _Lines, node: int) -> list[Arc]:
    form = f"the arcs into node {node}, k from_1 id_1 ... from_k id_k"
    fields = lines.numbers(form)
    if not fields or len(fields) != 1 + 2 * fields[0]:
        raise lines.error(f"{len(fields)} numbers, the first {fields[0] if fields else 'missing'}", form)
    sources, labels = fields[1::2], fields[2::2]
    for source in sources:
        if source >= node:
            raise lines.error(f"an arc from node {source} into node {node}", "an earlier node")
    return list(zip(sources, labels, strict=True))


class _Lines:
    """The lines of a file, taken one after the other."""

    def __init__(self, path: str | Path) -> None:
        self.path = path
        self.lines = read_lines(path)
        self.position = 0

    @property
    def at_end(self) -> bool:
        return self.position == len(self.lines)

    def skip_empty(self) -> None:
        while not self.at_end and not self.lines[self.position].strip():
            self.position += 1

    def numbers(self, expected: str) -> list[int]:
        """The next line as numbers of 0 or more."""
        self.position += 1
        if self.position > len(self.lines):
            raise self.error("the end of the file", expected)
        fields = self.lines[self.position - 1].split()
        for field in fields:
            if not (field.isascii() and field.isdigit() and len(field) <= _DIGITS):
                raise self.error(f"{field!r}", expected)
        return [int(field) for field in fields]

    def number(self, expected: str) -> int:
        found = self.numbers(expected)
        if len(found) != 1:
            raise self.error(f"{len(found)} numbers", expected)
        return found[0]

    def error(self, given: str, expected: str) -> DataError:
        return broken_line(self.path, self.position, given, expected)

"""How a stage kernel is tiled: the parameters that tuning searches over, and their defaults.

A kernel has one variant for each :class:`Bucket` of batch sizes and chooses at run time. Every configuration that
:meth:`StageConfig.check` accepts gives the same results.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from edbatch_tvm.errors import ConfigError
from edbatch_tvm.tvm_compat import tirx
from schedules import abi
from schedules.cpu.machine import Machine
from schedules.stage import Element, Pass, Product, Stage

ACCUMULATOR_BYTES = 1024
"""An accumulator buffer has to be smaller, or LLVM keeps it in memory."""

UNROLLS = (1, 2, 4, 8)
"""Steps of a contraction that one iteration of its loop can do."""

Order = Literal["chunks", "rows"]


@dataclass(frozen=True)
class Bucket:
    """The tiles of one range of batch sizes.

    Attributes
    ----------
    upto : int or None
        Largest number of instances (for a stage over variadic rows: of those rows) the variant is for. None: any.
    rows : int
        Rows of a tile.
    chunks : int
        Column chunks (of the machine's lanes) of a tile.
    unroll : int
        Steps of a contraction that one iteration of its loop does.
    order : {"chunks", "rows"}
        The outer loop. ``chunks``: tiles that share a chunk's weights follow one another, so that weights come from
        memory once; ``rows``: tiles that share rows do.
    parallel : bool
        Whether the threads share the tiles.
    """

    upto: int | None
    rows: int
    chunks: int
    unroll: int = 1
    order: Order = "chunks"
    parallel: bool = True


@dataclass(frozen=True)
class StageConfig:
    """The variants of a stage kernel, by growing batch size; the last one is open."""

    buckets: tuple[Bucket, ...]

    def as_json(self) -> list[dict[str, Any]]:
        """A list of plain dicts, one a bucket."""
        return [asdict(bucket) for bucket in self.buckets]

    @classmethod
    def from_json(cls, value: Any) -> StageConfig:
        """The configuration that :meth:`as_json` wrote.

        Raises
        ------
        ConfigError
            If `value` has another form; whether it fits a stage is for :meth:`check` to say.
        """
        if not isinstance(value, Sequence) or isinstance(value, str) or not value:
            raise ConfigError(f"a stage configuration of type {type(value).__name__}", "a list of buckets, not empty")
        return cls(tuple(_bucket(number, one) for number, one in enumerate(value)))

    def check(self, stage: Stage, machine: Machine) -> None:
        """Check that a kernel of `stage` can be made for `machine` in this way.

        Raises
        ------
        ConfigError
            Naming the bucket and the field.
        """
        limits = [bucket.upto for bucket in self.buckets]
        if not limits or limits[-1] is not None or not _growing(limits[:-1]):
            raise ConfigError(f"buckets up to {limits}", "batch sizes from 1 on that grow, and None last")
        most_rows = (ACCUMULATOR_BYTES - 1) // (np.dtype(stage.dtype).itemsize * lanes_of(stage, machine))
        most_chunks = chunks_of(stage, machine)
        for number, bucket in enumerate(self.buckets):
            where = f"bucket {number} of {stage.name!r}"
            if not 1 <= bucket.rows <= most_rows:
                raise ConfigError(f"{where} has a tile of {bucket.rows} rows", f"1 to {most_rows}")
            if not 1 <= bucket.chunks <= most_chunks:
                raise ConfigError(f"{where} has a tile of {bucket.chunks} chunks", f"1 to {most_chunks}")
            if bucket.unroll not in UNROLLS:
                raise ConfigError(f"{where} unrolls {bucket.unroll} steps", f"one of {', '.join(map(str, UNROLLS))}")


def _growing(limits: Sequence[int | None]) -> bool:
    sizes = [0, *(limit or 0 for limit in limits)]
    return all(smaller < larger for smaller, larger in pairwise(sizes))


_TYPES: dict[str, tuple[type, ...]] = {
    "upto": (int, type(None)),
    "rows": (int,),
    "chunks": (int,),
    "unroll": (int,),
    "order": (str,),
    "parallel": (bool,),
}


def _bucket(number: int, value: Any) -> Bucket:
    names = [field.name for field in fields(Bucket)]
    if not isinstance(value, Mapping) or set(value) - set(names) or not {"upto", "rows", "chunks"} <= set(value):
        raise ConfigError(f"bucket {number} is {value!r}", f"an object of {', '.join(names)}")
    for name, one in value.items():
        allowed = _TYPES[name]
        wrong = not isinstance(one, allowed) or (isinstance(one, bool) and bool not in allowed)
        if wrong or (name == "order" and one not in ("chunks", "rows")):
            expected = "'chunks' or 'rows'" if name == "order" else " or ".join(kind.__name__ for kind in allowed)
            raise ConfigError(f"{name} of bucket {number} is {one!r}", expected)
    return Bucket(**value)


def is_tight(stage: Stage) -> bool:
    """Whether a chunk must not pass the last column: what lies beyond belongs to another row or outside the buffer.

    The columns of most stages are padded to whole chunks, as the rows of arenas are. The rows of a matrix are not, and
    neither is the end of a slice that does not begin at a multiple of the padding, nor a part of an output.
    """
    slices = any(
        isinstance(leaf, Element) and leaf.moving and leaf.offset % abi.LANES for leaf in stage.leaves.values()
    )
    products = any(isinstance(one, Product) for gate in stage.gates for one in gate.passes)
    parts = any(output.begin is not None for output in stage.outputs)
    return stage.rows > 1 or slices or products or parts


def lanes_of(stage: Stage, machine: Machine) -> int:
    """Columns of a chunk: the machine's lanes, or fewer where there are fewer columns: half of them, or tight ones."""
    lanes = machine.lanes_of(stage.dtype)
    if is_tight(stage):
        return min(lanes, stage.columns)
    widest = max([stage.columns, *(line.columns for line in stage.row_values)])
    return lanes // 2 if machine.short and widest <= lanes // 2 else lanes


def chunks_of(stage: Stage, machine: Machine) -> int:
    """Chunks that cover the columns of `stage`."""
    lanes = lanes_of(stage, machine)
    return abi.padded(stage.columns, lanes) // lanes


def first_column(stage: Stage, machine: Machine, chunk: Any) -> Any:
    """First column of chunk number `chunk`; the last one of tight chunks begins earlier, so that it ends in time."""
    lanes = lanes_of(stage, machine)
    if stage.columns % lanes == 0 or not is_tight(stage):
        return chunk * lanes
    return tirx.min(chunk * lanes, stage.columns - lanes)


def panels_of(stage: Stage, tiles: int) -> dict[tuple[int, int], Product]:
    """Products of matrices whose right factor is copied before its rows are computed, by gate and place in it.

    That is a factor that all rows share: a long one where more than one of the `tiles` of a matrix reads it, and any
    whose columns do not lie side by side. Of whole rows the copy has all columns, so it has to be small.
    """
    shared = {
        (number, place): one
        for number, gate in enumerate(stage.gates)
        for place, one in enumerate(gate.passes)
        if stage.rows >= _PANEL_ROWS and isinstance(one, Product) and one.right.row == 0
    }
    row = stage.columns * np.dtype(stage.dtype).itemsize
    copied = {
        place: one
        for place, one in shared.items()
        if one.right.column != 1 or (tiles > 1 and one.length * row > _PANEL_BYTES)
    }
    if stage.whole_rows:
        return {place: one for place, one in copied.items() if one.length * row <= _WHOLE_PANEL_BYTES}
    return copied


_PANEL_ROWS, _PANEL_BYTES, _WHOLE_PANEL_BYTES = 4, 4096, 8192
"""Rows from which on a copy of what they share is worth its time, bytes from which on one of a factor that could be
read as it lies is, and most bytes of one that has all columns."""


def default_config(stage: Stage, machine: Machine) -> StageConfig:
    """Tiles whose accumulators fill the registers; for small batches tiles of few rows and more chunks.

    One instance, and 2 or 3, are one tile of rows: every weight is read once. More rows are tiles of two sizes
    (:func:`rest_rows`). Where rows of a tile share no weights, and for the rows of a matrix, whose number is known, one
    variant does.
    """
    rows, chunks = _largest_tile(stage, machine)
    if stage.rows > 1:
        return StageConfig((Bucket(None, rows, chunks),))
    if stage.whole_rows and not stage.gates:
        kept = chunks_of(stage, machine) * lanes_of(stage, machine) * np.dtype(stage.dtype).itemsize
        together = max(1, min(_WHOLE_ROWS, _WHOLE_BYTES // kept))
        one, several = Bucket(None, 1, 1), (Bucket(MEDIUM, 1, 1), Bucket(None, together, 1))
        return StageConfig((one,) if kept < ACCUMULATOR_BYTES else several)
    if not any(isinstance(one, Pass) for gate in stage.gates for one in gate.passes):
        # Row after row: the matrices that a lookup copies are long, and a piece of each in turn is new to every cache.
        total = chunks_of(stage, machine)
        groups = -(-total // _ALONE)
        return StageConfig((Bucket(None, 1, -(-total // groups), order="rows"),))
    buckets = [Bucket(upto, tile, _chunks_beside(tile, stage, machine)) for upto, tile in _SMALL if tile < rows]
    return StageConfig((*buckets, Bucket(None, rows, chunks)))


MEDIUM = 16
"""Up to this size, batches of long whole rows have a tile for each."""

_SMALL = ((1, 1), (3, 3))

_REST_ROWS = 4
"""Rows of the smaller tiles beside large ones: each combination of 4 and 6 rows computes one row too much at most."""

_MOST_WITH_REST = 15
"""Most rows of a tile beside smaller ones: :func:`rest_tiles` in 4 bits each then fit a number of 64 bits."""


def rest_rows(bucket: Bucket) -> int:
    """Rows of the smaller tiles that a batch ends with, so that few rows are computed twice; 0 where there are none."""
    few_or_many = not 3 <= bucket.rows <= _MOST_WITH_REST
    return 0 if few_or_many or bucket.upto == bucket.rows else min(bucket.rows - 1, _REST_ROWS)


def rest_tiles(rows: int, rest: int) -> list[int]:
    """For each remainder of a number of rows divided by `rows`: how many tiles of `rest` rows it ends with.

    They and tiles of `rows` rows compute as few rows too much as possible.

    Examples
    --------
    >>> rest_tiles(6, 4)  # 12 = 6 + 6, 13 = 6 + 4 + 4 - 1, 14 = 6 + 4 + 4, 15 = 6 + 6 + 4 - 1, 16 = 6 + 6 + 4
    [0, 2, 2, 1, 1, 0]
    """
    return [min(range(rows), key=lambda count: ((count * rest - over) % rows, count)) for over in range(rows)]


_WHOLE_ROWS, _WHOLE_BYTES = 8, 8192
"""Most rows of a tile of long whole rows without contractions, and most bytes of them: they stay in the first-level
cache, and the memory for one of them, which takes 0.1 µs to get, is got once a tile."""

_ALONE = 8
"""Most chunks of a tile without weights to share."""

_ENOUGH = 2.0
"""Multiply-adds for each load from which on a tile keeps the arithmetic units busy."""


def gate_groups(stage: Stage, machine: Machine) -> list[tuple[int, ...]]:
    """The gates of `stage`, by number, in groups that are computed one after another."""
    widest, number = max(_sweep_widths(stage).values(), default=1), len(stage.gates)
    size = -(-number // -(-widest // machine.gates))
    return [tuple(range(begin, min(begin + size, number))) for begin in range(0, number, size)] if number else []


def gates_at_once(stage: Stage, machine: Machine) -> int:
    """Accumulators that one step of a contraction adds to, for one row and chunk: what a tile's registers are for."""
    groups = gate_groups(stage, machine)
    return max((width for group in groups for width in _sweep_widths(stage, group).values()), default=1)


def _sweep_widths(stage: Stage, gates: Sequence[int] | None = None) -> dict[Any, int]:
    """For all elements that passes read one after another, the number of passes that do."""
    widths: dict[Any, int] = {}
    for number in range(len(stage.gates)) if gates is None else gates:
        for one in stage.gates[number].passes:
            key = (one.source, one.offset, one.length, one.row) if isinstance(one, Pass) else one
            widths[key] = widths.get(key, 0) + 1
    return widths


def holds_weights(rows: int, wide: int, machine: Machine) -> bool:
    """Whether registers hold a step's `wide` vectors of weights beside the accumulators of `rows` rows.

    Each row of the tile then reads its element in turn. Otherwise the elements of the rows are held, and each vector
    of weights is read in turn: what is fewer has to fit.
    """
    return (rows + 1) * wide <= machine.registers - machine.reserved


def _largest_tile(stage: Stage, machine: Machine) -> tuple[int, int]:
    """Rows and chunks of the tile that loads least for its arithmetic: accumulators fill the registers."""
    total, gates = chunks_of(stage, machine), gates_at_once(stage, machine)

    def worth(tile: tuple[int, int]) -> tuple[float, bool, int]:
        rows, chunks = tile
        wide = chunks * gates
        computed_twice = total / (-(-total // chunks) * chunks)
        loads_least = computed_twice * min(_ENOUGH, rows * wide / (rows + wide))
        return loads_least, holds_weights(rows, wide, machine), -rows

    most = min(stage.rows, _MOST_ROWS) if stage.rows > 1 else _MOST_ROWS
    tiles = [
        (_even(min(most, rows), stage.rows), chunks)
        for chunks in range(1, min(total, _MOST_CHUNKS) + 1)
        for rows in _rows_beside(chunks * gates, machine)
        if rows > 0
    ]
    return max(tiles, key=worth, default=(1, 1))


_MOST_ROWS, _MOST_CHUNKS = 12, 6


def _even(rows: int, of: int) -> int:
    """At most `rows` rows for the tiles of a matrix of `of`, so that few are computed twice; any for vectors."""
    return -(-of // -(-of // rows)) if of > 1 else rows


def _rows_beside(wide: int, machine: Machine) -> tuple[int, int]:
    """Rows whose accumulators fit beside `wide` vectors of weights, and those that fit beside their own elements."""
    free = machine.registers - machine.reserved
    return free // wide - 1, free // (wide + 1)


def _chunks_beside(rows: int, stage: Stage, machine: Machine) -> int:
    """Chunks of a tile of few rows: enough sums to hide the latency of an addition, and work for two threads."""
    total, gates = chunks_of(stage, machine), gates_at_once(stage, machine)
    free = machine.registers - machine.reserved
    shared = [c for c in range(1, total // 2 + 1) if total % c == 0 and rows * c * gates <= _SUMS]
    held = [c for c in shared if holds_weights(rows, c * gates, machine)]
    if rows * max(held, default=0) * gates >= _LEAST_SUMS:
        return max(held)
    return max((c for c in shared if rows * c * gates + rows <= free), default=1)


_LEAST_SUMS = 8
"""Sums under way that hide the latency of a multiply-add: 4 cycles at two a cycle."""

_SUMS = 16
"""Sums under way that are worth more chunks: twice as many."""

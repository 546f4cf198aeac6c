"""How a stage kernel is tiled: the parameters that tuning searches over, and their defaults.

A kernel has one variant for each :class:`Bucket` of batch sizes and chooses at run time. Every configuration that
:meth:`StageConfig.check` accepts gives the same results.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Any, Literal

from tvm import tirx

from edbatch_tvm.errors import ConfigError
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
        most_rows = (ACCUMULATOR_BYTES - 1) // (4 * lanes_of(stage, machine))
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
    """Whether a chunk must not pass the last column: what lies beyond belongs to another row, or to nobody.

    The columns of most stages are padded to whole chunks, as the rows of arenas are. The rows of a matrix are not, and
    neither is the end of a slice that does not begin at a multiple of the padding.
    """
    slices = any(
        isinstance(leaf, Element) and leaf.moving and leaf.offset % abi.LANES for leaf in stage.leaves.values()
    )
    products = any(isinstance(one, Product) for gate in stage.gates for one in gate.passes)
    return stage.rows > 1 or slices or products


def lanes_of(stage: Stage, machine: Machine) -> int:
    """Columns of a chunk: the machine's lanes, or fewer where chunks are tight and there are fewer columns."""
    return min(machine.lanes, stage.columns) if is_tight(stage) else machine.lanes


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


def default_config(stage: Stage, machine: Machine) -> StageConfig:
    """Tiles whose accumulators fill the registers; for small batches tiles of few rows and more chunks.

    One instance, and 2 or 3, are one tile of rows: every weight is read once. Up to :data:`MEDIUM` the tile is small,
    so that few rows are computed twice. Where rows of a tile share no weights, and for the rows of a matrix, whose
    number is known, one variant does.
    """
    rows, chunks = _largest_tile(stage, machine)
    if stage.rows > 1:
        return StageConfig((Bucket(None, rows, chunks),))
    if not any(isinstance(one, Pass) for gate in stage.gates for one in gate.passes):
        return StageConfig((Bucket(None, 1, min(_ALONE, chunks_of(stage, machine))),))
    buckets = [Bucket(upto, tile, _chunks_beside(tile, stage, machine)) for upto, tile in _SMALL if tile < rows]
    return StageConfig((*buckets, Bucket(None, rows, chunks)))


MEDIUM = 16
"""Batches up to this size have a tile of 4 rows."""

_SMALL = ((1, 1), (3, 3), (MEDIUM, 4))

_ALONE = 4
"""Chunks of a tile without weights to share."""

_ENOUGH = 2.0
"""Multiply-adds for each load from which on a tile keeps the arithmetic units busy."""


def gates_at_once(stage: Stage) -> int:
    """Accumulators that one step of a contraction adds to, for one row and chunk: what a tile's registers are for."""
    sweeps: dict[Any, int] = {}
    for gate in stage.gates:
        for one in gate.passes:
            key = (one.source, one.offset, one.length, one.row) if isinstance(one, Pass) else one
            sweeps[key] = sweeps.get(key, 0) + 1
    return max(sweeps.values(), default=1)


def _largest_tile(stage: Stage, machine: Machine) -> tuple[int, int]:
    """Rows and chunks of the tile that loads least for its arithmetic: accumulators fill the registers."""
    total, gates = chunks_of(stage, machine), gates_at_once(stage)

    def worth(tile: tuple[int, int]) -> tuple[float, int]:
        rows, chunks = tile
        wide = chunks * gates
        computed_twice = total / (-(-total // chunks) * chunks)
        return computed_twice * min(_ENOUGH, rows * wide / (rows + wide)), -rows

    most = min(stage.rows, _MOST_ROWS) if stage.rows > 1 else _MOST_ROWS
    tiles = [(max(1, min(most, _rows_beside(c * gates, machine))), c) for c in range(1, min(total, _MOST_CHUNKS) + 1)]
    return max(tiles, key=worth)


_MOST_ROWS, _MOST_CHUNKS = 12, 6


def _rows_beside(wide: int, machine: Machine) -> int:
    """Rows whose accumulators fit beside `wide` vectors of weights."""
    return (machine.registers - machine.reserved - wide) // wide


def _chunks_beside(rows: int, stage: Stage, machine: Machine) -> int:
    """Chunks of a tile of few rows: enough sums to hide the latency of an addition, and work for two threads."""
    total, gates = chunks_of(stage, machine), gates_at_once(stage)
    fit = [c for c in range(1, total + 1) if rows * c * gates <= machine.registers - machine.reserved - c * gates]
    shared = [c for c in fit if total % c == 0 and total // c >= 2 and rows * c * gates <= _SUMS]
    return max(shared, default=1)


_SUMS = 16
"""Sums under way that hide the latency of a multiply-add: 4 cycles at two a cycle, twice over."""

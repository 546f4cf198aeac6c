"""How a stage kernel is tiled: the parameters that tuning searches over, and their defaults.

A kernel has one variant for each :class:`Bucket` of batch sizes and chooses at run time. Every configuration that
:meth:`StageConfig.check` accepts gives the same results.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Any, Literal

from edbatch_tvm.errors import ConfigError
from schedules import abi
from schedules.cpu.machine import Machine
from schedules.stage import Stage

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


def lanes_of(stage: Stage, machine: Machine) -> int:
    """Columns of a chunk: the machine's lanes; fewer where the rows of a matrix are shorter."""
    return machine.lanes if stage.rows == 1 else min(machine.lanes, stage.columns)


def chunks_of(stage: Stage, machine: Machine) -> int:
    """Chunks that cover the columns of `stage`."""
    lanes = lanes_of(stage, machine)
    return abi.padded(stage.columns, lanes) // lanes


def default_config(stage: Stage, machine: Machine) -> StageConfig:
    """Tiles whose accumulators fill the registers, and variants of 2 rows and of 1 for small batches."""
    gates = max(1, len(stage.gates) + len(stage.reductions))
    rows = max(1, min(machine.max_rows, (machine.registers - machine.reserved - gates) // gates))
    small = [Bucket(1, 1, 1)] * (rows > 1) + [Bucket(rows - 1, 2, 1)] * (rows > 2)
    return StageConfig((*small, Bucket(None, rows, 1)))

"""Tiles: how much of a batch a block of threads computes at once, and how its threads share the work.

A block computes ``rows`` instances times ``columns`` columns of every gate. Its 256 threads stand in ``groups`` groups
that share the sum over k among them; in a group, 16 threads stand side by side along the columns, and each computes
``per_thread`` rows times ``across`` columns (16 apart) of every gate in its registers.

* ``wide``: 64 rows, most arithmetic for each element that is loaded; for batches that fill the machine with such tiles.
* ``narrow``: 16 rows, k split among 4 groups: more blocks, and shorter sums.
* ``tiny``: 4 rows, k split among 4 groups, for the tops of trees; on tensor cores ``narrow`` is as good.
* ``flat``: stages without contractions: one element per thread.
"""

from __future__ import annotations

from dataclasses import dataclass

from schedules import abi
from schedules import stage as ir
from schedules.cuda.execution_model import BLOCK
from schedules.cuda.product_precision import FLOAT32, Products
from schedules.cuda.row_sources import row_sources

ACROSS = 16
"""Threads side by side along the columns."""

VECTOR = 4
"""Elements of a 16-byte access."""

SHARED_BYTES = 48 * 1024
"""Shared memory that a block has without asking for more."""

ROW_TABLE_BYTES = 4096
"""The part of it that is kept for the table of rows; kernels of several stages have the most that one needs of each."""


@dataclass(frozen=True)
class Tile:
    """See the module's docstring; ``depth`` is the number of k that lie in shared memory at once, ``buffers`` times."""

    name: str
    rows: int
    per_thread: int
    across: int
    groups: int
    depth: int
    buffers: int
    products: Products = FLOAT32

    @property
    def elements(self) -> int:
        """Accumulators of a thread for one gate."""
        return self.per_thread * self.across

    @property
    def columns(self) -> int:
        """Columns of the tile."""
        return ACROSS * self.across

    def row_elements(self) -> int:
        """Elements of one buffer of source rows; padding keeps rows in different banks."""
        return self.rows * (self.depth + VECTOR)

    def weight_elements(self, gates: int) -> int:
        """Elements of one buffer of weights; chunks of :data:`PACK_LANES` columns are padded apart."""
        return self.columns // PACK_LANES * (self.depth // self.products.per_word * gates + 1) * PACK_LANES

    def shared_elements(self, stage: ir.Stage) -> int:
        """Elements of shared memory that a stage takes: the buffers, or the sums of the groups that replace them."""
        widest = max((len(sweep.gates) for sweep in sweeps_of(stage, self.products)), default=0)
        if not widest:
            return 0
        buffers = self.buffers * (self.row_elements() + self.weight_elements(widest))
        sums = self.groups * len(stage.gates) * self.rows * self.columns if self.groups > 1 else 0
        return max(buffers, sums)


PACK_LANES = 8
"""Columns of a chunk of packed weights: 32 bytes, the smallest transfer."""


@dataclass(frozen=True)
class Sweep:
    """Passes of several gates over the same elements of one source: a row is loaded once for all of them."""

    source: ir.Source
    offset: int
    length: int
    gates: tuple[int, ...]
    passes: tuple[ir.Pass, ...]
    base: int
    """Where its weights begin in a chunk of the packed buffer."""
    size: int
    """Words of its weights in a chunk."""


def sweeps_of(stage: ir.Stage, products: Products = FLOAT32) -> list[Sweep]:
    """The sweeps of `stage` in the order they are packed in."""
    grouped: dict[tuple[ir.Source, int, int], list[tuple[int, ir.Pass]]] = {}
    for number, gate in enumerate(stage.gates):
        for one in gate.passes:
            assert isinstance(one, ir.Pass)
            grouped.setdefault((one.source, one.offset, one.length), []).append((number, one))
    sweeps, base = [], 0
    for (source, offset, length), members in grouped.items():
        gates = tuple(number for number, _ in members)
        size = abi.padded(length, products.block) // products.per_word * len(gates) * PACK_LANES
        sweeps.append(Sweep(source, offset, length, gates, tuple(one for _, one in members), base, size))
        base += size
    return sweeps


def is_tiled(stage: ir.Stage, products: Products = FLOAT32) -> bool:
    """Whether the tiles compute `stage`: products of rows with weights, few enough for shared memory."""
    passes = [one for gate in stage.gates for one in gate.passes]
    plain = stage.rows == 1 and all(isinstance(one, ir.Pass) for one in passes)
    return plain and bool(tiles_of(stage, products))


def tiles_of(stage: ir.Stage, products: Products = FLOAT32) -> list[Tile]:
    """The tiles a stage may use, from the most rows to the fewest; none if it has too many gates."""
    gates = len(stage.gates)
    if not gates:
        return [Tile("flat", BLOCK // ACROSS, 1, 1, 1, 0, 0)]
    if products.on_tensor_cores:
        tiles = [
            _fitted(stage, "wide", rows=64, per_thread=4, across=1, groups=1, depth=32, products=products),
            _fitted(stage, "narrow", rows=16, per_thread=4, across=1, groups=4, depth=64, products=products),
        ]
        return [tile for tile in tiles if tile is not None]
    across = max(1, min(4 // gates, -(-stage.columns // ACROSS)))
    tiles = [
        _fitted(stage, "wide", rows=64, per_thread=4, across=across, groups=1, depth=16),
        _fitted(stage, "narrow", rows=16, per_thread=4, across=1, groups=4, depth=64),
        _fitted(stage, "tiny", rows=4, per_thread=1, across=1, groups=4, depth=64),
    ]
    return [tile for tile in tiles if tile is not None]


def _fitted(
    stage: ir.Stage,
    name: str,
    rows: int,
    per_thread: int,
    across: int,
    groups: int,
    depth: int,
    products: Products = FLOAT32,
) -> Tile | None:
    """The tile with as many buffers, then as much depth, as shared memory has room for; None if it has none."""
    if 4 * rows * len(row_sources(stage)) > ROW_TABLE_BYTES:
        return None
    longest = max(sweep.length for sweep in sweeps_of(stage, products))
    least = max(VECTOR, products.block) * groups
    depth = max(least, min(depth, abi.padded(longest, least)))
    while True:
        for buffers in (3, 2):
            tile = Tile(name, rows, per_thread, across, groups, depth, buffers, products)
            if 4 * tile.shared_elements(stage) + ROW_TABLE_BYTES <= SHARED_BYTES:
                return tile
        if depth == least:
            return None
        depth = max(least, depth // 2 // least * least)


def widest_columns(stage: ir.Stage, products: Products = FLOAT32) -> int:
    """The columns that packed weights are padded to, so that no tile reads past them."""
    return abi.padded(stage.columns, max(tile.columns for tile in tiles_of(stage, products)))


def least_rows(stage: ir.Stage, tile: Tile, fill: int) -> int:
    """The smallest batch for which `tile` is chosen on a machine that `fill` blocks fill, if no larger tile is."""
    if tile.name == "wide":
        chunks = -(-stage.columns // tile.columns)
        return tile.rows * (max(1, fill // chunks) - 1) + 1
    return 5 if tile.name == "narrow" else 1

"""A tile of instances: the batch axis on the blocks of a cell, so that they can be scheduled together.

The general path runs a cell's own loops once per instance. Its products then read all of their weights for every
instance. Where the blocks of the cell themselves range over a tile of instances, a schedule can keep weights in
registers and caches; and a tile has a fixed size, so that MetaSchedule can look for one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import tvm

from edbatch_tvm.tvm_compat import SBlock, SBlockRealize, TensorLoad, renew_defs, structural_map, structural_walk, tirx

_INT = "int64"


class NotTileable(Exception):
    """Why the blocks of a cell cannot range over a tile of instances."""


@dataclass(frozen=True)
class TunedTile:
    """Scheduled code for a tile of instances of a cell.

    Attributes
    ----------
    size : int
        Instances of the tile.
    least : int
        The smallest batch it is used for.
    function : PrimFunc
        What :func:`tile_cell` gives, scheduled and lowered to plain loops.
    """

    size: int
    least: int
    function: tirx.PrimFunc


def tile_cell(function: tirx.PrimFunc, per_instance: Iterable[Any], tile: int) -> tirx.PrimFunc:
    """`function`, which computes one instance, for `tile` instances.

    Before::

        x: (16,), W: (16, 8), y: (8,)
        for j, k: block: y[j] += x[k] * W[k, j]

    After::

        x: (tile, 16), W: (16, 8), y: (tile, 8)
        for b, j, k: block: y[b, j] += x[b, k] * W[k, j]

    What depends on weights alone is computed once for the tile.

    Parameters
    ----------
    function : PrimFunc
        A cell as ``FuseCells`` leaves it: blocks, not yet scheduled.
    per_instance : buffers
        The parameters that each instance has of its own: inputs and outputs.
    tile : int
        Instances of the tile.

    Raises
    ------
    NotTileable
        If a size is symbolic, or the body is not a sequence of loop nests around blocks.
    """
    return _Tiler(function, list(per_instance), tile).function()


class _Tiler:
    def __init__(self, function: tirx.PrimFunc, per_instance: list[Any], tile: int) -> None:
        self.source = function
        self.tile = tile
        self.root = _root(function)
        self.nests = list(self.root.body.seq) if isinstance(self.root.body, tirx.SeqStmt) else [self.root.body]
        self.buffers: dict[Any, Any] = {}
        for buffer in per_instance:
            self._widen(buffer)
        self._spread()

    def function(self) -> tirx.PrimFunc:
        body = [self._nest(nest) for nest in self.nests]
        root = SBlock(
            [],
            [],
            [],
            "root",
            tirx.SeqStmt(body) if len(body) > 1 else body[0],
            alloc_buffers=[self.buffers.get(buffer, buffer) for buffer in self.root.alloc_buffers],
        )
        params = [self.buffers.get(param, param) for param in self.source.params]
        realize = SBlockRealize([], tirx.const(True, "bool"), root)
        attrs = {"global_symbol": "main", "tirx.noalias": True, "s_tir": True}
        # Fresh loop variables: a kernel holds tiles of several sizes beside the cell's own code.
        return renew_defs(tirx.PrimFunc(params, realize).with_attrs(attrs))

    def _widen(self, buffer: Any) -> None:
        if any(not isinstance(extent, tirx.IntImm) for extent in buffer.shape):
            raise NotTileable(f"{buffer.name!r} has a size that differs from instance to instance")
        shape = [tirx.const(self.tile, _INT), *buffer.shape]
        self.buffers[buffer] = tirx.decl_buffer(shape, str(buffer.dtype), buffer.name)

    def _spread(self) -> None:
        """Give the batch axis to every buffer that is computed from a per-instance one."""
        for nest in self.nests:
            reads, writes = _touched(nest)
            if any(buffer in self.buffers for buffer in reads):
                for buffer in writes:
                    if buffer not in self.buffers:
                        self._widen(buffer)

    def _nest(self, nest: Any) -> Any:
        """A loop nest around one block, with a loop over the tile around it where it needs one."""
        _, writes = _touched(nest)
        if not any(buffer in self.buffers for buffer in writes):
            return nest
        loop = tirx.Var("b", _INT)
        extent = tirx.const(self.tile, _INT)
        return tirx.For(loop, tirx.const(0, _INT), extent, tirx.ForKind.SERIAL, self._loops(nest, loop))

    def _loops(self, statement: Any, loop: Any) -> Any:
        if isinstance(statement, tirx.For):
            body = self._loops(statement.body, loop)
            return tirx.For(statement.loop_var, statement.min, statement.extent, statement.kind, body)
        if not isinstance(statement, SBlockRealize):
            raise NotTileable(f"a {type(statement).__name__} between its loops and their block")
        block = self._block(statement.block)
        return SBlockRealize([loop, *statement.iter_values], statement.predicate, block)

    def _block(self, block: Any) -> Any:
        if list(block.alloc_buffers) or list(block.match_buffers):
            raise NotTileable(f"block {block.name_hint!r} declares buffers of its own")
        axis = tirx.IterVar(
            tvm.ir.Range.from_min_extent(tirx.const(0, _INT), tirx.const(self.tile, _INT)),
            tirx.Var("v_b", _INT),
            tirx.IterVar.DataPar,
        )

        def load(node: Any) -> Any:
            if node.source not in self.buffers:
                return node
            return tirx.BufferLoad(self.buffers[node.source], [axis.var, *node.indices])

        def store(node: Any) -> Any:
            if node.buffer not in self.buffers:
                return node
            return tirx.BufferStore(self.buffers[node.buffer], node.value, [axis.var, *node.indices])

        def rewrite(statement: Any) -> Any:
            rules = [(TensorLoad, load), (tirx.BufferStore, store)]
            return None if statement is None else structural_map(statement, rules, order="post")

        def region(one: Any) -> Any:
            if one.source not in self.buffers:
                return one
            ranges = [tvm.ir.Range.from_min_extent(axis.var, tirx.const(1, _INT)), *one.region]
            return tirx.BufferRegion(self.buffers[one.source], ranges)

        return SBlock(
            [axis, *block.iter_vars],
            [region(one) for one in block.reads],
            [region(one) for one in block.writes],
            block.name_hint,
            rewrite(block.body),
            rewrite(block.init),
            annotations=block.annotations,
        )


def _root(function: tirx.PrimFunc) -> Any:
    body = function.body
    if not isinstance(body, SBlockRealize) or list(body.block.iter_vars):
        raise NotTileable("its body is not one of blocks")
    return body.block


def _touched(statement: Any) -> tuple[list[Any], list[Any]]:
    """The buffers that `statement` reads and writes."""
    reads: list[Any] = []
    writes: list[Any] = []
    structural_walk(
        statement,
        [
            (TensorLoad, lambda node: reads.append(node.source)),
            (tirx.BufferStore, lambda node: writes.append(node.buffer)),
        ],
    )
    return reads, writes

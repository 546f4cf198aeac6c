"""Requests for rows before they are read or written, so that memory works while the processor computes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from edbatch_tvm.tvm_compat import builder_tirx as T
from edbatch_tvm.tvm_compat import tirx
from schedules import stage as ir
from schedules.cpu.stage_tile_values import is_row

if TYPE_CHECKING:
    from schedules.cpu.row_phases import Phase
    from schedules.cpu.whole_row_tile import WholeRowTile

LINE = 64
"""Bytes of a line of a cache."""

_AHEAD = 4
"""Rows of the domain, at least, between a row and the one that is asked for: short rows take less time than memory."""


def prefetch(pointer: Any, to_write: bool = False) -> None:
    """Have the line of memory at `pointer` loaded into the first-level cache; no address is an error."""
    stays, data = 3, 1
    settings = (tirx.const(value, "int32") for value in (int(to_write), stays, data))
    T.evaluate(tirx.call_llvm_intrin("void", "llvm.prefetch", pointer, *settings))


def requests_of(tile: WholeRowTile, phases: list[Phase], phase: Phase, position: Any) -> list[Callable[[Any], None]]:
    """What the loop of `phase` over the columns of row `position` of the domain asks for; called with a column.

    The phase before the last asks for what the next tile reads in this row's place, and for what the last phase
    writes. The first phase reads row after row and the last one writes: between them, memory would wait for the
    arithmetic, and then the arithmetic for memory. Beside products, and reductions over variadic rows, reading such
    rows takes little of the time. Rows of 16 bits are not asked for: addresses in kernels are those of float32.
    """
    stage, kernel = tile.stage, tile.kernel
    several_rows = stage.gates or stage.row_values or any(isinstance(line, ir.Reduction) for line in stage.body)
    if phase is not phases[max(0, len(phases) - 2)] or several_rows or tile.element is not None or kernel.narrow:
        return []
    requests: list[Callable[[Any], None]] = []
    later = kernel.bind("later", tirx.min(position + max(tile.rows, _AHEAD), kernel.count - 1))
    moving = [leaf for leaf in stage.leaves.values() if isinstance(leaf, ir.Element) and leaf.moving]
    for source, offset in dict.fromkeys((leaf.source, leaf.offset) for leaf in moving):
        if stage.domain == "instances" or is_row(source):
            there = kernel.bind("later_row", kernel.row(source, later, later))
            requests.append(partial(_request, kernel.buffer(source), there, offset, False))
    if phase is not phases[-1]:
        for output in phases[-1].outputs:
            buffer, there = tile.place_of(output, position)
            requests.append(partial(_request, buffer, there, output.begin or 0, True))
    return requests


def _request(buffer: Any, row: Any, offset: int, to_write: bool, column: Any) -> None:
    prefetch(tirx.address_of(buffer[row, column + offset]), to_write)

"""The code of the tiles of a stage: rows found, the sum over k through shared memory, the epilogue in registers.

For every tile (see :mod:`schedules.cuda.tiles`) that a block takes::

    rows[source][row] = ...                                   # the gather: found once for the tile
    for each sweep, for each depth of k:                      # copies run ahead by one or two buffers
        shared x[row][k], w[column chunk][k][gate][column]
        accumulators[gate][row][column] += x * w
    accumulators summed over the groups of threads            # where k was split
    output[row][column] = epilogue(accumulators, other rows)

Rows past the end of the batch repeat its last row and are not written; columns past the end have packed weights of 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from edbatch_tvm.tvm_compat import builder_tirx as T
from edbatch_tvm.tvm_compat import tirx
from schedules.cuda.epilogue_code import ElementCode
from schedules.cuda.execution_model import BLOCK, WARP, Address, Registers, Threads, bind, loop
from schedules.cuda.product_precision import WORDS
from schedules.cuda.row_sources import OWNER, RowSource
from schedules.cuda.tiles import ACROSS, PACK_LANES, VECTOR, Sweep, Tile

if TYPE_CHECKING:
    from schedules.cuda.stage_code import StageCode

_FLOAT = "float32"


class TileCode:
    """The loop over the tiles of one form."""

    def __init__(self, code: StageCode, tile: Tile) -> None:
        self.code = code
        self.tile = tile
        self.stage = code.stage
        self.threads = code.threads
        self.gates = len(code.stage.gates)
        self.row_elements = tile.row_elements()
        widest = max((len(sweep.gates) for sweep in code.sweeps), default=0)
        self.weight_elements = tile.weight_elements(widest)
        self.weights_at = tile.buffers * self.row_elements

    def loop(self) -> None:
        """Every block takes one tile after another."""
        code, tile, threads = self.code, self.tile, self.threads
        chunks = -(-self.stage.columns // tile.columns)
        # The simplifier has to see that it divides by 1 or more, although no batch is empty.
        tiles = bind("tiles", tirx.max(tirx.truncdiv(code.count + (tile.rows - 1), tile.rows), 1))
        turns = tirx.truncdiv(tiles * chunks + threads.blocks - 1 - threads.block, threads.blocks)
        with loop("turn", turns) as turn:
            work = bind("work", threads.block + turn * threads.blocks)
            self.chunk = bind("chunk", tirx.truncdiv(work, tiles))
            self.start = bind("start", (work - self.chunk * tiles) * tile.rows)
            if not self.gates:
                self._flat()
                return
            accumulators = threads.registers("acc", self.gates * tile.elements)
            with threads.phase():
                self._find_rows()
                with threads.unrolled("i", self.gates * tile.elements) as i:
                    accumulators.store(tirx.const(0, _FLOAT), i)
            for sweep in code.sweeps:
                self._sweep(sweep, accumulators)
            if tile.groups > 1:
                self._sum_groups(accumulators)
            else:
                self._write_own(accumulators)

    # Rows ------------------------------------------------------------------------------------------------------

    def _find_rows(self) -> None:
        """Write the row of every source and instance of the tile to shared memory."""
        code, tile = self.code, self.tile
        if not code.row_sources:
            return
        with T.If(self.threads.thread < tile.rows), T.Then():
            position = bind("position", tirx.min(self.start + self.threads.thread, code.count - 1))
            owner = code.owner(position) if OWNER in code.row_sources else position
            for number, source in enumerate(code.row_sources):
                row = owner if isinstance(source, str) else code.row(source, position, owner)
                T.buffer_store(code.row_table, row, [number * tile.rows + self.threads.thread])

    def row(self, source: RowSource, row: Any) -> Any:
        """The row that instance `row` of the tile reads."""
        return self.code.row_table[self.code.row_sources.index(source) * self.tile.rows + row]

    # The sum over k --------------------------------------------------------------------------------------------

    def _sweep(self, sweep: Sweep, accumulators: Registers) -> None:
        tile, threads = self.tile, self.threads
        depths = -(-sweep.length // tile.depth)
        ahead = tile.buffers - 1
        with threads.phase():
            for depth in range(ahead):
                if depth < depths:
                    self._fetch(sweep, tirx.const(depth, "int32"), tirx.const(depth, "int32"))
                threads.commit()
            threads.wait(ahead - 1)
        with loop("depth", depths) as depth, threads.phase():
            if ahead < depths:
                with T.If(depth + ahead < depths), T.Then():
                    self._fetch(sweep, depth + ahead, tirx.truncmod(depth + ahead, tile.buffers))
            threads.commit()
            self._multiply(sweep, tirx.truncmod(depth, tile.buffers), accumulators)
            threads.wait(ahead - 1)

    def _fetch(self, sweep: Sweep, depth: Any, buffer: Any) -> None:
        """Copy the rows and the weights of one depth of k to a buffer in shared memory."""
        code, tile, pool = self.code, self.tile, self.code.pool
        source, packed = code.buffer(sweep.source), code.arguments[f"packed:{self.stage.name}"]
        whole = sweep.length % tile.depth == 0
        per_row = tile.depth // VECTOR
        for_rows = bind("to_rows", buffer * self.row_elements)
        with self._each(tile.rows * per_row) as e:
            row, k = bind("row", tirx.truncdiv(e, per_row)), bind("k", tirx.truncmod(e, per_row) * VECTOR)
            to = for_rows + row * (tile.depth + VECTOR) + k
            at = [self.row(sweep.source, row), sweep.offset + depth * tile.depth + k]
            if whole and sweep.offset % VECTOR == 0:
                self.threads.copy(pool, to, source, at, VECTOR)
            else:
                with self.threads.unrolled("u", VECTOR) as u:
                    inside = depth * tile.depth + k + u < sweep.length
                    value = source[at[0], at[1] + u]
                    T.buffer_store(pool, tirx.if_then_else(inside, value, tirx.const(0, _FLOAT)), [to + u])
        run = tile.depth // tile.products.per_word * len(sweep.gates) * PACK_LANES
        chunks = tile.columns // PACK_LANES
        for_weights = bind("to_weights", self.weights_at + buffer * self.weight_elements)
        with self._each(chunks * run // VECTOR) as e:
            part, q = bind("part", tirx.truncdiv(e, run // VECTOR)), bind("q", tirx.truncmod(e, run // VECTOR) * VECTOR)
            to = for_weights + part * (run + PACK_LANES) + q
            at = [self.chunk * chunks + part, sweep.base + depth * run + q]
            if sweep.size % run == 0:
                self.threads.copy(pool, to, packed, at, VECTOR)
            else:
                with T.If(depth * run + q < sweep.size):
                    with T.Then():
                        self.threads.copy(pool, to, packed, at, VECTOR)
                    with T.Else(), self.threads.unrolled("u", VECTOR) as u:
                        T.buffer_store(pool, tirx.const(0, _FLOAT), [to + u])

    def _each(self, count: int) -> Any:
        return Each(self.threads, count)

    def _multiply(self, sweep: Sweep, buffer: Any, accumulators: Registers) -> None:
        """One depth of k from shared memory; the groups take turns."""
        if self.tile.products.on_tensor_cores:
            self._multiply_blocks(sweep, buffer, accumulators)
        else:
            self._multiply_vectors(sweep, buffer, accumulators)

    def _multiply_vectors(self, sweep: Sweep, buffer: Any, accumulators: Registers) -> None:
        """Four k at a time."""
        tile, pool, thread = self.tile, self.code.pool, self.threads.thread
        across, along, group = self._place()
        gates, chunk_stride = len(sweep.gates), (tile.depth * len(sweep.gates) + 1) * PACK_LANES
        x = self.threads.registers("x", tile.per_thread * VECTOR)
        # In fours, so that the compiler sees that four elements lie aligned.
        pitch = tile.depth // VECTOR + 1
        rows_at = bind("rows_at", buffer * (self.row_elements // VECTOR) + along * (tile.per_thread * pitch))
        at = self.weights_at + buffer * self.weight_elements
        at += tirx.truncdiv(across, PACK_LANES) * chunk_stride + tirx.truncmod(thread, PACK_LANES)
        weights_at = bind("weights_at", at)
        with loop("turn", tile.depth // (VECTOR * tile.groups)) as turn:
            k = bind("k", turn * tile.groups + group)
            with self.threads.unrolled("row", tile.per_thread) as row:
                x.store(pool[tirx.Ramp((rows_at + row * pitch + k) * VECTOR, 1, VECTOR)], row * VECTOR, VECTOR)
            with self.threads.unrolled("u", VECTOR) as u:
                for place, gate in enumerate(sweep.gates):
                    for column in range(tile.across):
                        step = column * (ACROSS // PACK_LANES) * chunk_stride
                        w = bind("w", pool[weights_at + step + ((k * VECTOR + u) * gates + place) * PACK_LANES])
                        with self.threads.unrolled("row", tile.per_thread) as row:
                            one = gate * tile.elements + row * tile.across + column
                            accumulators.store(accumulators.load(one) + x.load(row * VECTOR + u) * w, one)

    def _multiply_blocks(self, sweep: Sweep, buffer: Any, accumulators: Registers) -> None:
        """A block of k at a time, on tensor cores."""
        tile, products = self.tile, self.tile.products
        side, band, group = self._warp_place()
        gates, pitch = len(sweep.gates), tile.depth + VECTOR
        chunk_stride = (tile.depth // products.per_word * gates + 1) * PACK_LANES
        rows_at = bind("rows_at", buffer * self.row_elements + band * (16 * pitch))
        weights_at = bind("weights_at", self.weights_at + buffer * self.weight_elements + side * chunk_stride)
        with loop("turn", tile.depth // (products.block * tile.groups)) as turn:
            block = bind("block_of_k", turn * tile.groups + group)

            def rows(lane: Any, register: Any) -> Any:
                row = tirx.truncdiv(lane, 4) + 8 * tirx.truncmod(register, 2)
                word = tirx.truncmod(lane, 4) + 4 * tirx.truncdiv(register, 2)
                return rows_at + row * pitch + block * products.block + word * products.per_word

            def weights(place: int) -> Address:
                def at(lane: Any, register: Any) -> Any:
                    word = tirx.truncmod(lane, 4) + 4 * register
                    first = weights_at + (block * gates + place) * (WORDS * PACK_LANES)
                    return first + word * PACK_LANES + tirx.truncdiv(lane, 4)

                return at

            blocks = [(gate * tile.elements, weights(place)) for place, gate in enumerate(sweep.gates)]
            self.threads.multiply(products, accumulators, self.code.pool, rows, blocks)

    def _place(self) -> tuple[Any, Any, Any]:
        """Where the thread stands: across the columns, along the rows, in which group."""
        tile, thread = self.tile, self.threads.thread
        height = tile.rows // tile.per_thread
        across = bind("across", tirx.truncmod(thread, ACROSS))
        along = bind("along", tirx.truncmod(tirx.truncdiv(thread, ACROSS), height))
        return across, along, bind("group", tirx.truncdiv(thread, ACROSS * height))

    def _warp_place(self) -> tuple[Any, Any, Any]:
        """The same of the thread's warp: in which half of the columns, which 16 rows, which group."""
        warp, bands = bind("warp", tirx.truncdiv(self.threads.thread, WARP)), self.tile.rows // 16
        band = bind("band", tirx.truncmod(tirx.truncdiv(warp, 2), bands))
        return bind("side", tirx.truncmod(warp, 2)), band, bind("group", tirx.truncdiv(warp, 2 * bands))

    # The epilogue ----------------------------------------------------------------------------------------------

    def _elements(self, finish: Callable[[Any, Any, Any, Any], None]) -> None:
        """Call ``finish(element, row, column, group)`` for the elements that the thread has sums of."""
        tile = self.tile
        if tile.products.on_tensor_cores:
            side, band, group = self._warp_place()
            lane = bind("lane", tirx.truncmod(self.threads.thread, WARP))
            with self.threads.unrolled("e", tile.elements) as e:
                row = band * 16 + tirx.truncdiv(lane, 4) + 8 * tirx.truncdiv(e, 2)
                column = side * PACK_LANES + 2 * tirx.truncmod(lane, 4) + tirx.truncmod(e, 2)
                finish(e, bind("row", row), bind("column", column), group)
            return
        across, along, group = self._place()
        with self.threads.unrolled("e", tile.elements) as e:
            row = bind("row", along * tile.per_thread + tirx.truncdiv(e, tile.across))
            finish(e, row, bind("column", across + tirx.truncmod(e, tile.across) * ACROSS), group)

    def _write_own(self, accumulators: Registers) -> None:
        """Every thread finishes the elements it has summed."""

        def finish(e: Any, row: Any, column: Any, _: Any) -> None:
            self._write(row, column, lambda gate: accumulators.load(gate * self.tile.elements + e))

        with self.threads.phase():
            self._elements(finish)

    def _sum_groups(self, accumulators: Registers) -> None:
        """Add what the groups have summed, through shared memory; then every element has a thread."""
        tile, pool = self.tile, self.code.pool
        area = tile.rows * tile.columns

        def keep(e: Any, row: Any, column: Any, group: Any) -> None:
            for gate in range(self.gates):
                at = (group * self.gates + gate) * area + row * tile.columns + column
                T.buffer_store(pool, accumulators.load(gate * tile.elements + e), [at])

        with self.threads.phase():
            self._elements(keep)
        with self.threads.phase(), T.If(self.threads.thread < area), T.Then():
            element = self.threads.thread
            sums = []
            for gate in range(self.gates):
                parts = [pool[(group * self.gates + gate) * area + element] for group in range(tile.groups)]
                sums.append(bind(f"sum{gate}", sum(parts[1:], parts[0])))
            row = tirx.truncdiv(element, tile.columns)
            self._write(row, tirx.truncmod(element, tile.columns), lambda gate: sums[gate])

    def _flat(self) -> None:
        """A stage without contractions."""
        with self.threads.phase():
            self._find_rows()
        with self.threads.phase():
            thread = self.threads.thread
            self._write(tirx.truncdiv(thread, ACROSS), tirx.truncmod(thread, ACROSS), None)

    def _write(self, row: Any, column: Any, total: Any) -> None:
        """The epilogue of one element of the tile."""
        code, stage = self.code, self.stage
        position = bind("instance", self.start + row)
        j = bind("j", self.chunk * self.tile.columns + column)
        with T.If(tirx.And(position < code.count, j < stage.columns)), T.Then():
            ElementCode(self, row, position, j, total).outputs()


class Each:
    """Context: the threads of a block share `count` pieces of work; the value is the number of one piece."""

    def __init__(self, threads: Threads, count: int) -> None:
        self.threads = threads
        self.count = count

    def __enter__(self) -> Any:
        self.frames = [self.threads.unrolled("turn", -(-self.count // BLOCK))]
        turn = self.frames[0].__enter__()
        piece = bind("piece", turn * BLOCK + self.threads.thread)
        if self.count % BLOCK:
            for frame in (T.If(piece < self.count), T.Then()):
                self.frames.append(frame)
                frame.__enter__()
        return piece

    def __exit__(self, *error: Any) -> None:
        for frame in reversed(self.frames):
            frame.__exit__(*error)

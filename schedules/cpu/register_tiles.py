"""A space of schedules for cells with products: accumulators in registers, everything else as by default."""

from __future__ import annotations

from typing import Any

from tvm import IRModule

from edbatch_tvm.tvm_compat import SBlockRV, Schedule, TensorLoad, structural_walk, tirx
from schedules.cpu.general_cells import leaf_blocks, schedule_block
from schedules.weight_packing import uses

MOST_ROWS, MOST_VECTORS, MOST_STEPS = 8, 4, 4


def register_tiled(module: IRModule, lanes: int, seed: int) -> Schedule | None:
    """A schedule that samples tiles for the products of ``main``; None if there is no product of the form.

    Before::

        for b, j, k: y[b, j] += x[b, k] * W[k, j]

    After::

        for b_outer, j_outer:
            for k_outer, k_inner, b_inner, j_vector, lane: sums[b_inner, j_vector, lane] += ...
            for b_inner, j_vector, lane: y[...] = sums[b_inner, j_vector, lane]

    Loops inside k_outer are unrolled, and so is the copy: LLVM keeps sums in registers that constants index. How many
    rows, vectors and steps is sampled; the trace is a space for a search.

    Parameters
    ----------
    module : IRModule
        Blocks over a tile of instances, as :func:`schedules.cpu.instance_tiles.tile_cell` makes them.
    lanes : int
        Elements of a vector.
    seed : int
        Of the samples; 1 or more.
    """
    schedule = Schedule(module, seed=seed)
    found = False
    for block in leaf_blocks(schedule):
        if is_product(schedule, block, lanes):
            _tile(schedule, block, lanes)
            found = True
        else:
            schedule_block(schedule, block)
    return schedule if found else None


def _tile(schedule: Schedule, block: SBlockRV, lanes: int) -> None:
    spatial = _kinds(schedule, block).count(tirx.IterVar.DataPar)
    loops = schedule.get_loops(block)
    *outer, row, column = loops[:spatial]
    *sums, step = loops[spatial:]
    cache = schedule.cache_write(block, 0, "global")
    row_outer, row_inner = schedule.split(row, schedule.sample_perfect_tile(row, 2, MOST_ROWS))
    column, lane = schedule.split(column, [None, lanes])
    column_outer, vector = schedule.split(column, schedule.sample_perfect_tile(column, 2, MOST_VECTORS))
    step_outer, step_inner = schedule.split(step, schedule.sample_perfect_tile(step, 2, MOST_STEPS))
    schedule.reorder(*outer, row_outer, column_outer, *sums, step_outer, step_inner, row_inner, vector, lane)
    # With loops of 1 as well: a trace is played again with other samples.
    schedule.reverse_compute_at(cache, column_outer, preserve_unit_loops=True)
    copy_row, copy_column = schedule.get_loops(cache)[-2:]
    copy_vector, copy_lane = schedule.split(copy_column, [None, lanes])
    for loop in (lane, copy_lane):
        schedule.vectorize(loop)
    for loop in (step_inner, row_inner, vector, copy_row, copy_vector):
        schedule.unroll(loop)
    schedule.decompose_reduction(block, [*sums, step_outer][0])


def is_product(schedule: Schedule, block: SBlockRV, lanes: int) -> bool:
    """Whether `block` sums over its last axes, and what it reads lies along its last column axis or apart from it."""
    statement, kinds = schedule.get(block), _kinds(schedule, block)
    spatial = kinds.count(tirx.IterVar.DataPar)
    if kinds != [tirx.IterVar.DataPar] * spatial + [tirx.IterVar.CommReduce] * (len(kinds) - spatial):
        return False
    if spatial < 2 or spatial == len(kinds) or len(schedule.get_loops(block)) != len(kinds) or statement.init is None:
        return False
    column = statement.iter_vars[spatial - 1]
    if not isinstance(column.dom.extent, tirx.IntImm) or int(column.dom.extent) % lanes:
        return False
    loads: list[Any] = []
    structural_walk(statement.body, (TensorLoad, lambda load: loads.append(load.indices)))
    return all(_lies_along(list(indices), column.var) for indices in loads)


def _kinds(schedule: Schedule, block: SBlockRV) -> list[int]:
    return [axis.iter_type for axis in schedule.get(block).iter_vars]


def _lies_along(indices: list[Any], column: Any) -> bool:
    """Whether neighbours in `column` are neighbours in memory, or one element."""
    using = [uses(index, column) for index in indices]
    return not any(using) or (not any(using[:-1]) and indices[-1].same_as(column))

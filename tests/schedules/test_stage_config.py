"""Configurations of stage kernels: their JSON form, and what does not fit."""

from __future__ import annotations

from math import gcd
from typing import Any

import pytest
from tvm import tirx

from edbatch_tvm.errors import ConfigError
from schedules import stage as ir
from schedules.cpu.machine import AVX2, AVX512, BASELINE
from schedules.cpu.stage_config import (
    Bucket,
    StageConfig,
    chunks_of,
    default_config,
    gate_groups,
    gates_at_once,
    holds_weights,
    lanes_of,
    rest_rows,
    rest_tiles,
)
from schedules.cpu.weight_packing import packing_of


def stage(columns: int, rows: int = 1) -> ir.Stage:
    """A stage that copies an operand."""
    x = tirx.Var("x0", "float32")
    copy = ir.Element(ir.StageOperand(0), 0, True, columns if rows > 1 else 0)
    column, row = tirx.Var("j", "int64"), tirx.Var("i", "int64")
    return ir.Stage("cell", "s", columns, column, (), (), (), (ir.Output(x, 0),), {x: copy}, rows=rows, row=row)


@pytest.mark.parametrize("machine", [AVX512, AVX2], ids=["avx512", "avx2"])
@pytest.mark.parametrize(("rows", "columns"), [(1, 5), (1, 64), (3, 7), (9, 40)])
def test_defaults_fit_and_survive_json(machine: Any, rows: int, columns: int) -> None:
    one = stage(columns, rows)
    config = default_config(one, machine)
    config.check(one, machine)
    assert StageConfig.from_json(config.as_json()) == config
    assert lanes_of(one, machine) * chunks_of(one, machine) >= columns


def test_what_shares_no_weights_goes_row_after_row() -> None:
    for columns, chunks in ((128 * 128, 8), (128, 8), (96, 6), (64, 8), (24, 3), (5, 1)):
        assert default_config(stage(columns), AVX2).buckets == (Bucket(None, 1, chunks, order="rows"),)


@pytest.mark.parametrize("rows", range(3, 13))
def test_tiles_of_two_sizes_compute_few_rows_twice(rows: int) -> None:
    rest = rest_rows(Bucket(None, rows, 1))
    counts = rest_tiles(rows, rest)
    for over, count in enumerate(counts):
        too_many = [(small * rest - over) % rows for small in range(2 * rows)]
        assert too_many[count] == min(too_many) < gcd(rows, rest)
    assert rest_rows(Bucket(rows, rows, 1)) == rest_rows(Bucket(None, 2, 1)) == rest_rows(Bucket(None, 16, 1)) == 0


def gated(widths: dict[int, int]) -> ir.Stage:
    """A stage whose gates read operands: gate g the first ``widths[g]`` of them, and then adds them up."""
    column, k = tirx.Var("j", "int64"), tirx.Var("k", "int64")
    weight = tirx.const(1, "float32")
    gates = tuple(
        ir.Gate(tuple(ir.Pass(ir.StageOperand(source), 0, 64, weight, k) for source in range(count)))
        for count in widths.values()
    )
    x = tirx.Var("x0", "float32")
    return ir.Stage("cell", "s", 64, column, gates, (), (), (ir.Output(x, 0),), {x: ir.Accumulator(0)})


def test_gates_are_computed_in_groups_that_leave_rows_room() -> None:
    lstm, grid, tree = gated(dict.fromkeys(range(4), 2)), gated(dict.fromkeys(range(8), 2)), gated({0: 2, 1: 2, 2: 1})
    assert [gate_groups(grid, machine) for machine in (AVX512, AVX2)] == [
        [(0, 1, 2, 3, 4, 5, 6, 7)],
        [(0, 1, 2, 3), (4, 5, 6, 7)],
    ]
    assert gate_groups(lstm, BASELINE) == [(0, 1), (2, 3)]
    assert gate_groups(tree, BASELINE) == [(0, 1), (2,)]
    assert gate_groups(stage(5), AVX2) == []
    for one in (lstm, grid, tree):
        for machine in (AVX512, AVX2, BASELINE):
            assert [number for group in gate_groups(one, machine) for number in group] == list(range(len(one.gates)))
            packing = packing_of(one, machine)
            gates = gates_at_once(one, machine)
            assert max(len(sweep.gates) for sweep in packing.sweeps) == gates <= machine.gates
            sizes = [sweep.length * len(sweep.gates) * packing.lanes for sweep in packing.sweeps]
            assert [sweep.base for sweep in packing.sweeps] == [sum(sizes[:number]) for number in range(len(sizes))]
            for bucket in default_config(one, machine).buckets:
                wide = bucket.chunks * gates
                fewer = wide if holds_weights(bucket.rows, wide, machine) else bucket.rows
                assert bucket.rows * wide + fewer + machine.reserved <= machine.registers
                assert bucket.rows > 1 or bucket.upto == 1


def message(value: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        StageConfig.from_json(value).check(stage(40), AVX512)
    return str(caught.value)


def test_messages() -> None:
    good = {"upto": None, "rows": 6, "chunks": 3}
    assert message({"rows": 1}) == "a stage configuration of type dict; expected a list of buckets, not empty"
    assert message([{"rows": 1}]).startswith("bucket 0 is {'rows': 1}; expected an object of upto, rows, chunks")
    assert message([{**good, "rows": True}]) == "rows of bucket 0 is True; expected int"
    assert message([{**good, "order": "k"}]) == "order of bucket 0 is 'k'; expected 'chunks' or 'rows'"
    expected = "batch sizes from 1 on that grow, and None last"
    assert message([good | {"upto": 3}]) == f"buckets up to [3]; expected {expected}"
    assert message([good | {"upto": 3}, good | {"upto": 3}, good]) == f"buckets up to [3, 3, None]; expected {expected}"
    assert message([good | {"rows": 16}]) == "bucket 0 of 's' has a tile of 16 rows; expected 1 to 15"
    assert message([good | {"chunks": 4}]) == "bucket 0 of 's' has a tile of 4 chunks; expected 1 to 3"
    assert message([good | {"unroll": 3}]) == "bucket 0 of 's' unrolls 3 steps; expected one of 1, 2, 4, 8"


def test_buckets_are_values() -> None:
    assert Bucket(None, 6, 3) == Bucket(None, 6, 3, 1, "chunks", True)

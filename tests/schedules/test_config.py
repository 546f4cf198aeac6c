"""Configurations of stage kernels: their JSON form, and what does not fit."""

from __future__ import annotations

from typing import Any

import pytest
from tvm import tirx

from edbatch_tvm.errors import ConfigError
from schedules import stage as ir
from schedules.cpu.config import Bucket, StageConfig, chunks_of, default_config, lanes_of
from schedules.cpu.machine import AVX2, AVX512


def stage(columns: int, rows: int = 1) -> ir.Stage:
    """A stage that copies an operand."""
    x = tirx.Var("x0", "float32")
    copy = ir.Element(ir.Operand(0), 0, True, columns if rows > 1 else 0)
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

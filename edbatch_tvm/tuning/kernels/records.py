"""The records of a database, for a compilation; see :class:`schedules.tuning_records.Records`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import IRModule

from edbatch_tvm.tuning.kernels.database import TuningDatabase, config_of
from edbatch_tvm.tuning.kernels.general_cell_records import SIZES, read_least, tile_of
from edbatch_tvm.tuning.kernels.record_keys import stage_key
from edbatch_tvm.tuning.kernels.stage_search import read_config
from edbatch_tvm.tvm_compat import tirx
from schedules.cpu.instance_tiles import NotTileable, TunedTile, tile_cell
from schedules.cpu.machine import Machine
from schedules.cpu.stage_config import StageConfig
from schedules.stage import Stage


class DatabaseRecords:
    """The verified records of a database."""

    def __init__(self, database: TuningDatabase) -> None:
        self.database = database

    def stage_config(self, stage: Stage, machine: Machine) -> StageConfig | None:
        """See :class:`schedules.tuning_records.Records`."""
        record = self.database.kept(stage_key(stage, machine))
        if record is None:
            return None
        config = read_config(config_of(record.trace))
        config.check(stage, machine)
        return config

    def tiles(self, function: tirx.PrimFunc, per_instance: Sequence[Any]) -> tuple[TunedTile, ...]:
        """See :class:`schedules.tuning_records.Records`."""
        tiles = []
        for size in SIZES:
            try:
                module = IRModule({"main": tile_cell(function, per_instance, size)})
            except NotTileable:
                return ()
            record = self.database.kept(module)
            if record is not None:
                tiles.append(tile_of(module, record.trace, size, read_least(record.trace)))
        return tuple(tiles)

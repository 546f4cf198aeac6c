"""What a compilation takes from tuning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from tvm import IRModule, tirx

from schedules.cpu.config import StageConfig
from schedules.cpu.machine import Machine
from schedules.cpu.tile_cells import NotTileable, TunedTile, tile_cell
from schedules.stage import Stage
from schedules.tuning.database import TuningDatabase, config_of
from schedules.tuning.stages import read_config
from schedules.tuning.subjects import stage_subject
from schedules.tuning.tile_records import SIZES, read_least, tile_of


class Records(Protocol):
    """Tuned schedules of a device."""

    def stage_config(self, stage: Stage, machine: Machine) -> StageConfig | None:
        """The tuned configuration of a stage kernel; None where there is no record."""

    def tiles(self, function: tirx.PrimFunc, per_instance: Sequence[Any]) -> tuple[TunedTile, ...]:
        """Tuned tiles of a cell outside the stage form, the largest first; none where there are no records."""


class DatabaseRecords:
    """The verified records of a database."""

    def __init__(self, database: TuningDatabase) -> None:
        self.database = database

    def stage_config(self, stage: Stage, machine: Machine) -> StageConfig | None:
        """See :class:`Records`."""
        record = self.database.kept(stage_subject(stage, machine))
        if record is None:
            return None
        config = read_config(config_of(record.trace))
        config.check(stage, machine)
        return config

    def tiles(self, function: tirx.PrimFunc, per_instance: Sequence[Any]) -> tuple[TunedTile, ...]:
        """See :class:`Records`."""
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

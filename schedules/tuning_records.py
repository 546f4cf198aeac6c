"""What a compilation takes from tuning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from edbatch_tvm.tvm_compat import tirx
from schedules.cpu.instance_tiles import TunedTile
from schedules.cpu.machine import Machine
from schedules.cpu.stage_config import StageConfig
from schedules.stage import Stage


class Records(Protocol):
    """Tuned schedules of a device."""

    def stage_config(self, stage: Stage, machine: Machine) -> StageConfig | None:
        """The tuned configuration of a stage kernel; None where there is no record."""

    def tiles(self, function: tirx.PrimFunc, per_instance: Sequence[Any]) -> tuple[TunedTile, ...]:
        """Tuned tiles of a cell outside the stage form, the largest first; none where there are no records."""

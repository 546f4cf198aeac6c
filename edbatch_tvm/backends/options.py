"""What a caller chooses of a compilation, target and weights aside."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from edbatch_tvm.argument_checks import require_choice, require_type
from edbatch_tvm.errors import PlanError
from edbatch_tvm.runtime.device_executor import Launch
from schedules.cuda.kernels import Occupancy

GRANULARITIES = ("cell", "group", "group-declared", "op")
"""What a node of a minibatch graph can be."""

Database: TypeAlias = str | Path | Occupancy | None
"""Where tuning records come from; see :func:`edbatch_tvm.compile`."""


@dataclass(frozen=True)
class CompileOptions:
    """The options of :func:`edbatch_tvm.compile` that decide which code is made; every backend reads its own.

    Raises
    ------
    PlanError
        If the granularity is unknown, or `fused` does not go with it.
    """

    granularity: str = "cell"
    fused: bool = True
    launch: Launch = "schedule"
    dtype: str = "float32"
    database: Database = None
    fast_math: bool = True
    storage: str = "float32"

    def __post_init__(self) -> None:
        require_choice("granularity", self.granularity, GRANULARITIES, PlanError)
        for name in ("fused", "fast_math"):
            require_type(getattr(self, name), bool, f"True or False for {name}", PlanError)
        if not self.fused and self.granularity == "cell":
            raise PlanError("fused=False at granularity 'cell'", 'granularity="op"')
        if self.storage != "float32" and self.granularity != "cell":
            raise PlanError(f"storage {self.storage!r:.60} at granularity {self.granularity!r}", 'granularity="cell"')

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


MOST_BYTES = 1 << 28
"""Of tables of products, where they are asked for without a limit."""


def most_bytes(product_tables: bool | int) -> int:
    """The option `product_tables` of :func:`edbatch_tvm.compile` as a number of bytes.

    Raises
    ------
    PlanError
        If it is neither a bool nor a number.
    """
    if isinstance(product_tables, bool):
        return MOST_BYTES if product_tables else 0
    if not isinstance(product_tables, int) or product_tables < 0:
        raise PlanError(f"product_tables {product_tables!r:.60}", "True, False or the most bytes of such tables")
    return product_tables


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
    product_tables: int = 0

    def __post_init__(self) -> None:
        require_choice("granularity", self.granularity, GRANULARITIES, PlanError)
        for name in ("fused", "fast_math"):
            require_type(getattr(self, name), bool, f"True or False for {name}", PlanError)
        if not self.fused and self.granularity == "cell":
            raise PlanError("fused=False at granularity 'cell'", 'granularity="op"')
        if self.product_tables and self.granularity != "cell":
            raise PlanError(f"product_tables at granularity {self.granularity!r}", 'granularity="cell"')
        if self.storage != "float32" and self.granularity != "cell":
            raise PlanError(f"storage {self.storage!r:.60} at granularity {self.granularity!r}", 'granularity="cell"')

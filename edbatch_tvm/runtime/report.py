"""What a run did: batches, operands, bytes, seconds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edbatch_tvm.memory.plan import Plan

if TYPE_CHECKING:
    from edbatch_tvm.batching.schedule import ScheduleInfo


@dataclass(frozen=True)
class Report:
    """What one call of a model did.

    Attributes
    ----------
    schedule : ScheduleInfo
        Policy, number of batches, the lower bound.
    plan : Plan
    paths : dict from cell name to text
        ``stage``, or ``general (reason)``.
    kernel_calls : int
    seconds : dict
        ``build`` (merging the instances), ``schedule``, ``plan``, ``execute``, ``total``.
    """

    schedule: ScheduleInfo
    plan: Plan
    paths: dict[str, str]
    kernel_calls: int
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def policy(self) -> str:
        """Name of the policy that was used."""
        return self.schedule.policy

    @property
    def batches(self) -> int:
        """Number of batches."""
        return self.schedule.batches

    @property
    def lower_bound(self) -> int:
        """No schedule of this graph has fewer batches."""
        return self.schedule.lower_bound

    @property
    def operands(self) -> dict[str, int]:
        """Operands that are contiguous, broadcast, indexed."""
        return self.plan.operands

    @property
    def lookups(self) -> int:
        """Batches' index attributes: rows of weight tables read through them."""
        return self.plan.lookups

    @property
    def bytes_indexed(self) -> int:
        """Bytes of operand rows that kernels read through an index."""
        return self.plan.bytes_indexed

    @property
    def bytes_gathered(self) -> int:
        """Bytes moved by separate copy kernels: none, kernels read operands where they lie."""
        return 0

    def __str__(self) -> str:
        operands = ", ".join(f"{count} {name}" for name, count in self.operands.items())
        lines = [
            f"policy     {self.policy}",
            f"batches    {self.batches} (lower bound {self.lower_bound}) for {self.schedule.nodes} nodes",
            f"kernels    {self.kernel_calls} calls",
            f"operands   {operands}; {self.bytes_indexed} bytes read through an index, {self.lookups} lookups",
        ]
        lines += [f"cell       {name}: {path}" for name, path in self.paths.items()]
        lines += [f"{name:<10} {seconds * 1e6:.0f} µs" for name, seconds in self.seconds.items()]
        return "\n".join(lines)

"""What a run did: batches, operands, bytes, seconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from edbatch_tvm.batching import ScheduleInfo, lower_bound
from edbatch_tvm.cached_property import cached_property
from edbatch_tvm.graph import InstanceGraph
from edbatch_tvm.graph.spec import ValueSpec
from edbatch_tvm.memory.plan import Plan
from edbatch_tvm.memory.plan_with_copies import UnfusedPlan
from edbatch_tvm.runtime.storage import Stored, held_dtype
from schedules.abi import padded


@dataclass(frozen=True, eq=False)
class Report:
    """What one call of a model did.

    Attributes
    ----------
    graph : InstanceGraph
        What ran: the minibatch, or its nodes without those that are equal to another one.
    plan : Plan
    schedule : ScheduleInfo or None
        How the schedule was found, if known.
    paths : dict from cell name to text
        ``stage``, or ``general (reason)``.
    count_kernels : callable
        Gives :attr:`kernel_calls`.
    stored : Stored or None
        What values and weights are kept in.
    merged : int
        Nodes that are not in `graph`, since they are equal to one that is.
    products : dict
        For each table of products whose rows are computed when they are read, how often nodes read it and how many of
        its rows.
    seconds : dict
        ``build`` (merging the instances), ``schedule``, ``plan``, ``execute``, ``total``.
    """

    graph: InstanceGraph
    plan: Plan
    schedule: ScheduleInfo | None
    paths: dict[str, str]
    count_kernels: Callable[[], int]
    stored: Stored | None = None
    merged: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    products: dict[str, tuple[int, int]] = field(default_factory=dict)

    @cached_property
    def kernel_calls(self) -> int:
        """Kernels that ran: one for each stage of each batch, or of each piece of a large one, and copies.

        On a CPU they run in one call of the library.
        """
        return self.count_kernels()

    @property
    def policy(self) -> str:
        """Name of the policy that was used."""
        return self.schedule.policy if self.schedule is not None else "given"

    @property
    def batches(self) -> int:
        """Number of batches."""
        return len(self.plan.schedule)

    @property
    def calls(self) -> int:
        """Calls of cells that the nodes stand for: as many, or more where equal calls are one node."""
        return self.graph.num_nodes + self.merged

    @property
    def lower_bound(self) -> int:
        """No schedule of this graph has fewer batches."""
        return self.schedule.lower_bound if self.schedule is not None else lower_bound(self.graph)

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
        specs = self._specs
        halves = (
            self.stored is not None
            and self.stored.dtype != "float32"
            and all(spec.dtype == "float32" for spec in specs)
        )
        return self.plan.bytes_indexed // 2 if halves else self.plan.bytes_indexed

    @property
    def value_bytes(self) -> int:
        """Bytes of the rows of all values in the arenas."""
        rows = zip(self._specs, self.plan.arena_rows, strict=True)
        storage = "float32" if self.stored is None else self.stored.dtype
        return sum(
            count * padded(spec.size) * np.dtype(held_dtype(spec.dtype, storage)).itemsize for spec, count in rows
        )

    @property
    def _specs(self) -> tuple[ValueSpec, ...]:
        assert self.graph.signature is not None
        return self.graph.signature.value_specs

    @property
    def bytes_gathered(self) -> int:
        """Bytes moved by separate copy kernels, which only the unfused form has."""
        return self.plan.bytes_gathered if isinstance(self.plan, UnfusedPlan) else 0

    def __str__(self) -> str:
        operands = ", ".join(f"{count} {name}" for name, count in self.operands.items())
        lines = [
            f"policy     {self.policy}",
            f"batches    {self.batches} (lower bound {self.lower_bound}) for {self.graph.num_nodes} nodes",
            f"kernels    {self.kernel_calls} calls",
            f"operands   {operands}; {self.bytes_indexed} bytes read through an index, {self.lookups} lookups",
        ]
        stored = self.stored
        if stored is not None:
            lines.append(
                f"storage    {stored.dtype}: {self.value_bytes} bytes of values, {stored.weight_bytes} of weights"
            )
        if self.merged:
            lines.append(f"equal      {self.merged} of {self.calls} nodes are equal to another one and not computed")
        lines += [
            f"product    {name}: {rows} rows, read {times} times" for name, (times, rows) in self.products.items()
        ]
        lines += [f"cell       {name}: {path}" for name, path in self.paths.items()]
        lines += [f"{name:<10} {seconds * 1e6:.0f} µs" for name, seconds in self.seconds.items()]
        return "\n".join(lines)

"""What an explanation holds: per cell, per batch, and the whole."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from edbatch_tvm.explanation.similar_cells import Alike
from edbatch_tvm.graph import InstanceGraph
from edbatch_tvm.memory import Plan, PQTree
from edbatch_tvm.memory.operand_read_report import OperandUse


@dataclass(frozen=True, eq=False)
class CellExplanation:
    """What became of the nodes of one cell.

    Attributes
    ----------
    cell : str
    nodes, batches, largest_batch : int
        Nodes, batches, and nodes of the largest batch.
    longest_path : int
        Nodes of the cell on one path: there is no schedule with fewer batches of it.
    above_path : int
        Batches more than that; they come from the order of the types, so from the policy.
    dependent, waiting, ready : int
        Why nodes did not run in the batch before: they depend on it, an operand of another cell was missing, or nothing
        stood in the way. See :class:`edbatch_tvm.batching.batch_gaps.Gap`.
    waited_for : dict of str to int
        What the waiting nodes waited for.
    alike : list of Alike
        Cells with the same operators that still run in batches of their own, and why.
    path, reason : str
        ``stage``, or ``general`` with the reason.
    kernels : tuple of str
        Kernels of a batch, in order.
    operands : dict of str to int
        Operands of all batches that are ``contiguous``, ``broadcast``, ``indexed``.
    indexed_why : dict of str to int
        What keeps indexed operands from being contiguous, and how many operands that concerns.
    bytes_read, bytes_indexed, bytes_written : int
        Of operand rows, those of them read through an index, and results; weights do not count.
    seconds : float or None
        Time of the batches, run one at a time; None if it was not measured.
    gflops : float or None
        10⁹ operations per second in the matrix products of the cell as written.
    """

    cell: str
    nodes: int
    batches: int
    largest_batch: int
    longest_path: int
    above_path: int
    dependent: int
    waiting: int
    ready: int
    waited_for: dict[str, int]
    alike: list[Alike]
    path: str
    reason: str
    kernels: tuple[str, ...]
    operands: dict[str, int]
    indexed_why: dict[str, int]
    bytes_read: int
    bytes_indexed: int
    bytes_written: int
    seconds: float | None
    gflops: float | None


@dataclass(frozen=True)
class BatchExplanation:
    """One batch.

    Attributes
    ----------
    batch : int
    cell : str
    nodes : int
    seconds : float or None
    previous : int or None
        The batch of the same cell before.
    dependent, waiting, ready : int
        Why its nodes did not run there; all 0 for the first of a cell.
    """

    batch: int
    cell: str
    nodes: int
    seconds: float | None
    previous: int | None
    dependent: int
    waiting: int
    ready: int


@dataclass(frozen=True, eq=False)
class TrainingExplanation:
    """What a training step did besides its forward pass.

    Attributes
    ----------
    seconds : dict of str to float
        Where the time of a step goes: ``forward``; ``backward``, which is building, planning and running the backward
        graph; ``weights``, the gradients of weights; ``optimizer``, if there was one; ``refresh``, packing the new
        weights; and ``total``.
    saved_bytes : dict of str to int
        What all nodes of each cell save for the backward pass, besides their outputs.
    backward : Explanation
        The backward pass.
    """

    seconds: dict[str, float]
    saved_bytes: dict[str, int]
    backward: Explanation

    def as_json(self) -> dict[str, Any]:
        """The same as nested dicts of plain values."""
        return {"seconds": self.seconds, "saved_bytes": self.saved_bytes, "backward": self.backward.as_json()}


@dataclass(frozen=True, eq=False)
class Explanation:
    """What a model did with a minibatch, made by :func:`edbatch_tvm.explain`.

    ``print`` shows a table; :meth:`as_json`, :meth:`to_html` and :meth:`to_trace` are other forms.

    Attributes
    ----------
    policy, plan_name, target : str
    instances, nodes, batches, lower_bound : int
    seconds : dict of str to float
        The stages of the run: ``build``, ``schedule``, ``plan``, ``execute``, ``total``.
    cells : list of CellExplanation
        Of the cells that have nodes, in the order of the signature.
    steps : list of BatchExplanation
        In the order they run.
    uses : list of OperandUse
        Every operand of every batch.
    trees : dict of str to PQTree
        How the operators inside the cells are laid out; not all cells have such a layout.
    graph : InstanceGraph
        What ran.
    plan : Plan
    merged : int
        Nodes of the minibatch that are not in `graph`, since they are equal to one that is.
    products : dict of str to (int, int)
        For each table of products whose rows are computed when they are read, how often nodes read it and how many of
        its rows.
    training : TrainingExplanation or None
        The rest of the step, of a model that trains.
    """

    policy: str
    plan_name: str
    target: str
    instances: int
    nodes: int
    batches: int
    lower_bound: int
    seconds: dict[str, float]
    cells: list[CellExplanation]
    steps: list[BatchExplanation]
    uses: list[OperandUse] = field(repr=False)
    trees: dict[str, PQTree] = field(repr=False)
    graph: InstanceGraph = field(repr=False)
    plan: Plan = field(repr=False)
    merged: int = 0
    products: dict[str, tuple[int, int]] = field(default_factory=dict)
    training: TrainingExplanation | None = None

    def as_json(self) -> dict[str, Any]:
        """The explanation as nested dicts of plain values, without graph and plan."""
        return {
            "policy": self.policy,
            "plan": self.plan_name,
            "target": self.target,
            "instances": self.instances,
            "nodes": self.nodes,
            "merged": self.merged,
            "products": self.products,
            "batches": self.batches,
            "lower_bound": self.lower_bound,
            "seconds": self.seconds,
            "cells": [asdict(cell) for cell in self.cells],
            "steps": [dict(vars(step)) for step in self.steps],
            "uses": [dict(vars(use)) for use in self.uses],
            **({} if self.training is None else {"training": self.training.as_json()}),
        }

    def to_html(self, title: str = "edbatch explain") -> str:
        """One self-contained HTML page.

        Parameters
        ----------
        title : str
        """
        from edbatch_tvm.explanation.page import page

        return page(self, title)

    def to_trace(self) -> dict[str, Any]:
        """The run in the JSON format of Chrome's and Perfetto's trace viewers: a track for each cell."""
        from edbatch_tvm.explanation.chrome_trace import trace

        return trace(self)

    def __str__(self) -> str:
        from edbatch_tvm.explanation.terminal_table import table

        return table(self)

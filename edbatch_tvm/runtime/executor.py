"""What runs the batches of a plan: every backend builds one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Protocol

import numpy as np

from edbatch_tvm.batching import ScheduleInfo
from edbatch_tvm.graph import InstanceGraph
from edbatch_tvm.memory import Plan
from edbatch_tvm.runtime.artifact import Artifact
from edbatch_tvm.runtime.result import Result


class Executor(Protocol):
    """The kernels of a model with its weights, ready to run.

    Attributes
    ----------
    paths : dict
        For each cell, how it is run: ``stage``, or ``general (reason)``.
    kernel_names : dict
        The kernels that each cell runs, in order.
    fused : bool
        Whether kernels read operands where they lie; False: separate kernels copy what is not contiguous, and plans
        are :class:`~edbatch_tvm.memory.plan_with_copies.UnfusedPlan`.
    threads : int
        Threads of this machine that kernels run on.
    tuning_key : str
        What tuned settings of the model are kept under; empty where kernels are tuned one by one.
    artifact : Artifact or None
        What was compiled, to be saved; None where that cannot be.
    """

    paths: dict[str, str]
    kernel_names: dict[str, tuple[str, ...]]
    fused: bool
    tuning_key: str
    artifact: Artifact | None

    @property
    def threads(self) -> int: ...  # noqa: D102  (see the class)

    def run(self, graph: InstanceGraph, plan: Plan, info: ScheduleInfo | None = None) -> Result:
        """Run the batches of `plan`, a plan of `graph`; `info` goes into the report.

        Raises
        ------
        TargetError
            If kernels of this target cannot run in this process.
        """

    def parts(self, graph: InstanceGraph, plan: Plan) -> AbstractContextManager[Callable[[int, int], None]]:
        """A function that runs the batches of `plan` from one number up to another and waits for them.

        Its calls share arenas: the first has to run all batches, so that later ones read values.
        """

    def load(self, weights: Mapping[str, np.ndarray], rows: Mapping[str, np.ndarray] = ...) -> None:
        """Take `weights` from now on; of tables in `rows`, these rows alone differ from what was loaded last."""

    def held(self) -> dict[str, np.ndarray]:
        """What kernels read at this moment, by ``kind:name``, not copies; nothing where it cannot be saved."""


@contextmanager
def run_parts(executor: Executor, graph: InstanceGraph, plan: Plan) -> Iterator[Callable[[int, int], None]]:
    """:meth:`Executor.parts` of a fused model by runs of plans of fewer batches."""

    def run(begin: int, end: int) -> None:
        steps = np.ascontiguousarray(plan.steps[begin:end])
        executor.run(graph, replace(plan, steps=steps)).synchronize()

    yield run

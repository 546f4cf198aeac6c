"""What a target has to offer: its passes, its tuning records, and a build that gives an executor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, TypeAlias

import numpy as np
from tvm import IRModule
from tvm.ir.transform import Pass
from tvm.target import Target

from edbatch_tvm.backends.options import CompileOptions, Database
from edbatch_tvm.errors import PlanError, TargetError
from edbatch_tvm.graph.spec import Signature
from edbatch_tvm.runtime.artifact import Artifact, HeldWeights
from edbatch_tvm.runtime.compilation_cache import KeptCells
from edbatch_tvm.runtime.executor import Executor

TargetLike: TypeAlias = str | Mapping[str, Any] | Target
"""What a caller names a target by."""


class Progress(Protocol):
    """Shows the steps of a compilation."""

    def __call__(self, step: str) -> None:
        """The next step begins."""

    def expect(self, steps: int) -> None:
        """Expect this many more steps."""


class Backend(ABC):
    """One target. A subclass in a file of its own, and :func:`~edbatch_tvm.backends.register_backend`, make another.

    Attributes
    ----------
    name : str
    kinds : tuple of str
        The targets it serves: names, or kinds of TVM targets. The first is what :attr:`edbatch_tvm.Model.target` says.
    dtypes : tuple of str
        What :func:`edbatch_tvm.compile` may be told to compute in; the first is what it does without being told.
    storages : tuple of str
        What values and weights of float32 may be kept in; the first is what they are without being told.
    can_gather : bool
        Whether it has the unfused form, in which kernels of their own copy operands that do not lie contiguously.
    has_source : bool
        Whether its kernels are made from source text.
    given : str, mapping or tvm.target.Target
        The target as the caller named it.
    """

    name: ClassVar[str]
    kinds: ClassVar[tuple[str, ...]]
    dtypes: ClassVar[tuple[str, ...]] = ("float32",)
    storages: ClassVar[tuple[str, ...]] = ("float32",)
    can_gather: ClassVar[bool] = False
    has_source: ClassVar[bool] = False

    def __init__(self, given: TargetLike) -> None:
        self.given = given

    def check(self, options: CompileOptions) -> None:
        """Refuse options that this target does not have.

        Raises
        ------
        PlanError
            If there is no unfused form.
        TargetError
            If there is no such dtype or storage.
        """
        if not options.fused and not self.can_gather:
            raise PlanError(f"fused=False for target {self.given!r}", 'target="llvm"')
        if not isinstance(options.dtype, str) or options.dtype not in self.dtypes:
            raise TargetError(f"dtype {options.dtype!r:.60} for {self.title}", f"one of {', '.join(self.dtypes)}")
        if not isinstance(options.storage, str) or options.storage not in self.storages:
            raise TargetError(f"storage {options.storage!r:.60} for {self.title}", f"one of {', '.join(self.storages)}")
        if options.storage != "float32" and options.dtype != "float32":
            raise TargetError(f"storage {options.storage!r} of cells in {options.dtype}", "dtype='float32'")

    @property
    def title(self) -> str:
        """What errors call it."""
        return f"target {self.kinds[0]!r}"

    @property
    def device(self) -> str:
        """The name that tuning records of this device are kept under.

        Raises
        ------
        TargetError
            If it is not here.
        """
        return self.name

    def choices(self, options: CompileOptions) -> dict[str, Any] | None:
        """All that decides the code beside the cells, this package, TVM and the CPU; None: code is not kept.

        Equal choices load what is kept (:mod:`edbatch_tvm.runtime.compilation_cache`) instead of compiling again.
        """
        return None

    def compile_cells(
        self, nodes: IRModule, signature: Signature, options: CompileOptions, progress: Progress | None = None
    ) -> KeptCells | None:
        """Compile cells one by one, as far as none was compiled before; None where :meth:`build` takes all together.

        Parameters
        ----------
        nodes : IRModule
            The cells that are the nodes of graphs.
        signature : Signature
        options : CompileOptions
        progress : Progress, optional
            Told of each step before it begins.

        Raises
        ------
        CellError
            If a cell cannot be batched.
        """
        return None

    @abstractmethod
    def passes(self, signature: Signature, options: CompileOptions) -> list[Pass]:
        """From cells that are the nodes of graphs to what :meth:`build` takes.

        They begin with the passes of :func:`relay_ext.pipeline.cell_passes` or equivalent ones, FuseCells among them.
        """

    def records(self, database: Database) -> Any:
        """The tuning records of this device in `database`; None where there are none.

        Raises
        ------
        DatabaseError
            If a folder that is named has no readable records of this device.
        """
        return None

    @abstractmethod
    def build(
        self, module: IRModule, signature: Signature, weights: Mapping[str, np.ndarray], options: CompileOptions
    ) -> Executor:
        """Compile what the passes made, and load the weights.

        Raises
        ------
        TargetError
            If it does not run here.
        """

    def load(
        self, artifact: Artifact, signature: Signature, weights: Mapping[str, np.ndarray] | HeldWeights
    ) -> Executor:
        """The executor of a compiled artifact, of this process or another one.

        Raises
        ------
        TargetError
            If models for this target cannot be saved.
        WeightError
            If held weights do not fit the kernels.
        """
        raise TargetError(f"a saved model for {self.title}", "one for 'llvm'")

    def load_kept(self, kept: KeptCells, signature: Signature, weights: Mapping[str, np.ndarray]) -> Executor:
        """The executor of what was kept, where :meth:`choices` says that something is."""
        raise NotImplementedError

    def sources(self, module: IRModule, signature: Signature, options: CompileOptions) -> dict[str, str]:
        """The source text of the kernels by name, where :attr:`has_source`; this machine need not have the device."""
        raise NotImplementedError

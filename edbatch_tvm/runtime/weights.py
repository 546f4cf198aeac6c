"""The arrays that kernels read, made from the weights a user gave; once at load, again after an update."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tvm import IRModule

from edbatch_tvm.errors import WeightError
from edbatch_tvm.graph.spec import ValueSpec
from edbatch_tvm.runtime.kernels import check_weights
from relay_ext.lift_weights import lift_weights
from relay_ext.tabulate_products import DerivedWeight, with_derived


@dataclass(eq=False)
class WeightReader:
    """Reads the weights of a model from what the user gave last.

    Attributes
    ----------
    wanted : dict of str to ValueSpec
        The weights of the cells as written.
    given : mapping of str to array, or None
        What :meth:`read` reads when it is given nothing else: what was given last. None for a model that was loaded
        with the weights in its file.
    grouped : IRModule or None
        Cells from which everything that depends on weights alone is lifted; None for cells run as written.
    constants : dict of str to array
        Constants in the bodies of cells, which kernels read like weights.
    derived : tuple of DerivedWeight
        Weights of the cells that run which are computed from those that were given.
    read_by_cells : tuple of str
        The weights that the cells that run read, where some are derived.
    compute : callable
        Computes a derived weight, by the weights that were given.
    """

    wanted: dict[str, ValueSpec]
    given: Mapping[str, Any] | None
    grouped: IRModule | None = None
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    derived: tuple[DerivedWeight, ...] = ()
    read_by_cells: tuple[str, ...] = ()
    compute: Callable[[DerivedWeight, Mapping[str, np.ndarray]], np.ndarray] = DerivedWeight.compute

    @property
    def is_derived(self) -> bool:
        """Whether the cells that run read others than the weights as written."""
        return self.grouped is not None or bool(self.derived)

    def read(self, given: Mapping[str, Any] | None = None) -> dict[str, np.ndarray] | None:
        """The arrays by name; None if no weights were ever given. `given`, if it fits, is kept for the next time.

        Raises
        ------
        WeightError
            If weights are missing, extra, or of another shape or dtype.
        """
        given = self.given if given is None else given
        if given is None:
            return None
        arrays = check_weights(self.wanted, given)
        if self.grouped is not None:
            arrays = lift_weights(self.grouped, arrays)[1]
        if self.derived:
            arrays = with_derived(self.derived, arrays, self.read_by_cells, self.compute)
        self.given = given
        return arrays | self.constants

    def changed(self, rows: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Rows of weights, as arrays.

        Raises
        ------
        WeightError
            If there is no such weight, or it has no such rows.
        """
        found = {}
        for name, numbers in rows.items():
            if name not in self.wanted or not self.wanted[name].shape:
                tables = [one for one, spec in self.wanted.items() if spec.shape]
                raise WeightError(f"rows of {name!r}", f"rows of a weight: one of {', '.join(tables)}")
            index, count = np.asarray(numbers), self.wanted[name].shape[0]
            if index.ndim != 1 or (index.size and index.dtype.kind not in "iu"):
                raise WeightError(f"rows of {name!r} as {index.dtype}{list(index.shape)}", "a list of integers")
            if index.size and not 0 <= index.min() <= index.max() < count:
                outside = index[(index < 0) | (index >= count)][0]
                raise WeightError(f"row {outside} of weight {name!r}", f"rows from 0 to {count - 1}")
            found[name] = index.astype(np.int64)
        return found

"""What a backward pass gives: gradients by the names of weights."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping

import numpy as np

from edbatch_tvm.batching.schedule import Schedule
from edbatch_tvm.cached_property import cached_property
from edbatch_tvm.errors import WeightError
from edbatch_tvm.graph import InstanceGraph
from edbatch_tvm.runtime.result import Result
from edbatch_tvm.training.external_sums import ExternalSums, external_gradients
from edbatch_tvm.training.weight_sums import Sums
from relay_ext.gradients.weight_expressions import WeightExpression

Pullback = Callable[[str, np.ndarray], list[np.ndarray]]


class Gradients(Mapping[str, np.ndarray]):
    """The gradients of one backward pass, by the names of weights. Nothing reuses the arrays.

    Attributes
    ----------
    external_sums : dict of int to ExternalSums
        Gradients of the external rows that have one, by the arena that they belong to.
    report : Report
        What it did, and in what time.
    find_reached : callable or None
        Gives the weights that cotangents reach; None: all of the cells that were met.
    """

    def __init__(
        self,
        sums: Mapping[str, Sums],
        expressions: Mapping[str, WeightExpression],
        shapes: Mapping[str, tuple[tuple[int, ...], str]],
        pullback: Pullback,
        graph: InstanceGraph,
        external: Mapping[int, ExternalSums],
        backward: Result,
    ) -> None:
        self.external_sums = external
        self._graph = graph
        self.report = backward.report
        self._sums = sums
        self._shapes = shapes
        self._parts: dict[str, list[np.ndarray]] = {}
        self._slices: dict[str, list[tuple[tuple[slice, ...], Sums]]] = {}
        self._done: dict[str, np.ndarray] = {}
        self.find_reached: Callable[[], Collection[str] | None] | None = None
        for key, total in sums.items():
            expression = expressions.get(key)
            if expression is None:  # a weight whose parts were put together
                continue
            if expression.part:
                self._slices.setdefault(expression.weights[0], []).append((expression.part, total))
            if expression.pullback is None:
                continue
            given = total.total(expression.shape)
            view = expression.as_view(given)
            for weight, part in zip(expression.weights, pullback(key, given) if view is None else [view], strict=True):
                self._parts.setdefault(weight, []).append(part)

    @property
    def schedule(self) -> Schedule:
        """The batches of the backward pass."""
        return self.report.plan.schedule

    @cached_property
    def external(self) -> tuple[np.ndarray, ...]:
        """Gradients of the external rows, laid out as ``result.graph.external_data``: an array for each value spec."""
        return external_gradients(self._graph, self.external_sums)

    def __getitem__(self, name: str) -> np.ndarray:
        """The gradient of a weight, of its shape; zeros if nothing depends on it."""
        if name not in self._shapes:
            raise WeightError(f"no weight {name!r}", f"one of {', '.join(self._shapes)}")
        if name not in self._done:
            shape, dtype = self._shapes[name]
            parts = [self._sums[name].total(shape)] if name in self._sums else []
            parts += self._parts.get(name, [])
            total = sum(parts[1:], parts[0]) if parts else np.zeros(shape, dtype)
            if parts and name in self._slices:
                total = total.copy()
            for part, sums in self._slices.get(name, []):
                total[part] += sums.total(total[part].shape)
            self._done[name] = np.asarray(total, order="C")
        return self._done[name]

    def have_nan(self) -> bool:
        """Whether a gradient of a weight or of an external row is NaN somewhere."""
        arrays = [part for sums in self._sums.values() for part in (sums.dense, sums.rows) if part is not None]
        arrays += [one.rows for one in self.external_sums.values()]
        # Half the time of isnan(array.min()); a minimum keeps NaN, which alone differs from itself.
        least = [np.minimum.reduce(array, axis=None) for array in arrays if array.size]
        return any(one != one for one in least)

    def reaches(self, name: str) -> bool:
        """Whether anything that has a cotangent depends on a weight; else its gradient is zero."""
        if name not in self._sums and name not in self._parts and name not in self._slices:
            return False
        reached = self._reached
        return reached is None or name in reached

    @cached_property
    def _reached(self) -> Collection[str] | None:
        return None if self.find_reached is None else self.find_reached()

    def read_rows(self, table: str) -> tuple[np.ndarray, np.ndarray] | None:
        """What of the gradient of a weight is due to rows of it that were read, as :meth:`rows`; None: nothing."""
        sums = self._sums.get(table)
        if sums is None or sums.index is None or sums.rows is None:
            return None
        return sums.index, sums.rows.reshape(len(sums.index), *self._shapes[table][0][1:])

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)

    def __repr__(self) -> str:
        return f"Gradients({', '.join(self._shapes)})"

    def rows(self, table: str) -> tuple[np.ndarray, np.ndarray]:
        """The gradient of a table as rows, for sparse updates.

        Returns
        -------
        index : int64 array of shape [m]
            The rows that were read, rising.
        rows : array of shape ``[m, *row shape]``

        Raises
        ------
        WeightError
            If the weight is not one of which rows are read and nothing else.
        """
        sums = self._sums.get(table)
        others = self._parts | self._slices
        alone = table in self._shapes and table not in others
        if alone and sums is not None and sums.dense is None and sums.index is not None and sums.rows is not None:
            return sums.index, sums.rows.reshape(len(sums.index), *self._shapes[table][0][1:])
        raise WeightError(
            f"weight {table!r}", "a table of which rows are read and nothing else", f"gradients[{table!r}] is dense"
        )

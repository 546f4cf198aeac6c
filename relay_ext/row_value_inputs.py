"""Which values of variadic rows a stage over instances computes itself, and which need a stage over the rows.

Products with weights over the rows are one product over a long matrix, in a stage over rows. Scores of attention, their
exponentials and weights are one number for a row: a stage over instances computes them for the rows of its instance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from relay_ext.block_reader import Compute, Reduce
from relay_ext.tir_expressions import buffers_read
from schedules import stage as ir

if TYPE_CHECKING:
    from relay_ext.stage_inputs import StageInputs


class RowValueInputs:
    """Where the buffers of a cell that have a row for each variadic row are computed.

    Parameters
    ----------
    inputs : StageInputs
    enabled : bool
        Whether stages over instances have row values at all.
    """

    def __init__(self, inputs: StageInputs, enabled: bool) -> None:
        self.inputs = inputs
        self.enabled = enabled
        self._needs_rows: dict[Any, bool] = {}
        self._reads_rows: dict[Any, bool] = {}

    def domain(self, buffer: Any) -> ir.Domain:
        """The domain of the stage that computes `buffer`."""
        inputs = self.inputs
        if inputs.domain(buffer) == "instances" or not self.enabled or self.needs_rows(buffer):
            return inputs.domain(buffer)
        definition = inputs.definitions.get(buffer)
        inside = inputs.is_looped(buffer) or (isinstance(definition, Compute) and self._waits(definition))
        return "instances" if inside else "rows"

    def needs_rows(self, buffer: Any) -> bool:
        """Whether a stage over rows has to compute `buffer` before a reduction over the rows can read it."""
        if not self.enabled:
            return self.inputs.is_looped(buffer)
        if buffer not in self._needs_rows:
            self._needs_rows[buffer] = self._needs(buffer)
        return self._needs_rows[buffer]

    def _needs(self, buffer: Any) -> bool:
        inputs = self.inputs
        definition = inputs.definitions.get(buffer)
        if definition is None:
            return False
        if isinstance(definition, Reduce):
            if not inputs.is_column_reduction(buffer):
                return True
            return self._reads_needing(definition.source)
        return not self._waits(definition) and self._reads_needing(definition.value)

    def _reads_needing(self, expression: Any) -> bool:
        inputs = self.inputs
        return any(inputs.domain(other) == "rows" and self.needs_rows(other) for other in buffers_read(expression))

    def _waits(self, definition: Compute) -> bool:
        """Whether a reduction over the rows has to end first."""
        inputs = self.inputs
        reads = buffers_read(definition.value)
        return any(inputs.domain(other) == "instances" and self.reads_rows(other) for other in reads)

    def reads_rows(self, buffer: Any) -> bool:
        """Whether `buffer`, a value of an instance, depends on a reduction over its variadic rows."""
        if buffer not in self._reads_rows:
            self._reads_rows[buffer] = False
            definition = self.inputs.definitions.get(buffer)
            if isinstance(definition, Reduce):
                found = self.inputs.is_row_reduction(definition) or self._any_reads(definition.source)
            else:
                found = definition is not None and self._any_reads(definition.value)
            self._reads_rows[buffer] = found
        return self._reads_rows[buffer]

    def _any_reads(self, expression: Any) -> bool:
        return any(self.inputs.domain(b) == "instances" and self.reads_rows(b) for b in buffers_read(expression))

"""Which sources of a stage have one row for an element of its domain."""

from __future__ import annotations

from schedules import stage as ir

OWNER = "owner"
"""Stands among the sources of a stage over variadic rows for the instance that a row belongs to."""

RowSource = ir.Source | str


def is_row_scratch(source: ir.Source) -> bool:
    """Whether `source` are scratch rows, one for each variadic row."""
    return isinstance(source, ir.Scratch) and source.domain == "rows"


def row_sources(stage: ir.Stage) -> list[RowSource]:
    """The sources that have one row for an element of the stage's domain, which is found once for a tile."""
    if stage.domain == "rows":
        by_instance = any(isinstance(leaf, ir.AttributeValue) for leaf in stage.leaves.values())
        by_instance |= any(not isinstance(s, ir.Variadic) and not is_row_scratch(s) for s in stage.sources)
        return [*stage.sources, *([OWNER] if by_instance else [])]
    return [s for s in stage.sources if not isinstance(s, ir.Variadic) and not is_row_scratch(s)]

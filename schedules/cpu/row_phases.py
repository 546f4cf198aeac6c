"""The phases of a stage with column reductions: which lines one loop over the columns of a row can compute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from edbatch_tvm.tvm_compat import structural_walk, tirx
from schedules import stage as ir
from schedules.column_constants import constant_leaves, is_constant_line, variables_in


@dataclass
class Phase:
    """One loop over columns: its lines, and the outputs that it writes.

    `scalars` are what is the same in all columns and is computed before the loop, row values among them.
    """

    scalars: list[ir.Line] = field(default_factory=list)
    lines: list[ir.Line] = field(default_factory=list)
    outputs: list[ir.Output] = field(default_factory=list)


def phases_of(stage: ir.Stage) -> list[Phase]:
    """The lines of the body and the outputs that are not narrow, by phase."""
    number_of: dict[Any, int] = {}
    constant = constant_leaves(stage.leaves, stage.vectors, stage.column)
    phases = [Phase()]

    def phase_of(line: Any) -> int:
        variables = variables_in(line.expression)
        number = max((number_of.get(variable, 0) for variable in variables), default=0)
        if isinstance(line, ir.RowValue):
            # It reads all columns: it comes after the loop that computes them.
            looped = [v for v in variables if v in number_of and v not in constant]
            number = max([number, *(number_of[v] + 1 for v in looped)])
        phases.extend(Phase() for _ in range(number + 1 - len(phases)))
        return number

    for line in stage.body:
        number = phase_of(line)
        number_of[line.variable] = number + isinstance(line, ir.ColumnReduction)
        if is_constant_line(line, constant):
            constant.add(line.variable)
            if not isinstance(line, ir.ColumnReduction):
                phases[number].scalars.append(line)
                continue
        phases[number].lines.append(line)
    for output in stage.outputs:
        if not output.narrow:
            phases[phase_of(output)].outputs.append(output)
    cheap = _cheap_lines(stage, constant)
    for number, phase in enumerate(phases):
        needed = {v for one in (*phase.lines, *phase.outputs) for v in variables_in(one.expression)}
        copies: list[ir.Line] = []
        for line in reversed(stage.body):
            if line.variable in needed and line.variable in cheap and number_of[line.variable] < number:
                copies.insert(0, line)
                needed.update(variables_in(line.expression))
        phase.lines[:0] = copies
    return phases


def read_later(stage: ir.Stage, phases: list[Phase]) -> list[Any]:
    """The variables that a phase after their own reads, or a narrow output: they have an element for each column."""
    later = {v for output in stage.outputs if output.narrow for v in variables_in(output.expression)}
    kept = []
    for phase in reversed(phases):
        own = {line.variable for line in phase.lines if not isinstance(line, ir.ColumnReduction)}
        read = {v for one in (*phase.lines, *phase.outputs) for v in variables_in(one.expression)}
        kept += [variable for variable in later & own if variable not in kept]
        later.difference_update(own)
        later.update(read - own)
        later.update(v for one in phase.scalars for v in variables_in(one.expression))
    return [line.variable for line in stage.body if line.variable in kept]


_CHEAP = 2
"""Additions and multiplications that are as cheap as a number that is stored in one phase and read in another."""

_SIMPLE = (tirx.Add, tirx.Sub, tirx.Mul, tirx.Var, tirx.FloatImm)


def _cheap_lines(stage: ir.Stage, constant: set[Any]) -> set[Any]:
    """The variables of lines that a later phase computes again from what the row consists of, and from `constant`."""
    costs: dict[Any, int] = {}
    for line in stage.body:
        if line.variable in constant:
            continue
        if isinstance(line, ir.Let):
            nodes: list[Any] = []
            keep: Callable[[Any], None] = nodes.append
            structural_walk(line.expression, (object, keep))
            simple = all(isinstance(node, _SIMPLE) for node in nodes)
            own = sum(isinstance(node, tirx.Add | tirx.Sub | tirx.Mul) and not _is_negation(node) for node in nodes)
            costs[line.variable] = own + sum(costs.get(node, 0) for node in nodes) if simple else _CHEAP + 1
        elif isinstance(line, ir.Reduction):
            costs[line.variable] = _CHEAP + 1
    lets = [line.variable for line in stage.body if isinstance(line, ir.Let)]
    return {variable for variable in lets if variable in costs and costs[variable] <= _CHEAP}


def _is_negation(node: Any) -> bool:
    return isinstance(node, tirx.Mul) and isinstance(node.b, tirx.FloatImm) and float(node.b.value) == -1

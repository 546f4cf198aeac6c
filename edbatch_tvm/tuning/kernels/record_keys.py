"""What a configuration is a configuration of: the workload that names a stage or a cell in a database.

A stage is named by its text, with the names of weights and scratch rows numbered, so that cells which differ in names
share their records. A cell outside the stage form is named by its own code.
"""

from __future__ import annotations

import re
from typing import Any

from tvm import IRModule

from edbatch_tvm.tvm_compat import SBlock, SBlockRealize, TensorLoad, structural_walk, tirx
from schedules import stage as ir
from schedules.cpu.machine import Machine

SUBJECT = "edbatch.subject"
"""Attribute of a workload without code: the text that names it."""

_NAME = re.compile(r"[A-Za-z_][\w.]*")


def stage_key(stage: ir.Stage, machine: Machine) -> IRModule:
    """The workload of `stage` on `machine`: its text, as an attribute of an empty function."""
    return _text_module(f"{machine.lanes} lanes, {machine.registers} registers\n{stage_text(stage)}")


def stage_text(stage: ir.Stage) -> str:
    """The text of `stage` with its own name left out and those of weights and scratch rows numbered.

    What is left is what the time of its kernel depends on: columns, passes and their lengths, the epilogue.
    """
    names = _names(stage)
    numbered: dict[str, str] = {}

    def number(match: re.Match[str]) -> str:
        name = match.group()
        return numbered.setdefault(name, f"name{len(numbered)}") if name in names else name

    first, _, rest = str(stage).partition("\n")
    return first.replace(f"stage {stage.name}", "stage", 1) + "\n" + _NAME.sub(number, rest)


def _names(stage: ir.Stage) -> set[str]:
    found: set[str] = {output.scratch for output in stage.outputs if output.scratch}
    for source in stage.sources:
        if isinstance(source, ir.Lookup):
            found.add(source.weight)
        elif isinstance(source, ir.Scratch):
            found.add(source.name)
    weights = [one.weight for gate in stage.gates for one in gate.passes if isinstance(one, ir.Pass)]
    for expression in (*weights, *stage.vectors):
        structural_walk(expression, (TensorLoad, lambda load: found.add(str(load.source.name))))
    return found


def _text_module(text: str) -> IRModule:
    root: Any = SBlock([], [], [], "root", tirx.Evaluate(tirx.const(0, "int32")))
    body = SBlockRealize([], tirx.const(True, "bool"), root)
    function = tirx.PrimFunc([], body).with_attrs({"global_symbol": "main", "s_tir": True, SUBJECT: text})
    return IRModule({"main": function})

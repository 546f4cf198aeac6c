"""Pass, unfused form only: kernels that copy rows."""

from __future__ import annotations

from dataclasses import dataclass

import tvm
from tvm import IRModule

from edbatch_tvm.graph.spec import Signature
from relay_ext.stage_cells import PATH
from schedules import abi
from schedules.cpu.gather import gather_kernel

ARENA = "edbatch.arena"
"""Attribute of a kernel that copies rows: the arena."""


@tvm.transform.module_pass(opt_level=0, name="AddGatherKernels")
@dataclass(frozen=True)
class AddGatherKernels:
    """Add a kernel for each arena that copies rows of it to other rows; see :mod:`edbatch_tvm.memory.plan_with_copies`.

    Before::

        add(step, steps, index, arena0)                             # reads rows through `index`

    After::

        add(step, steps, index, arena0)
        gather_arena0(base, stride, count, to, index, arena0)       # arena0[to + i] = arena0[index[base + i]]
    """

    signature: Signature

    def transform_module(self, mod: IRModule, _context: tvm.transform.PassContext) -> IRModule:
        """Run the pass."""
        functions = dict(mod.functions.items())
        for arena, spec in enumerate(self.signature.value_specs):
            name = f"gather_arena{arena}"
            kernel = gather_kernel(name, abi.padded(spec.size), spec.dtype)
            functions[tvm.ir.GlobalVar(name)] = kernel.with_attrs({PATH: "gather", ARENA: arena})
        return IRModule(functions)

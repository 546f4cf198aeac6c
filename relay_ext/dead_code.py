"""Dead code elimination that leaves the cells of a module where they are."""

from __future__ import annotations

from tvm import IRModule, relax


def without_dead_code(mod: IRModule) -> IRModule:
    """A module without unused bindings and without functions that no cell calls.

    The place of a cell is its type, and TVM's pass puts functions that it leaves as they are before the others.
    """
    left = relax.transform.DeadCodeElimination()(mod)
    kept = {var.name_hint: var for var in left.functions}
    ordered = [kept[var.name_hint] for var in mod.functions if var.name_hint in kept]
    return IRModule({var: left[var] for var in ordered}, attrs=left.attrs)

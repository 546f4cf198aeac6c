"""TVM's own legalization, for rules of :class:`~relay_ext.legalize_cells.LegalizeCells` that leave a call to it."""

from __future__ import annotations

from tvm import relax


def tvm_rule(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """What TVM makes of `call`."""
    return call.op.get_attr("FLegalize")(builder, call)

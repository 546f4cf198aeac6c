"""Numbers of variadic rows in arithmetic: ``rows.sum(0) / len(rows)``.

An exported program has a symbol for the number of rows, an integer that cells know as a size only. Where an operator of
floats takes it, or what Python computes of it, as a number, it becomes a tensor: a sum of ones over the rows.
"""

from __future__ import annotations

import operator
from typing import Any

_TAKE_TENSORS = ("add.Tensor", "sub.Tensor", "mul.Tensor", "div.Tensor", "maximum.default", "minimum.default")
_OF_NUMBERS = {"pow.Tensor_Scalar": "pow.Tensor_Tensor", "clamp.default": "clamp.Tensor"} | {
    f"{name}.Scalar": f"{name}.Tensor" for name in ("eq", "ne", "lt", "le", "gt", "ge", "remainder", "fmod")
}
"""Operators that take numbers, and those that take tensors in their place."""

_ARITHMETIC = {
    operator.add: "add.Tensor",
    operator.sub: "sub.Tensor",
    operator.mul: "mul.Tensor",
    operator.truediv: "div.Tensor",
    operator.pow: "pow.Tensor_Scalar",
    operator.neg: "neg.default",
}
"""What Python computes of symbols, and the operators of tensors."""


def counts_as_tensors(torch: Any, program: Any) -> None:
    """Give operators of floats a tensor in the place of a number of rows.

    Before::

        k = aten.sym_size.int(rows, 0)
        mean = aten.div.Tensor(total, k)

    After::

        count = aten.sum.dim_IntList(aten.full.default([k], 1.0), [0])
        mean = aten.div.Tensor(total, count)

    Other functions of a number of rows than those of :data:`_ARITHMETIC` stay, and are errors of the importer.
    """
    graph, changed = program.graph, False
    for node in list(graph.nodes):
        name = str(node.target).removeprefix("aten.")
        given = [one for one in node.args if _is_symbol(torch, one)]
        if node.op != "call_function" or not given:
            continue
        counts = _Counts(torch, graph, node)
        tensors = {one: counts.of(one) for one in given}
        if counts.dtype is None or None in tensors.values():
            continue
        if name == "full.default":
            node.replace_all_uses_with(counts.call("expand.default", tensors[node.args[1]], list(node.args[0])))
        elif name == "scalar_tensor.default":
            node.replace_all_uses_with(tensors[node.args[0]])
        elif name in _TAKE_TENSORS or name in _OF_NUMBERS:
            node.target = counts.operator(_OF_NUMBERS.get(name, name))
            # clamp takes numbers on both sides, or tensors on both.
            node.args = tuple(
                tensors.get(one, counts.number(one) if name == "clamp.default" and place and one is not None else one)
                for place, one in enumerate(node.args)
            )
        else:
            continue
        changed = True
    if changed:
        graph.eliminate_dead_code()
        program.graph_module.recompile()


def _is_symbol(torch: Any, given: Any) -> bool:
    return isinstance(given, torch.fx.Node) and isinstance(given.meta.get("val"), torch.SymInt | torch.SymFloat)


class _Counts:
    """Tensors for symbols, in front of a node that takes them.

    Attributes
    ----------
    dtype : torch.dtype or None
        The floats that the node computes in; None if it does not.
    """

    def __init__(self, torch: Any, graph: Any, node: Any) -> None:
        self._torch = torch
        self._graph = graph
        self._node = node
        values = [one.meta.get("val") for one in (node, *node.all_input_nodes)]
        floats = [one for one in values if isinstance(one, torch.Tensor) and one.is_floating_point()]
        self._fake: Any = floats[0].fake_mode if floats else None
        self.dtype = floats[0].dtype if floats else None

    def operator(self, name: str) -> Any:
        """An operator of PyTorch by its name."""
        packet, overload = name.split(".")
        return getattr(getattr(self._torch.ops.aten, packet), overload)

    def call(self, name: str, *arguments: Any, **named: Any) -> Any:
        """A node that calls an operator."""
        with self._graph.inserting_before(self._node):
            made = self._graph.call_function(self.operator(name), arguments, named)
        values = self._torch.fx.node.map_arg((arguments, named), lambda one: one.meta["val"])
        with self._fake:
            made.meta["val"] = made.target(*values[0], **values[1])
        return made

    def number(self, value: float) -> Any:
        """A number as a tensor."""
        return self.call("full.default", [], value, dtype=self.dtype)

    def of(self, symbol: Any) -> Any:
        """The tensor for a symbol; None if there is none."""
        if self.dtype is None:
            return None
        if str(symbol.target) == "aten.sym_size.int":
            return self.call("sum.dim_IntList", self.call("full.default", [symbol], 1.0, dtype=self.dtype), [0])
        if symbol.target is self._torch.sym_float:
            return self.of(symbol.args[0])
        if symbol.target not in _ARITHMETIC:
            return None
        parts = [self.of(one) if _is_symbol(self._torch, one) else one for one in symbol.args]
        if any(one is None for one in parts):
            return None
        if symbol.target is operator.pow:
            if not isinstance(parts[1], int | float):
                return None
        else:
            parts = [self.number(one) if isinstance(one, int | float) else one for one in parts]
        return self.call(_ARITHMETIC[symbol.target], *parts)

"""Reverse-mode differentiation of one cell, which keeps what weights get apart.

TVM's ``Gradient`` differentiates a whole function. This does the same operator by operator, with rules of its own
where TVM has none or others than PyTorch, for one reason: a weight's gradient is a sum over all nodes of a minibatch.
Where a weight is a factor of a product, the product of x and d is never formed for a node; the rows x and d leave the
cell, and one contraction over all nodes follows. To find such products in the result of ``Gradient`` means to recognize
what it made of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import tvm
from tvm import relax
from tvm.relax import op as R

from edbatch_tvm.tvm_compat import Call, GenericConst, TensorType, structural_map
from relay_ext.gradients import elementwise, products, reductions, tir_gradients, views  # noqa: F401 (they register rules)
from relay_ext.gradients.products import left_gradient, right_gradient, transposed
from relay_ext.gradients.rules import Emitter, gradients_of, is_float, short_name
from relay_ext.gradients.views import scattered_slices, sliced_places


@dataclass(frozen=True)
class Term:
    """What the nodes of a cell add to the gradient of one expression of weights.

    Attributes
    ----------
    expression : relax.Var
        A weight, or what the cell computes from weights alone.
    kind : {"product", "sum", "table"}
        ``left^T right`` over all rows; the sum of `right`; `right` added to the rows that `left`, an index, says.
    left, right : relax.Var or None
        Rows of the cell: (rows, columns) or (columns,).
    """

    expression: Any
    kind: str
    left: Any
    right: Any


@dataclass
class Reverse:
    """The reverse sweep over the bindings of a function.

    Attributes
    ----------
    emit : Emitter
        Of the function that is being built.
    renamed : dict
        The function's variables in the one that is being built.
    shared : set
        The variables that are weights, or made of weights alone.
    terms : list of Term
        What weights get, in variables of the new function; `expression` in those of the old one.
    """

    emit: Emitter
    renamed: dict[Any, Any]
    shared: set[Any]
    terms: list[Term] = field(default_factory=list)
    _parts: dict[Any, list[Any]] = field(default_factory=lambda: defaultdict(list))
    _fields: dict[Any, dict[int, list[Any]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    _slices: dict[Any, list[tuple[int, range, Any]]] = field(default_factory=lambda: defaultdict(list))

    def add(self, variable: Any, gradient: Any) -> None:
        """A gradient of an expression: a variable, a tuple, or something that has none."""
        if gradient is None or isinstance(variable, GenericConst | relax.ShapeExpr):
            return
        if isinstance(variable, relax.Tuple):
            parts = gradient if isinstance(gradient, list) else [None] * len(variable.fields)
            for part, one in zip(variable.fields, parts, strict=True):
                self.add(part, one)
        elif not isinstance(variable, relax.Var) or _is_integer(variable):
            return
        elif isinstance(gradient, list):
            for place, one in enumerate(gradient):
                if one is not None:
                    self._fields[variable][place].append(one)
        elif variable in self.shared:
            self.terms.append(Term(variable, "sum", None, self.emit(gradient)))
        else:
            self._parts[variable].append(gradient)

    def total(self, variable: Any) -> Any:
        """The gradient of a variable: a tensor, a list for a tuple, None for none."""
        if variable in self._fields:
            found = self._fields[variable]
            return [self._sum(found.get(place, [])) for place in range(len(variable.ty.fields))]
        slices = self._slices.get(variable)
        joined = scattered_slices(self.emit, slices, self.renamed[variable]) if slices else []
        return self._sum([*self._parts.get(variable, []), *joined])

    def _sum(self, parts: Sequence[Any]) -> Any:
        if not parts:
            return None
        total = parts[0]
        for part in parts[1:]:
            total = self.emit(total + part)
        return self.emit(total)

    def sweep(self, bindings: Sequence[tuple[Any, Any]]) -> None:
        """All bindings, the last one first."""
        for variable, value in reversed(bindings):
            if variable in self.shared:
                continue
            gradient = self.total(variable)
            if gradient is None:
                continue
            if isinstance(value, relax.Var | relax.Tuple):
                self.add(value, gradient)
            elif isinstance(value, relax.TupleGetItem):
                parts: list[Any] = [None] * len(value.tuple_value.ty.fields)
                parts[int(value.index)] = gradient
                self.add(value.tuple_value, parts)
            elif isinstance(value, Call):
                self._call(variable, value, gradient)

    def _call(self, variable: Any, call: Any, gradient: Any) -> None:
        new = self.rename(call)
        if self._of_weights(call, new, gradient) or self._of_slice(call, new, gradient):
            return
        found = gradients_of(self.emit, new, self.renamed[variable], gradient)
        for argument, one in zip(call.args, found, strict=True):
            self.add(argument, one)

    def rename(self, expression: Any) -> Any:
        """An expression of the old function in the variables of the new one."""
        return structural_map(expression, (relax.Var, lambda var: self.renamed.get(var, var)))

    def _of_weights(self, call: Any, new: Any, g: Any) -> bool:
        """Whether a call is a product with weights or reads rows of a table: what those get is a term."""
        name = short_name(call)
        if name == "take" and call.args[0] in self.shared and _first_axis(call):
            self.terms.append(Term(call.args[0], "table", new.args[1], self.emit(g)))
            return True
        if name != "matmul" or not any(one in self.shared and one.ty.ndim == 2 for one in call.args):
            return False
        (x, y), (left, right) = call.args, new.args
        if y in self.shared and y.ty.ndim == 2:
            self.terms.append(Term(y, "product", self._rows(left), self._rows(g)))
            if x not in self.shared:
                self.add(x, left_gradient(self.emit, left, right, g))
            return True
        if y.ty.ndim > 2:
            return False
        if y.ty.ndim == 1:
            self.terms.append(Term(x, "product", self.emit(g), right))
        else:
            self.terms.append(Term(x, "product", transposed(self.emit, self.emit(g)), transposed(self.emit, right)))
        self.add(y, right_gradient(self.emit, left, right, g))
        return True

    def _of_slice(self, call: Any, new: Any, g: Any) -> bool:
        """Whether a call takes some elements of an axis that stand together: slices side by side are joined later."""
        if short_name(call) != "strided_slice" or call.args[0] in self.shared:
            return False
        places = sliced_places(new)
        if len(places) != 1 or not isinstance(call.args[0], relax.Var):
            return False
        ((axis, some),) = places.items()
        if some.step != 1 or not len(some):
            return False
        self._slices[call.args[0]].append((axis, some, self.emit(g)))
        return True

    def _rows(self, tensor: Any) -> Any:
        """A tensor as a row, or as rows."""
        tensor = self.emit(tensor)
        return tensor if tensor.ty.ndim <= 2 else self.emit(R.reshape(tensor, [-1, int(tensor.ty.shape.values[-1])]))


def _is_integer(variable: Any) -> bool:
    return isinstance(variable.ty, TensorType) and not is_float(variable)


def _first_axis(call: Any) -> bool:
    axis, ndim = call.attrs.axis, call.args[0].ty.ndim
    return bool(ndim == 1 if axis is None else int(axis) % ndim == 0)


def bindings_of(function: Any) -> list[tuple[Any, Any]]:
    """The bindings of a function, in order: variables and what they are bound to."""
    if not isinstance(function.body, relax.SeqExpr):
        return []
    return [(binding.var, binding.value) for block in function.body.blocks for binding in block.bindings]


def made_of(bindings: Sequence[tuple[Any, Any]], sources: set[Any]) -> set[Any]:
    """`sources`, and the variables that are computed from them and constants alone."""
    known = set(sources)
    for variable, value in bindings:
        read = [one for one in relax.analysis.free_vars(value) if not isinstance(one, tvm.ir.GlobalVar)]
        if read and all(one in known for one in read):
            known.add(variable)
    return known


def emit_forward(emit: Emitter, bindings: Sequence[tuple[Any, Any]], renamed: Mapping[Any, Any]) -> dict[Any, Any]:
    """Emit the bindings of a function into another one, but for variables that are known there; those of both."""
    known = dict(renamed)
    for variable, value in bindings:
        if variable in known:
            continue
        new = structural_map(value, (relax.Var, lambda var: known.get(var, var)))
        known[variable] = new if isinstance(new, relax.Var | relax.Tuple) else emit(new)
    return known

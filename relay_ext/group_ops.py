"""Pass: operators of one cell that can run as one, do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tvm
from tvm import IRModule, relax
from tvm.relax import op as R

from relay_ext.cell_layout import Access, CellPlan, Group, plan_cell, rows_read
from relay_ext.cell_ops import CellOp, read_ops
from relay_ext.push_splits import PushSplits
from relay_ext.signature import cell_functions, input_attrs, output_vars


@tvm.transform.module_pass(opt_level=0, name="GroupOps")
@dataclass(frozen=True)
class GroupOps:
    """Batch the operators inside each cell, in the layout of :func:`relay_ext.cell_layout.plan_cell`.

    Before::

        i = R.sigmoid(R.matmul(x, W_i))
        o = R.sigmoid(R.matmul(x, W_o))
        u = R.tanh(R.matmul(x, W_u))
        c = R.multiply(i, u)

    After::

        g = R.reshape(R.matmul(x, R.concat([W_i, W_o, W_u], axis=1)), (3, H))   # weights are packed at load
        s = R.sigmoid(g[0:2])                                                   # read in place
        u = R.tanh(g[2])
        c = R.multiply(s[0], u)

    Rows that the layout does not make consecutive are concatenated, which is the gather that the unfused form pays
    for. The packing of weights is an expression of weights alone: ``relax.transform.LiftTransformParams`` moves it
    to load time, and stage kernels read their packed layout through it. Splits are moved to the
    weights first (:class:`relay_ext.push_splits.PushSplits`); a cell whose body is still of another form is left as
    it is.

    ``planned=False`` groups in the order of declaration, to measure what the plan saves.
    """

    planned: bool = True

    def transform_module(self, mod: IRModule, _context: tvm.transform.PassContext) -> IRModule:
        """Run the pass."""
        mod = tvm.transform.Sequential([PushSplits()])(mod)
        functions = dict(mod.functions.items())
        for name, function in cell_functions(mod).items():
            read = read_ops(function)
            if read is not None:
                plan = plan_cell(read.ops, self.planned)
                functions[mod.get_global_var(name)] = _Rewriter(name, function, plan, read.of_weights).run()
        return relax.transform.CanonicalizeBindings()(IRModule(functions, attrs=mod.attrs))


def cell_plan(mod: IRModule, name: str, planned: bool = True) -> CellPlan | None:
    """The plan GroupOps makes for the cell `name`; None for a cell it leaves alone."""
    read = read_ops(tvm.transform.Sequential([PushSplits()])(mod)[name])
    return None if read is None else plan_cell(read.ops, planned)


class _Rewriter:
    def __init__(self, name: str, function: relax.Function, plan: CellPlan, of_weights: list[tuple[Any, Any]]) -> None:
        self.name = name
        self.function = function
        self.plan = plan
        self.of_weights = of_weights
        self.builder = relax.BlockBuilder()
        self.buffers: list[Any] = []
        self.place: dict[Any, tuple[int, int]] = {}
        self.single: dict[Any, Any] = {}
        self.gathered: dict[tuple[Any, ...], Any] = {}

    def run(self) -> relax.Function:
        attrs = input_attrs(self.function)
        with self.builder.function(self.name, list(self.function.params), attrs=attrs):
            with self.builder.dataflow():
                for var, call in self.of_weights:
                    arguments = [self._weight(argument) for argument in call.args]
                    self.single[var] = self._emit(relax.Call(call.op, arguments, call.attrs))
                for group in self.plan.groups:
                    self._emit_group(group)
                results = [self.builder.emit_output(self._value(out)) for out in output_vars(self.function)]
            self.builder.emit_func_output(results[0] if len(results) == 1 else relax.Tuple(results))
        return self.builder.finalize()[self.name]

    def _emit(self, expression: Any) -> Any:
        return self.builder.emit(expression)

    def _weight(self, weight: Any) -> Any:
        """A weight of the cell, or what the cell computes from weights alone."""
        return self.single.get(weight, weight) if isinstance(weight, relax.Var) else weight

    def _argument(self, argument: Any) -> Any:
        """An argument of an operator that runs alone."""
        if isinstance(argument, relax.Tuple):
            return relax.Tuple([self._argument(field) for field in argument.fields])
        return self._value(argument) if isinstance(argument, relax.Var) else argument

    def _value(self, var: Any) -> Any:
        """The value that the original cell calls `var`."""
        if var in self.single:
            return self.single[var]
        if var not in self.place:
            return var
        number, row = self.place[var]
        taken = self._emit(R.strided_slice(self.buffers[number], [0], [row], [row + 1]))
        self.single[var] = self._emit(R.reshape(taken, var.ty.shape))
        return self.single[var]

    def _emit_group(self, group: Group) -> None:
        members = group.members
        if len(members) == 1:
            (op,) = members
            call = relax.Call(op.call.op, [self._argument(a) for a in op.call.args], op.call.attrs)
            self.single[op.var] = self._emit(call)
            self.buffers.append(None)
            return
        for row, op in enumerate(members):
            self.place[op.var] = (len(self.buffers), row)
        rule = self._matmul if members[0].kind == "matmul" else self._elementwise
        result = rule(group)
        shape = (len(members), *(int(extent) for extent in members[0].var.ty.shape.values))
        same = [int(extent) for extent in result.ty.shape.values] == list(shape)
        self.buffers.append(result if same else self._emit(R.reshape(result, shape)))

    def _elementwise(self, group: Group) -> Any:
        arguments = [self._rows(group, i, access) for i, access in enumerate(group.accesses)]
        first = group.members[0].call
        return self._emit(relax.Call(first.op, arguments, first.attrs))

    def _matmul(self, group: Group) -> Any:
        members = group.members
        if not members[0].weights:
            matrices, vectors = (self._rows(group, i, access) for i, access in enumerate(group.accesses))
            return self._emit(R.matmul(self._spread(matrices, members, 0), self._column(vectors, members)))
        if group.accesses[0].how == "broadcast":
            return self._emit(R.matmul(self._value(members[0].call.args[0]), self._side_by_side(members)))
        rows = self._rows(group, 0, group.accesses[0])
        # One product for each row read: over the weights of a block side by side, or of one member.
        width = len(members) // len(rows_read(members, 0))
        cut = [members[i : i + width] for i in range(0, len(members), width)]
        weights = self._stack([self._side_by_side(block) for block in cut])
        return self._emit(R.matmul(self._emit(R.expand_dims(rows, 1)), weights))

    def _spread(self, matrices: Any, members: list[CellOp], argument: int) -> Any:
        """Matrices as rows; one matrix for all is repeated by broadcasting."""
        one = len(matrices.ty.shape.values) == len(members[0].call.args[argument].ty.shape.values)
        return self._emit(R.expand_dims(matrices, 0)) if one else matrices

    def _column(self, vectors: Any, members: list[CellOp]) -> Any:
        return self._emit(R.expand_dims(self._spread(vectors, members, 1), 2))

    def _side_by_side(self, members: list[CellOp]) -> Any:
        weights = [self._weight(op.call.args[1]) for op in members]
        return weights[0] if len(weights) == 1 else self._emit(R.concat(weights, axis=1))

    def _stack(self, values: list[Any]) -> Any:
        return self._emit(R.concat([self._emit(R.expand_dims(value, 0)) for value in values], axis=0))

    def _rows(self, group: Group, argument: int, access: Access) -> Any:
        """One argument of all members, in the group's order: rows, or one value that broadcasts."""
        values = rows_read(group.members, argument)
        if access.how == "constant" or all(value.same_as(values[0]) for value in values):
            return self._value(values[0])
        if access.how == "slice":
            source = self.buffers[access.source]
            if access.start == 0 and len(values) == int(source.ty.shape.values[0]):
                return source
            return self._emit(R.strided_slice(source, [0], [access.start], [access.start + len(values)]))
        if tuple(values) not in self.gathered:
            self.gathered[tuple(values)] = self._stack([self._value(value) for value in values])
        return self.gathered[tuple(values)]

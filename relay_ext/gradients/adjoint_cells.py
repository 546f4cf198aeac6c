"""The adjoints of cells: for each cell one that computes gradients of its operands, and rows for those of weights."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from tvm import IRModule, relax
from tvm.ir import GlobalVar

from edbatch_tvm.tvm_compat import Call, tirx
from relay_ext.gradients.reverse import Reverse, Term, bindings_of, emit_forward, made_of
from relay_ext.gradients.rules import Emitter, NoGradientError, is_float, short_name
from relay_ext.gradients.saved_values import saved_values, with_outputs
from relay_ext.gradients.weight_expressions import WeightExpression, expression_key, tidy
from relay_ext.renaming import module_of
from relay_ext.signature import cell_functions, input_attrs, input_params, is_attribute, output_vars, weight_params


@dataclass(frozen=True)
class Source:
    """Where rows come from: an input of an adjoint cell or an output of it.

    Attributes
    ----------
    kind : {"operand", "attribute", "value", "cotangent", "output", "joined"}
        ``value``: an output of the forward cell. ``joined``: rows side by side, which are never copied for a node.
    number : int
        The place among those of its kind.
    parts : tuple of Source
        What is joined.
    part : int
        Of an ``output``, the section of the adjoint (:mod:`relay_ext.gradients.sections`). Of a ``cotangent``, 1 for
        the second one that an adjoint takes (:mod:`relay_ext.gradients.adjoint_inputs`).
    """

    kind: str
    number: int
    parts: tuple[Source, ...] = ()
    part: int = 0

    def with_outputs(self, found: Callable[[int], Source]) -> Source:
        """The same rows, where outputs are found elsewhere."""
        if self.kind == "output":
            return found(self.number)
        return replace(self, parts=tuple(one.with_outputs(found) for one in self.parts))

    def with_parts(self, numbers: Mapping[int, int]) -> Source:
        """The same rows, where sections have other numbers."""
        if self.kind == "output":
            return replace(self, part=numbers[self.part])
        return replace(self, parts=tuple(one.with_parts(numbers) for one in self.parts))


@dataclass(frozen=True)
class WeightTerm:
    """A sum over the nodes of a cell, which is a part of the gradient of an expression of weights.

    Attributes
    ----------
    expression : str
        A key of :attr:`Adjoints.expressions`.
    kind : {"product", "sum", "table"}
        ``product``: ``left^T right`` over all rows of all nodes. ``sum``: the sum of `right`, which has the shape of
        the expression. ``table``: `right` added to the rows of the table that `left` says.
    left : Source or None
    right : Source
    """

    expression: str
    kind: str
    left: Source | None
    right: Source


@dataclass(frozen=True)
class AdjointCell:
    """The adjoint of a cell.

    Attributes
    ----------
    forward : relax.Function
        The cell, with the saved values as outputs after its own.
    function : relax.Function
        Its parameters are the operands and attributes of the cell, `values`, a cotangent for each of its own outputs,
        and weights.
    outputs : int
        How many outputs of `forward` are the cell's own.
    values : tuple of int
        The outputs of `forward` that it reads.
    operands : tuple of (int or None)
        For each operand of the cell, which output is its gradient; None if it has none. The gradient of a variadic
        operand has its rows.
    terms : tuple of WeightTerm
    cell : relax.Function
        The cell as it was given.
    saved : tuple of Var
        The variables of `cell` that are `values`.
    """

    forward: relax.Function
    function: relax.Function
    outputs: int
    values: tuple[int, ...]
    operands: tuple[int | None, ...]
    terms: tuple[WeightTerm, ...]
    cell: relax.Function
    saved: tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class Adjoints:
    """The adjoints of all cells of a module.

    Attributes
    ----------
    cells : dict of str to AdjointCell
        By the name of the cell.
    expressions : dict of str to WeightExpression
        By the name of the weight, with the places of a part of one in brackets, or ``<cell>.<number of its binding>``.
    tir : dict of GlobalVar to PrimFunc
        The TIR functions of the module, which cells, adjoints and pullbacks may call.
    unread : tuple of str
        Weights that no adjoint has among its parameters.
    """

    cells: dict[str, AdjointCell]
    expressions: dict[str, WeightExpression]
    tir: dict[Any, Any]
    unread: tuple[str, ...] = ()

    @property
    def module(self) -> IRModule:
        """The adjoint cells as a module; that of ``cell`` is called ``cell_adjoint``."""
        return self.with_tir(IRModule({f"{name}_adjoint": one.function for name, one in self.cells.items()}))

    @property
    def forward(self) -> IRModule:
        """The cells with what they save."""
        return self.with_tir(module_of({name: adjoint.forward for name, adjoint in self.cells.items()}))

    def with_tir(self, mod: IRModule) -> IRModule:
        """A module of cells with the TIR functions that they call."""
        return called_with(mod, self.tir)

    def partial(self, name: str, present: Collection[int]) -> AdjointCell:
        """The adjoint of a cell for nodes of which only some outputs have a cotangent.

        A cotangent of zero gives the same but where it meets an infinite or undefined derivative: 0 times infinity is
        NaN, and an output that nothing uses has no part in a gradient.
        """
        whole = self.cells[name]
        made = _adjoint(name, whole.cell, self.expressions, whole.saved, present)[0]
        return replace(made, function=without_weights(made.function, self.unread))


def adjoint_cells(mod: IRModule, save: bool = True, products: Collection[str] = ()) -> Adjoints:
    """Differentiate the cells of a module.

    A cell and its adjoint::

        def cell(x, W, b):
            y = R.tanh(R.matmul(x, W) + b)
            return 2 * y

        def cell(x, W, b):                        # what is compiled for the forward pass: it saves y
            y = R.tanh(R.matmul(x, W) + b)
            return 2 * y, y

        def cell_adjoint(x, y, d_output0, W, b):
            d = 2 * d_output0 * (1 - y * y)
            return R.matmul(d, R.permute_dims(W)), d

    with the terms ``W += x^T d`` and ``b += d``.

    Parameters
    ----------
    mod : IRModule
        Cells whose sizes are numbers (:mod:`relay_ext.bind_sizes`).
    save : bool
        Whether forward cells save what their adjoints read (:mod:`relay_ext.gradients.saved_values`); otherwise the
        adjoints compute it again.
    products : collection of str
        Weights that are tables of products (:mod:`relay_ext.tabulate_products`): with `save`, no adjoint reads them.

    Returns
    -------
    Adjoints

    Raises
    ------
    NoGradientError
        Naming the cell and the operator that has no gradient.
    """
    cells: dict[str, AdjointCell] = {}
    expressions: dict[str, WeightExpression] = {}
    for name, function in cell_functions(mod).items():
        cells[name] = _named_adjoint(name, function, expressions, save, products)
    tir = {var: function for var, function in mod.functions.items() if isinstance(function, tirx.PrimFunc)}
    return Adjoints(cells, expressions, tir, tuple(products) if save else ())


def called_with(mod: IRModule, tir: Mapping[Any, Any]) -> IRModule:
    """A module with those of the TIR functions that its functions call."""
    called: set[Any] = set()
    for function in mod.functions.values():
        relax.analysis.post_order_visit(
            function, lambda node: called.add(node) if isinstance(node, GlobalVar) and node in tir else None
        )
    return IRModule(dict(mod.functions.items()) | {var: tir[var] for var in tir if var in called}, attrs=mod.attrs)


def _named_adjoint(
    name: str, function: Any, expressions: dict[str, WeightExpression], save: bool, products: Collection[str]
) -> AdjointCell:
    """The adjoint of a cell; an error names the cell."""
    try:
        adjoint, needed = _adjoint(name, function, expressions, [])
        saved = saved_values(function, needed, products) if save else []
        made = _adjoint(name, function, expressions, saved)[0] if saved else adjoint
        return replace(made, function=without_weights(made.function, products if save else ()))
    except NoGradientError as error:
        raise NoGradientError(f"{error.given} in cell {name!r}", error.expected, error.hint) from None


def _adjoint(
    name: str,
    function: Any,
    expressions: dict[str, WeightExpression],
    saved: Sequence[Any],
    present: Collection[int] | None = None,
) -> tuple[AdjointCell, list[Any]]:
    """The adjoint of a cell that saves some variables, and the variables of the cell that it reads.

    `present` are the outputs whose cotangents it reads; all by default.
    """
    inputs, weights = input_params(function), weight_params(function)
    outputs = output_vars(function)
    bindings = bindings_of(function)
    more = [variable for variable in saved if variable not in outputs]
    slots = tuple([*outputs, *more].index(variable) for variable in saved)
    # New variables: one variable may not be a parameter of two functions.
    new = {param: relax.Var(param.name, param.ty) for param in function.params}
    values = {variable: relax.Var(f"value{slot}", variable.ty) for variable, slot in zip(saved, slots, strict=True)}
    cotangents = [relax.Var(f"d_output{place}", output.ty) for place, output in enumerate(outputs)]
    given = [*(new[param] for param in inputs), *values.values(), *cotangents]
    builder = relax.BlockBuilder()
    emit = Emitter(builder)
    params = [*given, *(new[w] for w in weights)]
    attributes = input_attrs(function) | {"num_input": len(given)}
    with _ended(builder), builder.function(f"{name}_adjoint", params, attributes):
        with builder.dataflow():
            renamed = emit_forward(emit, bindings, new | values)
            reverse = Reverse(emit, renamed, made_of(bindings, set(weights)))
            for place, (output, cotangent) in enumerate(zip(outputs, cotangents, strict=True)):
                if present is None or place in present:
                    reverse.add(output, cotangent)
            reverse.sweep(bindings)
            places = dict(zip(values.values(), slots, strict=True))
            given_attributes = [new[param] for param in inputs if is_attribute(function, param)]
            own = [param for param in inputs if not is_attribute(function, param)]
            results = _Results(builder, [new[param] for param in own], given_attributes, places, cotangents)
            operands = tuple(results.output(reverse.total(param)) for param in own)
            terms = tuple(
                WeightTerm(
                    expression_key(name, term.expression, bindings, weights, expressions),
                    term.kind,
                    None if term.left is None else results.source(term.left),
                    results.source(term.right),
                )
                for term in _joined(emit, reverse.terms)
            )
            ends = [builder.emit_output(one) for one in results.outputs]
        builder.emit_func_output(ends[0] if len(ends) == 1 else relax.Tuple(ends))
    whole = builder.finalize()
    needed = _read_by_reverse(whole[f"{name}_adjoint"], {one: old for old, one in renamed.items()})
    forward = with_outputs(name, function, more)
    adjoint = tidy(whole, f"{name}_adjoint")
    made = AdjointCell(forward, adjoint, len(outputs), slots, operands, terms, function, tuple(saved))
    return made, needed


def without_weights(function: Any, names: Collection[str]) -> Any:
    """A cell without some of its weights, which it does not read."""
    if not any(one.name in names for one in function.params):
        return function
    read = set(relax.analysis.free_vars(function.body))
    params = [one for one in function.params if one.name not in names]
    assert all(one in params for one in function.params if one in read)
    return relax.Function(params, function.body, function.ret_ty, function.is_pure, function.attrs)


@contextmanager
def _ended(builder: relax.BlockBuilder) -> Iterator[None]:
    """End the block of a function that an error leaves unfinished: TVM warns of a builder with open blocks."""
    try:
        yield
    except Exception:
        builder._end_block()
        raise


def _read_by_reverse(function: Any, forward: Mapping[Any, Any]) -> list[Any]:
    """The variables of a cell that the reverse sweep reads in a function which computes both."""
    live = set(relax.analysis.free_vars(function.body.body))
    read = []
    for variable, value in reversed(bindings_of(function)):
        if variable not in live:
            continue
        if variable in forward:
            read.append(forward[variable])
        else:
            live |= set(relax.analysis.free_vars(value))
    return read


class _Results:
    """The outputs of an adjoint cell, each once."""

    def __init__(
        self,
        builder: relax.BlockBuilder,
        operands: Sequence[Any],
        attributes: Sequence[Any],
        values: Mapping[Any, int],
        cotangents: Sequence[Any],
    ) -> None:
        self.builder = builder
        self.outputs: list[Any] = []
        self._known: dict[Any, Source] = {
            **{param: Source("operand", place) for place, param in enumerate(operands)},
            **{param: Source("attribute", place) for place, param in enumerate(attributes)},
            **{value: Source("value", slot) for value, slot in values.items()},
            **{param: Source("cotangent", place) for place, param in enumerate(cotangents)},
        }
        self._places: dict[Any, int] = {}

    def output(self, variable: Any) -> int | None:
        """The place of a variable among the outputs."""
        if variable is None:
            return None
        if variable not in self._places:
            self._places[variable] = len(self.outputs)
            self.outputs.append(variable)
        return self._places[variable]

    def source(self, variable: Any) -> Source:
        """Where the rows of a variable are found."""
        if variable in self._known:
            return self._known[variable]
        if not is_float(variable):
            index = self._index_of(variable)
            if index is not None:
                return index
            raise NoGradientError(
                "the gradient of a table that is read at a computed index", "an index that is an attribute"
            )
        call = self.builder.lookup_binding(variable)
        if isinstance(call, Call) and short_name(call) == "concat" and _joins_columns(call):
            return Source("joined", 0, tuple(self.source(part) for part in call.args[0].fields))
        place = self.output(variable)
        assert place is not None
        return Source("output", place)

    def _index_of(self, variable: Any) -> Source | None:
        """The attribute that has the same integers in the same order, perhaps in another shape or dtype."""
        while variable not in self._known:
            call = self.builder.lookup_binding(variable) if isinstance(variable, relax.Var) else None
            if not isinstance(call, Call) or short_name(call) not in _SAME_INTEGERS or is_float(call.args[0]):
                return None
            variable = call.args[0]
        return self._known[variable]


_SAME_INTEGERS = {"astype", "reshape", "expand_dims", "squeeze", "flatten"}
"""Operators that keep integers and their order."""


def _joins_columns(call: Any) -> bool:
    ndim = call.ty.ndim
    return bool(isinstance(call.args[0], relax.Tuple) and int(call.attrs.axis or 0) % ndim == ndim - 1)


def _joined(emit: Emitter, terms: Sequence[Term]) -> list[Term]:
    """Terms whose rows can be added are one term, but for rows of a product: it sums them as it reads them."""
    factors = {term.right for term in terms if term.kind == "product"}
    sums: dict[Any, Any] = {}
    found, with_products = [], []
    for term in terms:
        if term.kind != "sum":
            found.append(term)
        elif term.right in factors:
            with_products.append(term)
        elif term.expression in sums:
            sums[term.expression] = emit(sums[term.expression] + term.right)
        else:
            sums[term.expression] = term.right
    return [*found, *with_products, *(Term(expression, "sum", None, right) for expression, right in sums.items())]

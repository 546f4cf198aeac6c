"""The adjoint of a cell as cells that can be compiled, whatever the number of variadic rows.

An adjoint of variadic operands returns a gradient for each of their rows, and cells return values of fixed shapes. So
it is cut into *sections*. A section runs once for each node, or once for each of its variadic rows; then the rows of
all nodes of a batch are the instances of a batch of their own. Sections read outputs of earlier ones. Those for rows
and those for nodes take turns; most adjoints have one of each::

    def cell(hs, U):                           # y = sum over p of sigmoid(hs[p] U)
        f = R.sigmoid(R.matmul(hs, U))
        return R.tanh(R.sum(f, axis=0))

    def cell_adjoint(y, d_output0):            # once for each node
        return d_output0 * (1 - y * y)

    def cell_adjoint1(hs, part0_output0, U):   # once for each variadic row
        f = R.sigmoid(R.matmul(hs, U))
        d = part0_output0 * (f * (1 - f))
        return R.matmul(d, R.permute_dims(U)), d
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tvm import relax
from tvm.relax import op as R

from edbatch_tvm.tvm_compat import Call, TensorType, structural_map, tirx
from relay_ext.gradients.adjoint_cells import AdjointCell, Source, WeightTerm
from relay_ext.gradients.adjoint_inputs import WholeAdjoint, has_rows, shapes_of
from relay_ext.gradients.reverse import bindings_of, emit_forward, made_of
from relay_ext.gradients.row_forms import NoRowForm, one_row, spread_row
from relay_ext.gradients.rules import Emitter, is_float, reduced_axes, short_name
from relay_ext.op_table import ORDERED_VIEWS
from relay_ext.row_ops import tensors_of
from relay_ext.signature import ATTRIBUTES, input_attrs, input_params, output_vars, weight_params

ROW_NUMBER = "number_of_variadic_row"
"""The attribute of a section for rows that says which of the node's rows it runs for."""

_VIEWS = frozenset(name.removeprefix("relax.") for name in ORDERED_VIEWS) | {"broadcast_to"}


@dataclass(frozen=True)
class Read:
    """What an operand of a section is.

    Attributes
    ----------
    source : Source
    every_row : bool
        All variadic rows of the node, a variadic operand. Otherwise a section that runs for each row reads its own.
    """

    source: Source
    every_row: bool = False


@dataclass(frozen=True)
class Section:
    """A part of an adjoint.

    Attributes
    ----------
    function : relax.Function
    per_row : bool
        Whether it runs once for each variadic row of a node.
    reads : tuple of Read
        Its operands, in order. Its attributes have the names of those of the forward cell.
    """

    function: relax.Function
    per_row: bool
    reads: tuple[Read, ...]


@dataclass(frozen=True)
class BackwardCell:
    """The sections of the adjoint of a cell, and where the gradients are.

    Attributes
    ----------
    name : str
    sections : tuple of Section
        In the order they run; none if nothing is to be computed: all terms read operands and cotangents.
    slots : tuple of (Source or None)
        For each operand of the forward cell the output that is its gradient; None if it has none. For a variadic
        operand that of a section for nodes stands for all rows.
    terms : tuple of WeightTerm
        What they read is outputs of `sections`.
    """

    name: str
    sections: tuple[Section, ...]
    slots: tuple[Source | None, ...]
    terms: tuple[WeightTerm, ...]


def backward_cell(name: str, adjoint: AdjointCell, pairs: Collection[int] = ()) -> BackwardCell:
    """The sections of the adjoint of the cell `name`; it takes two cotangents of the outputs `pairs`."""
    whole = WholeAdjoint(adjoint, pairs)
    if not any(map(has_rows, whole.sources)):
        function, sources = whole.used()
        sections = (Section(function, False, _reads(sources)),) if whole.outputs else ()
        slots = tuple(None if place is None else Source("output", place) for place in adjoint.operands)
        return BackwardCell(name, sections, slots, adjoint.terms)
    try:
        return _Cut(name, adjoint, whole).cell()
    except NoRowForm:
        return _row_after_row(name, adjoint, whole)


def _reads(sources: Mapping[Any, Source]) -> tuple[Read, ...]:
    """The operands of a function as a section."""
    return tuple(Read(source, has_rows(param)) for param, source in sources.items() if source.kind != "attribute")


def _is_variadic(variable: Any) -> bool:
    """Whether a shape depends on the number of variadic rows, at any axis."""
    return any(not isinstance(extent, tirx.IntImm) for shape in shapes_of(variable) for extent in shape)


# Sections ---------------------------------------------------------------------------------------------------------


class _Cut:
    """Cuts an adjoint into sections: those of even levels run for each node, those of odd ones for each row.

    A row is *heavy* if it takes a product with weights: sections for nodes read it as an output of a section for rows.
    Other rows are computed where they are read. A row is *late* if it depends on a product of its node: what sums such
    rows is in the next section for nodes, since a kernel with both takes LLVM half a minute.
    """

    def __init__(self, name: str, adjoint: AdjointCell, whole: WholeAdjoint) -> None:
        self.name = name
        self.adjoint = adjoint
        self.whole = whole
        self.value_of = dict(whole.bindings)
        self.shared = made_of(whole.bindings, set(whole.weights)) | {
            variable
            for variable, value in whole.bindings
            if not _is_variadic(variable) and not relax.analysis.free_vars(value)
        }
        self.levels: dict[Any, int] = {one: int(has_rows(one)) for one in whole.sources}
        self.heavy: set[Any] = set()
        self._late: set[Any] = set()  # nodes that take products, and rows that depend on them
        for variable, value in whole.bindings:
            if variable not in self.shared:
                self._place(variable, value)
        self.targets: dict[int, dict[tuple[Any, bool], int]] = defaultdict(dict)

    def _place(self, variable: Any, value: Any) -> None:
        """The level at which a variable can be computed."""
        read = [one for one in relax.analysis.free_vars(value) if one in self.levels]
        computed = [one for one in read if one not in self.whole.sources]
        is_product = self._is_weight_product(value)
        if has_rows(variable):
            below = [self.levels[one] + (not has_rows(one)) for one in computed]
            self.levels[variable] = max(below, default=1)
            if is_product or any(one in self.heavy for one in read):
                self.heavy.add(variable)
        else:
            of_rows = {True: 1, False: -1}
            after = [of_rows[one in self.heavy or one in self._late] if has_rows(one) else 0 for one in computed]
            levels = [self.levels[one] + more for one, more in zip(computed, after, strict=True)]
            self.levels[variable] = max(levels, default=0)
        level = self.levels[variable] - has_rows(variable)
        if is_product or any(one in self._late and self.levels[one] - has_rows(one) == level for one in computed):
            self._late.add(variable)

    def _is_weight_product(self, value: Any) -> bool:
        if not isinstance(value, Call) or short_name(value) != "matmul":
            return False
        return any(one in self.shared and one.ty.ndim > 1 for one in value.args)

    def target(self, variable: Any, spread: bool = False) -> Source:
        """A variable as an output of a section; `spread`: what is the same in all rows, once for each node."""
        level = self.levels[self.value_of[variable].args[0]] if spread else self.levels[variable]
        places = self.targets[level]
        return Source("output", places.setdefault((variable, spread), len(places)), part=level)

    def is_read(self, variable: Any, level: int) -> bool:
        """Whether a section of this level reads a variable as an output of an earlier one."""
        if self.levels[variable] >= level or not is_float(variable) or _is_variadic(variable) != has_rows(variable):
            return False
        if has_rows(variable):
            return variable in self.heavy
        value = self.value_of[variable]
        return level % 2 == 0 or not (isinstance(value, Call) and short_name(value) in _VIEWS)

    def cell(self) -> BackwardCell:
        """The sections, those last to run made first: they say what they read."""
        slots = tuple(None if place is None else self._slot(place) for place in self.adjoint.operands)
        terms = tuple(self._term(term) for term in self.adjoint.terms)
        sections: dict[int, Section] = {}
        for level in range(max(self.levels.values(), default=0), -1, -1):
            if self.targets[level]:
                sections[level] = _Maker(self, level).section()
        numbers = {level: number for number, level in enumerate(sorted(sections))}

        def placed(source: Source | None) -> Source | None:
            return None if source is None else source.with_parts(numbers)

        ordered = tuple(
            replace(one, reads=tuple(replace(read, source=read.source.with_parts(numbers)) for read in one.reads))
            for _, one in sorted(sections.items())
        )
        return BackwardCell(
            self.name,
            ordered,
            tuple(map(placed, slots)),
            tuple(replace(one, left=placed(one.left), right=one.right.with_parts(numbers)) for one in terms),
        )

    def _slot(self, place: int) -> Source:
        output = self._resolved(self.whole.outputs[place])
        value: Any = self.value_of.get(output)
        spread = isinstance(value, Call) and short_name(value) == "broadcast_to" and has_rows(output)
        if spread and not has_rows(value.args[0]) and value.args[0] not in self.shared:
            return self.target(output, spread=True)
        return self.target(output)

    def _term(self, term: WeightTerm) -> WeightTerm:
        rows = self._summed_rows(term.right) if term.kind == "sum" else None
        if rows is not None:
            return replace(term, right=self.whole.sources.get(rows) or self.target(rows))
        left = None if term.left is None else term.left.with_outputs(self._output)
        return replace(term, left=left, right=term.right.with_outputs(self._output))

    def _summed_rows(self, source: Source) -> Any:
        """The rows whose sum an output is: the sum over nodes takes them, too."""
        value = (
            self.value_of.get(self._resolved(self.whole.outputs[source.number])) if source.kind == "output" else None
        )
        if not isinstance(value, Call) or short_name(value) != "sum" or value.attrs.keepdims:
            return None
        return value.args[0] if has_rows(value.args[0]) and reduced_axes(value) == [0] else None

    def _output(self, place: int) -> Source:
        return self.target(self._resolved(self.whole.outputs[place]))

    def _resolved(self, variable: Any) -> Any:
        while isinstance(self.value_of.get(variable), relax.Var):
            variable = self.value_of[variable]
        return variable


class _Maker:
    """Makes one section."""

    def __init__(self, cut: _Cut, level: int) -> None:
        self.cut = cut
        self.level = level
        self.per_row = level % 2 == 1
        self.emit = Emitter(relax.BlockBuilder())
        whole = cut.whole
        # The number of rows is a symbol of this function alone, as its variables are.
        copy = relax.utils.copy_with_new_vars(whole.function)
        own = bindings_of(copy)
        self.copied = dict(zip(whole.function.params, copy.params, strict=True))
        self.copied |= {old: new for (old, _), (new, _) in zip(whole.bindings, own, strict=True)}
        self.old = {new: old for old, new in self.copied.items()}
        self.values = {old: value for (old, _), (_, value) in zip(whole.bindings, own, strict=True)}
        self.known: dict[Any, Any] = {}
        self.reads: dict[Any, Read] = {}
        self.attributes: list[Any] = []
        self.weights: dict[Any, Any] = {}
        self.needs_rows = False

    def section(self) -> Section:
        """The section with all targets of its level."""
        builder = self.emit.builder
        with builder.function("section", attrs={}):
            with builder.dataflow():
                results = [self._target(*key) for key in self.cut.targets[self.level]]
                made = [builder.emit_output(one) for one in results]
            if self.needs_rows and not any(read.every_row for read in self.reads.values()):
                self.get(next(param for param in self.cut.whole.sources if has_rows(param)))
            params = [*self.reads, *self.attributes, *self.weights.values()]
            builder.emit_func_output(made[0] if len(made) == 1 else relax.Tuple(made), params)
        function = builder.finalize()["section"].with_attr("num_input", len(self.reads) + len(self.attributes))
        floats = [param.name for param in self.attributes if is_float(param)]
        function = function.with_attr(ATTRIBUTES, floats) if floats else function
        return Section(function, self.per_row, tuple(self.reads.values()))

    def _target(self, variable: Any, spread: bool) -> Any:
        if not spread:
            return self.get(variable)
        call = self.cut.value_of[variable]
        return spread_row(self.emit, call, self.get(call.args[0]), False)

    def get(self, variable: Any) -> Any:
        """A variable of the adjoint in this section: of one row, where it runs for each."""
        if variable not in self.known:
            self.known[variable] = self._made(variable)
        return self.known[variable]

    def _made(self, variable: Any) -> Any:
        cut = self.cut
        if variable in cut.whole.weights:
            self.weights[variable] = relax.Var(variable.name, variable.ty)
            return self.weights[variable]
        if variable in cut.whole.sources:
            return self._param(variable, variable.name, cut.whole.sources[variable])
        if variable not in cut.shared and cut.is_read(variable, self.level):
            source = cut.target(variable)
            return self._param(variable, f"part{source.part}_output{source.number}", source)
        if self.per_row and has_rows(variable):
            return self._row(variable)
        read = [one for one in relax.analysis.free_vars(self.values[variable]) if one in self.old]
        if self.per_row and (_is_variadic(variable) or any(_is_variadic(one) for one in read)):
            raise NoRowForm(str(variable))
        self.needs_rows |= _is_variadic(variable)
        return self._emitted(self.values[variable])

    def _emitted(self, value: Any) -> Any:
        made = structural_map(value, (relax.Var, lambda one: self.get(self.old[one]) if one in self.old else one))
        return made if isinstance(made, relax.Var | relax.Tuple) else self.emit(made)

    def _row(self, variable: Any) -> Any:
        value = self.cut.value_of[variable]
        if not isinstance(value, Call):
            return self._emitted(self.values[variable])
        tensors = tensors_of(value)
        return one_row(self.emit, value, [has_rows(one) for one in tensors], [self._argument(one) for one in tensors])

    def _argument(self, tensor: Any) -> Any:
        return self.get(tensor) if isinstance(tensor, relax.Var) else tensor

    def _param(self, variable: Any, name: str, source: Source) -> Any:
        ty = self.copied[variable].ty
        if self.per_row and has_rows(variable):
            ty = TensorType(list(variable.ty.shape.values)[1:], variable.ty.dtype)
        param = relax.Var(name, ty)
        if source.kind == "attribute":
            self.attributes.append(param)
        else:
            self.reads[param] = Read(source, not self.per_row and has_rows(variable))
        return param


# Row after row ----------------------------------------------------------------------------------------------------


def _row_after_row(name: str, adjoint: AdjointCell, whole: WholeAdjoint) -> BackwardCell:
    """The sections of an adjoint of which one row depends on others: each computes all rows, and returns one."""
    function = whole.function
    places = [has_rows(output) for output in whole.outputs]
    sections: list[Section] = []
    found: dict[int, Source] = {}
    for per_row in (False, True):
        chosen = [place for place, of_rows in enumerate(places) if of_rows == per_row]
        if not chosen:
            continue
        copy = relax.utils.copy_with_new_vars(function)
        results = output_vars(copy)
        params = input_params(copy)
        number = relax.Var(ROW_NUMBER, TensorType((), "int32"))
        builder = relax.BlockBuilder()
        given = [*params, number] if per_row else params
        with builder.function("section", [*given, *weight_params(copy)], input_attrs(copy) | {"num_input": len(given)}):
            with builder.dataflow():
                known = emit_forward(Emitter(builder), bindings_of(copy), {param: param for param in copy.params})
                made = [known.get(results[place], results[place]) for place in chosen]
                made = [_chosen(Emitter(builder), one, number) if per_row else one for one in made]
                made = [builder.emit_output(one) for one in made]
            builder.emit_func_output(made[0] if len(made) == 1 else relax.Tuple(made))
        tidy = relax.transform.DeadCodeElimination(["section"])(builder.finalize())["section"]
        found |= {place: Source("output", number, part=len(sections)) for number, place in enumerate(chosen)}
        sections.append(Section(tidy, per_row, _reads(whole.sources)))
    slots = tuple(None if place is None else found[place] for place in adjoint.operands)
    terms = tuple(
        replace(
            term,
            left=None if term.left is None else term.left.with_outputs(found.__getitem__),
            right=term.right.with_outputs(found.__getitem__),
        )
        for term in adjoint.terms
    )
    return BackwardCell(name, tuple(sections), slots, terms)


def _chosen(emit: Emitter, rows: Any, number: Any) -> Any:
    """The row of a number: a sum with zeros, since an index would need a bound."""
    count = rows.ty.shape.values[0]
    chosen = emit(R.equal(R.arange(0, count, 1, "int32"), number))
    for _ in range(rows.ty.ndim - 1):
        chosen = emit(R.expand_dims(chosen, [-1]))
    zero = relax.const(0, str(rows.ty.dtype))
    return emit(R.sum(R.where(chosen, rows, zero), axis=[0]))

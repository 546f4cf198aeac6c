"""The cells of one PyTorch model that have been met so far, and the model they are compiled to."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.random import fork_rng

from edbatch_tvm.compiler.progress import Progress
from edbatch_tvm.errors import CellError, EdbatchError
from edbatch_tvm.fork_lock import fork_lock
from edbatch_tvm.recording import compiled_or_pytorch, strided_storage
from edbatch_tvm.recording.arguments import FEW, CallPlan, Key
from edbatch_tvm.recording.batch_norm import StatisticsChecked
from edbatch_tvm.recording.called_functions import recording_calls
from edbatch_tvm.recording.cell_module import CellModule
from edbatch_tvm.recording.compiled_cells import CompiledCells
from edbatch_tvm.recording.describe import describe, described
from edbatch_tvm.recording.empty_results import EmptyResult
from edbatch_tvm.recording.exporting import EXPORTING
from edbatch_tvm.recording.failures import does_not_compile
from edbatch_tvm.recording.fused_rows import operation_of
from edbatch_tvm.recording.held_objects import ChangesOthers
from edbatch_tvm.recording.isolation import context_variables_kept, outside_of_saved_tensor_hooks, state, switched_to
from edbatch_tvm.recording.model_state import dtype_of
from edbatch_tvm.recording.module_arguments import GivenModule
from edbatch_tvm.recording.module_attributes import Attribute, is_constant
from edbatch_tvm.recording.outside import Outside
from edbatch_tvm.recording.over_rows import FEW_COUNTS, OverRows, over_rows
from edbatch_tvm.recording.parameter_tables import Table
from edbatch_tvm.recording.random_state import DrawsNumbers
from edbatch_tvm.recording.reads import ReadKinds
from edbatch_tvm.recording.recurrent import refuses_unrolling
from edbatch_tvm.recording.required_gradients import Inputs, inputs_of, parameters_of
from edbatch_tvm.recording.rows import (
    AGAIN,
    POINTWISE,
    Again,
    RowByRow,
    aligned,
    is_pointwise,
    leaves_of,
    rows_among,
    with_leaves,
)
from edbatch_tvm.recording.set_attributes import fetch_all
from edbatch_tvm.recording.site import CONSTANTS, Site
from edbatch_tvm.recording.specialise import (
    Cell,
    holds_for_few,
    make_cell,
    takes_rows,
)
from edbatch_tvm.recording.storages import JOINED, with_whole_values
from edbatch_tvm.recording.torch_functions import original_functions
from edbatch_tvm.recording.tried_code import attributes_read, try_function
from edbatch_tvm.recording.value_tables import Tables
from edbatch_tvm.runtime import Model
from relay_ext.importer import WeightNames

if TYPE_CHECKING:
    from edbatch_tvm.recording.recorder import Recorder

MOST_CELLS = 32
"""Cells that one submodule or method may become, for different shapes and constants."""


_MOST_SHARED_BYTES = 1 << 26
"""Bytes of tensors that records share: what comes later shares others, so that those nobody needs can go."""


def _name_of(function: Any) -> str:
    packet = getattr(function, "overloadpacket", None)
    name = packet.__name__ if packet is not None else getattr(function, "__name__", "operator")
    return name.strip("_").replace(".", "_")


def _ways_to_describe(site: Site) -> list[tuple[bool, bool]]:
    """Whether integers vary and whether numbers of rows are fixed, what gives the fewest cells first."""
    return [(vary, fixed) for vary in ((True, False) if site.integers_vary else (False,)) for fixed in (False, True)]


_UNTRIED = object()

_UNCHECKED = frozenset({"cudnn", "fbgemm", "miopen", "mkldnn", "mps", "nnpack", "quantized"})
"""In the names of operators that call a kernel of another library and leave checks of shapes to their callers: tried
for other numbers of rows, such a kernel reads and writes anywhere."""


class Library:
    """Cells by what was called and how, and the compiled model of all of them.

    Parameters
    ----------
    model : torch.nn.Module
    options : mapping
        For :func:`edbatch_tvm.compile`.
    sites : iterable of Site
        Those of submodules and methods.
    training : bool
        Whether gradients are recorded, so that the compiled model has a backward pass.

    Attributes
    ----------
    code : CompiledCells
    dtype : torch.dtype
        Of the values that cells compute.
    operators : dict
        The sites of tensor functions, by function and names of arguments.
    given_modules : dict
        What stands for modules among arguments, by module and state.
    moving : set of (int, str)
        Buffers that ``forward`` changes: the id of a module, and a name.
    slower : str
        Why PyTorch runs the whole model; "" if it does not.
    read_kinds : ReadKinds
        What records read of parameters.
    fused : dict
        For operators on rows that are recorded together: their node, None if there is none, or how often they
        were met so far; see :mod:`edbatch_tvm.recording.fused_rows`.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        options: Mapping[str, Any],
        sites: Iterable[Site] = (),
        training: bool = False,
        moving: Set[tuple[int, str]] = frozenset(),
        set_names: Set[tuple[int, str]] = frozenset(),
    ) -> None:
        self.training = training
        self.moving = moving
        self.set_names = set_names
        self.dtype = dtype_of(model)
        self.tables = Table.of(model) if training else {}
        self._sites = list(sites)
        self.fused: dict[Any, Any] = {}
        self._row_counts: dict[tuple[Site, Key], set[int]] = {}
        self.cells: list[Cell] = []
        self.fallback = compiled_or_pytorch.Fallback(options.get("fallback", compiled_or_pytorch.DEFAULT))
        self._names = WeightNames()
        for path, parameter in model.named_parameters():
            self._names.add(path, parameter)
        chosen = {name: value for name, value in options.items() if name != "fallback"}
        self.code = CompiledCells(self.cells, self._names, self.tables, training, chosen)
        self._path_of = {id(parameter): path for path, parameter in model.named_parameters()}
        self.operators: dict[tuple[Any, tuple[str, ...]], Site] = {}
        self.given_modules: dict[Any, GivenModule] = {}
        self._steps: dict[Any, Site] = {}
        self._lock = fork_lock()
        self.state = state()
        self.spare_tables: dict[int, np.ndarray] = {}
        self._outside_of_records: Callable[[], Outside | None] = lambda: None
        self.breaking: set[Any] = set()
        self.not_recorded: set[Any] = set()
        self.slower = ""
        self.told: set[tuple[str, int, str]] = set()
        self.read_kinds = ReadKinds()
        self._gradient_inputs: dict[Any, list[Inputs]] = {}
        self._parameters_used: dict[Any, list[list[torch.Tensor]]] = {}

    def path_of(self, tensor: torch.Tensor) -> str | None:
        """The path of a parameter of the model; None for any other tensor."""
        return self._path_of.get(id(tensor))

    def operator_site(self, function: Any, named: tuple[str, ...]) -> Site:
        """The site of a tensor function, called with arguments of these names at the end."""
        site = self.operators.get((function, named))
        if site is None:
            name = _name_of(function)
            site = Site(name, function, None, False, named)
            if not _UNCHECKED.isdisjoint(name.split("_")):
                site.never = CellError(
                    f"{name!r} is a kernel of a library beside PyTorch", "an operator of PyTorch's own"
                )
            site = self.operators.setdefault((function, named), site)
        return site

    def step_site(self, key: Any, make: Callable[[], Site]) -> Site:
        """The site of one step of a recurrent layer."""
        site = self._steps.get(key)
        return site if site is not None else self._steps.setdefault(key, make())

    def specialise(
        self, recorder: Recorder, site: Site, arguments: tuple[Any, ...]
    ) -> tuple[Cell, list[int], list[Any]] | RowByRow | OverRows | EmptyResult | Again:
        """The cell for a call that none was made for yet, the values the call reads and its attributes.

        Tried in turn: one row after another; any number of rows and any integer; a cell for this number of rows; every
        integer by itself; both.

        Raises
        ------
        CellError
            If none of them can be a cell: why the last one cannot.
        """
        if site.never is not None:
            raise site.never
        try:
            listed = site.owner is not None or site in self._sites
            if listed and self._reads_more(recorder, site, arguments):
                return AGAIN
        except (ChangesOthers, DrawsNumbers) as error:
            site.never = error
            raise
        how = self._row_by_row(recorder, site, arguments)
        return how if how is not None else self.as_one_node(recorder, site, arguments, site.learn)

    def as_one_node(
        self,
        recorder: Recorder,
        site: Site,
        arguments: tuple[Any, ...],
        learn: Callable[[Key, Any], None] | None = None,
    ) -> tuple[Cell, list[int], list[Any]] | EmptyResult:
        """The same for a call that is not taken row by row; `learn` is told what calls of its kind are."""
        given = with_whole_values(recorder, arguments)
        if given is not arguments:
            if learn is not None:
                learn(described(recorder, arguments, site.integers_vary)[0], (-1, (), JOINED))
            arguments = given
        refusal = None
        first: Key | None = None
        for integers_vary, fixed_rows in _ways_to_describe(site):
            key, operands, attributes = described(recorder, arguments, integers_vary, fixed_rows)
            refusal = site.refused.get(key)
            if refusal is None:
                try:
                    cell = self._cell(site, key, attributes)
                except CellError as error:
                    refusal = site.refused[key] = error
                else:
                    if learn is not None and first is not None:
                        learn(first, (-1, (), CONSTANTS))
                    elif learn is not None:
                        learn(key, (-1, (), cell) if isinstance(cell, EmptyResult) else cell.made)
                    return cell if isinstance(cell, EmptyResult) else (cell, operands, attributes)
            first = key if first is None else first
        assert refusal is not None
        raise refusal

    def cell_of_constants(
        self, recorder: Recorder, site: Site, arguments: tuple[Any, ...]
    ) -> tuple[Any, list[int], list[Any]] | None:
        """What :meth:`specialise` finds for a call of a kind with constants, if these were met before."""
        for integers_vary, fixed_rows in _ways_to_describe(site):
            key, operands, attributes = described(recorder, arguments, integers_vary, fixed_rows)
            if key not in site.refused:
                cell = site.cells.get(key)
                return None if cell is None else (cell, operands, attributes)
        return None

    def _reads_more(self, recorder: Recorder, site: Site, arguments: tuple[Any, ...]) -> bool:
        """Try code once for a kind of calls; whether it reads attributes that were not known, which are arguments now.

        Raises
        ------
        CellError
            If it changes something.
        """
        key, _, attributes = described(recorder, arguments, False, True)
        if key in site.noted:
            return False
        if site.owner is not None:
            assert recorder.root is not None
            fetch_all(recorder.root)
        plan = CallPlan.of(key, attributes, self._names.params, self.dtype)
        code = CellModule(site.target, site.owner, plan, site.named, site.reads)
        read: dict[Attribute, Any] = {}
        called: set[Attribute] = set()
        with self._lock, self._outside(), refuses_unrolling(), StatisticsChecked():
            if site.owner is None:
                try_function(site.name, code)
            else:
                read, called = attributes_read(site.name, code, recorder.root)
        site.noted.add(key)
        for attribute in called:
            module, name = attribute.of(site.owner)
            if name:
                site.code.note_function(module, name)
            else:
                site.code.note_call(module)
        for attribute, value in read.items():
            if attribute in site.reads:
                continue
            own = attribute.value(site.owner)
            module, name = attribute.of(site.owner)
            if name in module._buffers:
                stays = own is value and (id(module), name) not in self.moving
            elif callable(value) and is_constant(value):  # that of a copy is another one
                stays, value = (id(module), name) not in self.set_names, own
            else:
                stays = is_constant(value) and (own is value or (type(own) is type(value) and own == value))
            if stays:
                site.constants[attribute] = value
            else:
                site.read(attribute)
        return len(site.reads) > len(code.reads)

    def _row_by_row(self, recorder: Recorder, site: Site, arguments: tuple[Any, ...]) -> RowByRow | OverRows | None:
        """How a call with rows is recorded; None as one node: its code does not treat rows alike, or has none."""
        if site.target is strided_storage.joined:  # of rows of one element, too, it makes one value
            return None
        lists = not site.integers_vary
        leaves = leaves_of(arguments, lists)
        pointwise = site.owner is None and is_pointwise(site.target)
        rows = rows_among(recorder, leaves, lists, pointwise)
        if rows is None:
            return None
        key: list[Any] = []
        attributes: list[Any] = []
        marked = (leaf if row is None else row for leaf, row in zip(leaves, rows, strict=True))
        for argument in with_leaves(arguments, marked, lists):
            describe(recorder, argument, key, [], attributes, site.integers_vary)
        found = site.row_wise.get(tuple(key), _UNTRIED)
        if found is _UNTRIED:
            if pointwise and aligned(leaves, rows):
                found = POINTWISE
            else:
                plan = CallPlan.of(tuple(key), attributes, self._names.params, self.dtype)
                with self._lock, self._outside():
                    found = takes_rows(site.name, CellModule(site.target, site.owner, plan, site.named, site.reads))
            site.row_wise[tuple(key)] = found
        how: RowByRow | OverRows | None
        if found is None:
            how = over_rows(site.target, site.named, arguments, rows)
            if how is None:
                return None
            counts = self._row_counts.setdefault((site, tuple(key)), set())
            counts.add(arguments[0].shape[how.dim])
            if len(counts) <= FEW_COUNTS:  # one node is faster than many
                return None
        else:
            how = RowByRow(tuple(None if row is None else row.at for row in rows), found)
            if found is POINTWISE and not self.training:
                kind = tuple(key)
                if kind not in site.operations:
                    site.operations[kind] = operation_of(site, arguments, leaves, rows, self.dtype)
                operation = how.operation = site.operations[kind]
                if operation is not None and operation.known is not None:
                    how.node, how.lists, how.order = operation.known.node, operation.known.lists, operation.known.order
        site.learn(described(recorder, arguments, site.integers_vary)[0], (-1, (), how))
        return how

    def _cell(self, site: Site, key: Key, attributes: list[Any]) -> Cell | EmptyResult:
        with self._lock:
            cell = site.cells.get(key)
            if cell is not None:
                return cell
            few = key[-1][1] if key and type(key[-1]) is tuple and key[-1][0] == FEW else None
            if few is not None:
                cell = self._cell(site, key[:-1], attributes)
                with self._outside():
                    if isinstance(cell, EmptyResult) or not holds_for_few(cell.name, cell.code, few):
                        raise CellError(f"cell {site.name!r} computes something else for {few} rows")
                site.cells[key] = cell
                return cell
            refusal = site.refused.get(key)
            if refusal is not None:
                raise refusal
            if len(site.cells) >= MOST_CELLS:
                raise CellError(
                    f"{site.name!r} has been called with more than {MOST_CELLS} kinds of arguments",
                    "few shapes and constants: each is compiled",
                    "pass numbers that differ from call to call as tensors, and stack what comes in any number",
                )
            plan = CallPlan.of(key, attributes, self._names.params, self.dtype)
            code = CellModule(site.target, site.owner, plan, site.named, site.reads)
            name = self._free_name(site)
            with self._outside(), Progress() as progress:
                progress.expect(1)
                progress(f"cell {name}")
                try:
                    cell = make_cell(name, len(self.cells), code, self._names)
                except EdbatchError:
                    raise
                except Exception as error:  # of an importer or compiler that does not know the operator
                    raise does_not_compile(name, plan, error) from error
            if isinstance(cell, Cell):
                self.cells.append(cell)
            site.cells[key] = cell
            return cell

    @contextmanager
    def _outside(self) -> Iterator[None]:
        """A context like that of the call: not inside of operators and modes of an element."""
        own = self.state._replace(grad=False) if self.training else self.state
        # What is tried draws none of the user's random numbers.
        kept, hooks = context_variables_kept(), outside_of_saved_tensor_hooks()
        with (
            EXPORTING,
            kept,
            hooks,
            original_functions(),
            recording_calls(None),
            switched_to(own),
            fork_rng(devices=[]),
        ):
            yield

    def _free_name(self, site: Site) -> str:
        stem = site.name.replace(".", "_")
        taken = {cell.name for cell in self.cells}
        numbers = (f"{stem}_{number}" for number in range(2, len(taken) + 3))
        return next(name for name in (stem, *numbers) if name not in taken)

    def outside_of_records(self) -> Outside:
        """The tensors from outside that elements which are recorded now read: they share equal ones."""
        outside = self._outside_of_records()
        if outside is None or outside.tables.bytes > _MOST_SHARED_BYTES:
            outside = Outside(Tables(self.dtype))
            self._outside_of_records = weakref.ref(outside)
        return outside

    def compiled(self) -> Model | None:
        """The compiled model of all cells; compiles if there are new ones. None if one of those cannot be compiled."""
        with self._lock:
            if not self.code.is_current:
                with self._outside():
                    refused = self.code.compile()
                for cell, reason in refused:
                    self._refuse(cell, reason)
                if refused:
                    return None
            return self.code.model

    def gradient_inputs(self, cell: Cell) -> list[Inputs]:
        """What goes into the outputs of a cell, where the parameters of now require a gradient or not."""
        key = cell.type_id, tuple(one.requires_grad for one in self._names.params.values())
        with self._lock:
            if key not in self._gradient_inputs:
                with self._outside():
                    self._gradient_inputs[key] = inputs_of(cell)
            return self._gradient_inputs[key]

    def parameters_used(self, site: Site, key: Key, attributes: Sequence[Any]) -> list[list[torch.Tensor]]:
        """The parameters that require a gradient now and go into each leaf of what calls of a kind return."""
        known = site, key, tuple(one.requires_grad for one in self._names.params.values())
        with self._lock:
            if known not in self._parameters_used:
                plan = CallPlan.of(key, attributes, self._names.params, self.dtype)
                code = CellModule(site.target, site.owner, plan, site.named, site.reads)
                with self._outside():
                    self._parameters_used[known] = parameters_of(code)
            return self._parameters_used[known]

    def _refuse(self, cell: Cell, reason: Exception) -> None:
        """Record no more calls of a cell."""
        sites = [*self._sites, *self.operators.values(), *self._steps.values()]
        for site in sites:
            for key, known in list(site.cells.items()):
                if known is cell:
                    del site.cells[key]
                    site.refused[key] = does_not_compile(cell.name, cell.code.plan, reason)
                    site.steps, site.operations = {}, {}
        self.fused.clear()

    def used_weights(self) -> set[int]:
        """The ids of the weights of all cells, compiled or not."""
        names = {parameter.name for cell in self.cells for parameter in cell.function.params}
        return {id(weight) for name, weight in self._names.params.items() if name in names}

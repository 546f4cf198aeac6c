"""The recorder: calls of cells, of all instances in flight, as flat lists.

A recorded call appends a few numbers and makes one object for each output; everything else happens when the graph is
computed, on arrays (:mod:`edbatch_tvm.recording.flush`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from edbatch_tvm.recording.arguments import FEW, INTEGER, key_of_tensor, number_of
from edbatch_tvm.recording.computed import Computed, Round
from edbatch_tvm.recording.describe import describe, describe_list
from edbatch_tvm.recording.detached import DetachedStorage, shared
from edbatch_tvm.recording.empty_gradients import (
    as_called,
    is_noted,
    note,
    sources_in,
)
from edbatch_tvm.recording.empty_results import EmptyResult, NoElements
from edbatch_tvm.recording.followed_parameters import FollowedTensor
from edbatch_tvm.recording.gradient_tape import GradientTape
from edbatch_tvm.recording.isolation import outside_of_transforms, switched_to
from edbatch_tvm.recording.lazy import LazyTensor, geometry_of, lazy_rows
from edbatch_tvm.recording.outside import Outside
from edbatch_tvm.recording.over_rows import OverRows
from edbatch_tvm.recording.recorded_parameters import RecordedParameter, own_parameter
from edbatch_tvm.recording.row_calls import row_by_row
from edbatch_tvm.recording.rows import RowByRow
from edbatch_tvm.recording.served_values import answers_to, values_of
from edbatch_tvm.recording.specs import GridSpec, RowsSpec, TensorSpec, spec_of
from edbatch_tvm.recording.storages import (
    JOINED,
    Joined,
    joined,
    resolved,
    value_of_row,
    whole_value,
    with_whole_values,
)
from edbatch_tvm.recording.strided_storage import last_element
from edbatch_tvm.recording.value_tables import Tables
from edbatch_tvm.recording.watched_objects import numbers_of

if TYPE_CHECKING:
    from edbatch_tvm.recording.breaks import Break
    from edbatch_tvm.recording.cell_call import CellCall
    from edbatch_tvm.recording.library import Library
    from edbatch_tvm.recording.recorded_together import RecordedElements
    from edbatch_tvm.recording.rounds import RoundValues
    from edbatch_tvm.recording.site import Constants, Site
    from edbatch_tvm.recording.specialise import Cell


class Recorder:
    """What the instances of one minibatch have recorded.

    Values are numbered from 0 over all flushes; ``-1 - i`` is tensor i of :attr:`outside`.

    Attributes
    ----------
    dtype : torch.dtype
        Of values, those of masks and indices included.
    recorded, done : int
        Number of values recorded, and of those computed.
    types, ends, operands : list of int
        What is not computed yet: the type of every node, where its operands end, and all operands.
    attributes : dict of int to list
        The attributes of every type, node after node.
    outside : Outside
        Copies of ordinary tensors that calls read.
    parameters : dict of int to RecordedParameter or FollowedTensor
        What ``forward`` sees of the model's parameters, by the id of each.
    touched : set of int
        Ids of the parameters that ``forward`` has looked up; if it follows parameters, of those whose numbers were read
        otherwise than by cells.
    follows : bool
        Whether what is recorded will run again with other numbers in parameters.
    first, at_once : bool
        Whether these are first elements, one at a time, and whether each call is to be computed at once: what
        ``forward`` changes that cells read is not known yet.
    exposed : dict of int to (Parameter, object)
        Parameters whose memory ``forward`` may change without being seen, and a digest of each as it was, by id.
    picked : dict
        Values that are parts of others, by what they are parts of.
    modules : dict of int to tuple
        Modules that were arguments of cells, and what stands for them in keys, by id.
    weights : dict of int to tuple
        The same of parameters that were arguments of operators.
    operators, fused : dict
        The library's, for ``native_core``.
    wait, compute : callable
        Have everything computed that is recorded: where other elements may go on meanwhile, and where they may not.
    adopted : list of tuple
        Tensors of the model's that recorded values were written into: they are recorded, and the tensor they were.
    breaks : list of Break
        What was not recorded but run by PyTorch.
    root : torch.nn.Module or None
        The element's copy of the module that the cell called last belongs to.
    reads : int
        Number of operators that were run to read a value.
    computed : Computed
        The values that have been computed.
    records : RecordedElements or None
        Elements that were recorded before, to be computed with what is recorded first.
    wanted, ready : list of LazyTensor, dict of int to (TensorSpec, tensor)
        Values that elements wait for, and those that were waited for in the last round.
    asked, answers : list of (callable, LazyTensor), dict of int to tensor
        The same for functions of values, see :meth:`answer`.
    tape : GradientTape or None
        Where gradients are recorded.
    turns : list of tuple
        How much was recorded when an element went on, since the last flush, and the element.
    """

    __slots__ = (
        *("adopted", "attributes", "breaks", "compute", "computed", "done", "ends", "finished", "library"),
        *("answers", "asked", "modules", "operators", "ready", "records", "touched", "turns", "wanted"),
        "weights",
        *(
            "at_once",
            "exposed",
            "first",
            "follows",
            "fused",
            "dtype",
            "operands",
            "outside",
            "parameters",
            "picked",
            "reads",
            "recorded",
            "root",
            "run_in_order",
            "tape",
            "types",
            "wait",
        ),
    )

    def __init__(
        self,
        library: Library,
        wait: Callable[[], None],
        compute: Callable[[], None] | None = None,
        outside: Outside | None = None,
    ) -> None:
        self.library = library
        self.dtype = library.dtype
        self.operators = library.operators
        self.fused = library.fused
        self.wait = wait
        self.compute = compute or wait
        self.recorded = 0
        self.done = 0
        self.types: list[int] = []
        self.ends: list[int] = []
        self.operands: list[int] = []
        self.attributes: defaultdict[int, list[Any]] = defaultdict(list)
        self.tape = GradientTape(library) if library.training else None
        self.outside = Outside(Tables(self.dtype, library.spare_tables), self.tape) if outside is None else outside
        self.parameters: dict[int, RecordedParameter | FollowedTensor] = {}
        self.picked: dict[Any, int] = {}
        self.modules: dict[int, tuple[torch.nn.Module, Any]] = {}
        self.weights: dict[int, tuple[torch.Tensor, Any]] = {}
        self.adopted: list[tuple[LazyTensor, torch.Tensor]] = []
        self.breaks: list[Break] = []
        self.reads = 0
        self.wanted: list[LazyTensor] = []
        self.asked: list[tuple[Any, LazyTensor]] = []
        self.ready: dict[int, tuple[TensorSpec, torch.Tensor]] = {}
        self.answers: dict[int, torch.Tensor] = {}
        self.root: torch.nn.Module | None = None
        # Called with a reason, where elements do something that depends on their order.
        self.run_in_order: Callable[[str], None] = lambda reason: None
        self.finished = False
        self.touched: set[int] = set()
        self.follows = False
        self.first = self.at_once = False
        self.exposed: dict[int, tuple[Tensor, Any]] = {}
        self.records: RecordedElements | None = None
        self.computed = Computed(self.outside.tables)
        self.turns: list[tuple[int, int]] = [(0, 0)]

    def resumed(self, element: int) -> None:
        """An element goes on."""
        self.settle()  # what the one before it has called
        self.turns.append((len(self.types), element))

    def element_of(self, node: int) -> int:
        """The element that recorded a call that is not computed yet."""
        return next(element for begin, element in reversed(self.turns) if begin <= node)

    # Recording --------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Record what was to be recorded later: nothing, where Python records."""

    def call(self, site: Site, arguments: tuple[Any, ...], caller: CellCall | None = None) -> Any:
        """Record one call of a cell.

        Parameters
        ----------
        caller : CellCall, optional
            What was called, for cells that have a module.

        Raises
        ------
        CellError
            If calls like this cannot be a cell.
        """
        # What every call passes through: no more function calls and objects than it takes.
        step = site.steps
        operands: list[int] = []
        attributes: list[Any] = []
        key: list[Any]
        rows = -1
        vary = site.integers_vary
        try:
            for argument in arguments:
                kind = type(argument)
                if kind is LazyTensor and argument.recorder is self:
                    held = argument.held
                    if held is None:
                        step = step[argument.spec]
                        operands.append(argument.value)
                        continue
                    spec: TensorSpec | RowsSpec | GridSpec
                    if argument.geometry is held.whole:
                        spec, values = held.spec, held.rows
                    else:
                        spec, values = resolved(self, argument)
                    if type(spec) is not RowsSpec:
                        step = step[spec]
                    elif rows == -1 or rows == len(values):
                        rows = len(values)
                        step = step[spec]
                    else:
                        step = step["stack", len(values), spec]
                    operands += values
                elif kind is Tensor and vary:
                    if argument.dtype is self.dtype:
                        number = self.outside.number(argument)
                        step = step[self.outside.specs[-1 - number]]
                        operands.append(number)
                    else:
                        step = step[key_of_tensor(argument)]
                        attributes.append(number_of(argument))
                elif kind is int and vary:
                    step = step[INTEGER]
                    attributes.append(argument)
                elif kind is tuple:
                    step = step["tuple", len(argument)]
                    for item in argument:
                        if type(item) is LazyTensor and item.held is None and item.recorder is self:
                            step = step[item.spec]
                            operands.append(item.value)
                        else:
                            key = []
                            describe(self, item, key, operands, attributes, vary)
                            for part in key:
                                step = step[part]
                else:
                    key = []
                    if kind is list and vary and argument and (rows == -1 or rows == len(argument)):
                        if describe_list(self, argument, key, operands, attributes):
                            rows = len(argument)
                    else:
                        describe(self, argument, key, operands, attributes, vary)
                    for part in key:
                        step = step[part]
            type_id, outputs, returned = step[FEW, rows] if 0 <= rows <= 1 else step[None]
        except (KeyError, NoElements):
            return self._met_first(site, arguments, caller)
        if type_id < 0:
            return self.otherwise(site, arguments, returned, caller)
        self.types.append(type_id)
        every = self.operands
        every += operands
        self.ends.append(len(every))
        if attributes:
            self.attributes[type_id] += attributes
        value = self.recorded
        self.recorded = value + len(outputs)
        return returned(self, value)

    def append(self, type_id: int, operands: Sequence[int], outputs: int) -> int:
        """Record a node of a cell that is known; the first of its values."""
        self.types.append(type_id)
        self.operands += operands
        self.ends.append(len(self.operands))
        value = self.recorded
        self.recorded = value + outputs
        return value

    def _met_first(self, site: Site, arguments: tuple[Any, ...], caller: CellCall | None) -> Any:
        """A call of a kind that is not known."""
        # Describing the arguments may record calls of operators, which come here, too.
        root, self.root = self.root, caller.root if caller is not None else None
        try:
            found = self.library.specialise(self, site, arguments)
        finally:
            self.root = root
        if isinstance(found, RowByRow) and found.order is not None:  # known from calls with other numbers of rows
            assert found.operation is not None
            with found.operation.followed() as first:
                if first:
                    return self.call(site, arguments, caller)
        if isinstance(found, RowByRow | OverRows | EmptyResult):
            return self.otherwise(site, arguments, found, caller)
        return self._of_cell(*found) if isinstance(found, tuple) else found

    def _of_cell(self, cell: Cell, operands: list[int], attributes: list[Any]) -> Any:
        """Record a call that is described."""
        if attributes:
            self.attributes[cell.type_id] += map(number_of, attributes)
        return cell.returned(self, self.append(cell.type_id, operands, len(cell.outputs)))

    def otherwise(
        self,
        site: Site,
        arguments: tuple[Any, ...],
        how: RowByRow | OverRows | EmptyResult | Constants | Joined,
        caller: CellCall | None,
    ) -> Any:
        """A call that is not one node, or is not known by its steps.

        One call a row; none where the result has no elements; a cell for these constants and numbers of rows.
        """
        if isinstance(how, EmptyResult):
            return as_called(self, site, arguments, how.returned([]))
        if isinstance(how, RowByRow):
            return row_by_row(self, site, arguments, how, caller)
        if isinstance(how, OverRows):
            return how.function(arguments[0], how.dim)
        if how is JOINED:
            return self.call(site, with_whole_values(self, arguments), caller)
        found = self.library.cell_of_constants(self, site, arguments)
        if found is None:
            return self._met_first(site, arguments, caller)
        if isinstance(found[0], EmptyResult):
            return self.otherwise(site, arguments, found[0], caller)
        return self._of_cell(*found)

    # Memory -----------------------------------------------------------------------------------------------------

    def value_of(self, tensor: Any) -> int:
        """The number of a recorded tensor, or of a tensor from outside."""
        if type(tensor) is FollowedTensor:
            return self.outside.followed_number(tensor)
        if type(tensor) is LazyTensor:
            if tensor.recorder is self:
                if tensor.held is None:
                    return tensor.value
                row = value_of_row(tensor)
                if row is not None:
                    return row
                spec, values = resolved(self, tensor)
                if type(spec) is TensorSpec:
                    return values[0]
                if len(values) == 1:
                    return values[0]
                if type(spec) is GridSpec:
                    return whole_value(self, tensor)
                if tensor.spec.size == 0:
                    raise NoElements
                assert isinstance(spec, RowsSpec)
                stacked = lazy_rows(self, values, spec.row)
                assert stacked.held is not None
                return joined(self, stacked.held, tensor.spec.dtype)
            tensor = tensor.computed()
        return self.outside.number(own_parameter(tensor))

    def external_rows(self, tensor: torch.Tensor) -> torch.Tensor:
        """The numbers of the rows of a tensor from outside, of two dimensions."""
        return torch.tensor([self.outside.number(row) for row in tensor.split(1)])

    # Tensor functions between cells -----------------------------------------------------------------------------

    def operator(self, function: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Record a tensor function as a cell of its own.

        Raises
        ------
        CellError
            If it cannot be one.
        """
        site = self.library.operator_site(function, tuple(named))
        if named:
            arguments = *arguments, *named.values()
        result = self.call(site, arguments)
        if self.tape is not None and is_noted(self):
            note(self, arguments, result)
        return result

    # Values -----------------------------------------------------------------------------------------------------

    def is_computed(self, tensor: LazyTensor) -> bool:
        """Whether every row that a tensor may read is computed, and would be if calls were not computed at once."""
        if self.at_once:
            return False
        if tensor.held is None:
            return tensor.value < self.done
        return max(shared(tensor.held).rows, default=-1) < self.done

    def wait_for(self, tensor: LazyTensor) -> None:
        """Wait until a tensor is computed, which will then be read."""
        if tensor.held is None:
            self.wanted.append(tensor)
        self.wait()

    def answer(self, question: Any, tensor: LazyTensor) -> torch.Tensor | None:
        """What a function makes of the elements of a tensor, asked for together with others; None if it is not known.

        Parameters
        ----------
        question : callable
            Of rows and the dimension of their elements, one result for each row.
        """
        self.asked.append((question, tensor))
        self.wait()
        return self.answers.pop(tensor.value, None)

    def read(self, tensor: LazyTensor) -> torch.Tensor:
        """The value of a recorded tensor; whatever is recorded is computed first, for all instances in flight."""
        if self.tape is not None and tensor.spec.floats:
            if not self.is_computed(tensor):
                self.compute()
            return self._differentiable(self.tape, tensor)
        return self.peek(tensor).clone(memory_format=torch.preserve_format)

    def _differentiable(self, tape: GradientTape, tensor: LazyTensor) -> torch.Tensor:
        """A computed tensor that autograd knows."""
        storage = tensor.held
        if isinstance(storage, DetachedStorage) and storage.is_detached:
            return self.peek(tensor).clone(memory_format=torch.preserve_format)
        if not tensor.spec.size:
            made = self.peek(tensor).clone(memory_format=torch.preserve_format)
            return made if storage is None else tape.linked(made, sources_in(storage))
        if storage is None:
            return tape.tensors([tensor.value], self.flat(tensor.value)[None], tensor.spec)[0]
        rows = torch.stack([self.flat(value) for value in storage.rows])
        parts = tape.tensors(storage.rows, rows, spec_of((storage.row,), self.dtype))
        with switched_to(self.library.state):
            size, stride, offset = geometry_of(tensor)
            return torch.cat(parts).as_strided(size, stride, offset).clone(memory_format=torch.preserve_format)

    def peek(self, tensor: LazyTensor) -> torch.Tensor:
        """The same, perhaps in memory of the recorder: for reading."""
        spec = tensor.spec
        if not self.is_computed(tensor):
            self.compute()
        storage = tensor.held
        if storage is None:
            ready = self.ready.get(tensor.value)
            if ready is not None and ready[0] is spec:
                return ready[1]
            flat = self.flat(tensor.value)
            return spec.decoded(flat if len(spec.shape) == 1 else flat.reshape(spec.shape))
        storage = shared(storage)
        size, stride, offset = geometry_of(tensor)
        if not spec.size:
            return spec.decoded(torch.empty(0, dtype=self.dtype).as_strided(size, stride, 0))
        # The rows that it has elements of, of many that other views may have.
        first, offset = divmod(offset, storage.row)
        rows = storage.rows[first : first + (offset + last_element(size, stride)) // storage.row + 1]
        if len(rows) == 1:
            flat = self.flat(rows[0])
        else:
            flat = torch.empty(len(rows), storage.row, dtype=self.dtype)
            values = np.array(rows, np.int64)
            for number in np.flatnonzero(values < 0).tolist():
                flat[number] = self.flat(rows[number])
            later = np.flatnonzero(values >= 0)
            for places, found in self.computed.rows_of(values[later]):
                flat[torch.from_numpy(later[places])] = torch.from_numpy(found).to(flat.dtype)
            flat = flat.reshape(-1)
        return spec.decoded(flat.as_strided(size, stride, flat.storage_offset() + offset))

    def flat(self, value: int) -> torch.Tensor:
        """The numbers of a value that is computed or from outside, flat; memory of a table, perhaps."""
        if value < 0:
            return self.outside.flat(value)
        found = self.computed.tensor(value)
        return found if found.dtype is self.dtype else found.to(self.dtype)  # the backend "numpy" has float64

    def finish_round(self, found: Round | RoundValues | np.ndarray) -> None:
        """Everything that was recorded is computed: it is `found`, or lies in these places of the tables."""
        self.computed.finish(found)
        if self.tape is not None:
            self.tape.required.recorded(self.done, self.types, self.ends, self.operands)
        self.done = self.recorded
        self.types, self.ends, self.operands = [], [], []
        self.attributes = defaultdict(list)
        self.ready = values_of(self.computed, self.wanted)
        self.answers = answers_to(self.computed, self.asked)
        self.wanted, self.asked = [], []
        self.turns = [(0, self.turns[-1][1])]

    def finish(self) -> None:
        """Everything is computed and nothing will be recorded: hold only what tensors that live on may read."""
        self.at_once = False
        self.finished = True
        self.wait = self.compute = _nothing
        self.picked, self.modules, self.weights, self.turns = {}, {}, {}, [(0, 0)]
        self.forget_parameters()

    def touch(self, parameter: Tensor, exposed: bool = False) -> None:
        """Note that ``forward`` has looked up a parameter, or gets at its memory."""
        self.touched.add(id(parameter))
        if self.first and not self.at_once:
            self.at_once = True
            if self.types:
                self.compute()
        if exposed and id(parameter) not in self.exposed and not self.follows:
            with outside_of_transforms():
                self.exposed[id(parameter)] = parameter, numbers_of(parameter)

    def forget_parameters(self) -> None:
        """Let go of what ``forward`` has seen of parameters, which would live on for its rows, views of it."""
        for parameter in self.parameters.values():
            if type(parameter) is RecordedParameter:
                parameter.forget_rows()
        self.parameters = {}

    def taken(self) -> Recorder:
        """What is recorded and not computed, for a recorder of its own that records no more."""
        own = Recorder(self.library, self.wait, self.compute)
        own.types, own.ends, own.operands = self.types.copy(), self.ends.copy(), self.operands.copy()
        for cell, entries in self.attributes.items():
            own.attributes[cell] = [one.clone() if isinstance(one, Tensor) else one for one in entries]
        own.outside, own.tape = self.outside, self.tape
        own.finished = True
        return own


def _nothing() -> None:
    """What there is left to compute."""

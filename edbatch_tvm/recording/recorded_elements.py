"""Elements that were recorded once: their graphs run again, and ``forward`` does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import torch
from torch.utils import _pytree as pytree

from edbatch_tvm.cached_property import cached_property
from edbatch_tvm.errors import RecordingError
from edbatch_tvm.graph import FIRST_EXTERNAL, InstanceGraph
from edbatch_tvm.recording.adopted import give_back
from edbatch_tvm.recording.called_functions import CalledFunctions, recording_calls
from edbatch_tvm.recording.copies import Copies
from edbatch_tvm.recording.exporting import EXPORTING
from edbatch_tvm.recording.flush import compute_eagerly, graph_of
from edbatch_tvm.recording.followed_parameters import FollowedTensor
from edbatch_tvm.recording.grad_mode import grad_mode_noted
from edbatch_tvm.recording.isolation import restored
from edbatch_tvm.recording.lazy import LazyTensor
from edbatch_tvm.recording.reads import Read, packed_reads, reads_of, same_reads
from edbatch_tvm.recording.recorded_parameters import own_parameter
from edbatch_tvm.recording.recorder import Recorder
from edbatch_tvm.recording.set_attributes import Carried
from edbatch_tvm.recording.source_locations import users_place
from edbatch_tvm.recording.torch_functions import replaced_functions

if TYPE_CHECKING:
    from edbatch_tvm.recording.library import Library
    from edbatch_tvm.recording.seen_state import SeenState
    from edbatch_tvm.recording.site import Site
    from edbatch_tvm.recording.specs import TensorSpec
    from edbatch_tvm.runtime import Model


_MOST = 1 << 63


class Record:
    """One element as it was recorded; made by :meth:`AutoBatched.record`, and used in the place of the element.

    Attributes
    ----------
    element : object
        The element itself.
    function : callable
        Runs it by a copy of the model, to record it again when the model has changed.
    """

    def __init__(self, owner: Any, element: Any, function: Callable[[torch.nn.Module], Any]) -> None:
        self.owner = owner
        self.element = element
        self.function = function
        self.content: Content | None = None

    def __repr__(self) -> str:
        return f"Record({self.element!r})"


class Content:
    """What was recorded for an element.

    Attributes
    ----------
    state : SeenState or None
        That of the model when it was recorded.
    touched, followed : set of int
        Ids of the parameters whose numbers ``forward`` read outside of cells, and of those that it looked up otherwise.
    specs : list of TensorSpec
        What tensors of the result are; none where nothing has to be computed.
    constant : list of int
        Which of them require no gradient, where gradients are recorded.
    values : int64 array
        The values that they are, out of `count`.
    one : TensorSpec or None
        That of the result, if it is one computed tensor and nothing else.
    outside : Outside
        What it reads.
    reads : list of Read
        What external rows of the graph are read again; their places are the numbers of the rows.
    trained : list of Read
        What of them gets a gradient: the same list where that is all of it.
    value_specs : sequence of ValueSpec
        What external rows of the graph may be.
    detached : bool array or None
        Which nodes of the graph no gradient passes; None: there are none.
    model : Model or None
        What the graph was made for last.
    row : bytes or None
        What the native merge reads of the graph, where all external rows are read again and get a gradient; then
        `externals` has two int64 for each: what of the library's ``read_kinds`` it is, and which row of it.
    """

    def __init__(self, recorder: Recorder, result: Any) -> None:
        self.state: SeenState | None = None
        recorder.settle()
        self.touched = recorder.touched
        self.followed = {key for key, one in recorder.parameters.items() if type(one) is FollowedTensor} - self.touched
        self.library = recorder.library
        self.count = recorder.recorded
        leaves, self._structure = pytree.tree_flatten(result)
        values: list[int] = []
        self.specs: list[TensorSpec] = []
        self._leaves: list[Any] = []
        self.constant: list[int] = []
        for leaf in leaves:
            if type(leaf) is not LazyTensor:
                self._leaves.append(_Constant(leaf) if isinstance(leaf, torch.Tensor) else leaf)
                continue
            if not leaf.numel():
                self._leaves.append(_Constant(torch.empty(leaf.shape, dtype=leaf.dtype)))
                continue
            value = recorder.value_of(leaf)
            if value < 0:
                self._leaves.append(_Constant(leaf.computed()))
                continue
            self._leaves.append(_Computed(len(values)))
            if recorder.tape is not None and not leaf.requires_grad:
                self.constant.append(len(values))
            values.append(value)
            self.specs.append(leaf.spec)
        self.values = np.array(values, np.int64)
        self.one = self.specs[0] if values and self._structure.is_leaf() else None
        self._recorder = recorder.taken()
        if recorder.tape is not None:
            recorder.tape.require_parameters()
        self.outside = recorder.outside
        self.model: Model | None = None
        self._graph: InstanceGraph | None = None
        self.row: bytes | None = None
        self.externals = b""

    def graph(self, model: Model) -> InstanceGraph:
        """The graph for a compiled model; what it computes are the tensors of the result."""
        if self._graph is None or self.model is not model:
            types = self.library.code.type_ids[self._recorder.types]
            if len(types) and types.min() < 0:
                raise RecordingError("a record of a cell that cannot be compiled", "a new record", "call it again")
            graph, ids, _ = graph_of(self._recorder, model)
            self._ids = ids
            self.size = graph.num_nodes, len(graph.external_row)
            graph.outputs = ids[self.values].astype(np.int32)
            graph.output_ptr = np.array([0, len(self.values)], np.int32)
            self._follow(graph)
            self.model, self._graph = model, graph
        return self._graph

    def _follow(self, graph: InstanceGraph) -> None:
        """Find what of parameters the external rows of a graph are."""
        numbers, outside = np.array(self._recorder.operands, np.int64), graph.operand_value <= FIRST_EXTERNAL
        of_external = dict(
            zip((FIRST_EXTERNAL - graph.operand_value[outside]).tolist(), numbers[outside].tolist(), strict=True)
        )
        spec, followed = graph.external_spec.tolist(), self.outside.followed
        self.reads = reads_of(
            (*followed[number], spec[external], external)
            for external, number in of_external.items()
            if number in followed
        )
        assert graph.signature is not None
        self.value_specs = graph.signature.value_specs
        tape = self._recorder.tape
        self.detached = None if tape is None else tape.required.detached_nodes(graph, 0, self._ids)
        trained = {} if tape is None else {at: tape.externals.get(number) for at, number in of_external.items()}
        self.trained = reads_of((one.tensor, one.row, spec[at], at) for at, one in trained.items() if one is not None)
        if same_reads(self.trained, self.reads):
            self.trained = self.reads
        self.row, self.externals = None, b""
        count = len(graph.external_row)
        if self.detached is None and self.trained is self.reads and sum(len(one.places) for one in self.reads) == count:
            self.row = graph.address_row()
            self.externals = packed_reads(self.reads, self.library.read_kinds, self.value_specs, count)

    @cached_property
    def reads_outside(self) -> list[Read]:
        """What of the tensors from outside is read again: rows of tables."""
        outside = self.outside
        own = {one for one in self._recorder.operands if one in outside.followed}
        return reads_of((*outside.followed[one], outside.table[-1 - one], outside.row[-1 - one]) for one in own)

    @cached_property
    def packed(self) -> bytes | None:
        """What is recorded, as :mod:`~edbatch_tvm.recording.rounds` takes it; None if attributes are no integers."""
        recorder = self._recorder
        attributes = {cell: iter(entries) for cell, entries in recorder.attributes.items()}
        integers: list[int] = []
        for cell in recorder.types:
            integers += [next(attributes[cell]) for _ in range(self.library.cells[cell].attributes)]
        if not all(type(one) is int and -_MOST <= one < _MOST for one in integers):
            return None
        head = [len(recorder.types), len(recorder.operands), len(integers), self.count]
        return np.array([*head, *recorder.types, *recorder.ends, *recorder.operands, *integers], np.int64).tobytes()

    def __len__(self) -> int:
        return len(self._recorder.types)

    def result(self, tensors: Sequence[torch.Tensor]) -> Any:
        """The result, given the tensors that were computed."""
        if self.one is not None:
            return tensors[0]
        leaves = [
            tensors[leaf.number] if type(leaf) is _Computed else leaf.copy() if type(leaf) is _Constant else leaf
            for leaf in self._leaves
        ]
        return pytree.tree_unflatten(leaves, self._structure)


class _Computed:
    """Stands for a computed tensor of the result."""

    def __init__(self, number: int) -> None:
        self.number = number


class _Constant:
    """Stands for a tensor of the result that is not computed."""

    def __init__(self, tensor: torch.Tensor) -> None:
        followed = tensor if type(tensor) is FollowedTensor else None
        self._own = own_parameter(tensor) if followed is None else followed.parameter
        self._row = None if followed is None else followed.row
        self._shape = None if followed is None else followed.plain.shape
        is_parameter = isinstance(self._own, torch.nn.Parameter)
        if not is_parameter and self._own.requires_grad:
            raise RecordingError(
                "forward returns what it computes with parameters outside of cells: a record would not",
                "results of cells, parameters, and rows of parameters",
                "list what computes it as a cell, or give the element itself",
            )
        self._kept = None if is_parameter else self._own.detach().clone()

    def copy(self) -> torch.Tensor:
        """The tensor; a parameter is itself."""
        if self._kept is not None:
            return self._kept.clone()
        if self._row is not None:
            return self._own[self._row].reshape(self._shape)
        return self._own if self._shape in (None, self._own.shape) else self._own.reshape(self._shape)


def record_content(
    library: Library,
    called: CalledFunctions,
    model: torch.nn.Module,
    sites: Mapping[str, Site],
    function: Callable[[torch.nn.Module], Any],
) -> Content:
    """Record what `function` does with the model.

    Raises
    ------
    RecordingError
        If that depends on values, random numbers or other elements.
    """

    def refuse() -> NoReturn:
        file, line = users_place()
        raise RecordingError(
            f"forward reads a value ({file}:{line}): what it does next may be something else next time",
            "an element whose forward reads no value",
            "give the element itself",
        )

    recorder = Recorder(library, refuse, refuse, None if library.training else library.outside_of_records())
    recorder.follows = True
    carried = Carried()
    copies = Copies(model, sites, recorder, [function], carried, refuse)
    with (
        replaced_functions(),
        called.replaced(),
        restored(),
        recording_calls(copies.calls),
        grad_mode_noted(recorder),
    ):
        with EXPORTING:
            own = copies.of(0)
        result = function(own)
    copies.note_unseen(copies.elements[0])
    copies.note_unseen()
    copies.after_round()
    if carried.names:
        names = sorted({name for _, name in carried.names})
        raise RecordingError(
            f"forward sets {', '.join(names)} of the model: a record would not",
            "a forward that sets no attributes",
            "give the element itself",
        )
    if copies.draws_random_numbers:
        raise RecordingError("forward draws random numbers", "the same for every call", "give the element itself")
    content = Content(recorder, result)
    recorder.compute = recorder.wait = lambda: compute_eagerly(recorder)
    give_back(recorder)
    recorder.finished = True
    recorder.forget_parameters()
    return content

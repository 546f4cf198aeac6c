"""Elements that were recorded once: their graphs run again, and ``forward`` does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import add
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import torch
from torch.utils import _pytree as pytree

from edbatch_tvm.cached_property import cached_property
from edbatch_tvm.errors import RecordingError
from edbatch_tvm.graph import FIRST_EXTERNAL, InstanceGraph
from edbatch_tvm.recording.adopted import give_back
from edbatch_tvm.recording.called_functions import CalledFunctions, recording_calls
from edbatch_tvm.recording.copies import Carried, Copies
from edbatch_tvm.recording.exporting import EXPORTING
from edbatch_tvm.recording.flush import compute_eagerly, graph_of
from edbatch_tvm.recording.followed_parameters import FollowedTensor
from edbatch_tvm.recording.grad_mode import grad_mode_noted
from edbatch_tvm.recording.isolation import restored
from edbatch_tvm.recording.lazy import LazyTensor
from edbatch_tvm.recording.reads import Reads, RowGradients
from edbatch_tvm.recording.recorded_parameters import own_parameter
from edbatch_tvm.recording.recorder import Recorder
from edbatch_tvm.recording.source_locations import users_place
from edbatch_tvm.recording.torch_functions import replaced_functions

if TYPE_CHECKING:
    from edbatch_tvm.recording.gradient_rounds import CompiledRound
    from edbatch_tvm.recording.library import Library
    from edbatch_tvm.recording.rounds import RoundValues
    from edbatch_tvm.recording.seen_state import SeenState
    from edbatch_tvm.recording.site import Site
    from edbatch_tvm.recording.specs import TensorSpec
    from edbatch_tvm.runtime import Model, Result


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
        What tensors of the result are.
    values : int64 array
        The values that they are, out of `count`.
    outside : Outside
        What it reads.
    reads : Reads
        What external rows of the graph are read again.
    value_specs, external_rows : sequences of ValueSpec and of int
        What external rows of the graph may be, and how many there are of each.
    detached : bool array or None
        Which nodes of the graph no gradient passes; None: there are none.
    whole_parameters : dict of int to External
        The parameters that are external rows of the graph and get a gradient, by the number of the row.
    row_gradients : list of RowGradients
        The same for rows of parameters.
    """

    def __init__(self, recorder: Recorder, result: Any) -> None:
        self.state: SeenState | None = None
        self.touched = recorder.touched
        self.followed = {key for key, one in recorder.parameters.items() if type(one) is FollowedTensor} - self.touched
        self.library = recorder.library
        self.count = recorder.recorded
        leaves, self._structure = pytree.tree_flatten(result)
        values: list[int] = []
        self.specs: list[TensorSpec] = []
        self._leaves: list[Any] = []
        for leaf in leaves:
            if type(leaf) is not LazyTensor:
                self._leaves.append(_Constant(leaf) if isinstance(leaf, torch.Tensor) else leaf)
                continue
            value = recorder.value_of(leaf)
            if value < 0:
                self._leaves.append(_Constant(leaf.computed()))
                continue
            self._leaves.append(_Computed(len(values)))
            values.append(value)
            self.specs.append(leaf.spec)
        self.values = np.array(values, np.int64)
        self._recorder = recorder.taken()
        if recorder.tape is not None:
            recorder.tape.require_parameters()
        self.outside = recorder.outside
        self._graph: tuple[Model, InstanceGraph] | None = None

    def graph(self, model: Model) -> InstanceGraph:
        """The graph for a compiled model; what it computes are the tensors of the result."""
        if self._graph is None or self._graph[0] is not model:
            types = self.library.type_ids[self._recorder.types]
            if len(types) and types.min() < 0:
                raise RecordingError("a record of a cell that cannot be compiled", "a new record", "call it again")
            graph, ids, _ = graph_of(self._recorder, model)
            self._ids = ids
            self.size = graph.num_nodes, len(graph.external_row)
            graph.outputs = ids[self.values].astype(np.int32)
            graph.output_ptr = np.array([0, len(self.values)], np.int32)
            self._follow(graph)
            self._graph = model, graph
        return self._graph[1]

    def _follow(self, graph: InstanceGraph) -> None:
        """Find what of parameters the external rows of a graph are."""
        numbers, outside = np.array(self._recorder.operands, np.int64), graph.operand_value <= FIRST_EXTERNAL
        of_external = dict(
            zip((FIRST_EXTERNAL - graph.operand_value[outside]).tolist(), numbers[outside].tolist(), strict=True)
        )
        followed = self.outside.followed
        self.reads = Reads(
            (*followed[number], int(graph.external_spec[external]), int(graph.external_row[external]))
            for external, number in of_external.items()
            if number in followed
        )
        assert graph.signature is not None
        self.value_specs = graph.signature.value_specs
        self.external_rows = [len(rows) for rows in graph.external_data] or [0] * len(self.value_specs)
        tape = self._recorder.tape
        self.detached = None if tape is None else tape.detached_nodes(graph, 0, self._ids)
        train = {} if tape is None else {at: tape.externals.get(number) for at, number in of_external.items()}
        known = {at: one for at, one in train.items() if one is not None}
        self.whole_parameters = {at: one for at, one in known.items() if one.row is None}
        self.row_gradients = RowGradients.of(
            (one.tensor, one.row, at) for at, one in known.items() if one.row is not None
        )

    @cached_property
    def reads_outside(self) -> Reads:
        """What of the tensors from outside is read again: rows of tables."""
        outside = self.outside
        own = {one for one in self._recorder.operands if one in outside.followed}
        return Reads((*outside.followed[one], outside.table[-1 - one], outside.row[-1 - one]) for one in own)

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

    @property
    def is_constant(self) -> bool:
        """Whether nothing has to be computed."""
        return not self.specs

    def result(self, tensors: Sequence[torch.Tensor]) -> Any:
        """The result, given the tensors that were computed."""
        if len(self._leaves) == 1 and self._structure.is_leaf() and self.specs:
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
    copies = Copies(model, sites, recorder, 1, carried, refuse)
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


class RecordedElements:
    """The records among the elements of a minibatch.

    Attributes
    ----------
    results : list
        What each returns, once it is computed.
    """

    def __init__(self, contents: Sequence[Content]) -> None:
        self.results: list[Any] = []
        self._contents = contents

    def graphs(self, model: Model) -> list[InstanceGraph]:
        """The graphs to run, for a compiled model."""
        return [content.graph(model) for content in self.computed]

    def read_again(self, graph: InstanceGraph, first: InstanceGraph | None) -> None:
        """Let a merged graph have what is in parameters now; `first` comes before those of :meth:`graphs`."""
        if graph.signature is None or not self.computed or not graph.external_data:
            return
        # A model that trains has more kinds of values than its cells have.
        arrays = [graph.external_data[graph.signature.arena(spec)] for spec in self.computed[0].value_specs]
        starts = [0] * len(arrays)
        if first is not None and first.external_data:
            starts = [len(rows) for rows in first.external_data]
        parts = []
        for content in self.computed:
            parts.append((content.reads, starts))
            starts = list(map(add, starts, content.external_rows))
        Reads.into_joined(parts, arrays)

    @cached_property
    def computed(self) -> list[Content]:
        """Those of which something has to be computed."""
        return [content for content in self._contents if not content.is_constant]

    def together(self) -> tuple[list[bytes], np.ndarray] | None:
        """What compiled code computes of all: packed calls, and the addresses of what they read; None if it cannot."""
        contents = self.computed
        packed = [content.packed for content in contents]
        if not contents or any(content.outside is not contents[0].outside for content in contents):
            return None
        arrays = [table.rows for table in contents[0].outside.tables]
        starts = [0] * len(arrays)
        Reads.into_joined(((content.reads_outside, starts) for content in contents), arrays)
        return None if None in packed else ([one for one in packed if one is not None], contents[0].outside.addresses())

    @property
    def calls(self) -> int:
        """Number of calls."""
        return sum(len(content) for content in self._contents)

    def take_computed(self, values: RoundValues) -> bool:
        """Take the results of what :meth:`together` gave; whether they are all there."""
        contents = self.computed
        starts = np.cumsum([0, *(content.count for content in contents[:-1])])
        numbers = [content.values + start for content, start in zip(contents, starts, strict=True)]
        wanted: list[int] = np.concatenate(numbers).tolist()
        parts: list[tuple[TensorSpec, Sequence[torch.Tensor]]] = []
        for spec, places in self._places_by_spec().items():
            table = values.table_of([wanted[place] for place in places], spec.size)
            if table is None:
                return False
            parts.append((spec, _shaped(spec, torch.from_numpy(table)).unbind()))
        self._take(parts)
        return True

    def take(self, result: Result | None, computed: CompiledRound | None = None) -> None:
        """Take the results out of a run of the graphs, and others without outputs before; `computed` if it trains."""
        self._take([] if result is None else _tensors(self._places_by_spec(), result, computed))

    def _places_by_spec(self) -> dict[TensorSpec, list[int]]:
        """The tensors of results, numbered from 0, that are of each spec."""
        by_spec: dict[TensorSpec, list[int]] = {}
        specs = [spec for content in self._contents for spec in content.specs]
        for place, spec in enumerate(specs):
            by_spec.setdefault(spec, []).append(place)
        return by_spec

    def _take(self, parts: Sequence[tuple[TensorSpec, Sequence[torch.Tensor]]]) -> None:
        """Take the results, whose tensors are `parts`, those of each spec."""
        places = self._places_by_spec()
        tensors: list[Any] = [None] * sum(map(len, places.values()))
        for spec, own in parts:
            for place, part in zip(places[spec], own, strict=True):
                tensors[place] = part
        begin = 0
        for content in self._contents:
            end = begin + len(content.specs)
            self.results.append(content.result(tensors[begin:end]))
            begin = end


def _shaped(spec: TensorSpec, table: torch.Tensor) -> torch.Tensor:
    """Values, one a row, as tensors of a spec, stacked."""
    return spec.decoded(table).reshape(len(table), *spec.shape)


def _tensors(
    by_spec: dict[TensorSpec, list[int]], result: Result, computed: CompiledRound | None
) -> list[tuple[TensorSpec, Sequence[torch.Tensor]]]:
    """The declared outputs of a run, those of each spec: copies."""
    graph = result.graph
    assert graph.signature is not None
    values = graph.outputs
    slots = graph.node_type[values // graph.stride] * np.int64(graph.stride) + values % graph.stride
    arenas = graph.signature.output_arena.ravel()[slots]
    rows = result.plan.value_row[values]
    tensors: list[tuple[TensorSpec, Sequence[torch.Tensor]]] = []
    for spec, places in by_spec.items():
        shaped = _shaped(spec, torch.from_numpy(result.arena(int(arenas[places[0]]))[rows[places]]))
        if computed is not None and spec.floats:
            tensors.append((spec, computed.tensors(values[places], shaped)))
        else:
            tensors.append((spec, shaped.unbind()))
    return tensors

"""Results: the declared outputs of every instance, as views without copies."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from edbatch_tvm.cached_property import cached_property
from edbatch_tvm.errors import GraphError
from edbatch_tvm.graph.equal_nodes import EqualNodes
from edbatch_tvm.graph.instance import InstanceGraph
from edbatch_tvm.graph.spec import Signature, ValueSpec
from edbatch_tvm.graph.validate import as_index_array
from edbatch_tvm.graph.value_serials import LOCAL_BITS, local_of
from edbatch_tvm.memory.plan import Plan
from edbatch_tvm.runtime.report import Report
from edbatch_tvm.runtime.storage import given


class Places(NamedTuple):
    """Where the declared outputs of a minibatch lie.

    Attributes
    ----------
    of_outputs : list of (int, int)
        Arena and row of each output.
    pointer : list of int
        The outputs of instance i are ``of_outputs[pointer[i]:pointer[i + 1]]``.
    scalar : list of bool
        Whether an instance declared its output as a value, not as a list.
    """

    of_outputs: list[tuple[int, int]]
    pointer: list[int]
    scalar: list[bool]


class Result:
    """What a model computed for a list of instances.

    ``result[i]`` is the output of instance i: the array if one value was declared, else a list of arrays. The arrays
    are views of the model's arenas (which are not reused while a view lives); pass them to
    ``torch.from_dlpack`` or copy them as needed.

    Attributes
    ----------
    graph : InstanceGraph
        The minibatch.
    plan : Plan
        Where the values of the graph that ran lie: `graph`, or ``report.graph``, in which equal nodes are one.
    schedule : Schedule
        Its batches.
    report : Report
    """

    def __init__(
        self, graph: InstanceGraph, plan: Plan, report: Report, views: list[np.ndarray], storage: str = "float32"
    ) -> None:
        self.graph = graph
        self.plan = plan
        self.schedule = plan.schedule
        self.report = report
        self._views = views
        self._storage = storage
        self._row = plan.value_row
        assert graph.signature is not None
        self._signature = graph.signature

    def of_all_nodes(self, graph: InstanceGraph, equal: EqualNodes) -> Result:
        """The same values as those of `graph`, whose equal nodes were found and computed once."""
        made = copy.copy(self)
        made.__dict__.pop("_places", None)
        made.graph = graph
        made.report = replace(self.report, merged=equal.merged)
        made._row = self._row.reshape(-1, graph.stride)[equal.node].ravel()
        return made

    @property
    def signature(self) -> Signature:
        """The cells that the graph which ran consists of."""
        return self._signature

    def synchronize(self) -> None:
        """Wait until the result is computed; on a CPU it already is."""

    def __len__(self) -> int:
        return self.graph.num_instances

    def __getitem__(self, instance: Any) -> Any:
        count = len(self)
        if isinstance(instance, slice):
            return [self[one] for one in range(*instance.indices(count))]
        instance = operator.index(instance)
        if not -count <= instance < count:
            raise IndexError(f"instance {instance} of {count}")
        instance %= count
        return self._outputs_of(instance)

    def _outputs_of(self, instance: int) -> Any:
        places = self._places
        first, end = places.pointer[instance], places.pointer[instance + 1]
        own = [self._readers[arena](row) for arena, row in places.of_outputs[first:end]]
        return own[0] if places.scalar[instance] else own

    @cached_property
    def _places(self) -> Places:
        values, pointer, scalar, types = self._declared()
        arenas = self._signature.output_arena[types, values % self._signature.stride].tolist()
        return Places(list(zip(arenas, self._row[values].tolist(), strict=True)), pointer.tolist(), scalar.tolist())

    def _declared(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The declared outputs, where those of each instance begin, which of them are alone; types of their nodes."""
        graph = self.graph
        return graph.outputs, graph.output_ptr, graph.scalar_output, graph.node_type[graph.outputs // graph.stride]

    @cached_property
    def _readers(self) -> list[Callable[[int], np.ndarray]]:
        """Of each arena, what gives the value in a row, as a view."""
        specs = self._signature.value_specs
        return [_reader_of(view, spec, self._storage) for view, spec in zip(self._views, specs, strict=True)]

    def __iter__(self) -> Iterator[Any]:
        return map(self._outputs_of, range(len(self)))

    def __repr__(self) -> str:
        return f"Result(instances={len(self)}, batches={len(self.schedule)})"

    def _local(self, value: int) -> int:
        """A value that the builder of this graph gave out, or a plain one, as a plain one."""
        serial, value = self.graph.serial, int(value)
        if not serial or value >> LOCAL_BITS != serial:
            return value
        return int(self._in_graph(np.array(value - (serial << LOCAL_BITS), np.int64)))

    def _in_graph(self, values: np.ndarray) -> np.ndarray:
        """Values of the instance that was built as those of the graph that ran."""
        return values

    def _arena(self, value: int) -> int:
        stride = self.graph.stride
        arena = -1
        if value >= 1 << LOCAL_BITS:
            raise GraphError(
                "a value of a builder that did not build this result's graph",
                "node * stride + slot",
                "a builder's own values find their rows in the result of their instance alone",
            )
        if 0 <= value < self.graph.num_nodes * stride:
            arena = self._arena_in(self.graph, value)
        if arena < 0:
            raise GraphError(f"value {value} is no output of a node", f"values of {self.graph!r}")
        return arena

    def _arena_in(self, graph: InstanceGraph, value: int) -> int:
        """The arena of a value of `graph`, which has its node."""
        node, slot = divmod(value, self._signature.stride)
        return int(self._signature.output_arena[graph.node_type[node], slot])

    def arena(self, arena: int) -> np.ndarray:
        """All rows of an arena, flat, as a view; `plan.value_row` says which of them are values.

        Parameters
        ----------
        arena : int
            Index into ``signature.value_specs``.
        """
        return self._given(self._views[arena][:, : self._signature.value_specs[arena].size], arena)

    def arena_dtype(self, arena: int) -> np.dtype:
        """The dtype that the values of an arena are computed in."""
        return self.arena(arena).dtype

    def value(self, value: int) -> np.ndarray:
        """Any value, as a view.

        Parameters
        ----------
        value : int
            As ``node * stride + slot``; of an instance that was run alone, also as its builder gave it out.

        Raises
        ------
        GraphError
            If it is no value of the graph.
        """
        value = self._local(value)
        return self._readers[self._arena(value)](int(self._row[value]))

    def values(self, values: Any) -> np.ndarray:
        """Any values of one spec, stacked (a copy).

        Parameters
        ----------
        values : array_like of int, shape [m]
            As ``node * stride + slot``; of an instance that was run alone, also as its builder gave it out.

        Returns
        -------
        array of shape ``[m, *spec.shape]``

        Raises
        ------
        GraphError
            If one is no value of the graph, or their specs differ.
        """
        wanted = as_index_array("values", values, np.int64)
        own = (wanted >> LOCAL_BITS == self.graph.serial) & (self.graph.serial > 0)
        wanted = np.where(own, self._in_graph(local_of(wanted).astype(np.int64)), wanted)
        if not len(wanted):
            raise GraphError("no values", "one or more")
        stride = self.graph.stride
        inside = (wanted >= 0) & (wanted < self.graph.num_nodes * stride)
        if not inside.all():
            self._arena(int(wanted[np.argmin(inside)]))
        arenas = self._signature.output_arena[self.graph.node_type[wanted // stride], wanted % stride]
        if (arenas < 0).any() or (arenas != arenas[0]).any():
            found = sorted({str(self._signature.value_specs[a]) if a >= 0 else "none" for a in arenas.tolist()})
            raise GraphError(f"values of specs {', '.join(found)}", "values of one spec")
        spec = self._signature.value_specs[int(arenas[0])]
        rows = self._views[int(arenas[0])][self._row[wanted]]
        stacked: np.ndarray = rows[:, : spec.size].reshape(len(wanted), *spec.shape)
        return self._given(stacked, int(arenas[0]))

    def _given(self, stored: np.ndarray, arena: int) -> np.ndarray:
        """Values as they are given out: those in 16 bits as float32."""
        return given(stored, self._signature.value_specs[arena].dtype, self._storage)


def _reader_of(view: np.ndarray, spec: ValueSpec, storage: str) -> Callable[[int], np.ndarray]:
    if storage != "float32" or not spec.shape:  # an item of a vector would be a number
        return partial(_value_in, view, spec, storage)
    return view[:, : spec.size].reshape(len(view), *spec.shape).__getitem__


def _value_in(view: np.ndarray, spec: ValueSpec, storage: str, row: int) -> np.ndarray:
    return given(view[row, : spec.size].reshape(spec.shape), spec.dtype, storage)

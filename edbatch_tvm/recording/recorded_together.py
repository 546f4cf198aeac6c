"""The elements of a minibatch that were recorded before: what runs together, and their results."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from edbatch_tvm.cached_property import cached_property
from edbatch_tvm.graph import InstanceGraph
from edbatch_tvm.recording.reads import Read, joined

if TYPE_CHECKING:
    from edbatch_tvm.recording.gradient_rounds import CompiledRound
    from edbatch_tvm.recording.recorded_elements import Content
    from edbatch_tvm.recording.rounds import RoundValues
    from edbatch_tvm.recording.specs import TensorSpec
    from edbatch_tvm.runtime import Model, Result

_ONE = attrgetter("one")


class JoinedContents:
    """What was recorded for several elements, as parts of one graph.

    Parameters
    ----------
    contents : sequence of Content
    nodes, external : int
        Nodes and external rows before theirs.

    Attributes
    ----------
    reads, trained : list of Read
        What is read again, and what of it gets a gradient; places are external rows of the graph.
    """

    def __init__(self, contents: Sequence[Content], nodes: int, external: int) -> None:
        self._contents = contents
        self._nodes = nodes
        begin = list(accumulate((content.size[1] for content in contents), initial=external))[:-1]
        self.reads = joined([content.reads for content in contents], begin)
        every = all(content.trained is content.reads for content in contents)
        self.trained: list[Read] = self.reads if every else joined([content.trained for content in contents], begin)

    def read_again(self, graph: InstanceGraph) -> None:
        """Let the graph have what is in parameters now."""
        if not self.reads:
            return
        assert graph.signature is not None
        specs = self._contents[0].value_specs
        for one in self.reads:
            # A model that trains has more kinds of values than its cells have.
            arena = graph.signature.arena(specs[one.array])
            one.into(graph.external_data[arena], graph.external_row[one.places])

    def detached(self, known: np.ndarray | None, nodes: int) -> np.ndarray | None:
        """Which of the graph's nodes no gradient passes, given those before theirs; None: there are none."""
        if all(content.detached is None for content in self._contents):
            return known
        found = np.zeros(nodes, bool) if known is None else known
        begin = self._nodes
        for content in self._contents:
            end = begin + content.size[0]
            if content.detached is not None:
                found[begin:end] = content.detached
            begin = end
        return found


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

    @cached_property
    def computed(self) -> list[Content]:
        """Those of which something has to be computed."""
        return [content for content in self._contents if content.specs]

    def together(self) -> tuple[list[bytes], np.ndarray] | None:
        """What compiled code computes of all: packed calls, and the addresses of what they read; None if it cannot."""
        contents = self.computed
        packed = [content.packed for content in contents]
        if not contents or any(content.outside is not contents[0].outside for content in contents):
            return None
        arrays = [table.rows for table in contents[0].outside.tables]
        for one in joined([content.reads_outside for content in contents], [0] * len(contents)):
            one.into(arrays[one.array], one.places)
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
        for spec, places in self._places_by_spec.items():
            table = values.table_of([wanted[place] for place in places], spec.size)
            if table is None:
                return False
            parts.append((spec, _shaped(spec, torch.from_numpy(table)).unbind()))
        self._take(parts)
        return True

    def take(self, result: Result | None, computed: CompiledRound | None = None) -> None:
        """Take the results out of a run of the graphs, and others without outputs before; `computed` if it trains."""
        self._take([] if result is None else _tensors(self._places_by_spec, result, computed, self._constant))

    @cached_property
    def _constant(self) -> set[int]:
        """The tensors of results, numbered from 0, that require no gradient."""
        begins = accumulate((len(content.specs) for content in self._contents), initial=0)
        return {
            begin + place for begin, content in zip(begins, self._contents, strict=False) for place in content.constant
        }

    @cached_property
    def _one(self) -> TensorSpec | None:
        """The spec of all results, where each is one computed tensor."""
        specs = list(map(_ONE, self._contents))
        first = specs[0] if specs else None
        return first if all(one is first or one == first for one in specs) else None

    @cached_property
    def _places_by_spec(self) -> dict[TensorSpec, list[int]]:
        """The tensors of results, numbered from 0, that are of each spec."""
        by_spec: dict[TensorSpec, list[int]] = {}
        if self._one is not None:
            return {self._one: list(range(len(self._contents)))}
        specs = [spec for content in self._contents for spec in content.specs]
        for place, spec in enumerate(specs):
            by_spec.setdefault(spec, []).append(place)
        return by_spec

    def _take(self, parts: Sequence[tuple[TensorSpec, Sequence[torch.Tensor]]]) -> None:
        """Take the results, whose tensors are `parts`, those of each spec."""
        if parts and self._one is not None:
            self.results = list(parts[0][1])
            return
        places = self._places_by_spec
        tensors: list[Any] = [None] * sum(map(len, places.values()))
        if len(parts) == 1:
            tensors = list(parts[0][1])
        else:
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
    by_spec: dict[TensorSpec, list[int]], result: Result, computed: CompiledRound | None, constant: set[int]
) -> list[tuple[TensorSpec, Sequence[torch.Tensor]]]:
    """The declared outputs of a run, those of each spec: copies."""
    graph = result.graph
    assert graph.signature is not None
    tensors: list[tuple[TensorSpec, Sequence[torch.Tensor]]] = []
    for spec, places in by_spec.items():
        values = graph.outputs if len(by_spec) == 1 else graph.outputs[places]
        node, slot = divmod(int(values[0]), graph.stride)
        arena = int(graph.signature.output_arena[graph.node_type[node], slot])
        shaped = _shaped(spec, torch.from_numpy(result.arena(arena)[result.plan.value_row[values]]))
        if computed is not None and spec.floats:
            made = computed.tensors(values, shaped)
            if constant:
                made = [one.detach() if at in constant else one for at, one in zip(places, made, strict=True)]
            tensors.append((spec, made))
        else:
            tensors.append((spec, shaped.unbind()))
    return tensors

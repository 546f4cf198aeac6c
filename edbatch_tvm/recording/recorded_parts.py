"""Parts of a recorded graph, which compiled code and PyTorch compute in turn."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from edbatch_tvm.recording.computed import Computed, Round

if TYPE_CHECKING:
    from edbatch_tvm.recording.library import Library
    from edbatch_tvm.recording.outside import Outside
    from edbatch_tvm.recording.recorder import Recorder


@dataclass
class RecordedPart:
    """A recorded graph, or a part of one: what is computed of a recorder."""

    library: Library
    types: list[int]
    ends: list[int]
    operands: list[int]
    attributes: dict[int, list[Any]]
    outside: Outside
    done: int
    computed: Computed
    records: None = None
    tape: None = None

    @classmethod
    def of(cls, recorder: Recorder) -> RecordedPart:
        """What is recorded now."""
        return cls(
            recorder.library,
            recorder.types,
            recorder.ends,
            recorder.operands,
            dict(recorder.attributes),
            recorder.outside,
            recorder.done,
            recorder.computed,
        )

    def finish_round(self, found: Round) -> None:
        """Everything is computed: it is `found`."""
        self.computed.finish(found)

    def nodes(self) -> Iterator[tuple[int, list[int], list[Any]]]:
        """The type, operands and attributes of each node."""
        counts = {number: self.library.cells[number].attributes for number in set(self.types)}
        taken = dict.fromkeys(counts, 0)
        begin = 0
        for number, end in zip(self.types, self.ends, strict=True):
            first, taken[number] = taken[number], taken[number] + counts[number]
            attributes = self.attributes[number][first : taken[number]] if counts[number] else []
            yield number, self.operands[begin:end], attributes
            begin = end

    def rows(self, values: Sequence[int]) -> torch.Tensor:
        """Values that are computed or come from outside, one a row."""
        numbers = np.array(values, np.int64)
        found: torch.Tensor | None = None
        for members, source in (
            (np.flatnonzero(numbers < 0), self.outside),
            (np.flatnonzero(numbers >= 0), self.computed),
        ):
            if not len(members):
                continue
            for places, data in source.rows_of(numbers[members]):
                if len(places) == len(values) and (np.diff(places) == 1).all():
                    return torch.from_numpy(data)
                if found is None:
                    found = torch.empty(len(values), data.shape[1], dtype=self.outside.dtype)
                found[torch.from_numpy(members[places])] = torch.from_numpy(data)
        assert found is not None
        return found


def stages_of(
    graph: RecordedPart, nodes: Sequence[tuple[int, list[int], list[Any]]], left: Container[int]
) -> list[int]:
    """After how many of PyTorch's parts each node is computed: PyTorch's as soon as can be, others as late."""
    cells = graph.library.cells
    stages: list[int] = []
    makers: list[int] = []  # the node of each value
    for node, (number, operands, _) in enumerate(nodes):
        before = [makers[one - graph.done] for one in operands if one >= graph.done]
        stages.append(max((stages[one] + (nodes[one][0] in left) for one in before), default=0))
        makers += [node] * len(cells[number].outputs)
    latest = [max(stages, default=0)] * len(nodes)
    for node in reversed(range(len(nodes))):
        number, operands, _ = nodes[node]
        if number not in left:
            stages[node] = latest[node]
        for one in operands:
            if one >= graph.done:
                maker = makers[one - graph.done]
                latest[maker] = min(latest[maker], stages[node])
    return stages

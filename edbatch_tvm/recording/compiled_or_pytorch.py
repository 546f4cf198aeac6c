"""Cells that PyTorch computes faster are left to PyTorch, batched over the elements.

A compiled kernel of a 3x3 convolution is slower than the library that PyTorch calls. So the first minibatches are
measured: for each cell, its batches as compiled, and the same nodes by the model's own code under ``torch.vmap``, which
does for a batch what the code does for one node. A cell that is slower compiled is left to PyTorch from then on; the
graph is then computed in parts, compiled ones and PyTorch's in turn.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from edbatch_tvm.errors import ConfigError
from edbatch_tvm.recording.computed import Round
from edbatch_tvm.recording.flush import compute_batched
from edbatch_tvm.recording.isolation import switched_to
from edbatch_tvm.recording.recorded_parts import RecordedPart, stages_of
from edbatch_tvm.recording.rounds import compute_natively, compute_records

if TYPE_CHECKING:
    from edbatch_tvm.recording.library import Library
    from edbatch_tvm.recording.recorder import Recorder
    from edbatch_tvm.recording.specialise import Cell
    from edbatch_tvm.runtime import Model, Report, Result

DEFAULT = "never"
"""Where :func:`edbatch_tvm.autobatch` is not told."""

_log = logging.getLogger(__name__)

_ENOUGH = 5e-3
"""Seconds of a cell's batches after which it is settled who computes it."""

_MOST_MEASURED, _MEASURED_OF_SMALL = 4, 2
"""Times that a cell is measured, at most; and one of which leaving it could not save enough."""

_GAIN, _LEAST_GAIN = 0.8, 3e-4
"""PyTorch's share of the compiled time below which a cell is left to PyTorch, and the seconds a minibatch it has to
save at least."""

_WORTH = 0.1
"""A cell's share of the fixed time of a minibatch below which there is nothing to gain."""

_SOME_BATCHES = 4
"""Batches of a cell that are timed with PyTorch in one minibatch."""


@dataclass(frozen=True, eq=False)
class PyTorchReport:
    """What PyTorch has computed of a graph; stands between reports of what was compiled.

    Attributes
    ----------
    batches : int
        Number of batches.
    paths : dict from cell name to text
    seconds : dict
        ``execute`` and ``total``.
    """

    batches: int
    paths: dict[str, str]
    seconds: dict[str, float]
    policy: str = "PyTorch"
    kernel_calls: int = 0

    def __str__(self) -> str:
        lines = [f"policy     {self.policy}", f"batches    {self.batches}"]
        lines += [f"cell       {name}: {path}" for name, path in self.paths.items()]
        lines += [f"{name:<10} {seconds * 1e6:.0f} µs" for name, seconds in self.seconds.items()]
        return "\n".join(lines)


@dataclass
class _Times:
    """What is known of a cell's speed, in seconds summed over minibatches."""

    compiled: float = 0.0
    pytorch: float = 0.0
    overhead: float = 0.0
    measured: int = 0


@dataclass
class Fallback:
    """Who computes which cell.

    Parameters
    ----------
    choice : str or iterable of str
        ``"auto"``: what is measured to be faster. ``"never"``: everything is compiled. Names of cells: those are left
        to PyTorch, and nothing is measured.

    Attributes
    ----------
    left : dict of int to str
        Types of cells that PyTorch computes, and why.
    settled : set of int
        Types that are not measured any more.
    measurements : int
        How many graphs were measured.

    Raises
    ------
    ConfigError
        If `choice` is something else.
    """

    choice: Any = DEFAULT
    left: dict[int, str] = field(default_factory=dict)
    settled: set[int] = field(default_factory=set)
    measurements: int = 0
    _times: dict[int, _Times] = field(default_factory=dict)
    _one_by_one: set[int] = field(default_factory=set)
    _checked: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        if isinstance(self.choice, str):
            if self.choice not in ("auto", "never"):
                raise ConfigError(f"fallback={self.choice!r}", '"auto", "never" or a list of names of cells')
        elif not isinstance(self.choice, Iterable) or not all(isinstance(name, str) for name in self.choice):
            raise ConfigError(f"fallback={self.choice!r}", '"auto", "never" or a list of names of cells')
        else:
            self.choice = tuple(self.choice)

    def compute(self, recorder: Recorder) -> list[Report | PyTorchReport]:
        """Compute everything that is recorded.

        Returns
        -------
        list of Report or PyTorchReport
            One for each part.
        """
        recorder.settle()
        if not recorder.types:
            report = compute_records(recorder)
            return _reports(compute_batched(recorder)) if report is None else [report]
        self._pin(recorder.library)
        graph = RecordedPart.of(recorder)
        if self.left and recorder.library.compiled() is not None and not self.left.keys().isdisjoint(graph.types):
            return [*self._compute_parts(recorder, graph), *_reports(compute_batched(recorder))]
        alone = recorder.records is None
        measured = alone and self.choice == "auto" and not self.settled.issuperset(graph.types)
        report = None if measured else compute_natively(recorder)
        if report is not None:
            return [report]
        result = compute_batched(recorder)
        if result is not None and measured:
            self._measure(graph, result)
        return _reports(result)

    def _pin(self, library: Library) -> None:
        if isinstance(self.choice, str):
            return
        for cell in library.cells[len(self.settled) :]:
            self.settled.add(cell.type_id)
            for name in self.choice:
                own = name.replace(".", "_")
                if cell.name == own or cell.name.removeprefix(f"{own}_").isdigit():
                    self.left[cell.type_id] = "asked for"

    # Parts ------------------------------------------------------------------------------------------------------

    def _compute_parts(self, recorder: Recorder, graph: RecordedPart) -> list[Report | PyTorchReport]:
        cells = graph.library.cells
        nodes = [*graph.nodes()]
        stages = stages_of(graph, nodes, self.left)
        first, count = [], 0
        for number, _, _ in nodes:
            first.append(count)
            count += len(cells[number].outputs)
        order: dict[tuple[int, bool], list[int]] = {}
        for node, (number, _, _) in enumerate(nodes):
            order.setdefault((stages[node], number in self.left), []).append(node)
        renumbered = np.empty(count, np.int64)
        done, computed = graph.done, recorder.computed.branch()
        reports: list[Report | PyTorchReport] = []
        for key in sorted(order):
            part = RecordedPart(graph.library, [], [], [], {}, graph.outside, done, computed)
            own: list[int] = []
            for node in order[key]:
                number, operands, attributes = nodes[node]
                part.types.append(number)
                part.operands += [one if one < graph.done else int(renumbered[one - graph.done]) for one in operands]
                part.ends.append(len(part.operands))
                if attributes:
                    part.attributes.setdefault(number, []).extend(attributes)
                values = range(first[node], first[node] + len(cells[number].outputs))
                for value in values:
                    renumbered[value] = done + len(own)
                    own.append(value)
            done += len(own)
            if key[1]:
                reports.append(self._compute_with_pytorch(part))
            else:
                result = compute_batched(part)  # type: ignore[arg-type]
                if result is not None:
                    reports.append(result.report)
        recorder.finish_round(computed.places(graph.done)[:, renumbered - graph.done])
        return reports

    def _compute_with_pytorch(self, part: RecordedPart) -> PyTorchReport:
        begin = perf_counter()
        cells = part.library.cells
        batches: dict[tuple[int, int], list[int]] = {}
        nodes = [*part.nodes()]
        first, count = [], 0
        for node, (number, operands, _) in enumerate(nodes):
            batches.setdefault((number, len(operands)), []).append(node)
            first.append(count)
            count += len(cells[number].outputs)
        group, row = np.empty((2, count), np.int64)
        outputs: list[torch.Tensor] = []
        for (number, _), members in batches.items():
            for place, output in enumerate(self._batch(part, cells[number], [nodes[node] for node in members])):
                values = np.array([first[node] for node in members]) + place
                group[values], row[values] = len(outputs), np.arange(len(members))
                outputs.append(output)
        part.finish_round(Round(part.done, group, row, lambda number: outputs[number].numpy()))
        seconds = perf_counter() - begin
        paths = {cells[number].name: f"PyTorch ({self.left[number]})" for number, _ in batches}
        return PyTorchReport(len(batches), paths, {"execute": seconds, "total": seconds})

    def _batch(self, part: RecordedPart, cell: Cell, nodes: Sequence[tuple[int, list[int], list[Any]]]) -> list[Any]:
        """The outputs of nodes of one cell that have one number of operands, one node a row."""
        columns = [part.rows(column) for column in zip(*[operands for _, operands, _ in nodes], strict=True)]
        attributes = [attributes for _, _, attributes in nodes]
        with torch.no_grad(), switched_to(part.library.state):
            if cell.type_id not in self._one_by_one:
                try:
                    outputs = [one.contiguous() for one in _mapped(cell, columns, attributes)]
                except Exception:  # of code that cannot be mapped: it runs node by node
                    self._one_by_one.add(cell.type_id)
                else:
                    if cell.type_id in self._checked or self._agree(cell, columns, attributes, outputs):
                        self._checked.add(cell.type_id)
                        return outputs
                    self._one_by_one.add(cell.type_id)
            rows = [cell.evaluate([column[node] for column in columns], own) for node, own in enumerate(attributes)]
        return [torch.stack(one) for one in zip(*rows, strict=True)]

    def _agree(self, cell: Cell, columns: list[torch.Tensor], attributes: list[list[Any]], outputs: list[Any]) -> bool:
        """Whether the first node and the last are what the code makes of them by themselves."""
        for node in (0, len(attributes) - 1):
            wanted = cell.evaluate([column[node] for column in columns], attributes[node])
            for one, other in zip(outputs, wanted, strict=True):
                if not torch.allclose(one[node], other, rtol=0, atol=1e-5 * float(other.abs().max()), equal_nan=True):
                    return False
        return True

    # Measuring --------------------------------------------------------------------------------------------------

    def _measure(self, graph: RecordedPart, result: Result) -> None:
        """Measure the cells of a graph that was computed, and settle those that have been measured enough."""
        from edbatch_tvm.explanation.batch_timing import batch_seconds

        self.measurements += 1
        library = graph.library
        model = library.code.model
        assert model is not None
        if not _is_on_cpu(model) or result.graph.num_nodes != len(graph.types):  # else nodes are operators of cells
            self.settled.update(graph.types)
            return
        seconds = batch_seconds(model, result.graph, result.plan, 2)
        fixed = result.report.seconds["total"] - result.report.seconds["execute"]
        nodes = [*graph.nodes()]
        batches: dict[int, list[tuple[float, list[int]]]] = {}
        for batch, needed in enumerate(seconds.tolist()):
            members = result.plan.schedule.nodes(batch).tolist()
            batches.setdefault(nodes[members[0]][0], []).append((needed, members))
        for number, own in batches.items():
            if number in self.settled:
                continue
            times = self._times.setdefault(number, _Times())
            compiled = sum(one for one, _ in own)
            times.compiled += compiled
            times.measured += 1
            if compiled > _WORTH * fixed:
                times.pytorch += self._seconds_of_pytorch(graph, nodes, own)
                times.overhead += fixed * len(set(stages_of(graph, nodes, {number})))
            else:
                times.pytorch += compiled
            small = times.compiled < _LEAST_GAIN * times.measured
            most = _MEASURED_OF_SMALL if small else _MOST_MEASURED
            if times.compiled >= _ENOUGH or times.measured >= most:
                self._settle(library.cells[number], times)

    def _seconds_of_pytorch(
        self, graph: RecordedPart, nodes: list[Any], batches: list[tuple[float, list[int]]]
    ) -> float:
        chosen = batches[:: max(1, len(batches) // _SOME_BATCHES)]
        needed, count = 0.0, 0
        for _, members in chosen:
            by_operands: dict[int, list[Any]] = {}
            for node in members:
                by_operands.setdefault(len(nodes[node][1]), []).append(nodes[node])
            cell = graph.library.cells[nodes[members[0]][0]]
            least = float("inf")
            for _ in range(3):
                begin = perf_counter()
                for alike in by_operands.values():
                    self._batch(graph, cell, alike)
                least = min(least, perf_counter() - begin)
            needed += least
            count += len(members)
        return needed * sum(len(members) for _, members in batches) / count

    def _settle(self, cell: Cell, times: _Times) -> None:
        self.settled.add(cell.type_id)
        gain = times.compiled - times.pytorch - times.overhead
        if gain > max((1 - _GAIN) * times.compiled, _LEAST_GAIN * times.measured):
            compiled, pytorch = (1e3 * one / times.measured for one in (times.compiled, times.pytorch))
            reason = f"{pytorch:.1f} ms a minibatch, compiled {compiled:.1f} ms"
            self.left[cell.type_id] = reason
            _log.warning("cell %r is left to PyTorch: %s", cell.name, reason)


def _reports(result: Result | None) -> list[Report | PyTorchReport]:
    return [] if result is None else [result.report]


def _is_on_cpu(model: Model) -> bool:
    return "llvm" in str(model.target) or str(model.target) == "c"


def _mapped(cell: Cell, columns: list[torch.Tensor], attributes: list[list[Any]]) -> Sequence[torch.Tensor]:
    """The outputs of nodes of one cell, their code mapped over them."""
    inputs = cell.code.plan.inputs
    fixed = sum(entry.example is None and not entry.rows for entry in inputs)
    variadic = sum(entry.rows for entry in inputs)
    count = (len(columns) - fixed) // variadic if variadic else 0
    rest, taken = iter(columns), iter(zip(*attributes, strict=True))
    flat: list[torch.Tensor] = []
    for entry in inputs:
        if entry.example is not None:
            flat.append(torch.stack([torch.as_tensor(value) for value in next(taken)]))
        elif entry.rows:
            flat.append(torch.stack([next(rest) for _ in range(count)], 1))
        else:
            flat.append(next(rest))
    if not flat:
        raise ValueError("a cell without inputs")
    mapped: Any = torch.vmap(cell.code)(*flat)
    return list(mapped)

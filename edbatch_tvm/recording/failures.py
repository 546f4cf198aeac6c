"""Errors of elements: which element it was, and where in the user's code."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from edbatch_tvm.errors import CellError, EdbatchError, GraphError, RecordingError
from edbatch_tvm.recording.module_attributes import copied_tree
from edbatch_tvm.recording.source_locations import place_of_error

if TYPE_CHECKING:
    from edbatch_tvm.graph import InstanceGraph
    from edbatch_tvm.recording.arguments import CallPlan
    from edbatch_tvm.recording.recorder import Recorder


class CallError(RecordingError):
    """A recorded call that fails when it is computed.

    Attributes
    ----------
    node : int
        The number of the call among those that are not computed yet.
    """

    def __init__(self, node: int, given: str, expected: str = "", hint: str = "") -> None:
        super().__init__(given, expected, hint)
        self.node = node


def in_element(number: int) -> str:
    """What messages call an element."""
    return f"in element {number} of the minibatch"


def name_element(error: Exception, number: int) -> None:
    """Let an error that comes out of an element name it, and the line."""
    where = in_element(number)
    if isinstance(error, EdbatchError):
        place = place_of_error(error)
        error.locate(f"{place}, {where}" if place else where)
    elif hasattr(error, "add_note"):  # Python 3.11
        error.add_note(where)


def failed_call(recorder: Recorder, node: int, attributes: list[Any], error: Exception) -> CallError:
    """The error of a call that PyTorch refuses when it is computed."""
    name, shapes = _called(recorder, node)
    numbers = [value for entry in attributes for value in torch.as_tensor(entry).reshape(-1).tolist()]
    if isinstance(error, IndexError) and numbers:
        return _out_of_range(node, name, numbers, f"one that its table has ({error})")
    return CallError(node, f"the call of {name!r} on {shapes} fails: {error}", "arguments that PyTorch takes")


def bad_index(recorder: Recorder, graph: InstanceGraph, error: GraphError) -> EdbatchError:
    """The error of a call whose index no table has, in place of `error` of the graph."""
    for type_id, cell in enumerate(graph.signature or ()):
        for attribute in cell.attributes:
            rows = graph.attributes.get((type_id, attribute.name))
            if rows is None or attribute.bound is None or not rows.size:
                continue
            bad = ((rows < 0) | (rows >= attribute.bound)).reshape(len(rows), -1)
            if bad.any():
                first = int(np.argmax(bad.any(1)))
                node = int(graph.nodes_of(type_id)[first])
                name, _ = _called(recorder, node)
                number = rows.reshape(len(rows), -1)[first][np.argmax(bad[first])].item()
                rows_there = f"0 to {attribute.bound - 1}: its table has {attribute.bound} rows"
                return _out_of_range(node, name, [number], rows_there)
    return error


def _out_of_range(node: int, name: str, numbers: list[Any], expected: str) -> CallError:
    shown = str(numbers[0]) if len(numbers) == 1 else f"among {numbers[:8]}"
    return CallError(node, f"{name!r} is called with index {shown}", expected, "check the ids of the element's data")


def _called(recorder: Recorder, node: int) -> tuple[str, str]:
    """The name of what a node calls, and the shapes that it takes."""
    cell = recorder.library.cells[recorder.types[node]]
    return cell.name, shapes_of(cell.code.plan)


def shapes_of(plan: CallPlan) -> str:
    """The shapes of the tensors that a kind of call takes."""
    shapes = [f"{list(entry.spec.shape)}" for entry in plan.inputs if entry.example is None]
    return f"tensors of shape {', '.join(shapes)}" if shapes else "no tensors"


def does_not_compile(name: str, plan: CallPlan, error: Exception) -> CellError:
    """Why calls of one kind are no cell; the compiler's own words are the cause of the error, not its text."""
    if isinstance(error, EdbatchError):
        return CellError(f"cell {name!r} on {shapes_of(plan)} is not compiled: {error.given}")
    return CellError(f"cell {name!r} on {shapes_of(plan)} has operations that are not supported")


def explain(
    error: Exception, recorder: Recorder, functions: list[Callable[[torch.nn.Module], Any]], model: Any, first: int
) -> None:
    """Let the error of a recorded call name its element and the line that made the call.

    Calls do not keep their lines. The element runs once more, by PyTorch alone and on a copy of the model: it fails in
    the line that is wanted.
    """
    if not isinstance(error, CallError) or error.place:
        return
    number = recorder.element_of(error.node)
    where = in_element(number + first)
    state = torch.get_rng_state()
    try:
        with torch.no_grad():
            functions[number](copied_tree(model))
    except Exception as again:
        place = place_of_error(again)
        where = f"{place}, {where}" if place else where
    finally:
        torch.set_rng_state(state)
    error.locate(where)

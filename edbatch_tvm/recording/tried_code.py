"""Code of cells that runs once on random numbers, before it is exported: what it reads, and that it changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils import _pytree as pytree

from edbatch_tvm.errors import CellError, EdbatchError
from edbatch_tvm.recording.arguments import EXAMPLE_ROWS
from edbatch_tvm.recording.cell_module import CellModule, bound_to
from edbatch_tvm.recording.failures import shapes_of
from edbatch_tvm.recording.given_objects import unchanged
from edbatch_tvm.recording.held_objects import ObjectsKept, hooks_of
from edbatch_tvm.recording.kept_tensors import MemoryKept, TensorsKept
from edbatch_tvm.recording.lazy import LazyTensor
from edbatch_tvm.recording.module_attributes import Attribute, Notes
from edbatch_tvm.recording.random_state import python_numbers_kept
from edbatch_tvm.recording.specialise import as_given
from relay_ext.from_torch import first_line


def attributes_read(name: str, code: CellModule, root: torch.nn.Module) -> tuple[dict[Attribute, Any], set[Attribute]]:
    """The attributes that the code reads below `root`, what an element has of `code.owner`, and what they are.

    The second result are functions that it finds there, and modules that it calls, without a name.

    Raises
    ------
    CellError
        If the code changes what it reads.
    """
    assert code.owner is not None
    notes = Notes(root, _example_of)
    flat = [entry.random(EXAMPLE_ROWS) for entry in code.plan.inputs]
    arguments = code.plan.arguments(as_given(code, flat), list(code.taken))
    plain = len(arguments) - len(code.reads)
    with torch.no_grad():
        try:
            with _trying(name, code, arguments, notes.root):
                bound_to(code.function, code.owner)(notes.root)(*arguments[:plain])
        except EdbatchError:
            raise
        except Exception as error:
            raise CellError(f"cell {name!r} fails on {shapes_of(code.plan)} ({first_line(error)})") from error
    notes.closed = True
    notes.check()
    return notes.read, notes.called


def try_function(name: str, code: CellModule) -> None:
    """Run the code of a function on random numbers, to see what it changes.

    Raises
    ------
    CellError
        If it changes something.
    """
    flat = [entry.random(EXAMPLE_ROWS) for entry in code.plan.inputs]
    arguments = code.plan.arguments(as_given(code, flat), list(code.taken))
    try:
        with torch.no_grad(), _trying(name, code, arguments, None):
            code.function(*arguments)
    except EdbatchError:
        raise
    except Exception:  # its export says it better
        return


@contextmanager
def _trying(name: str, code: CellModule, arguments: Any, root: torch.nn.Module | None) -> Iterator[None]:
    """A context in which code that is tried changes nothing but what it makes, or is an error."""
    kept = TensorsKept(name, arguments, root)
    check = unchanged(name, pytree.tree_leaves(arguments))
    with (
        python_numbers_kept(name),
        ObjectsKept(name, [code.function, *hooks_of(root)]),
        kept,
        MemoryKept(name, kept),
    ):
        yield
    check()


def _example_of(value: Any) -> Any:
    """A value that the code may have in place of one that is not computed yet."""
    if type(value) is LazyTensor:
        numbers = torch.randn(value.shape, dtype=value.recorder.dtype)
        return numbers if value.spec.floats else (numbers > 0).to(value.dtype)
    if type(value) in (list, tuple) and any(type(item) is LazyTensor for item in value):
        return type(value)(map(_example_of, value))
    return value

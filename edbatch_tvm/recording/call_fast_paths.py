"""Code made for calls whose arguments have certain classes, and for what cells return.

A model calls a cell thousands of times a minibatch with arguments of the same few classes. Code without a loop over the
arguments records such a call in half the time; like :meth:`~edbatch_tvm.recording.recorder.Recorder.call`, which knows
all the others, it follows a site's steps from one part of the call's key to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, int64, tensor

from edbatch_tvm.recording.arguments import FEW, INTEGER, key_of_tensor, number_of
from edbatch_tvm.recording.lazy import LazyTensor, lazy_rows, wrapper
from edbatch_tvm.recording.specs import RowsSpec

if TYPE_CHECKING:
    from edbatch_tvm.recording.recorder import Recorder
    from edbatch_tvm.recording.specs import TensorSpec

_INDEX = key_of_tensor(tensor(0))

_LAZY = """
    if {a}.recorder is not recorder:
        raise KeyError
    held{n} = {a}.held
    if held{n} is None:
        step = step[{a}.spec]
    else:
        if {a}.geometry is not held{n}.whole:
            raise KeyError
        rows{n} = held{n}.rows
        if count != len(rows{n}):
            if count >= 0:
                raise KeyError
            count = len(rows{n})
        step = step[held{n}.spec]
"""
_LAZY_OPERAND = """
    if held{n} is None:
        append({a}.value)
    else:
        operands += rows{n}
"""
_TENSOR = """
    floats{n} = {a}.dtype is recorder.dtype
    if floats{n}:
        number{n} = recorder.outside.number({a})
        step = step[recorder.outside.specs[-1 - number{n}]]
    elif {a}.dtype is int64 and not {a}.dim():
        step = step[INDEX]
        number{n} = {a}.item()  # read while it is at hand
    else:
        step = step[key_of_tensor({a})]
        number{n} = number_of({a})
"""
_TENSOR_OPERAND = """
    if floats{n}:
        append(number{n})
    else:
        recorder.attributes[type_id].append(number{n})
"""
_INTEGER = """
    step = step[INTEGER]
"""
_INTEGER_OPERAND = """
    recorder.attributes[type_id].append({a})
"""
_TUPLE = """
    step = step["tuple", len({a})]
    for item in {a}:
        if type(item) is not LazyTensor or item.held is not None or item.recorder is not recorder:
            raise KeyError
        step = step[item.spec]
"""
_TUPLE_OPERAND = """
    for item in {a}:
        append(item.value)
"""
_CLASSES = {
    LazyTensor: (_LAZY, _LAZY_OPERAND),
    Tensor: (_TENSOR, _TENSOR_OPERAND),
    int: (_INTEGER, _INTEGER_OPERAND),
    tuple: (_TUPLE, _TUPLE_OPERAND),
}
_BEGIN = """
def path(recorder, site, {arguments}):
    step = site.steps
    count = -1
"""
_RECORD = """
    type_id, outputs, returned = step[FEW, count] if 0 <= count <= 1 else step[None]
    if type_id < 0:
        raise KeyError
    recorder.types.append(type_id)
    operands = recorder.operands
    append = operands.append
"""
_END = """
    recorder.ends.append(len(operands))
    value = recorder.recorded
    recorder.recorded = value + len(outputs)
    return returned(recorder, value)
"""
_MOST_ARGUMENTS = 16

Path = Callable[..., Any]


class Paths(dict[tuple[type, ...], "Path | None"]):
    """By the classes of arguments what records a call of a site; None for other classes.

    A path is called with the recorder, the site and the arguments. A KeyError says that the call is of a kind that is
    not known or that is recorded in another way: then nothing is recorded.
    """

    def __missing__(self, classes: tuple[type, ...]) -> Path | None:
        known = 0 < len(classes) <= _MOST_ARGUMENTS and all(one in _CLASSES for one in classes)
        made = self[classes] = _path(classes) if known else None
        return made


PATHS = Paths()


def _path(classes: Sequence[type]) -> Path:
    names = [f"argument{number}" for number in range(len(classes))]
    parts = [_BEGIN.format(arguments=", ".join(names))]
    for place in (0, 1):
        given = zip(names, classes, strict=True)
        parts += [_CLASSES[one][place].format(a=name, n=number) for number, (name, one) in enumerate(given)]
        parts.append(_END if place else _RECORD)
    made: Path = _made("".join(parts), "path")
    return made


def _made(source: str, name: str, **names: Any) -> Any:
    """The function called `name` of a source."""
    known = {
        "FEW": FEW,
        "INDEX": _INDEX,
        "INTEGER": INTEGER,
        "LazyTensor": LazyTensor,
        "int64": int64,
        "key_of_tensor": key_of_tensor,
        "lazy_rows": lazy_rows,
        "number_of": number_of,
        "wrapper": wrapper,
        **names,
    }
    exec(compile(source, f"<{name} of a recorded call>", "exec"), known)
    return known[name]


_ROW = """
    made{n} = lazy_rows(recorder, [value + {n}], spec{n}.row, spec{n}.at)
"""

_OUTPUT = """
    made{n} = wrapper(LazyTensor, shape{n}, None, None, None, dtype{n})
    made{n}.recorder = recorder
    made{n}.value = value + {n}
    made{n}.spec = spec{n}
"""


def returned_of(outputs: Sequence[TensorSpec | RowsSpec], structure: Any) -> Callable[[Recorder, int], Any]:
    """What makes the tensors of a call, and out of them what it returns; given the number of the first value.

    Parameters
    ----------
    outputs : sequence of TensorSpec or RowsSpec
        Rows are a list of one.
    structure : type or callable or None
        ``tuple`` or ``list`` of the tensors; a function of the list; None for one tensor by itself.
    """
    parts = ["\ndef returned(recorder, value):"]
    names: dict[str, Any] = {"structure": structure}
    for number, spec in enumerate(outputs):
        names[f"spec{number}"] = spec
        if isinstance(spec, RowsSpec):
            parts.append(_ROW.format(n=number))
            continue
        parts.append(_OUTPUT.format(n=number))
        names |= {f"shape{number}": spec.shape, f"dtype{number}": spec.dtype}
    made = "".join(f"made{number}, " for number in range(len(outputs)))
    forms = {None: "made0", tuple: f"({made})", list: f"[{made}]"}
    parts.append(f"\n    return {forms.get(structure, f'structure([{made}])')}\n")
    function: Callable[[Recorder, int], Any] = _made("".join(parts), "returned", **names)
    return function

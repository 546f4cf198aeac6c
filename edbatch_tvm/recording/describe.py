"""Calls as keys and flat inputs, in step with :meth:`~edbatch_tvm.recording.recorder.Recorder.call`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from edbatch_tvm.errors import CellError
from edbatch_tvm.recording.arguments import FEW, INTEGER, Key, key_of_constant, key_of_numbers, key_of_tensor
from edbatch_tvm.recording.empty_results import NoElements
from edbatch_tvm.recording.followed_parameters import FollowedTensor, operand_of
from edbatch_tvm.recording.lazy import LazyTensor, is_tensor
from edbatch_tvm.recording.module_arguments import key_of_module
from edbatch_tvm.recording.recorded_parameters import own_parameter
from edbatch_tvm.recording.specs import RowsSpec, TensorSpec, rows_of, spec_of
from edbatch_tvm.recording.storages import resolved

if TYPE_CHECKING:
    from edbatch_tvm.recording.recorder import Recorder


def described(
    recorder: Recorder, arguments: tuple[Any, ...], integers_vary: bool, fixed_rows: bool = False
) -> tuple[Key, list[int], list[Any]]:
    """The key of a call, the values it reads and its attributes; see :mod:`edbatch_tvm.recording.arguments`.

    With `fixed_rows` no operand is variadic.
    """
    key: list[Any] = []
    operands: list[int] = []
    attributes: list[Any] = []
    rows = -1
    for argument in arguments:
        kind = type(argument)
        if kind is LazyTensor and argument.recorder is recorder and not _is_empty(recorder, argument):
            spec, values = resolved(recorder, argument)
            if type(spec) is RowsSpec:
                # All variadic operands of a call have one number of rows; others are stacked inside.
                if rows in (-1, len(values)) and not fixed_rows:
                    rows = len(values)
                    key.append(spec)
                else:
                    key.append(("stack", len(values), spec))
            else:
                key.append(spec)
            operands += values
        elif kind is list and integers_vary and argument and rows in (-1, len(argument)) and not fixed_rows:
            if describe_list(recorder, argument, key, operands, attributes):
                rows = len(argument)
        else:
            describe(recorder, argument, key, operands, attributes, integers_vary)
    if 0 <= rows <= 1:
        key.append((FEW, rows))
    return tuple(key), operands, attributes


def describe_list(
    recorder: Recorder, argument: list[Any], key: list[Any], operands: list[int], attributes: list[Any]
) -> bool:
    """Append a list: as a list of any length if its elements are alike, and else element by element."""
    first = argument[0]
    if type(first) is LazyTensor:
        alike = _values_alike(recorder, first.spec, argument)
        if alike is not None:
            key.append(("listed", 1, False))
            key.append(rows_of(first.spec))
            operands += alike
            return True
    pairs = type(first) is tuple
    if pairs and all(type(item) is tuple and len(item) == len(argument[0]) for item in argument):
        columns = list(zip(*argument, strict=True))
    else:
        columns = [tuple(argument)]
    parts: list[tuple[TensorSpec, list[int]]] = []
    if all(is_tensor(item) for column in columns for item in column):
        stacked = (values_alike(recorder, column) for column in columns)
        parts = [part for part in stacked if part is not None]
    if len(parts) != len(columns):
        describe(recorder, argument, key, operands, attributes, True)
        return False
    key.append(("listed", len(parts), pairs))
    for spec, values in parts:
        key.append(rows_of(spec))
        operands += values
    return True


def _values_alike(recorder: Recorder, spec: TensorSpec, tensors: list[Any]) -> list[int] | None:
    """The values of recorded tensors of one spec that are one value each; None if there are others."""
    if not spec.dtype.is_floating_point:
        return None
    values = []
    for tensor in tensors:
        if type(tensor) is not LazyTensor or tensor.held is not None or tensor.spec is not spec:
            return None
        if tensor.recorder is not recorder:
            return None
        values.append(tensor.value)
    return values


def values_alike(recorder: Recorder, tensors: Any) -> tuple[TensorSpec, list[int]] | None:
    """The values of tensors of one spec; None if they are not alike."""
    spec: TensorSpec | None = None
    values = []
    for tensor in tensors:
        if type(tensor) is LazyTensor and tensor.recorder is recorder and tensor.held is None:
            own, value = tensor.spec, tensor.value
        elif isinstance(tensor, Tensor) and tensor.dtype in (recorder.dtype, torch.bool):
            own, value = spec_of(tensor.shape, tensor.dtype), recorder.value_of(tensor)
        else:
            return None
        if spec is None:
            spec = own
        elif own is not spec:
            return None
        values.append(value)
    return None if spec is None else (spec, values)


def _is_empty(recorder: Recorder, tensor: torch.Tensor) -> bool:
    """Whether a tensor has no elements, and is no list of no rows either."""
    if tensor.numel():
        return False
    if type(tensor) is LazyTensor and tensor.recorder is recorder:
        try:
            resolved(recorder, tensor)
        except NoElements:
            return True
        return False
    return True


def describe(
    recorder: Recorder, argument: Any, key: list[Any], operands: list[int], attributes: list[Any], integers_vary: bool
) -> None:
    """Append what the key of a call says of one argument, the values it reads and its attributes."""
    kind = type(argument)
    if kind is RowsSpec:  # in the place of an argument with rows
        key.append(argument)
    elif isinstance(argument, torch.Tensor) and argument.is_floating_point() and _is_empty(recorder, argument):
        key.append(("empty", argument.dtype, argument.shape))
    elif kind is LazyTensor and argument.recorder is recorder:
        spec, values = resolved(recorder, argument)
        if spec.dtype is torch.int64:
            raise CellError(f"an operand of shape {spec!r}", str(recorder.dtype))
        key.append(("stack", len(values), spec) if type(spec) is RowsSpec else spec)
        operands += values
    elif isinstance(argument, torch.Tensor):
        given = argument
        argument = argument.computed() if kind is LazyTensor else argument
        argument = argument if kind is FollowedTensor else own_parameter(argument)
        path = None if integers_vary else recorder.library.path_of(operand_of(argument))
        if path is not None:
            key.append(("weight", path))
            if kind is not FollowedTensor:
                recorder.weights[id(given)] = given, key[-1]
        elif argument.is_floating_point() or (argument.dtype is torch.bool and not integers_vary):
            number = recorder.value_of(argument)
            key.append(recorder.outside.specs[-1 - number])
            operands.append(number)
        elif integers_vary:
            key.append(key_of_tensor(argument))
            attributes.append(argument)
        else:
            key.append(key_of_numbers(argument))
    elif kind is int and integers_vary:
        key.append(INTEGER)
        attributes.append(argument)
    elif isinstance(argument, torch.nn.Module):
        key.append(key_of_module(recorder, argument))
    elif kind is tuple or kind is list or isinstance(argument, tuple):
        key.append(("list" if kind is list else "tuple", len(argument)))
        for item in argument:
            describe(recorder, item, key, operands, attributes, integers_vary)
    elif kind is dict:
        key.append(("dict", tuple(argument)))
        for item in argument.values():
            describe(recorder, item, key, operands, attributes, integers_vary)
    else:
        key.append(key_of_constant(argument))

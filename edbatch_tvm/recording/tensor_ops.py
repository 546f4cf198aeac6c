"""Tensor functions on recorded tensors: views, recorded operators, and those that read values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from edbatch_tvm.errors import RecordingError
from edbatch_tvm.recording.lazy import LazyRows, LazyTensor, is_lazy, joined_rows
from edbatch_tvm.recording.specs import joined_spec, result_spec, rows_of, spec_of

if TYPE_CHECKING:
    from edbatch_tvm.recording.recorder import Recorder


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_STACKS = _names("stack cat concat concatenate")
"""Functions that make rows of tensors."""

_COPIES = _names("clone contiguous detach float cpu requires_grad_ type_as to alias")
"""Functions that leave a float32 tensor in host memory as it is."""

_VIEWS = _names("view reshape flatten squeeze unsqueeze view_as reshape_as unflatten ravel atleast_2d")
"""Functions that leave the elements in their order."""

_PARTS = _names("__getitem__ select narrow t transpose permute T expand expand_as")
"""Functions that are a view if all elements stay, in order or because all but one dimension is 1; else recorded."""

_RECORDED = _names("""
    add sub subtract rsub mul multiply div divide true_divide neg negative pow abs square sqrt exp log clamp
    __add__ __radd__ __sub__ __rsub__ __mul__ __rmul__ __truediv__ __rtruediv__ __rdiv__ __neg__ __pow__ __abs__
    tanh sigmoid relu gelu silu leaky_relu softmax log_softmax minimum maximum addcmul lerp
    sum mean amax amin matmul mv dot linear __matmul__ __rmatmul__
    cat concat concatenate stack hstack chunk split unbind
""")
"""Functions that become nodes of the graph, each a cell of its own."""

_READS = _names("""
    argmax argmin max min topk sort argsort median any all nonzero multinomial bernoulli equal allclose isclose
    lt le gt ge eq ne greater less isnan isinf isfinite sign is_nonzero
    __lt__ __le__ __gt__ __ge__ __eq__ __ne__ __float__ __int__ __bool__
    item tolist numpy long int bool double
""")
"""Functions of values, not of numbers to go on with: what is recorded so far is computed first."""

_IN_PLACE = {
    **{"__iadd__": torch.add, "__isub__": torch.sub, "__imul__": torch.mul, "__itruediv__": torch.div},
    **{"add_": torch.add, "sub_": torch.sub, "mul_": torch.mul, "div_": torch.div},
}
"""Operations in place, and what they compute."""


def apply(recorder: Recorder, function: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """``function(*arguments, **named)``, with recorded tensors among the arguments.

    Raises
    ------
    RecordingError
        If this module has no such function.
    """
    name = getattr(function, "__name__", str(function))
    if "out" in named:
        named = named.copy()
        if named.pop("out") is not None:
            raise RecordingError(f"{name}(out=...) on a tensor that is not computed yet", "a result of its own")
    if name in _STACKS:
        rows = as_rows(recorder, name, *arguments, **named)
        if rows is not None:
            return rows
    if name in _COPIES:
        return _copy(function, name, arguments, named)
    if name in _VIEWS or name in _PARTS:
        viewed = _view(recorder, function, name, arguments, named)
        if viewed is not None:
            return viewed
    if name in _READS:
        return function(*_computed(arguments), **named)
    if name in _IN_PLACE:
        return _in_place(recorder, name, arguments, named)
    if name in _RECORDED or name in _PARTS:
        named = {key: value for key, value in named.items() if not (key == "inplace" and not value)}
        if named.get("inplace"):
            raise RecordingError(f"{name}(inplace=True) on a tensor that is not computed yet", "inplace=False")
        return recorder.operator(_canonical(function, name, named), arguments, named)
    raise RecordingError(
        f"{name}() on a tensor that is not computed yet",
        "arithmetic, activations, cat, stack, sum, mean, slices or views between cells",
        "compute it inside a cell: list the submodule or method that calls it in cells=[...]",
    )


def _canonical(function: Any, name: str, named: dict[str, Any]) -> Any:
    """One function for ``torch.tanh``, ``x.tanh()`` and the like, so that their nodes batch together."""
    method = getattr(torch.Tensor, name, None)
    return method if method is not None and not named else function


def as_rows(recorder: Recorder, name: str, tensors: Any, dim: int = 0, axis: int | None = None) -> LazyRows | None:
    """A list of tensors stacked along the first dimension as rows; None if it is something else."""
    if (dim if axis is None else axis) != 0 or type(tensors) not in (list, tuple):
        return None
    quick = joined_rows(tensors, name == "stack")
    if quick is not None and quick.recorder is recorder:
        return quick
    values: list[int] = []
    spec = None
    for tensor in tensors:
        kind = type(tensor)
        if kind is LazyRows and name != "stack":
            spec = tensor.spec if spec is None else spec
            same = tensor.spec is spec
            values += tensor.values if tensor.recorder is recorder else map(recorder.value_of, tensor.rows())
        else:
            if kind is LazyTensor:
                row = tensor.spec
            elif kind is LazyRows:
                return None
            else:
                row = spec_of(tensor.shape)
            rows = joined_spec(row, name == "stack")
            spec = rows if spec is None else spec
            same = rows is spec
            own = kind is LazyTensor and tensor.recorder is recorder
            values.append(tensor.value if own else recorder.value_of(tensor))
        if spec is None or not same:
            return None
    return None if spec is None else LazyRows(recorder, values, spec)


def _copy(function: Any, name: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
    source = arguments[0]
    kinds = (torch.float32, torch.float, "cpu", torch.device("cpu"))
    wanted = [value for key, value in named.items() if key not in ("copy", "non_blocking", "memory_format")]
    if name in ("to", "requires_grad_") and any(
        not is_lazy(value) and value not in kinds for value in (*arguments[1:], *wanted) if not isinstance(value, bool)
    ):
        return function(source.computed(), *arguments[1:], **named)
    return source.clone()


def _view(
    recorder: Recorder, function: Any, name: str, arguments: tuple[Any, ...], named: dict[str, Any]
) -> LazyTensor | LazyRows | None:
    """The tensor seen with another shape; None if elements go missing or change places."""
    source, *rest = arguments
    if not is_lazy(source):
        return None
    rest = [torch.empty(other.shape, device="meta") if is_lazy(other) else other for other in rest]
    own = source.spec if type(source) is LazyTensor else spec_of(source.shape)
    spec = result_spec(function, own, rest, named)
    moves = name in ("t", "transpose", "permute", "T") and sum(extent != 1 for extent in source.shape) > 1
    if spec.size != source.numel() or moves:
        return None
    if type(source) is LazyTensor:
        recorder.viewed.add(source.value)
        return LazyTensor(recorder, source.value, spec)
    if spec.shape and spec.shape[0] == len(source):
        return LazyRows(recorder, source.values, rows_of(spec_of(spec.shape[1:])))
    return LazyTensor(recorder, source.values[0], spec) if len(source) == 1 else None


def _in_place(recorder: Recorder, name: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
    target = arguments[0]
    result = recorder.operator(_canonical(_IN_PLACE[name], _IN_PLACE[name].__name__, named), arguments, named)
    if type(target) is not LazyTensor:
        # A computed tensor takes a recorded value under its name; other names keep the tensor.
        return result
    if target.value in recorder.viewed:
        raise RecordingError(f"{name}() in place on a tensor that has views", "an operation that makes a new tensor")
    return target.become(result)


def _computed(arguments: Any) -> Any:
    """`arguments` with recorded tensors computed."""
    kind = type(arguments)
    if kind in (list, tuple):
        return kind(_computed(argument) for argument in arguments)
    return arguments.computed() if is_lazy(arguments) else arguments

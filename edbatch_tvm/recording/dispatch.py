"""ATen operators on recorded tensors, by what their schemas say: views, writes, and functions.

Nothing gets past: an operator that cannot be recorded runs on computed tensors, a *break*.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.utils import _pytree as pytree

from edbatch_tvm.errors import CellError, RecordingError
from edbatch_tvm.recording import lazy
from edbatch_tvm.recording.breaks import told
from edbatch_tvm.recording.detached import detached
from edbatch_tvm.recording.empty_gradients import no_elements, rows_of_arguments
from edbatch_tvm.recording.lazy import LazyTensor, geometry_of, lazy_rows, lazy_value, lazy_view, storage_of
from edbatch_tvm.recording.recorded_views import geometries, view
from edbatch_tvm.recording.row_choices import chosen_rows, grid_of, joined_rows, tensor_of_grid, written_rows
from edbatch_tvm.recording.specs import GridSpec, RowsSpec, TensorSpec, spec_of
from edbatch_tvm.recording.storages import resolved, write
from edbatch_tvm.recording.strided_storage import is_list_of_none, rows_along

if TYPE_CHECKING:
    from edbatch_tvm.recording.recorder import Recorder

aten: Any = torch.ops.aten


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SHAPES = _names("""
    zeros_like ones_like full_like empty_like rand_like randn_like randint_like
    new_zeros new_ones new_full new_empty new_empty_strided empty_permuted
    is_same_size sym_size sym_stride sym_numel sym_storage_offset size stride
""")
"""Operators that look at shapes and dtypes alone."""

_RESHAPED = _names("squeeze_ unsqueeze_ t_ transpose_ swapaxes_ swapdims_ as_strided_")
"""Operators that change how a tensor lies in its storage, and no element."""

_LISTS = _names("cat stack")

_INDICES = _names("max min argmax argmin topk sort")
"""Operators whose integers are indices of elements: small numbers, which floats have all of."""

_READ = _names("""
    _local_scalar_dense item equal allclose is_nonzero nonzero argmax argmin sort argsort topk median mode kthvalue
""")
"""Operators that models read values by: computed and run by PyTorch, of which nobody needs to be told."""


class _Kind(NamedTuple):
    name: str
    view: bool
    written: tuple[int | str, ...]
    functional: Any
    random: bool
    pointwise: bool


_RETYPED = frozenset({"view_as_complex", "view_as_real", "_conj", "_neg_view"})
"""Views whose elements are others than those of what they are views of."""


@cache
def _kind_of(operator: Any) -> _Kind:
    """What the schema of an operator says."""
    schema = operator._schema
    name = operator.overloadpacket.__name__
    written = tuple(
        argument.name if argument.kwarg_only else place
        for place, argument in enumerate(schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    )
    returns_alias = any(one.alias_info is not None for one in schema.returns)
    tags = operator.tags
    return _Kind(
        name,
        (returns_alias and not written and name not in _RETYPED) or name == "_unsafe_view",
        written,
        _functional(operator, name) if written else None,
        torch.Tag.nondeterministic_seeded in tags,
        torch.Tag.pointwise in tags,
    )


def _functional(operator: Any, name: str) -> Any:
    """The operator that computes what this one writes; None if there is none."""
    overload = operator._overloadname
    if name.endswith("_"):
        packet = getattr(aten, name[:-1], None)
        wanted = [str(argument.type) for argument in operator._schema.arguments]
        names = packet.overloads() if packet is not None else []
        alike = [one for one in names if [str(own.type) for own in getattr(packet, one)._schema.arguments] == wanted]
        # Most often it has the same name; that of pow_.Scalar has another, and pow.Scalar is something else.
        found = getattr(packet, overload if overload in alike else alike[0]) if alike else None
    elif overload.endswith("out"):
        packet = operator.overloadpacket
        names = [one for one in packet.overloads() if "out" not in one.split("_")]
        wanted = [argument.type for argument in operator._schema.arguments if not argument.is_out]
        found = None
        for one in names:
            schema = getattr(packet, one)._schema
            if str([argument.type for argument in schema.arguments]) == str(wanted):
                found = getattr(packet, one)
    else:
        found = None
    return found if found is not None and not found._schema.is_mutable else None


def recorder_of(arguments: Any, named: dict[str, Any]) -> Recorder | None:
    """The recorder of recorded tensors among arguments; None if there are none."""
    for argument in arguments:  # most often it is one of them
        if type(argument) is LazyTensor:
            return argument.recorder
    for leaf in pytree.tree_leaves((arguments, named)):
        if type(leaf) is LazyTensor:
            return leaf.recorder
    return None


def dispatch(operator: Any, arguments: Any, named: dict[str, Any]) -> Any:
    """An ATen operator with recorded tensors among the arguments."""
    kind = _kind_of(operator)
    first = arguments[0] if arguments else None
    recorder = first.recorder if type(first) is LazyTensor else recorder_of(arguments, named)
    assert recorder is not None
    if recorder.tape is None:
        return _dispatched(recorder, operator, kind, arguments, named)
    # PyTorch comes here below autograd, which has to see what is done with ordinary tensors.
    own = recorder.library.state
    with torch._C._ForceDispatchKeyGuard(own.included, own.excluded):
        return _dispatched(recorder, operator, kind, arguments, named)


def _dispatched(recorder: Recorder, operator: Any, kind: _Kind, arguments: Any, named: dict[str, Any]) -> Any:
    first = arguments[0] if arguments else None
    if kind.name in _SHAPES:
        return operator(*_shapes(arguments), **_shapes(named))
    detaches = kind.name == "detach" and recorder.tape is not None
    if detaches and type(first) is LazyTensor and first.spec.floats:
        return detached(recorder, first)
    if kind.view and type(first) is LazyTensor:
        return view(operator, first, tuple(arguments[1:]), named)
    if kind.name in _RESHAPED and type(first) is LazyTensor:
        return _reshaped(operator, first, arguments, named)
    if recorder.finished:
        return _broken(recorder, operator, kind, arguments, named, None)
    if kind.written:
        return _written(recorder, operator, kind, arguments, named)
    return _computed(recorder, operator, kind, arguments, named)


def _shapes(arguments: Any) -> Any:
    """Arguments with uninitialised tensors in place of recorded ones."""

    def shape(leaf: Any) -> Any:
        if type(leaf) is not LazyTensor:
            return leaf
        size, stride, _ = geometry_of(leaf)
        return torch.empty_strided(size, stride, dtype=leaf.dtype)

    return pytree.tree_map(shape, arguments)


def _reshaped(operator: Any, tensor: LazyTensor, arguments: Any, named: dict[str, Any]) -> Any:
    storage_of(tensor)
    found = geometries(
        getattr(aten, _kind_of(operator).name[:-1]).__getattr__(operator._overloadname),
        geometry_of(tensor),
        tuple(arguments[1:]),
        named,
    )
    with torch._C._DisableTorchDispatch():
        operator(*arguments, **named)
    tensor.geometry = found  # type: ignore[assignment]
    tensor.spec = spec_of(torch.Size(found[0]), tensor.spec.dtype)
    return tensor


# Writes ---------------------------------------------------------------------------------------------------------


class TakesComputed(RecordingError):
    """A function has to run on computed tensors, so that autograd sees what it does."""


class WritesOrdinary(TakesComputed):
    """PyTorch's own code writes recorded tensors into an ordinary one: autograd would see only a part of it."""


def _written(recorder: Recorder, operator: Any, kind: _Kind, arguments: Any, named: dict[str, Any]) -> Any:
    """An operator that writes into its arguments."""
    targets = [named[place] if isinstance(place, str) else arguments[place] for place in kind.written]
    if kind.name.endswith("_") and not any(target.numel() for target in targets):
        operator(*_shapes(arguments), **_shapes(named))  # writes nothing, but may be an error
        return targets[0]
    if not all(type(target) is LazyTensor and target.recorder is recorder for target in targets):
        if recorder.tape is not None and torch.is_grad_enabled() and not recorder.finished:
            raise WritesOrdinary(
                f"{kind.name}() of a recorded tensor into an ordinary one, by code of PyTorch",
                "a tensor that is recorded",
                "compute it before or after the model",
            )
        return _broken(recorder, operator, kind, arguments, named, None)
    if len(targets) == 1:
        target = targets[0]
        if kind.name == "copy_":
            _write(recorder, target, arguments[1])
            return target
        if kind.name in ("zero_", "fill_") and (kind.name == "zero_" or not isinstance(arguments[1], torch.Tensor)):
            number = 0 if kind.name == "zero_" else arguments[1]
            _write(recorder, target, torch.full(tuple(target.shape), number, dtype=target.dtype))
            return target
        indexed = kind.name == "index_put_" and not named and len(arguments) == 3
        if indexed and written_rows(recorder, target, arguments[1], arguments[2]):
            return target
        if kind.functional is not None:
            given = {name: value for name, value in named.items() if name not in kind.written}
            result = _computed(recorder, kind.functional, _kind_of(kind.functional), arguments, given)
            if isinstance(result, torch.Tensor) and result.shape == target.shape:
                _write(recorder, target, result)
                return target
    return _broken(recorder, operator, kind, arguments, named, None)


def _write(recorder: Recorder, target: LazyTensor, source: Any) -> None:
    """``target.copy_(source)``."""
    if type(source) is LazyTensor and source.recorder is not recorder:
        source = source.computed()
    if source.dtype is not target.dtype:
        if type(source) is LazyTensor:
            source = dispatch(aten._to_copy.default, (source,), {"dtype": target.dtype})
        else:
            source = source.to(target.dtype)
    if source.shape != target.shape:
        source = source.expand(tuple(target.shape))
    write(recorder, target, source)


# Functions ------------------------------------------------------------------------------------------------------


def _computed(recorder: Recorder, operator: Any, kind: _Kind, arguments: Any, named: dict[str, Any]) -> Any:
    """An operator that makes new tensors: recorded, or a break."""
    reason: CellError | None = None
    if not kind.random and not torch._C._is_any_autocast_enabled():
        try:
            return _recorded(recorder, operator, kind, arguments, named)
        except CellError as error:
            reason = error
    return _broken(recorder, operator, kind, arguments, named, reason)


def _recorded(recorder: Recorder, operator: Any, kind: _Kind, arguments: Any, named: dict[str, Any]) -> Any:
    if kind.name in _READ:
        raise CellError("a value that is read")
    if kind.name == "clone" or kind.name == "contiguous":
        return copied(recorder, arguments[0])
    if kind.name in _LISTS:
        rows = as_rows(recorder, kind.name, *arguments, **named)
        if rows is None:
            rows = joined_rows(recorder, kind.name, *arguments, **named)
        if rows is not None:
            return rows_of_arguments(recorder, rows, arguments)
    rows = chosen_rows(recorder, kind.name, operator, arguments, named)
    if rows is not None:
        return rows_of_arguments(recorder, rows, arguments)
    named = {name: value for name, value in named.items() if value is not None}
    if kind.name == "_to_copy":
        named = {name: value for name, value in named.items() if name == "dtype"}
        if named.get("dtype", arguments[0].dtype) is arguments[0].dtype:
            return copied(recorder, arguments[0])
        if named["dtype"] not in (recorder.dtype, torch.bool):
            raise CellError(f"a tensor of {named['dtype']}", str(recorder.dtype))
    return recorder.operator(operator, tuple(arguments), named)


def copied(recorder: Recorder, source: LazyTensor) -> torch.Tensor:
    """A tensor of the same values in a storage of its own."""
    if source.spec.size == 0 and not (source.held is not None and source.held.listed and is_list_of_none(source.shape)):
        return no_elements(recorder, source)
    if source.held is not None and rows_along(geometry_of(source), source.held.row)[1] is None:
        grid = grid_of(source)
        if grid is not None:
            return tensor_of_grid(recorder, grid, source.shape[grid.dim() :], source.dtype)
    spec, values = resolved(recorder, source)
    if type(spec) is RowsSpec:
        return lazy_rows(recorder, list(values), spec.row, spec.at)
    return lazy_value(recorder, values[0], spec)  # type: ignore[arg-type]


def as_rows(recorder: Recorder, name: str, tensors: Any, dim: int = 0) -> LazyTensor | None:
    """A list of tensors stacked or joined along the first dimension, as rows; None if it is something else."""
    if dim != 0:
        return None
    row: TensorSpec | None = None
    values: list[int] = []
    joining = name == "cat"
    for tensor in tensors:
        if type(tensor) is LazyTensor and tensor.held is None and tensor.recorder is recorder:
            one = tensor.spec.rest if joining else tensor.spec
            if one is None or (one is not row and row is not None):
                return None
            row = one
            values.append(tensor.value)
            continue
        spec: TensorSpec | RowsSpec | GridSpec
        if type(tensor) is LazyTensor and tensor.recorder is recorder:
            spec, own = resolved(recorder, tensor)
        else:
            spec, own = spec_of(tensor.shape, tensor.dtype), None
        if name == "stack":
            if type(spec) is RowsSpec:
                return None
            found = spec
        elif (type(spec) is RowsSpec and spec.at) or type(spec) is GridSpec:
            return None
        elif type(spec) is RowsSpec:
            found = spec.row
        elif spec.shape and spec.shape[0] == 1 and len(spec.shape) > 1:  # type: ignore[union-attr]
            found = spec_of(spec.shape[1:], spec.dtype)  # type: ignore[union-attr]
        elif own is None and len(spec.shape) > 1:  # type: ignore[union-attr]
            found = spec_of(spec.shape[1:], spec.dtype)  # type: ignore[union-attr]
            some = spec.shape[0] and found.size  # type: ignore[union-attr]
            own = [recorder.value_of(one) for one in tensor.unbind()] if some else []
        else:
            return None
        if row is not None and found is not row:
            return None
        row = found  # type: ignore[assignment]
        values += own if own is not None else [recorder.value_of(tensor)]
    if row is None or row.size == 0:
        return None
    return lazy_rows(recorder, values, row)


# Breaks ---------------------------------------------------------------------------------------------------------


def _broken(
    recorder: Recorder,
    operator: Any,
    kind: _Kind,
    arguments: Any,
    named: dict[str, Any],
    reason: CellError | None,
) -> Any:
    """Run an operator on computed tensors; what it writes is written."""
    if not recorder.finished and kind.name in _READ:
        recorder.reads += 1
    written = {id(named[place] if isinstance(place, str) else arguments[place]) for place in kind.written}
    leaves, structure = pytree.tree_flatten((tuple(arguments), dict(named)))
    lazies = [leaf for leaf in leaves if type(leaf) is LazyTensor]
    for leaf in lazies:
        if not leaf.recorder.is_computed(leaf):
            leaf.recorder.compute()
    # Tensors of one storage stay views of one, so that writing to one is seen in the other.
    bases: dict[int, tuple[LazyTensor, torch.Tensor]] = {}

    def real(leaf: Any) -> Any:
        if type(leaf) is not LazyTensor:
            return leaf
        if not written:
            return leaf.computed()
        storage = storage_of(leaf)
        if id(storage) not in bases:
            count = len(storage.rows) * storage.row
            whole = lazy_view(leaf.recorder, storage, ((count,), (1,), 0), leaf.dtype)
            bases[id(storage)] = whole, whole.computed()
        return bases[id(storage)][1].as_strided(*geometry_of(leaf))

    given, by_name = pytree.tree_unflatten([real(leaf) for leaf in leaves], structure)
    results = operator(*given, **by_name)
    if recorder.tape is not None and not written and not recorder.finished:
        results = pytree.tree_map(lambda one: _with_gradient(recorder, one, leaves), results)
    if not recorder.finished and kind.name not in _READ:
        told(recorder, f"{kind.name}()", reason)
    if not written:
        return results
    for whole, base in bases.values():
        if whole.spec.size:
            write(whole.recorder, whole, base)
    originals = {id(new): old for new, old in zip(pytree.tree_leaves((given, by_name)), leaves, strict=True)}
    return pytree.tree_map(lambda one: originals.get(id(one), one), results)


def _with_gradient(recorder: Recorder, result: Any, given: list[Any]) -> Any:
    """A result of PyTorch's as a recorded tensor: what autograd knows of an ordinary one would be overwritten.

    PyTorch is inside of the same operator on recorded tensors, of which autograd knows nothing.
    """
    if not isinstance(result, torch.Tensor) or not result.requires_grad:
        return result
    if result.is_nested or result.layout is not torch.strided:
        raise TakesComputed("a sparse or nested tensor of a recorded one, by code of PyTorch", "a tensor of one kind")
    if result.dtype is recorder.dtype and result.numel():
        return lazy_value(recorder, recorder.outside.number(result), spec_of(result.shape, result.dtype))
    if any(isinstance(one, torch.Tensor) and _requires_grad.__get__(one) for one in given):
        raise RecordingError(
            f"a tensor of {result.dtype} made of a recorded one and one that requires a gradient",
            str(recorder.dtype),
            f"convert with .to({recorder.dtype}), or compute it before or after the model",
        )
    return result


_requires_grad: Any = torch._C.TensorBase.requires_grad

lazy.DISPATCH.append(dispatch)

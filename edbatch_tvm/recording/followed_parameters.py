"""Parameters as an element sees them that is recorded to run again: their numbers may have changed by then.

A row that is taken by number and given to a cell is read again each time (:mod:`~edbatch_tvm.recording.reads`), and so
is a parameter that is given as a whole. What does anything else with the numbers, a branch or arithmetic between cells,
makes the record one of these numbers: the parameter is *touched*, and the element is recorded again when it changes.

A :class:`FollowedTensor` has no memory, as recorded tensors have none, so nothing gets at its numbers unseen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from edbatch_tvm.errors import RecordingError
from edbatch_tvm.recording.lazy import DISPATCH, FUNCTIONS, LazyTensor, wrapper

if TYPE_CHECKING:
    from edbatch_tvm.recording.recorder import Recorder

_getitem = Tensor.__getitem__

_RESHAPING = frozenset(
    getattr(owner, name)
    for name in ("unsqueeze", "squeeze", "view", "view_as", "reshape", "reshape_as", "flatten", "contiguous")
    for owner in (Tensor, torch)
    if hasattr(owner, name)
)
"""Functions that give the same numbers another shape, or something else that has other memory."""

_METHODS = """
    size dim ndimension numel nelement stride storage_offset element_size is_contiguous is_floating_point is_complex
    is_signed __len__ new_zeros new_ones new_empty new_full new_tensor is_inference get_device is_pinned __hash__
"""
_FUNCTIONS = "zeros_like ones_like empty_like full_like numel is_floating_point is_complex is_tensor"
_PROPERTIES = """
    shape dtype device layout requires_grad is_leaf ndim itemsize nbytes names is_cuda is_cpu is_meta is_sparse
    is_quantized is_mkldnn is_xpu is_mps is_nested _version
"""


def _described_by() -> frozenset[Any]:
    found = [getattr(Tensor, name, None) for name in _METHODS.split()]
    found += [getattr(torch, name, None) for name in _FUNCTIONS.split()]
    found += [getattr(getattr(Tensor, name, None), "__get__", None) for name in _PROPERTIES.split()]
    return frozenset(one for one in found if one is not None)


_DESCRIBING = _described_by()
"""Functions that tell something of a tensor, whatever its numbers are."""


class FollowedTensor(Tensor):
    """A parameter, or a row of one.

    Attributes
    ----------
    parameter : torch.nn.Parameter
        The model's own.
    row : int or None
        Which row; None for all of it.
    plain : Tensor
        The tensor that it stands for.
    recorder : Recorder
    """

    parameter: torch.nn.Parameter
    row: int | None
    plain: Tensor
    recorder: Recorder

    @classmethod
    def of(cls, recorder: Recorder, parameter: torch.nn.Parameter, plain: Tensor, row: int | None) -> FollowedTensor:
        """What stands for a tensor that has the numbers of a row of a parameter, or of all of it."""
        made: FollowedTensor = wrapper(cls, plain.shape, None, None, None, plain.dtype)
        made.recorder, made.parameter, made.plain, made.row = recorder, parameter, plain, row
        if plain is parameter:
            made._is_param = True  # isinstance(made, torch.nn.Parameter)
        return made

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, arguments: Any = (), named: dict[str, Any] | None = None
    ) -> Any:
        """What Python calls with such tensors among the arguments."""
        named = named or {}
        first = arguments[0] if arguments else None
        if type(first) is FollowedTensor:
            if function in _DESCRIBING:
                return function(*_plain(arguments), **_plain(named))
            row = first.row_at(arguments[1]) if function is _getitem and len(arguments) == 2 else None
            if row is not None:
                return row
            if function in _RESHAPING or (function is _getitem and _keeps_all(arguments[1])):
                return first.reshaped(function, arguments[1:], named)
        if any(issubclass(kind, LazyTensor) for kind in types):
            record = FUNCTIONS.get(function)
            result = NotImplemented if record is None else record(function, arguments, named)
            if result is not NotImplemented:
                return result
        return _called(function, arguments, named)

    @classmethod
    def __torch_dispatch__(
        cls, operator: Any, types: Any, arguments: Any = (), named: dict[str, Any] | None = None
    ) -> Any:
        """An ATen operator with such tensors among the arguments."""
        named = named or {}
        if any(issubclass(kind, LazyTensor) for kind in types):
            return DISPATCH[0](operator, arguments, named)
        return _called(operator, arguments, named)

    def row_at(self, index: Any) -> FollowedTensor | None:
        """One row of a table, by number or as a slice; None if that is something else."""
        if self.plain is not self.parameter or self.plain.dim() < 2:
            return None
        count = self.plain.shape[0]
        if isinstance(index, int | np.integer) and not isinstance(index, bool) and -count <= index < count:
            row = int(index) % count
        elif type(index) is slice and _of_integers(index) and len(range(count)[index]) == 1:
            row = range(count)[index][0]
        else:
            return None
        return FollowedTensor.of(self.recorder, self.parameter, _getitem(self.parameter, index), row)

    def reshaped(self, function: Callable[..., Any], arguments: Any, named: dict[str, Any]) -> Any:
        """The same numbers in another shape; what has other memory is the numbers of now."""
        result = function(self.plain, *_plain(arguments), **_plain(named))
        alike = result.data_ptr() == self.plain.data_ptr() and result.numel() == self.plain.numel()
        if result.dtype is self.plain.dtype and alike and result.is_contiguous():
            return FollowedTensor.of(self.recorder, self.parameter, result, self.row)
        self.touch()
        return result

    def touch(self) -> Tensor:
        """The tensor that it stands for, for somebody who reads its numbers."""
        self.recorder.touched.add(id(self.parameter))
        return self.plain


def _of_integers(index: slice) -> bool:
    return all(part is None or type(part) is int for part in (index.start, index.stop, index.step))


def _keeps_all(index: Any) -> bool:
    """Whether an index only adds dimensions."""
    parts = index if type(index) is tuple else (index,)
    return all(part is None or part is Ellipsis or (type(part) is slice and part == slice(None)) for part in parts)


def operand_of(tensor: Any) -> Any:
    """The parameter of which a tensor is all, in its shape: what a cell has as a weight; else the tensor as it is."""
    if type(tensor) is FollowedTensor and tensor.plain is tensor.parameter:
        return tensor.parameter
    return tensor


def touched(tensor: Any) -> Any:
    """The tensor that a followed one stands for, whose numbers are read; any other as it is."""
    return tensor.touch() if type(tensor) is FollowedTensor else tensor


def _called(function: Any, arguments: Any, named: dict[str, Any]) -> Any:
    """Call a function that reads numbers of followed tensors."""
    if _writes(function, arguments, named):
        raise RecordingError(
            "forward writes into a parameter: a record would not", "a forward that reads parameters", "give the element"
        )
    arguments, named = pytree.tree_map(touched, (arguments, named))
    return function(*arguments, **named)


_IN_PLACE = """
    __setitem__ __set__ backward register_hook __iadd__ __iand__ __idiv__ __ifloordiv__ __ilshift__ __imod__ __imul__
    __ior__ __ipow__ __irshift__ __isub__ __itruediv__ __ixor__
"""
_WRITING = frozenset(_IN_PLACE.split())


def _writes(function: Any, arguments: Any, named: dict[str, Any]) -> bool:
    """Whether a function changes a followed tensor."""
    if type(named.get("out")) is FollowedTensor:
        return True
    if not arguments or type(arguments[0]) is not FollowedTensor:
        return False
    name = getattr(function, "__name__", "").partition(".")[0]
    in_place = name.endswith("_") and not name.endswith("__")
    return in_place or name in _WRITING


def _plain(thing: Any) -> Any:
    """Without followed tensors: for what does not look at numbers."""
    return pytree.tree_map(lambda one: one.plain if type(one) is FollowedTensor else one, thing)

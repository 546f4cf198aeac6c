"""Tensors that are recorded instead of computed: what the methods of a model see while it is batched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch

from edbatch_tvm.errors import RecordingError
from edbatch_tvm.recording.specs import RowsSpec, TensorSpec, joined_spec

if TYPE_CHECKING:
    from edbatch_tvm.recording.recorder import Recorder


class _Recorded:
    """What lazy tensors and stacked rows have in common: tensor functions and methods are handed to the recorder."""

    __slots__ = ()

    recorder: Recorder
    shape: torch.Size

    # Code that asks gets the answer for tensors; `type(x)` tells the truth. No property: torch asks at every turn.
    __class__ = torch.Tensor
    __hash__ = object.__hash__

    dtype = torch.float32
    device = torch.device("cpu")
    layout = torch.strided
    requires_grad = False
    is_cuda = False
    grad = None
    grad_fn = None

    # Static, for torch looks it up for every tensor of a list: a class method would be made anew each time.
    @staticmethod
    def __torch_function__(
        function: Any, _types: Any, arguments: tuple[Any, ...] = (), named: dict[str, Any] | None = None
    ) -> Any:
        # The states of children, thousands of times a minibatch: not the long way.
        if (function is _CAT or function is _STACK) and len(arguments) == 1 and (not named or named == _FIRST):
            rows = joined_rows(arguments[0], function is _STACK)
            if rows is not None:
                return rows
        named = named or {}
        return recorder_in((*arguments, *named.values())).tensor_function(function, arguments, named)

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(torch.Tensor, name, None)
        if attribute is None:
            raise AttributeError(f"'Tensor' object has no attribute {name!r}")
        if not callable(attribute):
            raise RecordingError(f"attribute {name!r} of a tensor that is not computed yet", "shape, dtype or device")

        if name in _READ_METHODS:
            return lambda *arguments, **named: getattr(self.computed(), name)(*arguments, **named)

        def method(*arguments: Any, **named: Any) -> Any:
            return self.recorder.tensor_function(attribute, (self, *arguments), named)

        return method

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def data(self) -> Any:
        return self

    def dim(self) -> int:
        return len(self.shape)

    def size(self, dim: int | None = None) -> Any:
        return self.shape if dim is None else self.shape[dim]

    def numel(self) -> int:
        return self.shape.numel()

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a 0-d tensor")
        return self.shape[0]

    def detach(self) -> Any:
        return self

    def __deepcopy__(self, _memo: Any) -> Any:
        return self.clone()

    # Constants of the same kind -------------------------------------------------------------------------------

    def new_zeros(self, *size: Any, **named: Any) -> torch.Tensor:
        return torch.zeros(*size, **named)

    def new_ones(self, *size: Any, **named: Any) -> torch.Tensor:
        return torch.ones(*size, **named)

    def new_full(self, size: Any, fill_value: Any, **named: Any) -> torch.Tensor:
        return torch.full(size, fill_value, **named)

    def new_tensor(self, data: Any, **named: Any) -> torch.Tensor:
        return torch.tensor(data, **named)

    # Values that Python code reads ------------------------------------------------------------------------------

    def computed(self) -> torch.Tensor:
        """The tensor, once everything that is recorded has been computed."""
        raise NotImplementedError

    def item(self) -> Any:
        return self.computed().item()

    def tolist(self) -> Any:
        return self.computed().tolist()

    def numpy(self) -> Any:
        return self.computed().numpy()

    def __float__(self) -> float:
        return float(self.computed())

    def __int__(self) -> int:
        return int(self.computed())

    def __index__(self) -> int:
        return self.computed().__index__()

    def __bool__(self) -> bool:
        return bool(self.computed())

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return self.computed().numpy() if dtype is None else self.computed().numpy().astype(dtype)


class LazyTensor(_Recorded):
    """One value of the recorded graph.

    Attributes
    ----------
    recorder : Recorder
    value : int
        Its number among the values of the recorder.
    spec : TensorSpec
    """

    __slots__ = ("recorder", "spec", "value")

    def __init__(self, recorder: Recorder, value: int, spec: TensorSpec) -> None:
        self.recorder = recorder
        self.value = value
        self.spec = spec

    @property
    def shape(self) -> torch.Size:
        """Its shape, as that of a tensor."""
        return self.spec.shape

    def __iter__(self) -> Iterator[Any]:
        return iter(self.recorder.tensor_function(torch.Tensor.unbind, (self,), {}))

    def __repr__(self) -> str:
        state = "computed" if self.value < self.recorder.done else "not computed yet"
        return f"tensor(shape={list(self.shape)}, {state})"

    def computed(self) -> torch.Tensor:
        """The tensor, once everything that is recorded has been computed."""
        return self.recorder.read(self)

    def clone(self, **_: Any) -> LazyTensor:
        """Another tensor of the same value: an operation in place on one leaves the other."""
        return LazyTensor(self.recorder, self.value, self.spec)

    def become(self, other: Any) -> LazyTensor:
        """Take the value of `other`: what an operation in place leaves."""
        if not isinstance(other, torch.Tensor) or other.shape != self.shape:
            raise RecordingError(f"an operation in place that changes the shape from {list(self.shape)}")
        self.value = self.recorder.value_of(other)
        return self


class LazyRows(_Recorded):
    """Values of one shape, stacked: what ``torch.stack`` makes of lazy tensors. As an operand of a cell it is variadic.

    Attributes
    ----------
    values : list of int
    spec : RowsSpec
    """

    __slots__ = ("recorder", "spec", "values")

    def __init__(self, recorder: Recorder, values: list[int], spec: RowsSpec) -> None:
        self.recorder = recorder
        self.values = values
        self.spec = spec

    @property
    def shape(self) -> torch.Size:
        """Its shape, as that of a tensor."""
        return torch.Size((len(self.values), *self.spec.row.shape))

    def rows(self) -> list[LazyTensor]:
        """The rows one by one."""
        return [LazyTensor(self.recorder, value, self.spec.row) for value in self.values]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.rows())

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, int):
            return LazyTensor(self.recorder, self.values[index], self.spec.row)
        if isinstance(index, slice):
            return LazyRows(self.recorder, self.values[index], self.spec)
        return self.recorder.tensor_function(torch.Tensor.__getitem__, (self, index), {})

    def __repr__(self) -> str:
        return f"tensor(shape={list(self.shape)}, rows of recorded tensors)"

    def computed(self) -> torch.Tensor:
        """The tensor, once everything that is recorded has been computed."""
        return torch.stack([row.computed() for row in self.rows()])

    def clone(self, **_: Any) -> LazyRows:
        """Another tensor of the same rows."""
        return LazyRows(self.recorder, self.values, self.spec)


def joined_rows(tensors: Any, stacked: bool) -> LazyRows | None:
    """Recorded tensors, all alike, stacked or joined along the first dimension as rows; None for anything else."""
    if type(tensors) not in (list, tuple) or type(tensors[0]) is not LazyTensor:
        return None
    recorder, spec = tensors[0].recorder, tensors[0].spec
    values = []
    for tensor in tensors:
        if type(tensor) is not LazyTensor or tensor.spec is not spec or tensor.recorder is not recorder:
            return None
        values.append(tensor.value)
    rows = joined_spec(spec, stacked)
    if rows is None:
        return None
    made = _new(LazyRows)
    made.recorder = recorder
    made.values = values
    made.spec = rows
    return made


_READ_METHODS = frozenset({"argmax", "argmin", "item", "tolist", "numpy", "all", "any", "nonzero"})
"""Methods of one tensor that read its numbers: the short way, for parsers and decoders take it at every step."""

_CAT, _STACK = torch.cat, torch.stack
_FIRST = {"dim": 0}
_new = object.__new__

LAZY = (LazyTensor, LazyRows)


def is_lazy(thing: Any) -> bool:
    """Whether `thing` is recorded and not a tensor."""
    return type(thing) in LAZY


def is_tensor(thing: Any) -> bool:
    """Whether `thing` is one value: recorded, or a tensor of floating-point numbers."""
    if is_lazy(thing):
        return type(thing) is LazyTensor
    return isinstance(thing, torch.Tensor) and thing.is_floating_point()


def recorder_in(arguments: Any) -> Recorder:
    """The recorder of the first lazy tensor among `arguments`, those in lists and tuples included."""
    for argument in arguments:
        if type(argument) in LAZY:
            return argument.recorder
        if type(argument) in (list, tuple):
            for item in argument:
                if type(item) in LAZY:
                    return item.recorder
    raise RecordingError(f"no recorded tensor among {arguments!r}")


def _operator(name: str) -> Callable[..., Any]:
    function = getattr(torch.Tensor, name)

    def operator(self: Any, *arguments: Any) -> Any:
        return self.recorder.tensor_function(function, (self, *arguments), {})

    operator.__name__ = name
    return operator


_OPERATORS = (
    *("__add__", "__radd__", "__sub__", "__rsub__", "__mul__", "__rmul__", "__truediv__", "__rtruediv__", "__neg__"),
    *("__pow__", "__matmul__", "__rmatmul__", "__abs__", "__lt__", "__le__", "__gt__", "__ge__", "__eq__", "__ne__"),
)
for _name in _OPERATORS:
    setattr(_Recorded, _name, _operator(_name))
for _name in ("__iadd__", "__isub__", "__imul__", "__itruediv__", "__getitem__"):
    setattr(LazyTensor, _name, _operator(_name))

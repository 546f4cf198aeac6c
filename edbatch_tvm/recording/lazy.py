"""Tensors that are recorded instead of computed: what a model sees while it is batched.

They are tensors to PyTorch, too: a subclass made by ``_make_wrapper_subclass``, which has a shape, strides and a dtype
but no memory, so that C++ code that wants numbers asks for them or refuses, and never reads what is not there. What
Python calls comes to ``__torch_function__``, where the common functions are recorded; everything else goes on into
PyTorch and comes back as single ATen operators to ``__torch_dispatch__``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from edbatch_tvm.errors import RecordingError
from edbatch_tvm.recording.specs import TensorSpec, rows_of, spec_of
from edbatch_tvm.recording.strided_storage import Geometry, Storage

if TYPE_CHECKING:
    from edbatch_tvm.recording.recorder import Recorder

_OPERATORS = torch._ops.__file__
_modes = torch._C._len_torch_function_stack


Source: TypeAlias = tuple[int, int] | torch.Tensor
"""What went into a tensor: a recorded value and its size, or an ordinary tensor."""

FUNCTIONS: dict[Any, Callable[..., Any]] = {}
"""Functions of PyTorch that are recorded as Python calls them, and what records each."""

OPERATORS: dict[Any, Any] = {}
"""Those of :data:`FUNCTIONS` that are an operator each, and the method with the same arguments; for ``native_core``."""

ASKED: set[Any] = set()
"""Those of :data:`OPERATORS` that ask about numbers, and are answered where these are there."""

VIEWS: dict[Any, Any] = {}
"""Those that make views, and what :mod:`~edbatch_tvm.recording.recorded_views` knows these by; for ``native_core``."""

INTO_PYTORCH: list[Callable[..., Any]] = []
"""What calls other functions, see ``functions.py``."""

DISPATCH: list[Callable[..., Any]] = []
"""What records ATen operators, see ``dispatch.py``."""


def entered(_thing: Any) -> None:
    """Say that PyTorch's C++ code has seen the recorded tensors in a thing: ``native_core`` does not use them again."""


class LazyTensor(torch.Tensor):
    """A tensor of the recorded graph.

    Attributes
    ----------
    recorder : Recorder
    spec : TensorSpec
        Its shape and dtype.
    value : int
        Its number among the values of the recorder, while `held` is None: the tensor is that value by itself.
    held : Storage or None
        The memory that it shares with its views.
    geometry : Geometry or None
        Where it lies in its storage; None if it is all of it, in order.
    """

    recorder: Recorder
    spec: TensorSpec
    value: int = 0
    held: Storage | None = None
    geometry: Geometry | None = None

    @classmethod
    def __torch_function__(
        cls, function: Any, _types: Any, arguments: Any = (), named: dict[str, Any] | None = None
    ) -> Any:
        """What Python calls with recorded tensors among the arguments."""
        record = FUNCTIONS.get(function)
        if record is not None:
            result = record(function, arguments, named or {})
            if result is not NotImplemented:
                return result
        return INTO_PYTORCH[0](function, arguments, named or {})

    @classmethod
    def __torch_dispatch__(
        cls, operator: Any, _types: Any, arguments: Any = (), named: dict[str, Any] | None = None
    ) -> Any:
        """An ATen operator with recorded tensors among the arguments."""
        entered((arguments, named))
        result = DISPATCH[0](operator, arguments, named or {})
        entered(result)
        return result

    # What is known of it, without a way through PyTorch ---------------------------------------------------------

    shape = property(lambda self: self.spec.shape)
    dtype = property(lambda self: self.spec.dtype)
    ndim = property(lambda self: len(self.spec.shape))
    device = torch.device("cpu")
    layout = torch.strided
    is_cuda = False
    __hash__ = object.__hash__

    def dim(self) -> int:
        """Number of dimensions."""
        return len(self.spec.shape)

    def size(self, dim: int | None = None) -> Any:
        """The shape, or one extent of it."""
        return self.spec.shape if dim is None else self.spec.shape[dim]

    def numel(self) -> int:
        """Number of elements."""
        return self.spec.size

    def __len__(self) -> int:
        if not self.spec.shape:
            raise TypeError("len() of a 0-d tensor")
        return self.spec.shape[0]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.unbind())

    # Gradients --------------------------------------------------------------------------------------------------

    @property
    def requires_grad(self) -> bool:
        """Whether gradients may pass it: where they are recorded, unless it is detached."""
        tape = self.recorder.tape
        if tape is None or not self.spec.floats:
            return False
        recorder, required = self.recorder, tape.required
        required.recorded(recorder.done, recorder.types, recorder.ends, recorder.operands)
        if self.held is None:
            return self.value in required
        held = self.held
        return not getattr(held, "is_detached", False) and (
            bool(held.sources) or any(value in required for value in held.rows)
        )

    @requires_grad.setter
    def requires_grad(self, wanted: bool) -> None:
        self.requires_grad_(wanted)

    def requires_grad_(self, requires_grad: bool = True) -> Any:
        """Does nothing where gradients pass it anyway; a recorded tensor is never a leaf of autograd's graph."""
        if requires_grad is not self.requires_grad:
            raise RecordingError(
                f"requires_grad_({requires_grad}) of a recorded tensor",
                "a tensor that is not recorded",
                "use detach() to keep gradients out, and tensors made outside the model to get gradients of them",
            )
        return self

    @property
    def is_leaf(self) -> bool:
        """Whether it requires no gradient: those that do were made of others."""
        return not self.requires_grad

    @property
    def grad_fn(self) -> Any:
        """Stands for the node of autograd's graph; None if no gradient is required."""
        return _LaterNode(self) if self.requires_grad else None

    def _no_graph(self, *_: Any, **__: Any) -> Any:
        raise RecordingError(
            "autograd's graph of a tensor that is recorded",
            "results of the model, its parameters and tensors given to it",
            "use hooks and backward() on those, after the call",
        )

    backward = register_hook = register_post_accumulate_grad_hook = retain_grad = _no_graph

    # Values that Python code reads ------------------------------------------------------------------------------

    def computed(self) -> torch.Tensor:
        """The tensor as an ordinary one, once everything that is recorded has been computed; a copy."""
        return self.recorder.read(self)

    def waited_for(self) -> torch.Tensor:
        """The same, perhaps in memory of the recorder; meanwhile the other elements go on."""
        recorder = self.recorder
        if not recorder.is_computed(self):
            # The code that torch._ops calls may not be left: it keeps a stack of its own.
            if sys._getframe(2).f_code.co_filename == _OPERATORS:
                recorder.compute()
            else:
                recorder.wait_for(self)
        return recorder.peek(self)

    def item(self) -> Any:
        """The number of a tensor that has one."""
        return self.waited_for().item()

    def argmax(self, *arguments: Any, **named: Any) -> Any:
        """See :meth:`torch.Tensor.argmax`; of all elements, it is answered for many tensors at once."""
        answer = None if arguments or named else self._answer(torch.argmax)
        return super().argmax(*arguments, **named) if answer is None else answer

    def argmin(self, *arguments: Any, **named: Any) -> Any:
        """See :meth:`torch.Tensor.argmin`; of all elements, it is answered for many tensors at once."""
        answer = None if arguments or named else self._answer(torch.argmin)
        return super().argmin(*arguments, **named) if answer is None else answer

    def _answer(self, question: Any) -> torch.Tensor | None:
        """What a question about all elements is answered with, if it is one for many tensors at once."""
        recorder = self.recorder
        if self.held is not None or self.value < recorder.done or not self.spec.floats:
            return None
        # Without a way through PyTorch, which takes longer than the answer; a mode has to see what is called.
        if recorder.finished or _modes():
            return None
        recorder.asked.append((question, self))
        recorder.wait()
        return recorder.answers.pop(self.value, None)

    def tolist(self) -> Any:
        """The numbers as lists."""
        return self.waited_for().tolist()

    def __float__(self) -> float:
        return float(self.waited_for())

    def __int__(self) -> int:
        return int(self.waited_for())

    def __complex__(self) -> complex:
        return complex(self.waited_for())

    def __index__(self) -> int:
        return self.waited_for().__index__()

    def __bool__(self) -> bool:
        return bool(self.waited_for())

    def __format__(self, spec: str) -> str:
        return format(self.waited_for().clone(), spec)

    def numpy(self, *, force: bool = False) -> Any:
        """A copy of the numbers, read-only."""
        if self.requires_grad and not force:
            raise RuntimeError("numpy() of a tensor that requires a gradient: use tensor.detach().numpy()")
        array = self.waited_for().clone().numpy()
        array.flags.writeable = False  # to write into it would be lost
        return array

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        if self.requires_grad:
            raise RuntimeError("numpy() of a tensor that requires a gradient: use tensor.detach().numpy()")
        array = self.waited_for().clone().numpy()
        return array if dtype is None else array.astype(dtype)

    def __dlpack__(self, *arguments: Any, **named: Any) -> Any:
        return self.waited_for().clone().__dlpack__(*arguments, **named)

    def __dlpack_device__(self) -> Any:
        return torch.empty(0).__dlpack_device__()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.computed().__reduce_ex__(protocol)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        copy = self.computed().__deepcopy__(memo) if self.requires_grad else self.clone()  # an error of PyTorch's own
        return memo.setdefault(id(self), copy)

    def __repr__(self, **_: Any) -> str:
        done = self.recorder.is_computed(self)
        return f"tensor(shape={list(self.shape)}, {'computed' if done else 'not computed yet'})"

    def _no_memory(self, *_: Any, **__: Any) -> Any:
        raise RecordingError(
            f"the memory of a tensor of shape {list(self.shape)} that is recorded",
            "a tensor that is computed",
            "use tensor.clone().numpy(), or torch.tensor(tensor.tolist())",
        )

    data_ptr = const_data_ptr = untyped_storage = storage = _no_memory
    share_memory_ = pin_memory = resize_ = resize_as_ = set_ = apply_ = map_ = _no_memory


class _LaterNode:
    """Autograd's node of a recorded tensor, which there is once that is computed."""

    def __init__(self, tensor: LazyTensor) -> None:
        self._tensor = tensor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tensor.computed().grad_fn, name)


def _wrapper_function() -> Any:
    """``_make_wrapper_subclass`` with arguments by position, in which case it takes three quarters of the time."""
    make: Any = torch.Tensor._make_wrapper_subclass
    base: Any = torch._C.TensorBase
    with torch._C.DisableTorchFunctionSubclass():
        try:
            made = make(LazyTensor, (2, 3), (1, 2), 1, None, torch.int64)
            if (base.stride(made), base.storage_offset(made), base.dtype.__get__(made)) == ((1, 2), 1, torch.int64):
                return make
        except TypeError:
            pass

    def by_name(kind: Any, size: Any, strides: Any, offset: Any, _format: None, dtype: torch.dtype) -> Any:
        return make(kind, size, strides=strides, storage_offset=offset, dtype=dtype)

    return by_name


def lazy_value(recorder: Recorder, value: int, spec: TensorSpec) -> LazyTensor:
    """The tensor that one value is."""
    made = wrapper(LazyTensor, spec.shape, None, None, None, spec.dtype)
    made.recorder = recorder
    made.value = value
    made.spec = spec
    return made


def lazy_view(recorder: Recorder, storage: Storage, geometry: Geometry, dtype: torch.dtype) -> LazyTensor:
    """A tensor in a storage."""
    size, stride, offset = geometry
    made = wrapper(LazyTensor, size, stride, offset, None, dtype)
    made.recorder = recorder
    made.spec = spec_of(torch.Size(size), dtype)
    made.held = storage
    made.geometry = geometry
    return made


def lazy_rows(recorder: Recorder, values: list[int], row: TensorSpec, at: int = 0) -> LazyTensor:
    """Values of one spec, stacked along dimension `at`; the list is the tensor's from now on."""
    rows = rows_of(row, at)
    spec = rows.stacked.get(len(values)) or rows.of(len(values))
    made = wrapper(LazyTensor, spec.shape, None, None, None, spec.dtype)
    made.recorder = recorder
    made.spec = spec
    made.geometry = geometry = spec.geometry
    made.held = Storage(values, row.size, True, geometry, rows)
    return made


def rows_of_values(tensors: Sequence[Any], joined: bool) -> LazyTensor | None:
    """Recorded tensors of one spec that are one value each, stacked, or `joined` if they are a row each.

    The first is recorded. None if they are something else.
    """
    first = tensors[0]
    recorder, spec = first.recorder, first.spec
    row = spec.rest if joined else spec
    if row is None or recorder.finished:
        return None
    values = []
    for tensor in tensors:
        if type(tensor) is not LazyTensor or tensor.spec is not spec or tensor.held is not None:
            return None
        if tensor.recorder is not recorder:
            return None
        values.append(tensor.value)
    return lazy_rows(recorder, values, row)


def storage_of(tensor: LazyTensor) -> Storage:
    """The storage of a tensor, which has one from now on."""
    if tensor.held is None:
        tensor.held = Storage([tensor.value], tensor.spec.size)
        tensor.geometry = geometry_of(tensor)
    return tensor.held


def geometry_of(tensor: LazyTensor) -> Geometry:
    """Where a tensor lies in its storage."""
    return tensor.spec.geometry if tensor.geometry is None else tensor.geometry


def is_lazy(thing: Any) -> bool:
    """Whether `thing` is recorded."""
    return type(thing) is LazyTensor


def computed_leaf(leaf: Any) -> Any:
    """A recorded tensor computed; anything else as it is."""
    return leaf.computed() if type(leaf) is LazyTensor else leaf


def is_tensor(thing: Any) -> bool:
    """Whether `thing` is a tensor of floating-point numbers, recorded or not."""
    return isinstance(thing, torch.Tensor) and thing.dtype.is_floating_point


make_wrapper = _wrapper_function()

guard: Callable[[Any], None] = getattr(torch._C, "_set_throw_on_mutable_data_ptr", lambda tensor: None)
"""Lets C++ code that asks a tensor for its memory raise an error, in place of reading at address 0."""


def wrapper(*arguments: Any) -> Any:
    """A new tensor without memory, of a class, a size, strides, an offset, None and a dtype."""
    made = make_wrapper(*arguments)
    guard(made)
    return made

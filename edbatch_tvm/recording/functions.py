"""Functions of PyTorch that are recorded as Python calls them, before PyTorch takes them apart.

Some for speed; some because they are one cell (``linear``, ``layer_norm``) where single operators would be many; and
those that write into an ordinary tensor, which becomes a recorded one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from edbatch_tvm.errors import CellError
from edbatch_tvm.recording import lazy
from edbatch_tvm.recording.adopted import adopt
from edbatch_tvm.recording.breaks import told
from edbatch_tvm.recording.dispatch import TakesComputed, as_rows, copied, recorder_of
from edbatch_tvm.recording.empty_gradients import rows_of_arguments
from edbatch_tvm.recording.indexed_rows import takes, write_at
from edbatch_tvm.recording.isolation import switched_to
from edbatch_tvm.recording.lazy import (
    ASKED,
    FUNCTIONS,
    INTO_PYTORCH,
    OPERATORS,
    LazyTensor,
    computed_leaf,
)
from edbatch_tvm.recording.over_rows import with_transposed_rows
from edbatch_tvm.recording.recorded_parameters import RecordedParameter
from edbatch_tvm.recording.row_choices import joined_rows
from edbatch_tvm.recording.shortcuts import ALONG, extreme
from edbatch_tvm.recording.specs import FLOATS
from edbatch_tvm.recording.storages import write

if TYPE_CHECKING:
    from edbatch_tvm.recording.recorder import Recorder

_FRESH = """
    add sub subtract rsub mul multiply div divide true_divide neg negative pow abs square sqrt exp log clamp
    __add__ __radd__ __sub__ __rsub__ __mul__ __rmul__ __truediv__ __rtruediv__ __neg__ __pow__ __abs__
    tanh sigmoid relu gelu silu leaky_relu softmax log_softmax minimum maximum addcmul lerp
    sum mean amax amin matmul mv dot linear __matmul__ __rmatmul__ bmm
    layer_norm bilinear cosine_similarity normalize gru_cell lstm_cell rnn_tanh_cell rnn_relu_cell
    conv1d conv2d softplus elu hardtanh where
    mse_loss l1_loss smooth_l1_loss
"""
"""Functions that return new tensors, whatever their arguments: never one of these, or a view of one."""

_FLAGS = {"inplace": False, "out": None, "training": False}
"""Options that have to be off."""


def recorded(function: Any) -> Any:
    """What records calls of a function as cells of their own; NotImplemented where they have to run as they are."""
    canonical = getattr(torch.Tensor, function.__name__, None)

    def record(function: Any, arguments: Any, named: dict[str, Any]) -> Any:
        first = arguments[0] if arguments else None
        recorder = first.recorder if type(first) is LazyTensor else recorder_of(arguments, named)
        if recorder is None or recorder.finished or torch._C._is_any_autocast_enabled():
            return NotImplemented
        if named:
            if any(name in named and named[name] not in (off, None) for name, off in _FLAGS.items()):
                return NotImplemented
            named = {name: value for name, value in named.items() if name not in ("inplace", "out")}
        else:
            function = canonical or function
        try:
            return recorder.operator(function, arguments, named)
        except CellError:
            return NotImplemented

    return record


def _product(function: Any) -> Any:
    """What records a product of two tensors; one of a row and a transposed list of rows is taken row by row."""
    as_cell = recorded(function)

    def record(function: Any, arguments: Any, named: dict[str, Any]) -> Any:
        if len(arguments) == 2 and not named and not torch._C._is_any_autocast_enabled():
            product = with_transposed_rows(*arguments)
            if product is not None:
                return product
        return as_cell(function, arguments, named)

    return record


_PRODUCTS = frozenset(("matmul", "bmm", "__matmul__"))

_QUESTIONS = (
    "lt le gt ge eq ne __lt__ __le__ __gt__ __ge__ __eq__ __ne__ max min argmax argmin sort topk all any isnan isfinite"
)
"""Functions that models ask values by, to decide with."""


_NUMBERS = frozenset(("max", "min", "sort", "topk"))
"""Those that return numbers of the tensor."""

_OPEN = frozenset(
    ("lt le gt ge eq ne __lt__ __le__ __gt__ __ge__ __eq__ __ne__ all any isnan isfinite").split()  # noqa: SIM905
)
"""Those that return one tensor: recorded as they are where the numbers are not there."""

_EXTREMA = {
    torch.argmax: torch.argmax,
    torch.Tensor.argmax: torch.argmax,
    torch.argmin: torch.argmin,
    torch.Tensor.argmin: torch.argmin,
}
"""Questions about all elements of a tensor that are answered for many tensors at once."""

_OPEN_QUESTIONS: dict[Any, Any] = {}
"""What records those of `_OPEN`."""


def _asking(function: Any, arguments: Any, named: dict[str, Any]) -> Any:
    """Answer a question about numbers that are there, or one number; others are recorded."""
    first = arguments[0] if arguments else None
    if type(first) is not LazyTensor or first.recorder.finished or named.get("out") is not None:
        return NotImplemented
    recorder = first.recorder
    if recorder.tape is not None and function.__name__ in _NUMBERS:
        return NotImplemented  # a gradient may pass
    question = _EXTREMA.get(function) if len(arguments) == 1 and not named and first.held is None else None
    if question is not None and first.spec.floats and not recorder.is_computed(first):
        answer = recorder.answer(question, first)
        if answer is not None:
            return answer
    given = [one for one in (*arguments, *named.values()) if type(one) is LazyTensor]
    if not all(recorder.is_computed(one) for one in given):
        if function in ALONG and len(arguments) == 2 and type(arguments[1]) is int and not named:
            return extreme(recorder, function, first, arguments[1])
        if function.__name__ not in ("argmax", "argmin") and any(one.spec.size != 1 for one in given):
            return _OPEN_QUESTIONS[function](function, arguments, named) if function in ASKED else NotImplemented
        recorder.wait()
    arguments = [one.waited_for() if type(one) is LazyTensor else one for one in arguments]
    named = {name: one.waited_for() if type(one) is LazyTensor else one for name, one in named.items()}
    return function(*arguments, **named)


def _joining(name: str) -> Any:
    def record(_function: Any, arguments: Any, named: dict[str, Any]) -> Any:
        if len(arguments) not in (1, 2) or type(arguments[0]) not in (list, tuple) or named.keys() - {"dim", "axis"}:
            return NotImplemented
        if len(arguments) - 1 + len(named) > 1:
            return NotImplemented  # an error
        dim = arguments[1] if len(arguments) == 2 else named.get("dim", named.get("axis", 0))
        first = arguments[0][0] if arguments[0] else None
        recorder = first.recorder if type(first) is LazyTensor else recorder_of(arguments, {})
        if recorder is None or recorder.finished or torch._C._is_any_autocast_enabled():
            return NotImplemented
        tensors = arguments[0]
        if name == "cat" and len(tensors) == 1 and dim == 0 and type(tensors[0]) is LazyTensor and tensors[0].dim():
            return copied(recorder, tensors[0])
        try:
            rows = None
            last = name == "cat" and tensors[0].dim() > 1 and dim in (-1, tensors[0].dim() - 1)
            if not last:  # which has no rows
                rows = as_rows(recorder, name, tensors, dim)
                if rows is None:
                    rows = joined_rows(recorder, name, tensors, dim)
            if rows is None and name == "cat" and all(map(_is_plain, tensors)):
                # What PyTorch would come back with.
                rows = recorder.operator(torch.ops.aten.cat.default, (list(tensors), dim), {})
        except CellError:
            return NotImplemented
        return NotImplemented if rows is None else rows_of_arguments(recorder, rows, tensors)

    return record


def _is_plain(tensor: Any) -> bool:
    kind = type(tensor)
    return (kind is LazyTensor or kind is torch.Tensor or kind is RecordedParameter) and tensor.dtype in FLOATS


def _writing(function: Any, arguments: Any, named: dict[str, Any]) -> Any:
    """Let the ordinary tensor that is written into be a recorded one; then go on."""
    target = arguments[0]
    if type(target) is LazyTensor:
        if function is torch.Tensor.__setitem__ and takes(arguments[2]) and write_at(target, *arguments[1:]):
            return None
        return _replacing(function, target, arguments, named)
    if type(target) is torch.Tensor:
        recorder = recorder_of(arguments[1:], named)
        if recorder is not None and not recorder.finished:
            by_rows = function.__name__ in _BY_ROWS
            if function is torch.Tensor.copy_ and len(arguments) > 1:
                by_rows = target.dim() > 1 and _is_list(arguments[1])
            adopted = adopt(recorder, target, by_rows, _dimensions(function, arguments))
            if not adopted and recorder.tape is None and target.numel() and function is not torch.Tensor.__setitem__:
                return _broken_write(recorder, function, arguments, named)
            if not adopted and recorder.tape is not None:
                # Autograd has to see an ordinary tensor written into by ordinary ones.
                arguments, named = pytree.tree_map(computed_leaf, (arguments, named))
                with switched_to(recorder.library.state._replace(grad=torch.is_grad_enabled())):
                    return function(*arguments, **named)
            if adopted:  # now it is recorded
                return LazyTensor.__torch_function__(function, (), arguments, named)
    return NotImplemented


def _broken_write(recorder: Recorder, function: Any, arguments: Any, named: dict[str, Any]) -> Any:
    """Let a function write computed numbers into an ordinary tensor: a break, without a way through PyTorch."""
    leaves, structure = pytree.tree_flatten((arguments, named))
    if not all(leaf.recorder.is_computed(leaf) for leaf in leaves if type(leaf) is LazyTensor):
        recorder.wait()
    told(recorder, f"{function.__name__}()", None)
    arguments, named = pytree.tree_unflatten(map(computed_leaf, leaves), structure)
    return function(*arguments, **named)


def _dimensions(function: Any, arguments: Any) -> int:
    """Along how many dimensions a function writes rows: ``states[i, j] = h`` along two."""
    if function is not torch.Tensor.__setitem__ or type(arguments[1]) is not tuple:
        return 1
    return len(arguments[1])


def _replacing(function: Any, target: LazyTensor, arguments: Any, named: dict[str, Any]) -> Any:
    """Record what a function writes into a recorded tensor, if the function has a twin that writes nothing."""
    twin = _TWINS.get(function)
    recorder = target.recorder
    if twin is None or recorder.finished or not target.spec.size or torch._C._is_any_autocast_enabled():
        return NotImplemented
    try:
        result = recorder.operator(twin, arguments, named)
    except CellError:
        return NotImplemented
    if result.shape != target.shape or result.dtype is not target.dtype:
        return NotImplemented  # an error, or a result that is converted
    write(recorder, target, result)
    return target


_IN_PLACE = "add sub mul div neg exp log abs sqrt square tanh sigmoid relu clamp"
"""Functions that have a twin that writes into its first argument."""

_TWINS: dict[Any, Any] = {}
"""Functions that write into their first argument, and what computes the same."""

_BY_ROWS = frozenset(
    ("__setitem__ index_copy_ index_add_ index_put_ index_fill_").split()  # noqa: SIM905
)


def _is_list(tensor: Any) -> bool:
    """Whether a recorded tensor is a list of rows."""
    return type(tensor) is LazyTensor and tensor.held is not None and tensor.held.listed


def _dropped(function: Any, arguments: Any, named: dict[str, Any]) -> Any:
    """``dropout``: a product with a mask that PyTorch draws, as it does for the tensor itself."""
    given = dict(zip(("input", "p", "training", "inplace"), arguments, strict=False))
    given = (
        {"p": 0.5, "training": True, "inplace": False} | given | {_TRAIN.get(name, name): named[name] for name in named}
    )
    tensor = given.pop("input", None)
    if type(tensor) is not LazyTensor:
        return NotImplemented
    if given["training"] is False and type(given["p"]) is float and 0 <= given["p"] <= 1:
        return tensor  # itself, as PyTorch does
    if given["inplace"] or not given["training"] or not given["p"]:
        return NotImplemented
    recorder = tensor.recorder
    if recorder.finished or not tensor.spec.floats or torch._C._is_any_autocast_enabled():
        return NotImplemented
    with torch.no_grad():
        mask = F.dropout(torch.ones(tuple(tensor.shape), dtype=tensor.dtype), given["p"])
    try:
        return recorder.operator(torch.Tensor.mul, (tensor, mask), {})
    except CellError:
        return NotImplemented


_TRAIN = {"train": "training"}
"""What an argument of ``torch.dropout`` is called in ``torch.nn.functional``."""


def _selected(_function: Any, arguments: Any, named: dict[str, Any]) -> Any:
    """``index_select`` of parts of one value; that of rows of a list takes no operator."""
    if len(arguments) != 3 or named or type(arguments[0]) is not LazyTensor or type(arguments[2]) is not torch.Tensor:
        return NotImplemented
    source = arguments[0]
    if source.recorder.finished or (source.held is not None and source.held.listed):
        return NotImplemented
    if torch._C._is_any_autocast_enabled() or not source.spec.size:
        return NotImplemented
    try:
        return source.recorder.operator(torch.ops.aten.index_select.default, arguments, {})
    except CellError:
        return NotImplemented


def _on_cpu(_function: Any, arguments: Any, named: dict[str, Any]) -> Any:
    """``cpu()``: the tensor itself, as PyTorch does."""
    return arguments[0] if len(arguments) == 1 and not named and type(arguments[0]) is LazyTensor else NotImplemented


def _memory(_function: Any, arguments: Any, _named: dict[str, Any]) -> Any:
    first = arguments[0]
    return first.data_ptr() if type(first) is LazyTensor else NotImplemented  # an error that says why


def _table() -> None:
    for name in ("data_ptr", "const_data_ptr", "untyped_storage", "set_", "resize_"):
        if hasattr(torch.Tensor, name):
            FUNCTIONS[getattr(torch.Tensor, name)] = _memory
    for name in _FRESH.split():
        for owner in (torch.Tensor, torch, F):
            function = getattr(owner, name, None)
            if function is not None:
                if name in _PRODUCTS:  # not of native_core, which would join transposed rows
                    FUNCTIONS[function] = _product(function)
                    continue
                FUNCTIONS[function] = recorded(function)
                OPERATORS[function] = getattr(torch.Tensor, function.__name__, None)
    for name in _QUESTIONS.split():
        for owner in (torch.Tensor, torch):
            if hasattr(owner, name):
                function = getattr(owner, name)
                FUNCTIONS[function] = _asking
                if name in _OPEN:
                    ASKED.add(function)
                    OPERATORS[function] = getattr(torch.Tensor, name)
                    _OPEN_QUESTIONS[function] = recorded(function)
    for name in ("cat", "concat", "concatenate"):
        FUNCTIONS[getattr(torch, name)] = _joining("cat")
    FUNCTIONS[torch.stack] = _joining("stack")
    FUNCTIONS[F.dropout] = FUNCTIONS[torch.dropout] = _dropped
    FUNCTIONS[torch.Tensor.cpu] = _on_cpu
    FUNCTIONS[torch.index_select] = FUNCTIONS[torch.Tensor.index_select] = _selected
    in_place = [name for name in dir(torch.Tensor) if name.endswith("_") and not name.startswith("_")]
    augmented = [name for name in dir(torch.Tensor) if name.startswith("__i") and name.endswith("__")]
    ignored = {"__index__", "__init__", "__int__", "__invert__", "__iter__", "__init_subclass__", "requires_grad_"}
    for name in [*in_place, *augmented, "__setitem__"]:
        if name not in ignored and name not in vars(LazyTensor) and name != "set_":
            FUNCTIONS[getattr(torch.Tensor, name)] = _writing
            if callable(getattr(torch, name, None)):
                FUNCTIONS[getattr(torch, name)] = _writing
    for name in _IN_PLACE.split():
        _TWINS[getattr(torch.Tensor, f"{name}_")] = getattr(torch.Tensor, name)
    for name, twin in (("iadd", "add"), ("isub", "sub"), ("imul", "mul"), ("itruediv", "div")):
        _TWINS[getattr(torch.Tensor, f"__{name}__")] = getattr(torch.Tensor, twin)


_table()


_NESTED = ("_nested_view_from_jagged", "_nested_view_from_buffer")
_RETYPING = frozenset(
    {torch.view_as_complex, torch.view_as_real, *(getattr(torch, one) for one in _NESTED if hasattr(torch, one))}
)
"""What returns views of other numbers or in another layout, which autograd would take for views of what is recorded."""


def _is_retyped(function: Any, arguments: Any, named: dict[str, Any]) -> bool:
    """Whether a function is ``tensor.view(dtype)``."""
    return function is torch.Tensor.view and any(isinstance(one, torch.dtype) for one in (*arguments, *named.values()))


def _into_pytorch(function: Any, arguments: Any, named: dict[str, Any]) -> Any:
    """Call a function that is not recorded as it is: PyTorch takes it apart.

    One that has ended in a break before waits before PyTorch is entered, so that other elements go on meanwhile:
    PyTorch's code itself cannot be left and entered again by another element.
    """
    lazy.entered((arguments, named))
    recorder = recorder_of(arguments, named)
    if recorder is None or recorder.finished:
        if recorder is not None and recorder.tape is not None and not getattr(function, "__name__", "_").endswith("_"):
            arguments, named = pytree.tree_map(computed_leaf, (arguments, named))
        with _Plain():
            return function(*arguments, **named)
    out = named.get("out")
    if type(out) is torch.Tensor:
        adopt(recorder, out, by_rows=False)
    if function in recorder.library.breaking and not isinstance(function, _OPERATORS):
        leaves = pytree.tree_leaves((arguments, named))
        if not all(leaf.recorder.is_computed(leaf) for leaf in leaves if type(leaf) is LazyTensor):
            recorder.wait()
    breaks = len(recorder.breaks) + recorder.reads
    try:
        if (
            function in _RETYPING
            or _is_retyped(function, arguments, named)
            or function in recorder.library.not_recorded
        ):
            return _on_computed(recorder, function, arguments, named)
        drawn = torch.default_generator.get_state()
        with _Plain():
            result = function(*arguments, **named)
    except TakesComputed:  # what the function has written into it has made itself, so it may run again
        recorder.library.not_recorded.add(function)
        if len(recorder.breaks) + recorder.reads == breaks:  # no other element ran, which could have drawn numbers
            torch.default_generator.set_state(drawn)  # those that it drew are drawn again
        return _on_computed(recorder, function, arguments, named)
    if len(recorder.breaks) + recorder.reads > breaks:
        recorder.library.breaking.add(function)
    return result


def _on_computed(recorder: Recorder, function: Any, arguments: Any, named: dict[str, Any]) -> Any:
    """What a function makes of computed tensors, which autograd sees."""
    told(recorder, f"{function.__name__}()", None)
    recorder.wait()
    arguments, named = pytree.tree_map(computed_leaf, (arguments, named))
    with switched_to(recorder.library.state._replace(grad=torch.is_grad_enabled())), _Plain():
        return function(*arguments, **named)


_Plain = torch._C.DisableTorchFunctionSubclass
_OPERATORS = (torch._ops.OpOverload, torch._ops.OpOverloadPacket)
INTO_PYTORCH.append(_into_pytorch)

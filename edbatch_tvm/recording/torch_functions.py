"""What of ``torch`` is replaced, while elements run but for functions that register hooks of backward passes.

``torch.cat`` and ``torch.stack`` join the states of children, thousands of times a minibatch, and torch takes long to
ask every tensor of a list whether it has a say. ``tensor.data = other`` and ``Parameter(other)`` do not ask at all.
Where gradients are recorded, it is noted when elements switch that off and on, and nothing is checkpointed: the second
run of a checkpointed function would save more tensors than the first one, of which most is recorded.

Whoever uses them with anything else, in whatever thread, gets what the original does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import wraps
from typing import Any

import torch
import torch.utils.checkpoint
from torch.jit import _builtins
from torch.utils import _pytree as pytree

from edbatch_tvm.fork_lock import fork_lock
from edbatch_tvm.recording.breaks import told
from edbatch_tvm.recording.followed_parameters import FollowedTensor
from edbatch_tvm.recording.grad_mode import NOTING, running_recorder, training_recorder
from edbatch_tvm.recording.lazy import FUNCTIONS, LazyTensor, computed_leaf, rows_of_values

_FIRST_DIM = {"dim": 0}


def _joining(original: Callable[..., Any], function: Callable[..., Any]) -> Callable[..., Any]:
    """`original`, which does what `function` does; lists that begin with a recorded tensor are ours."""
    joined = function is torch.cat

    # Arguments go on as they came: subclasses and modes of torch see by name what was given by name.
    @wraps(original)
    def join(*arguments: Any, **named: Any) -> Any:
        if arguments:
            tensors = arguments[0]
            if (type(tensors) is tuple or type(tensors) is list) and tensors and type(tensors[0]) is LazyTensor:
                if len(arguments) == 1 and (not named or named == _FIRST_DIM):
                    rows = rows_of_values(tensors, joined)
                    if rows is not None:
                        return rows
                result = FUNCTIONS[function](function, arguments, named)
                if result is not NotImplemented:
                    return result
        return original(*arguments, **named)

    return join


def _reading(original: Any) -> Callable[..., Any]:
    """`original` on computed tensors in place of recorded ones: what scripts call may not be left meanwhile."""

    @wraps(original)
    def read(*arguments: Any, **named: Any) -> Any:
        return original(*_values(arguments), **_values(named))

    return read


def _values(thing: Any) -> Any:
    if type(thing) is FollowedTensor:
        return thing.touch()
    if type(thing) is LazyTensor:
        numbers = thing.waited_for()
        return numbers.clone() if thing.recorder.tape is None else thing.computed()
    if isinstance(thing, list | tuple) and not hasattr(thing, "_fields"):
        return type(thing)(map(_values, thing))
    return {key: _values(item) for key, item in thing.items()} if type(thing) is dict else thing


_apply: Any = vars(torch.autograd.Function)["apply"]


@classmethod  # type: ignore[misc]
@wraps(_apply.__func__)
def _apply_computed(cls: Any, *arguments: Any, **named: Any) -> Any:
    """``Function.apply`` on computed tensors in place of recorded ones, if these have a gradient: it has its own."""
    lazies = [leaf for leaf in pytree.tree_leaves((arguments, named)) if type(leaf) is LazyTensor]
    apply = _apply.__get__(None, cls)
    recorder = training_recorder() if not lazies else lazies[0].recorder
    if recorder is None or recorder.tape is None:
        return apply(*arguments, **named)
    if recorder.finished:
        return apply(*pytree.tree_map(computed_leaf, arguments), **pytree.tree_map(computed_leaf, named))
    if lazies:
        told(recorder, f"{cls.__name__}.apply()", None)
        if not all(map(recorder.is_computed, lazies)):
            recorder.wait()
    arguments, named = pytree.tree_map(computed_leaf, (arguments, named))
    recorder.finished = True  # what it calls is not recorded, either: its gradient is its own
    try:
        return apply(*arguments, **named)
    finally:
        recorder.finished = False


_data: Any = torch.Tensor.data


def _set_data(tensor: torch.Tensor, other: Any) -> None:
    """Give a tensor the memory of another, which has to have some."""
    _data.__set__(tensor, other.computed() if type(other) is LazyTensor else other)


_new_parameter: Any = vars(torch.nn.Parameter)["__new__"]


@staticmethod  # type: ignore[misc]
@wraps(_new_parameter.__func__)
def _parameter_of(cls: Any, data: Any = None, *arguments: Any, **named: Any) -> Any:
    """A parameter with the numbers of a tensor, which has to have some: a recorded one is computed."""
    if type(data) is LazyTensor:
        if not data.recorder.finished:
            told(data.recorder, "Parameter()", None)
        data = data.waited_for().clone()
    return _new_parameter.__func__(cls, data, *arguments, **named)


_checkpoint_hook: Any = getattr(torch.utils.checkpoint, "_checkpoint_hook", None)


def _no_checkpoint(*arguments: Any, **named: Any) -> AbstractContextManager[Any]:
    """A context in which a checkpointed function runs: tensors are saved as they are, if its calls are recorded."""
    return _checkpoint_hook(*arguments, **named) if training_recorder() is None else nullcontext()


def _in_order(original: Callable[..., Any], reason: str, recorder_here: Callable[[], Any]) -> Callable[..., Any]:
    """`original`, after which nothing more of an element is recorded, and elements run in order."""

    @wraps(original)
    def call(*arguments: Any, **named: Any) -> Any:
        recorder = recorder_here()
        if recorder is not None and not recorder.finished:
            recorder.run_in_order(reason)
            recorder.compute()
            recorder.finished = True
        return original(*arguments, **named)

    return call


_JOINING = (("cat", "cat"), ("concat", "cat"), ("concatenate", "cat"), ("stack", "stack"))
"""Functions that join tensors, and what they are recorded as."""


_EXPORTERS = ((torch._C, "_to_dlpack"), (torch, "to_dlpack"), (torch.utils.dlpack, "to_dlpack"))


def _predispatch() -> Any:
    """What has the functions of forward-mode gradients, by way of which ``forward_ad`` calls those of C++."""
    try:
        from torch._functorch import predispatch
    except ImportError:
        return torch._VF
    return predispatch


def _replacements() -> list[tuple[Any, str, Any, Any]]:
    joining = [(name, _joining(getattr(torch, name), getattr(torch, function))) for name, function in _JOINING]
    made = [(torch, name, getattr(torch, name), function) for name, function in joining]
    data: Any = property(_data.__get__, _set_data, _data.__delete__ if hasattr(_data, "__delete__") else None)
    made.append((torch.Tensor, "data", None, data))
    made.append((torch.nn.Parameter, "__new__", _new_parameter, _parameter_of))
    made.append((torch.autograd.Function, "apply", _apply, _apply_computed))
    if _checkpoint_hook is not None:
        made.append((torch.utils.checkpoint, "_checkpoint_hook", _checkpoint_hook, _no_checkpoint))
    predispatch = _predispatch()
    make_dual: Any = getattr(predispatch, "_make_dual", None)
    if make_dual is not None:  # derivatives go along with numbers, which records have not
        reason = "forward makes dual tensors of forward-mode gradients"
        there = vars(predispatch).get("_make_dual")
        made.append((predispatch, "_make_dual", there, _in_order(make_dual, reason, running_recorder)))
    made += [(torch._C, name, getattr(torch._C, name), function) for name, function in NOTING.items()]
    # It asks no tensor whether it has memory.
    exported = _reading(torch._C._to_dlpack)
    made += [(one, name, torch._C._to_dlpack, exported) for one, name in _EXPORTERS if hasattr(one, name)]
    scripts: Any = (torch._C.ScriptFunction, torch._C.ScriptMethod)
    # A scripted function asks as little; a scripted module does.
    return [*made, *((one, "__call__", vars(one)["__call__"], _reading(one.__call__)) for one in scripts)]


# For good: Python looks up anew what all classes of modules have where an attribute of theirs changes.
for _name in ("register_full_backward_hook", "register_full_backward_pre_hook", "register_backward_hook"):
    _reason = "forward registers hooks of backward passes"  # they see and change gradients of what is called later
    setattr(torch.nn.Module, _name, _in_order(getattr(torch.nn.Module, _name), _reason, training_recorder))

_REPLACEMENTS = _replacements()
"""What they are attributes of, their names, the originals, and what takes their place; None where there was nothing."""


def join_by(made: Callable[[Any, bool], Any]) -> None:
    """Let what takes the place of functions that join tensors be made of itself, and of whether that is ``cat``."""
    kinds = dict(_JOINING)
    for place, (owner, name, original, function) in enumerate(_REPLACEMENTS):
        if owner is torch and name in kinds:
            _REPLACEMENTS[place] = owner, name, original, made(function, kinds[name] == "cat")


class _Users:
    """How many want the replacements, and how many the originals, who prevail."""

    def __init__(self) -> None:
        self.lock = fork_lock()
        self.of_replacements = 0
        self.of_originals = 0
        self.known_to_scripts = False

    @contextmanager
    def counted(self, replacements: int, originals: int) -> Iterator[None]:
        """One more of either, or one less of those there are."""
        self._count(replacements, originals)
        try:
            yield
        finally:
            self._count(-replacements, -originals)

    def _count(self, replacements: int, originals: int) -> None:
        with self.lock:
            self.of_replacements += replacements
            self.of_originals += originals
            wanted = self.of_replacements > 0 and self.of_originals == 0
            if wanted and not self.known_to_scripts:
                _tell_scripts()
                self.known_to_scripts = True
            for owner, name, original, function in _REPLACEMENTS:
                # What somebody else has put there stays.
                if vars(owner).get(name) is (original if wanted else function):
                    if wanted or original is not None:
                        setattr(owner, name, function if wanted else original)
                    else:
                        delattr(owner, name)


def _tell_scripts() -> None:
    """Let ``torch.jit.script`` know the replacements, should code be scripted meanwhile."""
    for owner, _, original, function in _REPLACEMENTS:
        operator = None if original is None else _builtins._find_builtin(original)
        if owner is torch and operator is not None:
            _builtins._register_builtin(function, operator)


_users = _Users()


def replaced_functions() -> AbstractContextManager[None]:
    """A context in which the functions know recorded tensors; it may be entered many times, by several threads."""
    return _users.counted(1, 0)


def original_functions() -> AbstractContextManager[None]:
    """A context in which ``torch`` is as it was, whoever wants what: torch's own machinery compares with its functions.

    What it imports in the meantime may also remember them.
    """
    return _users.counted(0, 1)

"""What a minibatch is, and how its elements become arguments of the model."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FunctionType, MethodType
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from edbatch_tvm.errors import RecordingError

_ONE = (tuple, str, bytes, bytearray, memoryview, range, Mapping, torch.Tensor, torch.nn.Module)
"""Sequences that are one element, nevertheless."""


def minibatch_of(elements: Any) -> list[Any] | None:
    """The elements of a minibatch; None for what is one element.

    Lists, sequences like them and iterators are minibatches; tuples, strings, tensors and mappings are one element, as
    is everything else.

    Raises
    ------
    RecordingError
        For a DataLoader, which has many minibatches.
    """
    if isinstance(elements, torch.utils.data.DataLoader):
        raise RecordingError("a DataLoader as a minibatch", "one of its batches", "for batch in loader: fast(batch)")
    if isinstance(elements, _ONE) or not isinstance(elements, Sequence | Iterator):
        return None
    return list(elements)


def require_gradients(arguments: Any) -> bool:
    """Whether tensors among arguments require gradients: themselves, or in lists, tuples and dicts."""
    return any(isinstance(leaf, torch.Tensor) and leaf.requires_grad for leaf in tree_leaves(arguments))


def takes_several(function: Callable[..., Any], named: Mapping[str, Any]) -> bool:
    """Whether a function, called with the arguments `named`, needs more than one argument beside them."""
    return len([name for name in _needed(_innermost(function)) if name not in named]) > 1


def _needed(function: Callable[..., Any]) -> Sequence[str]:
    """The names of the positional parameters of a function that have no default."""
    plain = getattr(function, "__func__", None)
    if type(function) is MethodType and type(plain) is FunctionType and not vars(plain):  # a tenth of a millisecond
        code = plain.__code__
        return code.co_varnames[1 : code.co_argcount - len(plain.__defaults__ or ())]
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return ()
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [name for name, one in parameters.items() if one.kind in kinds and one.default is one.empty]


def _innermost(function: Callable[..., Any]) -> Callable[..., Any]:
    """The method that a wrapper such as DataParallel passes its arguments to."""
    owner = getattr(function, "__self__", None)
    while isinstance(owner, torch.nn.DataParallel):
        owner = owner.module
        function = owner.forward
    return function

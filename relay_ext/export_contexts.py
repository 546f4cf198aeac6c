"""Contexts in which cells of PyTorch are exported."""

from __future__ import annotations

import builtins
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def own_attributes(module: Any) -> Iterator[None]:
    """Let modules keep their lists and dicts: ``torch.export`` leaves equal ones in their place."""
    held = [(vars(one), vars(one).copy()) for one in module.modules()]
    try:
        yield
    finally:
        for attributes, before in held:
            attributes.update((name, value) for name, value in before.items() if type(value) in (list, dict, tuple))


@contextmanager
def symbolic_len(torch: Any) -> Iterator[None]:
    """Let ``len(rows)`` be the symbol that ``rows.shape[0]`` is.

    Python makes an int of whatever ``__len__`` returns, which would be the number of rows of the example for good.
    """
    plain = builtins.len

    def symbolic(thing: Any) -> Any:
        # What stands for a list of any length has a shape too.
        shape = getattr(thing, "shape", None) if isinstance(thing, torch.Tensor | list) else None
        return shape[0] if shape else plain(thing)

    builtins.len = symbolic
    try:
        yield
    finally:
        builtins.len = plain


@contextmanager
def symbolic_tensors(torch: Any) -> Iterator[None]:
    """Let ``torch.tensor(word)`` be `word` where that is a tensor already, as integers are while a cell is exported."""

    class SymbolicTensors(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function: Any, _: Any, arguments: Any = (), named: Any = None) -> Any:
            if function in (torch.tensor, torch.as_tensor) and arguments:
                tensor = _stacked(torch, arguments[0])
                if tensor is not None:
                    dtype = (named or {}).get("dtype")
                    return tensor if dtype is None else tensor.to(dtype)
            return function(*arguments, **(named or {}))

    with SymbolicTensors():
        yield


def _stacked(torch: Any, data: Any) -> Any:
    """Nested lists of numbers and tensors as one tensor; None if there is no tensor among them."""
    if isinstance(data, torch.Tensor):
        return data
    if not isinstance(data, list | tuple):
        return None
    items = [_stacked(torch, item) for item in data]
    if all(item is None for item in items):
        return None
    return torch.stack(
        [torch.full((), given) if item is None else item for item, given in zip(items, data, strict=True)]
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings that export and import raise about themselves, and the log of an attempt that failed."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
